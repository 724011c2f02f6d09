"""Attacks on where inputs and outputs lie, on their names, and on the system."""

import os

from hostile.scene import UnfitError, remove

# Inputs


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


def _with_suffix(name, suffix):
    """A name as long as the system allows, if it is given as one character."""
    repeated = name * 255 if len(name) == 1 else name
    return repeated[: 255 - len(suffix)] + suffix.encode()


def named(name):
    """The good input under a name that is hard to print or to open."""

    def attack(scene):
        path = os.fsdecode(_with_suffix(name, scene.full.suffix))
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
        scene.path = os.fsdecode(_with_suffix(name, scene.full.suffix))

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
    """A link, a pipe or junk at a name that the command opens to write, which a first run tells."""

    def attack(scene):
        scene.setup["planted"] = what

    return attack
