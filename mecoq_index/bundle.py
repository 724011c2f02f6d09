"""An index on disk: a folder that carries all that a search needs.

    photos.mecoq/
        manifest.json   format, version, engine, sizes, fingerprint, SHA-256 of every other file,
                        versions of the packages that wrote it
        codebooks.pt    the codebooks, with what it takes to embed a new image
        index.faiss     the engine's own file (codes.npz for the numpy and torch engines)
        names.json      what each item is called, in the order of the ids 0..n-1; may be absent

The folder appears whole or not at all. Opening one compares every checksum, so a damaged index is
refused instead of answering wrongly. This module knows files only; engines read and write theirs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._files import atomic_directory, check_readable, sha256_file
from ._optional import installed_version
from .codebooks import Codebooks
from .errors import ArtifactError, InvalidInputError

FORMAT = "mecoq-index bundle"
FORMAT_VERSION = 1
METRIC = "AQS: inner product of the block-normalised query with the decoded codes"

_PACKAGES = ("mecoq-index", "numpy", "torch", "faiss-cpu", "faiss-gpu")
_MANIFEST, _CODEBOOKS, _NAMES = "manifest.json", "codebooks.pt", "names.json"


@dataclass(frozen=True, eq=False)
class Bundle:
    """An opened bundle.

    Attributes:
        path: The folder.
        manifest: What ``manifest.json`` says.
        codebooks: The codebooks of the index.
        names: What each item is called, by id; empty if the items have no names.
    """

    path: Path
    manifest: Mapping[str, Any]
    codebooks: Codebooks
    names: Sequence[str]

    @property
    def engine(self) -> str:
        """Name of the engine that wrote the index file."""
        return str(self.manifest["engine"])

    @property
    def index_path(self) -> Path:
        """The engine's own file."""
        return self.path / str(self.manifest["index_file"])

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Open a bundle after comparing every file with its checksum.

        Raises:
            ArtifactError: If the folder is no bundle, of a newer version, or a file is missing,
                damaged or exchanged.
        """
        path = Path(path)
        manifest = _read_manifest(path)
        for name, recorded in manifest["files"].items():
            file = check_readable(path / name)
            if file.stat().st_size != recorded["bytes"] or sha256_file(file) != recorded["sha256"]:
                raise ArtifactError(
                    f"{file} is damaged: it differs from the checksum in {_MANIFEST}. "
                    "Build the index again."
                )
        codebooks = Codebooks.load(path / _CODEBOOKS)
        if codebooks.fingerprint != manifest["fingerprint"]:
            raise ArtifactError(f"{path} was built with other codebooks than the ones inside it.")
        names: list[str] = []
        if _NAMES in manifest["files"]:
            names = json.loads((path / _NAMES).read_text(encoding="utf-8"))
        return cls(path, manifest, codebooks, names)

    def check_codebooks(self, codebooks: Codebooks) -> None:
        """Refuse a search with codebooks that the index was not built with.

        Raises:
            ArtifactError: If the fingerprints differ.
        """
        if codebooks.fingerprint != self.codebooks.fingerprint:
            raise ArtifactError(
                f"{self.path} was built with other codebooks ({self.codebooks.fingerprint[:12]}) "
                f"than the ones given ({codebooks.fingerprint[:12]}). Leave --codebooks out to use "
                "its own, or build the index again."
            )


def write_bundle(
    path: str | Path,
    *,
    engine: str,
    index_file: str,
    save_index: Callable[[Path], None],
    codebooks: Codebooks,
    description: Mapping[str, Any],
    names: Sequence[str] = (),
    overwrite: bool = False,
) -> None:
    """Write a bundle; the folder appears only when all of it is on disk.

    Args:
        path: The folder to make.
        engine: Name of the engine.
        index_file: Name of the engine's file inside the folder.
        save_index: Writes the engine's file to the path it is given.
        codebooks: The codebooks of the index.
        description: What the engine says of itself; kept in the manifest.
        names: What each item is called, by id; empty for items without names.
        overwrite: Whether an existing folder may be replaced.

    Raises:
        InvalidInputError: If the folder exists and must not be replaced, is no bundle, or holds
            files that are not the bundle's; or if a name is no string.
    """
    path = Path(path)
    if overwrite and path.exists():
        check_replaceable(path)
    if others := [name for name in names if not isinstance(name, str)]:
        raise InvalidInputError(f"names must be strings, got {type(others[0]).__name__}.")
    with atomic_directory(path, overwrite=overwrite) as folder:
        save_index(folder / index_file)
        codebooks.save(folder / _CODEBOOKS)
        if len(names):
            _write_json(folder / _NAMES, list(names))
        files = {
            file.name: {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
            for file in sorted(folder.iterdir())
        }
        manifest = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "engine": engine,
            "index_file": index_file,
            "metric": METRIC,
            "M": codebooks.M,
            "K": codebooks.K,
            "D": codebooks.D,
            "fingerprint": codebooks.fingerprint,
            "description": dict(description),
            "versions": {name: found for name in _PACKAGES if (found := installed_version(name))},
            "files": files,
        }
        _write_json(folder / _MANIFEST, manifest)


def check_replaceable(path: str | Path) -> None:
    """Refuse to overwrite a folder in which anything is not a bundle's: replacing deletes it all.

    Raises:
        InvalidInputError: If ``path`` is no readable bundle, or holds other files beside it.
    """
    path = Path(path)
    try:
        manifest = _read_manifest(path)
    except ArtifactError as exc:
        raise InvalidInputError(
            f"{path} exists and is no bundle, so it is not overwritten. "
            "Choose another name, or remove it yourself."
        ) from exc
    if foreign := sorted({file.name for file in path.iterdir()} - {_MANIFEST, *manifest["files"]}):
        raise InvalidInputError(
            f"{path} holds files that are not the bundle's, so it is not overwritten: "
            f"{', '.join(foreign[:3])}{', ...' if len(foreign) > 3 else ''}. Move them away first."
        )


def _write_json(path: Path, value: Any) -> None:
    # File names that are no UTF-8 hold lone surrogates; a backslash escape is JSON's form of them.
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def _read_manifest(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise ArtifactError(f"{path} must be the folder that build wrote, but there is none.")
    file = path / _MANIFEST
    if not file.is_file():
        raise ArtifactError(f"{path} is no bundle: it has no {_MANIFEST}.")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as exc:
        raise ArtifactError(f"{file} is damaged: {exc}") from exc
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ArtifactError(f"{path} is no bundle of mecoq-index.")
    version = manifest.get("version")
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise ArtifactError(
            f"{path} has format version {version}, but this release reads up to {FORMAT_VERSION}. "
            "Upgrade mecoq-index."
        )
    files = manifest.get("files")
    wanted = ("engine", "index_file", "fingerprint")
    if (
        not isinstance(files, dict)
        or not all(isinstance(manifest.get(key), str) for key in wanted)
        or not {manifest["index_file"], _CODEBOOKS} <= files.keys()
        or any("/" in name or "\\" in name for name in files)
        or not all(isinstance(recorded, dict) for recorded in files.values())
        or not all({"bytes", "sha256"} <= recorded.keys() for recorded in files.values())
    ):
        raise ArtifactError(f"{file} is damaged: a part of it is missing.")
    return manifest
