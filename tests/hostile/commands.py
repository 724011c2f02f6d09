"""What every command is attacked with: its arguments, and where inputs and outputs stand in them.

``{kind}`` is an input of that kind, of which `inputs.FORMATS` says the formats; ``{kind=name}`` is
always that file, and not attacked. ``{new:kind}`` is an output to be made, ``{changed:kind}`` an
input that the command writes to. A new command needs one line here; a new option needs none.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from hostile.inputs import FORMATS

_FAST = "--bits 16 --epochs 1 --set batch_size=16 --quiet"

COMMANDS = {
    "train": [
        f"{{vectors}} --out {{new:c.pt}} {_FAST}",
        f"{{vectors=x.npy}} --out {{new:c.safetensors}} {_FAST} --objective distillation "
        "--normalize",
        f"{{views}} --out {{new:c.pt}} {_FAST}",
        "{vectors=x.npy} --config {config} --out {new:c.pt}",
        "{photos} --out {new:c.pt} --bits 16 --codewords 16 --epochs 1 --image-size 16 "
        "--backbone mecoq:small --set batch_size=2",
    ],
    "embed": [
        "{photos} --out {new:f.npz} --backbone mecoq:small --image-size 16 --views 2",
        "{photos=photos} --out {new:f.npy} --codebooks {network}",
    ],
    "build": [
        "{vectors} --codebooks {codebooks} --out {new:i.mecoq} --factory IVF2,MeCoQ --ids {ids}",
        "{codes} --codebooks {codebooks=c.pt} --out {new:i.mecoq} --factory IVF2,MeCoQ4x4fs",
        "{table} --codebooks {codebooks=c.pt} --out {new:i.mecoq} --vector-column v "
        "--id-column name --columns year,label",
        "{vectors=x.npy} --codebooks {codebooks=c.pt} --engine numpy --out {new:i.mecoq}",
        "{photos} --codebooks {network} --out {new:i.mecoq}",
        "{vectors=x.npy} --codebooks {codebooks=c.pt} --engine milvus --uri {new:i.db} "
        "--collection items",
    ],
    "search": [
        "{index} {few} -k 3",
        "{plain=ids.mecoq} {few=few.npy} --codebooks {codebooks} --nprobe 1 --json",
        "{album} {image} -k 3",
        "{database}/items {few=few.npy} -k 3",
    ],
    "add": [
        "{changed:plain} {few}",
        "{changed:ivf} {few=few.npy} --ids {more_ids}",
        "{changed:album} {image}",
    ],
    "remove": ["{changed:index=named.mecoq} --ids {gone}", "{changed:numbered} 5 8"],
    "reencode": [
        "{index} {table} --codebooks {codebooks} --out {new:i.mecoq} --id-column name "
        "--vector-column v",
    ],
    "merge": ["{part} {other} --out {new:i.mecoq}"],
    "tune": ["{changed:ivf} {few} --recall 0.5 -k 3 --save"],
    "bench": [
        "{pack} --codebooks {codebooks} --baseline none --repeats 1 --out {new:b.json} "
        "--plots {new:plots}",
        "{vectors} --queries {few} --labels {labels} --query-labels {few_labels} --baseline none "
        "--codebooks {codebooks=c.pt} --repeats 1",
    ],
    "export": [
        "{plain} --to faiss --out {new:e.faiss}",
        "{index} --to milvus --out {new:bulk}",
        "--codebooks {codebooks} --to safetensors --out {new:e.safetensors}",
    ],
    "inspect": ["{index}", "{codebooks}", "{network}", "{database}/items --json"],
    "demo": ["--out {new:demo} --epochs 1"],
}

# Tried with options that are refused only, because they work for long.
LONG = {"demo"}

_PLACE = re.compile(r"\{(?:(new|changed):)?([\w.]+?)(?:=([\w.]+))?\}")


@dataclass(frozen=True)
class Place:
    """Where an input or output stands in the arguments of a command.

    Attributes:
        word: The number of the argument.
        role: ``new`` or ``changed`` for what the command writes, else empty.
        kind: The kind of the input; of an output, its name.
        fixed: The one format to use, which is not attacked; empty for all.
    """

    word: int
    role: str
    kind: str
    fixed: str

    @property
    def formats(self):
        if self.role == "new":
            return [self.kind]
        return [self.fixed] if self.fixed else FORMATS[self.kind]


@dataclass(frozen=True)
class Template:
    """Arguments of a command, with their places.

    Attributes:
        name: The command and the number of the template, as in ``build0``.
        words: The arguments.
        places: The places, in order.
    """

    name: str
    words: list[str]
    places: list[Place]

    @property
    def command(self):
        return self.name.rstrip("0123456789")

    def filled(self, named):
        """The arguments with a path for each place, and the paths of what is written."""
        words, written = list(self.words), []
        for place, path in zip(self.places, named, strict=True):
            words[place.word] = _PLACE.sub(lambda _, path=path: path, words[place.word])
            if place.role:
                written.append(Path(path))
        return [self.command, *words], written


def templates(command):
    """The templates of a command."""
    for number, text in enumerate(COMMANDS[command]):
        words = shlex.split(text)
        places = [
            Place(i, *(part or "" for part in match.groups()))
            for i, word in enumerate(words)
            if (match := _PLACE.search(word))
        ]
        yield Template(f"{command}{number}", words, places)
