"""What is done to the inputs, outputs and options of a command, and to the system that it runs on.

An attack is a function of a `Scene`, which it changes; it is listed in one of the tables at the
end, and one line there is one attack more on every command that it fits.
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np

from hostile import damages, inputs

SECRET = "root:S3cretOfTheTests"


class UnfitError(Exception):
    """The attack cannot be made on this input."""


@dataclass
class Scene:
    """A command that is about to run in a folder of its own.

    Attributes:
        rng: The generator that all chance comes from.
        folder: The working folder, which holds the inputs.
        neighbor: A folder beside it, which no command may touch.
        good: The folder of unharmed inputs.
        path: The input or output that is attacked, relative to ``folder``.
        seed: The number of the attempt.
        more: Arguments to be added at the end.
        setup: What happens in the process of the command before it starts; see `harness.py`.
    """

    rng: np.random.Generator
    folder: Path
    neighbor: Path
    good: Path
    path: str = ""
    seed: int = 0
    more: list[str] = field(default_factory=list)
    setup: dict = field(default_factory=dict)

    @property
    def full(self):
        return self.folder / self.path

    def any_file(self):
        """The attacked file, or one in the attacked folder."""
        if self.full.is_file():
            return self.full
        files = sorted(f for f in self.full.rglob("*") if f.is_file() and f.stat().st_size)
        return files[int(self.rng.integers(len(files)))]


def remove(path):
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


# Contents


def damaged(damage, signed):
    """Damage a file; if it is of an index, with a manifest that says that all is well."""

    def attack(scene):
        file = scene.any_file()
        if signed and file.name == "manifest.json":
            raise UnfitError
        content = damage(scene.rng, file.read_bytes())
        if content == file.read_bytes():
            raise UnfitError
        file.write_bytes(content)
        if signed:
            sign(scene.full)

    return attack


def sign(folder, change=lambda manifest: manifest):
    """Make the manifest agree with the files of an index."""
    from mecoq_index.index.manifest import checksum

    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    for name in manifest["files"]:
        if (folder / name).is_file():
            content = (folder / name).read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            manifest["files"][name] = {"bytes": len(content), "sha256": digest}
    manifest = change(manifest)
    if isinstance(manifest, dict):
        manifest["checksum"] = checksum(manifest)
    file.write_text(json.dumps(manifest))


def manifest_value(value):
    """Another value at one place of the manifest; the places come in turn."""

    def change(scene):
        def replace(manifest):
            places = list(damages._places(manifest))
            holder, key = places[scene.seed % len(places)]
            holder[key] = value
            return manifest

        sign(scene.full, replace)

    return change


def manifest_without(scene):
    def delete(manifest):
        places = [(h, k) for h, k in damages._places(manifest) if isinstance(h, dict)]
        holder, key = places[scene.seed % len(places)]
        del holder[key]
        return manifest

    sign(scene.full, delete)


def manifest_with_foreign_file(scene):
    """A manifest that counts a file of somebody else as the index's own."""
    name = ("../neighbor/canary.txt", "..", str(scene.neighbor / "canary.txt"), "photo.jpg")
    listed = name[scene.seed % len(name)]
    (scene.full / "photo.jpg").write_bytes(b"precious")

    def add(manifest):
        manifest["files"][listed] = {"bytes": 8, "sha256": hashlib.sha256(b"precious").hexdigest()}
        return manifest

    sign(scene.full, add)


def exchanged(scene):
    """A file of another index in place of the index's own, with a manifest that agrees."""
    file = scene.any_file()
    others = [f for f in sorted(scene.good.glob("*.mecoq/*")) if f.suffix == file.suffix]
    others = [f for f in others if f.read_bytes() != file.read_bytes()]
    if file.name == "manifest.json" or not others:
        raise UnfitError
    shutil.copyfile(others[int(scene.rng.integers(len(others)))], file)
    sign(scene.full)


def without_file(scene):
    scene.any_file().unlink()


def linked_file(scene):
    """A file of the index, or an image of the folder, is a link to a file elsewhere."""
    file = scene.any_file()
    shutil.move(file, scene.neighbor / "moved")
    file.symlink_to(scene.neighbor / "moved")


def another_format(scene):
    """Content of another kind under the name that was given."""
    others = sorted(f for f in scene.good.rglob("*") if f.is_file())
    other = others[int(scene.rng.integers(len(others)))]
    file = scene.any_file()
    if other.read_bytes() == file.read_bytes():
        raise UnfitError
    shutil.copyfile(other, file)


def array(change):
    """Write the numbers of the file again, after a change to them."""

    def attack(scene):
        write = inputs.WRITERS.get(scene.full.suffix)
        file = scene.good / Path(scene.path).with_suffix(".npy").name
        if not file.is_file():
            raise UnfitError
        try:
            x = change(scene.rng, np.load(file))
            scene.full.unlink()
            write(scene.full, x)
        except Exception as exc:  # what the writer of a format does not take cannot come to us
            raise UnfitError from exc

    return attack


def setting(value):
    """Another value at a place of a file of settings."""

    def attack(scene):
        if scene.full.suffix != ".json":
            raise UnfitError
        document = damages.mutated(scene.rng, json.loads(scene.full.read_text()), value)
        scene.full.write_text(json.dumps(document))

    return attack


# Places


def missing(scene):
    remove(scene.full)


def folder_there(scene):
    remove(scene.full)
    (scene.full / "inner").mkdir(parents=True)


def empty_folder(scene):
    remove(scene.full)
    scene.full.mkdir()


def fifo(scene):
    remove(scene.full)
    os.mkfifo(scene.full)


def fifo_inside(scene):
    if not scene.full.is_dir():
        raise UnfitError
    os.mkfifo(scene.full / f"x{scene.any_file().suffix}")


def link_to(target, inside=False):
    """A link in place of the file, or one more in the folder."""

    def attack(scene):
        path = scene.full
        if inside and not path.is_dir():
            raise UnfitError
        path = path / f"x{scene.any_file().suffix}" if inside else path
        if not inside:
            remove(path)
        path.symlink_to(target.format(self=path.name, neighbor=scene.neighbor))

    return attack


def unreadable(scene):
    scene.any_file().chmod(0)


def unreadable_folder(scene):
    folders = [scene.full, *(f for f in scene.full.rglob("*") if f.is_dir())]
    if not scene.full.is_dir():
        raise UnfitError
    folders[-1].chmod(0)


def named(name):
    """The good input under a name that is hard to print or to open."""

    def attack(scene):
        suffix = scene.full.suffix.encode()
        new = (name * 255)[: 255 - len(suffix)] if len(name) == 1 else name
        path = os.fsdecode(new + suffix)
        scene.full.rename(scene.folder / path)
        scene.path = path

    return attack


def named_inside(name):
    """An image of the folder, or a file, has such a name."""

    def attack(scene):
        if not scene.full.is_dir() or (scene.full / "manifest.json").exists():
            raise UnfitError
        file = scene.any_file()
        file.rename(file.with_name(os.fsdecode(name + file.suffix.encode())))

    return attack


def given(text):
    """Another text altogether, in place of the path."""

    def attack(scene):
        scene.path = text.format(neighbor=scene.neighbor)

    return attack


# Outputs


def occupied(scene):
    scene.full.write_bytes(b"precious")


def occupied_by_folder(scene):
    scene.full.mkdir()
    (scene.full / "precious.txt").write_bytes(b"precious")


def overwriting(attack):
    def change(scene):
        attack(scene)
        scene.more += ["--overwrite"]

    return change


def output_link(target):
    def attack(scene):
        scene.full.symlink_to(target.format(self=scene.full.name, neighbor=scene.neighbor))

    return attack


def output_named(name):
    def attack(scene):
        suffix = scene.full.suffix.encode()
        scene.path = os.fsdecode((name * 255)[: 255 - len(suffix)] + suffix)

    return attack


def read_only(scene):
    (scene.full if scene.full.is_dir() else scene.folder).chmod(0o555)


# The system


def full_disk(scene):
    """No file can grow beyond some bytes, as on a disk that fills up."""
    scene.setup["file_size"] = int(scene.rng.integers(1 << int(scene.rng.integers(1, 18))))


def flock(code):
    def attack(scene):
        scene.setup["flock"] = code

    return attack


def planted(what):
    """A link, folder or pipe at a name that the command opens to write, which a first run tells."""

    def attack(scene):
        scene.setup["planted"] = what

    return attack


# Options


def numbers(option):
    texts = (
        "0",
        "-1",
        "1.5",
        "nan",
        "inf",
        "-inf",
        "1e309",
        "",
        "x",
        "²",
        "٣",
        "0x10",
        "1_0",
        " 1",
    )
    large = (str(2**31 - 1), str(2**31), str(2**63), "9" * 30, "9" * 5000)
    works_long = {"epochs", "repeats", "workers", "image_size", "patience"}
    return texts if option.name in works_long else texts + large


TEXTS = (
    *("", " ", "x", "a\nb", "\x1b[31m", "é" * 300, "x" * 100_000, "../x", "{}", "null"),
    *("json:loads", "no_such:thing", "\udcff", "%s%n", "0", "-1", ",", ",,,", "a,a"),
)
SPECIAL = {
    "factory": (
        *("IVF100000000,MeCoQ", "IVF," * 500 + "MeCoQ", "IVF8," * 500, "(" * 10_000, "MeCoQ" * 200),
        *("IVF2(IVF2147483647,Flat),MeCoQ", "HNSW2147483647,MeCoQ", "HNSW1024,MeCoQ", "PQ4x4"),
        *("MeCoQ4x4fs_2147483616", "Refine(" * 3000, "IVF0,MeCoQ", "IVF²,MeCoQ", "IDMap," * 99),
    ),
    "changes": (
        *("x", "=", "epochs=", "epochs=-1", "epochs=nan", "batch_size=1", "dim=²"),
        *("dim=1000000000", "hidden_dim=1000000000", "batch_size=99999999999"),
        *("memory_size=100000000000", "lr=nan", "lr=[1]"),
        *("num_codebooks=1000000", "num_codewords=100000", "temperature=0", "temperature=1e-300"),
        *("seed=100000000000000000000", "objective={}", "precision=x", "optimizer=os:abort"),
        *("augmentation={}", "projection=x", "held_out=1e30", "a" * 5000 + "=1"),
        *("trainable_layers=-5", "view_dropout=1", "momentum=2", "weight_decay=inf", "dim=true"),
    ),
    "uri": (
        *("http://root:S3cretOfTheTests@127.0.0.1:99999/x", "root:S3cretOfTheTests@host"),
        *("http://", "http://[", "/dev/null/.db", "http://127.0.0.1:1/x?token=S3cretOfTheTests"),
        *(".db", "a\nb.db", "../neighbor/x.db", "x.db/a/b", "http://127.0.0.1:1/x"),
        *("ftp://h/x", "http://h:²/x", "HTTP://h/../x", "unix:/x", "\x1b.db"),
    ),
    "shard": ("0/1", "2/1", "1/0", "²/³", "1/99999999999999999999", "1", "/", "1/2/3", "-1/2"),
}  # fmt: skip


def option_values(command):
    """Arguments to add to a command: for every option, what it cannot or should not take."""
    for option in command.params:
        if not isinstance(option, click.Option):
            continue
        spelled = option.opts[0]
        if option.is_flag or option.flag_value is True:
            yield [f"{spelled}=x"]
            yield [spelled, spelled]
            continue
        if isinstance(option.type, click.Path) and not option.type.exists:
            continue  # an output, which stands in a template
        numeric = option.type.name.startswith(("integer", "float"))
        usual = numbers(option) if numeric else TEXTS
        for value in (*usual, *SPECIAL.get(option.name, ())):
            yield [spelled, value]
    yield from ([word] for word in ("--unknown", "-Z", "--ou", "one more", "--\x1b[1m", "--é\n"))


NAMES = {
    "newline": b"a\nb",
    "escape": b"\x1b[31mred\x07",
    "not_utf8": b"caf\xe9\xff",
    "long": b"x",
    "long_umlauts": "ä".encode() * 110,
    "dash": b"-rf",
    "quotes": b"'\"$(id)`;",
    "backslash": b"..\\..\\a",
    "direction": "\u202egnp".encode(),
    "percent": b"%s%(x)d{0}{x}",
    "hash": b"#?*[a]",
}
_TARGETS = {
    "dangling": "nowhere",
    "loop": "{self}",
    "to_null": "/dev/null",
    "to_zero": "/dev/zero",
    "to_folder": "{neighbor}",
    "to_canary": "{neighbor}/canary.txt",
    "to_missing_neighbor": "{neighbor}/new",
}

# Attacks by what they are on, with the number of seeds each is tried with.
ON_FILES = {
    **{f"damage.{name}": (damaged(d, False), 1) for name, d in damages.DAMAGES.items()},
    "damage.flipped": (damaged(damages.flipped, False), 3),
    "damage.member": (damaged(damages.member, False), 3),
    "damage.oversized": (damaged(damages.oversized, False), 4),
    "damage.oversized_text": (damaged(damages.oversized_text, False), 3),
    "another_format": (another_format, 2),
}
ON_ARRAYS = {f"array.{name}": (array(change), 1) for name, change in damages.ARRAYS.items()}
ON_INDEXES = {
    **{f"signed.{name}": (damaged(d, True), 1) for name, d in damages.DAMAGES.items()},
    "signed.flipped": (damaged(damages.flipped, True), 6),
    "signed.flipped_head": (damaged(damages.flipped_head, True), 6),
    "signed.oversized": (damaged(damages.oversized, True), 8),
    "signed.member": (damaged(damages.member, True), 3),
    **{f"manifest.{name}": (manifest_value(value), 3) for name, value in damages.VALUES.items()},
    "manifest.without": (manifest_without, 12),
    "manifest.foreign_file": (manifest_with_foreign_file, 4),
    "exchanged": (exchanged, 4),
    "without_file": (without_file, 2),
}
ON_SETTINGS = {f"setting.{name}": (setting(value), 6) for name, value in damages.VALUES.items()}
ON_PLACES = {
    **{name: (f, 1) for name, f in (("missing", missing), ("folder", folder_there))},
    **{name: (f, 1) for name, f in (("empty_folder", empty_folder), ("fifo", fifo))},
    "fifo_inside": (fifo_inside, 1),
    "unreadable": (unreadable, 1),
    "unreadable_folder": (unreadable_folder, 1),
    "linked_file": (linked_file, 1),
    **{f"link.{name}": (link_to(target), 1) for name, target in _TARGETS.items()},
    **{f"link_inside.{name}": (link_to(target, True), 1) for name, target in _TARGETS.items()},
    **{f"name.{name}": (named(raw), 1) for name, raw in NAMES.items()},
    **{f"name_inside.{name}": (named_inside(raw), 1) for name, raw in NAMES.items() if raw != b"x"},
    "given.empty": (given(""), 1),
    "given.long": (given("x" * 5000), 1),
    "given.memory": (given("/proc/self/mem"), 1),
}
_OCCUPIED = {"occupied": occupied, "occupied_by_folder": occupied_by_folder}
ON_OUTPUTS = {
    **{name: (attack, 1) for name, attack in _OCCUPIED.items()},
    **{f"overwrite.{name}": (overwriting(attack), 1) for name, attack in _OCCUPIED.items()},
    **{f"link.{name}": (output_link(target), 1) for name, target in _TARGETS.items()},
    **{
        f"overwrite.link.{name}": (overwriting(output_link(target)), 1)
        for name, target in _TARGETS.items()
    },
    **{f"name.{name}": (output_named(raw), 1) for name, raw in NAMES.items()},
    "given.empty": (given(""), 1),
    "given.here": (given("."), 1),
    "given.parent": (given(".."), 1),
    "given.root": (given("/"), 1),
    "given.null": (given("/dev/null"), 1),
    "given.no_folder": (given("nowhere/x"), 1),
    "given.below_a_file": (given("{neighbor}/canary.txt/x"), 1),
}
ON_SYSTEM = {
    "full_disk": (full_disk, 6),
    "no_locks": (flock("ENOLCK"), 1),
    "locks_unknown": (flock("ENOSYS"), 1),
    "locks_unsupported": (flock("EOPNOTSUPP"), 1),
    **{f"planted.{name}": (planted(name), 8) for name in ("file", "new", "folder", "fifo")},
}
ON_WRITTEN_FOLDERS = {"read_only": (read_only, 1)}


def attacks_on(place, format):
    """The attacks on an input or output, by name, each with its number of seeds."""
    if place.role == "new":
        return ON_OUTPUTS | ON_WRITTEN_FOLDERS
    found = ON_FILES | ON_PLACES
    if format.endswith(".mecoq"):
        found |= ON_INDEXES
    if Path(format).suffix in inputs.WRITERS:
        found |= ON_ARRAYS
    if format.endswith(".json"):
        found |= ON_SETTINGS
    return found | ON_WRITTEN_FOLDERS if place.role else found
