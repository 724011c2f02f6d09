"""The manifest of a bundle: the one file that says which others belong to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._addresses import exists, shown
from .._files import first_line
from ..errors import ArtifactError
from .stored_codebooks import OLD_CODEBOOKS

FORMAT = "mecoq-index bundle"
FORMAT_VERSION = 3
MANIFEST = "manifest.json"
OLD_NAMES = "names.json"
"""Names in version 1: a list, for the ids 0..n-1."""


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
    if not file.is_file():
        raise ArtifactError(f"{path} is no bundle: it has no {MANIFEST}.")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as exc:
        raise ArtifactError(f"{file} is damaged: {first_line(exc)}") from exc
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
    return manifest


def _is_complete(manifest: Mapping[str, Any]) -> bool:
    files = manifest.get("files")
    wanted = ("engine", "index_file", "codebooks_file", "fingerprint")
    if not isinstance(files, dict) or not all(isinstance(manifest.get(k), str) for k in wanted):
        return False
    optional = [manifest.get(key) for key in ("names_file", "columns_file", "backbone_file")]
    named = [manifest[key] for key in ("index_file", "codebooks_file")]
    named += [name for name in optional if name is not None]
    return (
        all(isinstance(name, str) and name in files for name in named)
        and not any("/" in name or "\\" in name for name in files)
        and all(isinstance(recorded, dict) for recorded in files.values())
        and all({"bytes", "sha256"} <= recorded.keys() for recorded in files.values())
        and isinstance(manifest.get("description"), dict)
        and type(manifest.get("generation")) is int
    )
