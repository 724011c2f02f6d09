"""Attacks on the content of inputs: functions of a `Scene`, which they change."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np

from hostile import damages, inputs
from hostile.scene import UnfitError


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
