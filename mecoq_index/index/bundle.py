"""An index on disk: a folder that carries all that a search needs.

    photos.mecoq/
        manifest.json          format, version, engine, generation, sizes, fingerprint, SHA-256 of
                               every other file and of the manifest itself, versions of packages
        codebooks.safetensors  the codebooks, and the record of the backbone for new images
        backbone.safetensors   the weights of the backbone that training changed; may be absent
        index.faiss            the engine's own file (codes.npz for the numpy and torch engines)
        names.npz              the name of each item, by id; may be absent
        columns.npz            other values of the items, by id; may be absent
        .lock                  empty, locked by a writer; absent until the bundle is changed

A new folder appears whole or not at all. To change a folder, new files are written beside the old
ones, under names with the number of the next generation (``index-1.faiss``), and then the manifest
is replaced, which is one atomic step. So the manifest names complete files at every moment. Files
that it does not name were left by an interrupted change, and the next change removes them. Later
generations keep the file of the backbone's weights if it holds the same weights.

Writers take turns by a lock; a reader that is overtaken starts again. A copy of a folder that
nobody is writing is a bundle, with or without the lock file. Opening compares every checksum, so a
damaged index is refused instead of answering wrongly. This module knows files only; engines read
and write theirs. Versions 1 and 2 of the format had ``codebooks.pt``, and version 1 ``names.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .._files import atomic_directory, atomic_file, check_output, sync
from .._json import parse_json
from .._locks import MARK, locked
from .._optional import installed_version
from .._reading import check_readable, sha256_file
from .._system_errors import named
from ..codebooks import Codebooks
from ..engines.registry import BUILTIN_FILES, plugin_file
from ..errors import ArtifactError, InvalidInputError, first_line
from .columns import ItemColumns
from .manifest import (
    COLUMNS,
    FORMAT,
    FORMAT_VERSION,
    MANIFEST,
    NAMES,
    OLD_NAMES,
    PURPOSES,
    checksum,
    read_manifest,
)
from .names import Names
from .stored_codebooks import (
    Recorded,
    of_generation,
    plan_codebook_files,
    without_generation,
)

METRIC = "AQS: inner product of the block-normalized query with the decoded codes"

_PACKAGES = ("mecoq-index", "numpy", "safetensors", "torch", "faiss-cpu", "faiss-gpu", "pymilvus")
_LOCK = ".lock"
_USUAL = {*BUILTIN_FILES, *(base for bases in PURPOSES.values() for base in bases)}
_LOCK_SECONDS = 60


@dataclass(frozen=True, eq=False)
class Bundle:
    """An opened bundle.

    Attributes:
        path: The folder.
        manifest: The content of ``manifest.json``.
        codebooks: The codebooks of the index.
        names: The name of each item, by id; of length 0 if the items have no names.
        columns: The columns of the items, by id; of length 0 if there are none.
    """

    path: Path
    manifest: Mapping[str, Any]
    codebooks: Codebooks
    names: Names
    columns: ItemColumns

    @property
    def engine(self) -> str:
        """Name of the engine that wrote the index file."""
        return str(self.manifest["engine"])

    @property
    def index_path(self) -> Path:
        """The engine's own file."""
        return self.path / str(self.manifest["index_file"])

    @property
    def generation(self) -> int:
        """Number of changes since the bundle was made."""
        return int(self.manifest["generation"])

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Open a bundle after comparing every file with its checksum.

        Raises:
            ArtifactError: If the folder is no bundle, of a newer version, or a file is missing,
                damaged or exchanged.
        """
        path = Path(path)
        while True:
            manifest = read_manifest(path)
            try:
                return cls._read(path, manifest)
            except (ArtifactError, FileNotFoundError) as exc:
                # A writer may have replaced the files after this manifest was read.
                if read_manifest(path) == manifest:
                    raise ArtifactError(str(exc)) from exc

    @classmethod
    def _read(cls, path: Path, manifest: Mapping[str, Any]) -> Bundle:
        for name, recorded in manifest["files"].items():
            file = check_readable(path / name, links=False)
            if file.stat().st_size != recorded["bytes"] or sha256_file(file) != recorded["sha256"]:
                raise ArtifactError(
                    f"{file} is damaged: it differs from the checksum in {MANIFEST}. "
                    "Build the index again."
                )
        codebooks = Codebooks.load(path / manifest["codebooks_file"])
        if codebooks.fingerprint != manifest["fingerprint"]:
            raise ArtifactError(f"{path} was built with other codebooks than the ones inside it.")
        columns_file = manifest.get("columns_file")
        columns = ItemColumns.load(path / columns_file) if columns_file else ItemColumns.none()
        names = _read_names(path, manifest.get("names_file"))
        return cls(path, manifest, codebooks, names, columns)

    def is_current(self) -> bool:
        """Whether the folder is unchanged since it was opened."""
        return read_manifest(self.path) == self.manifest

    @staticmethod
    def read_manifest(path: str | Path) -> Mapping[str, Any]:
        """Return the manifest of a folder, without opening the other files.

        Raises:
            ArtifactError: If the folder is no bundle, of a newer version, or the manifest damaged.
        """
        return read_manifest(Path(path))

    def check_codebooks(self, codebooks: Codebooks) -> None:
        """Refuse a search with codebooks that the index was not built with.

        Raises:
            ArtifactError: If the fingerprints differ.
        """
        if codebooks.fingerprint != self.codebooks.fingerprint:
            raise ArtifactError(
                f"{self.path} was built with other codebooks ({self.codebooks.fingerprint[:12]}) "
                f"than the ones given ({codebooks.fingerprint[:12]}). Leave --codebooks out to use "
                "its own, or encode the index again for the new ones, with reencode."
            )


@dataclass(frozen=True, eq=False)
class Content:
    """The content of a bundle to be written.

    Attributes:
        engine: Name of the engine.
        index_file: Name of the engine's file inside the folder.
        save_index: Writes the engine's file to the given path.
        codebooks: The codebooks of the index.
        description: The engine's description of itself; kept in the manifest.
        names: The name of each item, by id; of length 0 for items without names.
        columns: The columns of the items, by id; of length 0 without columns.
    """

    engine: str
    index_file: str
    save_index: Callable[[Path], None]
    codebooks: Codebooks
    description: Mapping[str, Any]
    names: Names
    columns: ItemColumns


def write_bundle(
    path: str | Path,
    content: Content,
    *,
    overwrite: bool = False,
    on_written: Callable[[str], None] | None = None,
) -> None:
    """Write a bundle; the folder appears, or changes, only when all of it is on disk.

    Args:
        path: The folder to make.
        content: The content of the bundle.
        overwrite: Whether an existing bundle may be replaced.
        on_written: Called with the manifest's checksum when all but the manifest is on disk.

    Raises:
        InvalidInputError: If the folder exists and must not be replaced, is no bundle, or holds
            files that are not the bundle's.
        ArtifactError: If another program keeps writing it.
    """
    path = Path(path)
    if overwrite and path.exists():
        check_replaceable(path, index_file=content.index_file)
        with locked(path / _LOCK, what=path, seconds=_LOCK_SECONDS):
            old = read_manifest(path)
            _commit(path, content, generation=old["generation"] + 1, on_written=on_written, old=old)
        return
    with atomic_directory(path) as folder:
        _commit(folder, content, generation=0, on_written=on_written)


def update_bundle(bundle: Bundle, content: Content) -> Bundle:
    """Replace the content of an opened bundle; return the bundle as it is now.

    Raises:
        ArtifactError: If somebody else has changed it since it was opened.
    """
    with locked(bundle.path / _LOCK, what=bundle.path, seconds=_LOCK_SECONDS):
        if not bundle.is_current():
            raise ArtifactError(
                f"{bundle.path} was changed by another program after it was opened here, so "
                "nothing was written. Open it and make the change again."
            )
        manifest = _commit(
            bundle.path, content, generation=bundle.generation + 1, old=bundle.manifest
        )
    return replace(bundle, manifest=manifest, names=content.names, columns=content.columns)


def _commit(
    folder: Path,
    content: Content,
    *,
    generation: int,
    on_written: Callable[[str], None] | None = None,
    old: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the files of a generation, then the manifest that names them, then tidy up."""
    index_file = of_generation(content.index_file, generation)
    books = plan_codebook_files(folder, content.codebooks, generation, old)
    writers = {index_file: content.save_index, **books.writers}
    names_file = None
    if len(content.names):
        names_file = of_generation(NAMES, generation)
        writers[names_file] = content.names.save
    columns_file = None
    if len(content.columns):
        columns_file = of_generation(COLUMNS, generation)
        writers[columns_file] = content.columns.save
    files = {**_write_files(folder, writers), **books.kept}
    manifest = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "generation": generation,
        "engine": content.engine,
        "index_file": index_file,
        **books.entries,
        "names_file": names_file,
        "columns_file": columns_file,
        "metric": METRIC,
        "M": content.codebooks.M,
        "K": content.codebooks.K,
        "D": content.codebooks.D,
        "fingerprint": content.codebooks.fingerprint,
        # Through JSON, so that the checksum covers what will be read.
        "description": json.loads(json.dumps(dict(content.description))),
        "versions": {name: found for name in _PACKAGES if (found := installed_version(name))},
        "files": files,
    }
    manifest["checksum"] = checksum(manifest)
    if on_written:
        on_written(manifest["checksum"])
    with atomic_file(folder / MANIFEST) as partial:
        partial.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    _tidy_up(folder, {MANIFEST, _LOCK, _LOCK + MARK, *files}, _bases(old, content.index_file))
    return manifest


def _tidy_up(folder: Path, stay: set[str], bases: set[str]) -> None:
    """Remove the files of earlier generations, and what interrupted changes have left."""
    # What cannot be removed, such as a file that a reader has open on Windows, waits for the next
    # change: this one is complete.
    with suppress(OSError):
        for file in list(folder.iterdir()):
            if file.name not in stay and _is_ours(file.name, bases):
                with suppress(OSError):
                    file.unlink()


def _write_files(
    folder: Path, writers: Mapping[str, Callable[[Path], None]]
) -> dict[str, Recorded]:
    """Write files that no manifest names yet, in order of names; return their entries in it."""
    files: dict[str, Recorded] = {}
    try:
        for name, write in sorted(writers.items()):
            file = folder / name
            file.unlink(missing_ok=True)  # a link would be written through
            with named(file):
                write(file)
            sync(check_readable(file, links=False))
            files[name] = {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
        sync(folder)  # the names must be on disk before the manifest has them
        return files
    except BaseException:
        for name in writers:
            with suppress(OSError):
                (folder / name).unlink()
        raise


def _bases(manifest: Mapping[str, Any] | None, index_file: str | None) -> set[str]:
    """The names that files of a bundle have: a manifest may list any file, which need not be one.

    Args:
        manifest: The manifest, which names an engine.
        index_file: The name of the file of another engine, which is about to write.
    """
    theirs = None if manifest is None else plugin_file(manifest["engine"])
    return _USUAL | {name for name in (index_file, theirs) if name is not None}


def _is_ours(name: str, bases: set[str]) -> bool:
    """Whether a file belongs to a bundle: of any generation, complete or half-written."""
    if partial := re.fullmatch(r"\.(.+)\.[0-9a-f]+\.partial", name):
        name = partial[1]
    return name in (MANIFEST, _LOCK, _LOCK + MARK) or without_generation(name) in bases


def check_replaceable(path: str | Path, *, index_file: str | None = None) -> None:
    """Refuse to overwrite a folder with foreign files, because replacing would delete them.

    Args:
        path: The folder.
        index_file: The name of the file that the engine which is to write calls its own.

    Raises:
        InvalidInputError: If ``path`` is a link, no readable bundle, or holds other files as well.
        OSError: If the system lets nobody write there.
    """
    path = Path(path)
    check_output(path, overwrite=True, folder=True)
    try:
        manifest = read_manifest(path)
    except ArtifactError as exc:
        raise InvalidInputError(
            f"{path} exists and is no bundle, so it is not overwritten. "
            f"Choose another name, or remove it yourself. ({exc})"
        ) from exc
    bases = _bases(manifest, index_file)
    if foreign := sorted(file.name for file in path.iterdir() if not _is_ours(file.name, bases)):
        raise InvalidInputError(
            f"{path} holds files that are not the bundle's, so it is not overwritten: "
            f"{', '.join(foreign[:3])}{', ...' if len(foreign) > 3 else ''}. Move them away first."
        )


def _read_names(path: Path, name: str | None) -> Names:
    if name is None:
        return Names.from_strings([])
    if name != OLD_NAMES:
        return Names.load(path / name)
    try:
        return Names.from_strings(parse_json((path / name).read_bytes()))
    except (ValueError, TypeError) as exc:  # InvalidInputError is a ValueError
        raise ArtifactError(f"{path / name} is damaged: {first_line(exc)}") from exc
