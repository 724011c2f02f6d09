"""All cases: every command, with every attack on each of its inputs, outputs and options.

A case has a name that says all of it, so that it can be made again:

    build0/1.c.pt/signed.flipped/3     the first template of build, its second place, with c.pt
"""

import random
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from hostile import attacks, options
from hostile.commands import LONG, Template, templates


@dataclass(frozen=True)
class Case:
    """One attack on one command.

    Attributes:
        template: The command and its arguments.
        place: The number of the place that is attacked; None for options and the system.
        format: The input or output there.
        attack: The name of the attack.
        seed: The number of the attempt.
    """

    template: Template
    place: int | None
    format: str
    attack: str
    seed: int

    @property
    def name(self):
        where = self.format if self.place is None else f"{self.place}.{self.format}"
        return f"{self.template.name}/{where}/{self.attack}/{self.seed}"

    def formats(self):
        """The input or output at each place."""
        return [
            self.format if i == self.place else place.formats[0]
            for i, place in enumerate(self.template.places)
        ]

    def attacked(self, scene):
        """Attack a scene, which has all inputs already; return the arguments of the command."""
        paths = self.formats()
        scene.seed = self.seed
        scene.rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        if self.place is not None:
            place = self.template.places[self.place]
            scene.path = paths[self.place]
            attacks.attacks_on(place, self.format)[self.attack][0](scene)
            paths[self.place] = scene.path
        elif self.format == "system":
            attacks.ON_SYSTEM[self.attack][0](scene)
        elif self.format == "option":
            scene.more = option_attacks(self.template.command)[self.attack]
        words, written = self.template.filled(paths)
        return [*words, *scene.more], written


@cache
def option_attacks(command):
    """Arguments to add, by the option and the number of the value."""
    from mecoq_index.cli import main

    found = {}
    for words in options.option_values(main.commands[command]):
        option = words[0].partition("=")[0]
        option = option if option.isascii() and option.isprintable() else "odd"
        found[f"{option}.{sum(name.rpartition('.')[0] == option for name in found)}"] = words
    return found


def cases_of(command):
    """All cases of a command, in order."""
    for number, template in enumerate(templates(command)):
        yield Case(template, None, "nothing", "nothing", 0)
        if command in LONG:
            yield from _refused(template)
            continue
        for i, place in enumerate(template.places):
            for format in place.formats if not place.fixed else ():
                for attack, (_, seeds) in attacks.attacks_on(place, format).items():
                    seeds = seeds if format == place.formats[0] else (seeds + 1) // 2
                    for seed in range(seeds):
                        yield Case(template, i, format, attack, seed)
        for attack, (_, seeds) in attacks.ON_SYSTEM.items():
            for seed in range(seeds):
                yield Case(template, None, "system", attack, seed)
        if not number:
            for attack in option_attacks(command):
                yield Case(template, None, "option", attack, 0)


def _refused(template):
    """Attacks that end before the work begins."""
    for attack in attacks.ON_OUTPUTS:
        if not attack.startswith("name."):
            yield Case(template, 0, template.places[0].kind, attack, 0)
    for attack, words in option_attacks(template.command).items():
        if not _is_number(words[-1]) and words[0] != words[-1]:
            yield Case(template, None, "option", attack, 0)


def _is_number(word):
    try:
        return int(word) >= 0
    except ValueError:
        return False


def sample(command, count, seed):
    """The unharmed cases of a command, and some attacks."""
    found = list(cases_of(command))
    whole = [case for case in found if case.attack == "nothing"]
    rest = [case for case in found if case.attack != "nothing"]
    return whole + random.Random(f"{seed} {command}").sample(rest, min(count, len(rest)))


def by_name(name):
    """The case of a name that was printed.

    Raises:
        KeyError: If there is none.
    """
    return _by_name(Path(name).parts[0].rstrip("0123456789"))[name]


@cache
def _by_name(command):
    return {case.name: case for case in cases_of(command)}
