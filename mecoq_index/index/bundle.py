"""An index on disk: a folder that carries all that a search needs.

    photos.mecoq/
        manifest.json   format, version, engine, generation, sizes, fingerprint, SHA-256 of every
                        other file and of the manifest itself, versions of the packages
        codebooks.pt    the codebooks, with what it takes to embed a new image
        index.faiss     the engine's own file (codes.npz for the numpy and torch engines)
        names.npz       the names of the items, by id; may be absent
        columns.npz     other values of the items, by id; may be absent
        .lock           empty, held by a writer; absent until the bundle is changed

A new folder appears whole or not at all. A folder that is there is changed by writing new files
beside the old ones, under names with the next generation's number (``index-1.faiss``), and then
replacing the manifest, which is one atomic step: at every moment the manifest names files that are
whole, and files that it does not name are what an interrupted change has left, to be removed by the
next one. Writers take turns by a lock; a reader that is overtaken starts again. A copy of a folder
that nobody is writing is a bundle, with or without the lock file.

Opening compares every checksum, so a damaged index is refused instead of answering wrongly. This
module knows files only; engines read and write theirs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._files import (
    atomic_directory,
    atomic_file,
    check_readable,
    first_line,
    sha256_file,
    sync,
)
from .._optional import installed_version
from ..codebooks import Codebooks
from ..errors import ArtifactError, InvalidInputError
from .columns import ItemColumns
from .names import Names

FORMAT = "mecoq-index bundle"
FORMAT_VERSION = 2
METRIC = "AQS: inner product of the block-normalised query with the decoded codes"

_PACKAGES = ("mecoq-index", "numpy", "torch", "faiss-cpu", "faiss-gpu", "pymilvus")
_MANIFEST, _CODEBOOKS, _NAMES, _LOCK = "manifest.json", "codebooks.pt", "names.npz", ".lock"
_COLUMNS = "columns.npz"
_OLD_NAMES = "names.json"  # of version 1: a list, for the ids 0..n-1
# What built-in engines write; with another one, its files are known from the manifest.
_USUAL = {_CODEBOOKS, _NAMES, _COLUMNS, "index.faiss", "codes.npz", "milvus.json"}
_LOCK_SECONDS = 60


@dataclass(frozen=True, eq=False)
class Bundle:
    """An opened bundle.

    Attributes:
        path: The folder.
        manifest: What ``manifest.json`` says.
        codebooks: The codebooks of the index.
        names: The names of the items, by id; of length 0 if they have none.
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
        """How often the bundle was changed since it was made."""
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
            manifest = _read_manifest(path)
            try:
                return cls._read(path, manifest)
            except (ArtifactError, FileNotFoundError) as exc:
                # A writer may have replaced the files after their manifest was read here.
                if _read_manifest(path) == manifest:
                    raise ArtifactError(str(exc)) from exc

    @classmethod
    def _read(cls, path: Path, manifest: Mapping[str, Any]) -> Bundle:
        for name, recorded in manifest["files"].items():
            file = check_readable(path / name)
            if file.stat().st_size != recorded["bytes"] or sha256_file(file) != recorded["sha256"]:
                raise ArtifactError(
                    f"{file} is damaged: it differs from the checksum in {_MANIFEST}. "
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
        """Whether the folder still holds what it held when it was opened."""
        return _read_manifest(self.path) == self.manifest

    @staticmethod
    def read_manifest(path: str | Path) -> Mapping[str, Any]:
        """What the manifest in a folder says, without opening the other files.

        Raises:
            ArtifactError: If the folder is no bundle, of a newer version, or the manifest damaged.
        """
        return _read_manifest(Path(path))

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


@dataclass(frozen=True, eq=False)
class Content:
    """What a bundle is to hold.

    Attributes:
        engine: Name of the engine.
        index_file: Name of the engine's file inside the folder.
        save_index: Writes the engine's file to the path it is given.
        codebooks: The codebooks of the index.
        description: What the engine says of itself; kept in the manifest.
        names: The names of the items, by id; of length 0 for items without names.
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
        content: What to put into it.
        overwrite: Whether an existing bundle may be replaced.
        on_written: Told the manifest's checksum when everything but the manifest is on disk.

    Raises:
        InvalidInputError: If the folder exists and must not be replaced, is no bundle, or holds
            files that are not the bundle's.
        ArtifactError: If another program keeps writing it.
    """
    path = Path(path)
    if overwrite and path.exists():
        check_replaceable(path)
        with _locked(path):
            old = _read_manifest(path)
            _commit(path, content, generation=old["generation"] + 1, on_written=on_written, old=old)
        return
    with atomic_directory(path) as folder:
        _commit(folder, content, generation=0, on_written=on_written)


def update_bundle(bundle: Bundle, content: Content) -> None:
    """Replace what an opened bundle holds.

    Raises:
        ArtifactError: If somebody else has changed it since it was opened.
    """
    with _locked(bundle.path):
        if not bundle.is_current():
            raise ArtifactError(
                f"{bundle.path} was changed by another program after it was opened here, so "
                "nothing was written. Open it and make the change again."
            )
        _commit(bundle.path, content, generation=bundle.generation + 1, old=bundle.manifest)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    try:
        with FileLock(path / _LOCK, timeout=_LOCK_SECONDS):
            yield
    except Timeout as exc:
        raise ArtifactError(
            f"{path} is being written by another program. Try again when it is done."
        ) from exc


def _commit(
    folder: Path,
    content: Content,
    *,
    generation: int,
    on_written: Callable[[str], None] | None = None,
    old: Mapping[str, Any] | None = None,
) -> None:
    """Write the files of a generation, then the manifest that names them, then tidy up."""
    index_file = _of_generation(content.index_file, generation)
    codebooks_file = _of_generation(_CODEBOOKS, generation)
    writers = {index_file: content.save_index, codebooks_file: content.codebooks.save}
    names_file = None
    if len(content.names):
        names_file = _of_generation(_NAMES, generation)
        writers[names_file] = content.names.save
    columns_file = None
    if len(content.columns):
        columns_file = _of_generation(_COLUMNS, generation)
        writers[columns_file] = content.columns.save
    files = _write_files(folder, writers)
    manifest = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "generation": generation,
        "engine": content.engine,
        "index_file": index_file,
        "codebooks_file": codebooks_file,
        "names_file": names_file,
        "columns_file": columns_file,
        "metric": METRIC,
        "M": content.codebooks.M,
        "K": content.codebooks.K,
        "D": content.codebooks.D,
        "fingerprint": content.codebooks.fingerprint,
        # As JSON gives it back, so that the checksum is of what will be read.
        "description": json.loads(json.dumps(dict(content.description))),
        "versions": {name: found for name in _PACKAGES if (found := installed_version(name))},
        "files": files,
    }
    manifest["checksum"] = _checksum(manifest)
    if on_written:
        on_written(manifest["checksum"])
    with atomic_file(folder / _MANIFEST) as partial:
        partial.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    ours = _bases(manifest) | _bases(old or {})
    for file in folder.iterdir():
        if file.name not in {_MANIFEST, _LOCK, *files} and _is_ours(file.name, ours):
            with suppress(
                PermissionError
            ):  # Windows keeps what a reader has open; the next does it
                file.unlink()


def _write_files(
    folder: Path, writers: Mapping[str, Callable[[Path], None]]
) -> dict[str, dict[str, int | str]]:
    """Write files that no manifest names yet; returns what the manifest is to say of them."""
    files: dict[str, dict[str, int | str]] = {}
    try:
        for name, write in sorted(writers.items()):
            write(file := folder / name)
            sync(file)
            files[name] = {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
        sync(folder)  # their names, before anything points to them
        return files
    except BaseException:
        for name in writers:
            (folder / name).unlink(missing_ok=True)
        raise


def _of_generation(name: str, generation: int) -> str:
    stem, dot, suffix = name.partition(".")
    return f"{stem}-{generation}{dot}{suffix}" if generation else name


def _base(name: str) -> str:
    """The name of a file without its generation."""
    stem, dot, suffix = name.partition(".")
    return re.sub(r"-\d+$", "", stem) + dot + suffix


def _bases(manifest: Mapping[str, Any]) -> set[str]:
    return {_base(name) for name in manifest.get("files", ())}


def _is_ours(name: str, bases: set[str]) -> bool:
    """Whether a file in a bundle is a bundle's: of this or another generation, or half-written."""
    if partial := re.fullmatch(r"\.(.+)\.\w+\.partial", name):
        name = partial[1]
    return name in (_MANIFEST, _LOCK, _OLD_NAMES) or _base(name) in bases | _USUAL


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
            f"Choose another name, or remove it yourself. ({exc})"
        ) from exc
    ours = _bases(manifest)
    if foreign := sorted(file.name for file in path.iterdir() if not _is_ours(file.name, ours)):
        raise InvalidInputError(
            f"{path} holds files that are not the bundle's, so it is not overwritten: "
            f"{', '.join(foreign[:3])}{', ...' if len(foreign) > 3 else ''}. Move them away first."
        )


def _checksum(manifest: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _read_names(path: Path, name: str | None) -> Names:
    if name is None:
        return Names.from_strings([])
    if name != _OLD_NAMES:
        return Names.load(path / name)
    try:
        return Names.from_strings(json.loads((path / name).read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as exc:  # InvalidInputError is a ValueError
        raise ArtifactError(f"{path / name} is damaged: {first_line(exc)}") from exc


def _read_manifest(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise ArtifactError(f"{path} must be the folder that build wrote, but there is none.")
    file = path / _MANIFEST
    if not file.is_file():
        raise ArtifactError(f"{path} is no bundle: it has no {_MANIFEST}.")
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
        named = _OLD_NAMES if isinstance(files, dict) and _OLD_NAMES in files else None
        manifest |= {"generation": 0, "codebooks_file": _CODEBOOKS, "names_file": named}
    elif manifest.get("checksum") != _checksum(manifest):
        raise ArtifactError(f"{file} is damaged: it differs from its own checksum.")
    if not _is_complete(manifest):
        raise ArtifactError(f"{file} is damaged: a part of it is missing.")
    return manifest


def _is_complete(manifest: Mapping[str, Any]) -> bool:
    files = manifest.get("files")
    wanted = ("engine", "index_file", "codebooks_file", "fingerprint")
    if not isinstance(files, dict) or not all(isinstance(manifest.get(k), str) for k in wanted):
        return False
    named = {manifest["index_file"], manifest["codebooks_file"]}
    for optional in ("names_file", "columns_file"):
        if manifest.get(optional) is not None:
            named.add(manifest[optional])
    return (
        named <= files.keys()
        and not any("/" in name or "\\" in name for name in files)
        and all(isinstance(recorded, dict) for recorded in files.values())
        and all({"bytes", "sha256"} <= recorded.keys() for recorded in files.values())
        and isinstance(manifest.get("description"), dict)
        and type(manifest.get("generation")) is int
    )
