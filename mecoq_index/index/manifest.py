"""The manifest of a bundle: the one file that says which others belong to it.

Bundles are passed on, so a manifest may say anything. It can name no other files than a bundle has:
one for each purpose, called as this package calls such a file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._addresses import exists, shown
from .._json import read_json
from ..errors import ArtifactError
from .stored_codebooks import (
    CODEBOOKS,
    OLD_CODEBOOKS,
    WEIGHTS,
    generation_of,
    without_generation,
)

FORMAT = "mecoq-index bundle"
FORMAT_VERSION = 3
MANIFEST = "manifest.json"
_LARGEST = 16 << 20  # with every option of every engine it has some kilobytes
NAMES, COLUMNS = "names.npz", "columns.npz"
OLD_NAMES = "names.json"
"""Names in version 1: a list, for the ids 0..n-1."""

PURPOSES = {
    "codebooks_file": (CODEBOOKS, OLD_CODEBOOKS),
    "backbone_file": (WEIGHTS,),
    "names_file": (NAMES, OLD_NAMES),
    "columns_file": (COLUMNS,),
}
"""What the files of each purpose are called, but for the number of their generation."""

# A name that is a plain one in every system. Which one an engine's file has, the engine knows.
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE | re.ASCII)
_MOST_GENERATIONS = 10**12


def checksum(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest but for its own checksum, in hexadecimal."""
    rest = {key: value for key, value in manifest.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_manifest(path: Path) -> dict[str, Any]:
    """The content of the manifest in a folder, after checking that it is whole.

    Raises:
        ArtifactError: If the folder is no bundle, of a newer version, or the manifest is damaged.
    """
    if not (exists(path) and path.is_dir()):
        raise ArtifactError(
            f"{shown(path)} must be the folder that build wrote, but it is no folder."
        )
    file = path / MANIFEST
    if not os.path.lexists(file):
        raise ArtifactError(f"{path} is no bundle: it has no {MANIFEST}.")
    manifest = read_json(file, links=False, longest=_LARGEST)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ArtifactError(f"{path} is no bundle of mecoq-index.")
    version = manifest.get("version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise ArtifactError(
            f"{path} has format version {version}, but this release reads up to {FORMAT_VERSION}. "
            "Upgrade mecoq-index."
        )
    if version == 1 and "checksum" not in manifest:
        files = manifest.get("files")
        named = OLD_NAMES if isinstance(files, dict) and OLD_NAMES in files else None
        manifest |= {"generation": 0, "codebooks_file": OLD_CODEBOOKS, "names_file": named}
    elif manifest.get("checksum") != checksum(manifest):
        raise ArtifactError(f"{file} is damaged: it differs from its own checksum.")
    if not _is_complete(manifest):
        raise ArtifactError(f"{file} is damaged: a part of it is missing.")
    if odd := _odd_names(manifest):
        raise ArtifactError(
            f"{file} is refused: it must name one file for each purpose, as bundles call them, but "
            f"names {', '.join(map(repr, odd[:3]))}."
        )
    return manifest


def _is_complete(manifest: Mapping[str, Any]) -> bool:
    files = manifest.get("files")
    wanted = ("engine", "index_file", "codebooks_file", "fingerprint")
    if not isinstance(files, dict) or not all(isinstance(manifest.get(k), str) for k in wanted):
        return False
    named = [name for key in ("index_file", *PURPOSES) if (name := manifest.get(key)) is not None]
    generation = manifest.get("generation")
    return (
        all(isinstance(name, str) and name in files for name in named)
        and all(isinstance(recorded, dict) for recorded in files.values())
        and all(type(recorded.get("bytes")) is int for recorded in files.values())
        and all(isinstance(recorded.get("sha256"), str) for recorded in files.values())
        and isinstance(manifest.get("description"), dict)
        and type(generation) is int
        and 0 <= generation < _MOST_GENERATIONS
    )


def _odd_names(manifest: Mapping[str, Any]) -> list[str]:
    """The names of files that no bundle has, or that are not there for one purpose each."""
    index_file: str = manifest["index_file"]
    usual = {base for bases in PURPOSES.values() for base in bases} | {MANIFEST}
    fitting = set()
    if (
        _PLAIN.fullmatch(index_file)
        and not _DEVICES.fullmatch(index_file)
        and without_generation(index_file).lower() not in usual
    ):
        fitting.add(index_file)
    for key, bases in PURPOSES.items():
        name = manifest.get(key)
        if name is not None and without_generation(name) in bases:
            fitting.add(name)
    newest = manifest["generation"]  # later names are those of files that a change is to write
    return [
        name
        for name in sorted(manifest["files"])
        if name not in fitting or (generation_of(name) or 0) > newest
    ]
