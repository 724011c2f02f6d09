"""Files that are either whole or absent (write beside, sync, rename), and readers that name them.

A crash at any moment leaves the old file, the new file, or a temporary one whose name starts with
a dot and ends in ``.partial``; never a half-written output under the name the user asked for. What
is left of a folder is removed when it is written again; of a single file it stays.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt

from ._addresses import check_no_address, exists, shown
from .errors import ArtifactError, InvalidInputError

# What zipfile and NumPy raise when bytes of an archive or of a .npy head were changed.
UNREADABLE = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError),
    *(SyntaxError, TokenError, TypeError, ValueError, struct.error, zipfile.BadZipFile, zlib.error),
)


_LOCK = ".lock"  # held in a temporary folder for as long as somebody writes it


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    if sys.platform == "win32" and path.is_dir():
        return  # folders cannot be opened there
    descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_parent(path: Path) -> None:
    check_no_address(path)
    if not path.parent.is_dir():
        raise InvalidInputError(
            f"the folder {shown(path.parent)} does not exist. Create it before writing {path.name} "
            "there."
        )


def check_output(path: Path, *, overwrite: bool) -> None:
    """Refuse an output that could not be written, before any work is done for it.

    Raises:
        InvalidInputError: If its folder is missing, it exists and may not be replaced, or it is an
            address.
    """
    _check_parent(path)
    if path.exists() and not overwrite:
        raise _already_there(path)


def _partial_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; when the block succeeds, it becomes ``path``.

    Raises:
        InvalidInputError: If the parent folder does not exist or ``path`` is a folder.
    """
    path = Path(path)
    _check_parent(path)
    if path.is_dir():
        raise InvalidInputError(f"{path} is a folder, but a file is to be written there.")
    partial = _partial_of(path)
    partial.touch(exist_ok=False)
    try:
        yield partial
        sync(partial)
        os.replace(partial, path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; when the block succeeds, it becomes ``path``.

    Raises:
        InvalidInputError: If ``path`` exists, or its parent does not.
    """
    from filelock import FileLock

    path = Path(path)
    _check_parent(path)
    if path.exists():
        raise _already_there(path)
    _remove_abandoned(path)
    partial = _partial_of(path)
    partial.mkdir()
    try:
        with FileLock(partial / _LOCK):
            yield partial
            for file in sorted(partial.rglob("*")):
                sync(file)
            sync(partial)
            move_directory(partial, path)
            (path / _LOCK).unlink()
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def move_directory(source: Path, path: Path) -> None:
    """Give a folder, whose content is on disk, another name on the same disk.

    Raises:
        InvalidInputError: If ``path`` exists.
    """
    try:
        os.replace(source, path)
    except OSError as exc:
        if path.exists():
            raise _already_there(path) from exc
        raise
    sync(path.parent)


def _already_there(path: Path) -> InvalidInputError:
    return InvalidInputError(
        f"{path} exists already. Choose another name, or allow replacing it with --overwrite."
    )


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary folders of ``path`` that killed writers have left."""
    from filelock import FileLock, Timeout

    for left in path.parent.iterdir():
        name = left.name
        if not (name.startswith(f".{path.name}.") and name.endswith(".partial")):
            continue
        if (left / _LOCK).is_file():
            with suppress(Timeout, FileNotFoundError), FileLock(left / _LOCK, timeout=0):
                shutil.rmtree(left)
        else:
            with suppress(OSError):
                left.rmdir()  # the first thing made is the lock


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def first_line(exc: BaseException) -> str:
    """What an exception says, as part of a message of one line, which bytes of a file may be in."""
    line = next(iter(str(exc).splitlines()), type(exc).__name__)
    return line if len(line) <= 200 else line[:200] + "..."


def check_readable(path: Path) -> Path:
    """Return ``path`` if it is a file with at least one byte.

    Raises:
        ArtifactError: If it is missing, a folder, or empty.
    """
    path = Path(path)
    if not exists(path):
        raise ArtifactError(f"{shown(path)} does not exist.")
    if not path.is_file():
        raise ArtifactError(f"{path} must be a file, but it is a folder.")
    if path.stat().st_size == 0:
        raise ArtifactError(f"{path} is empty. Make it again.")
    return path


def load_npy(path: Path, *, mmap: bool = False) -> npt.NDArray[Any]:
    """Read one array from a ``.npy`` file; pickled objects are refused.

    Raises:
        ArtifactError: If the file is missing, empty, truncated, or no ``.npy`` file.
    """
    path = check_readable(path)
    with path.open("rb") as stream:
        magic = stream.read(6)
    # NumPy is not asked to tell: of what it takes for an archive it leaves the file open.
    if magic.startswith(b"PK"):
        raise ArtifactError(f"{path} must hold one .npy array, but it is an .npz archive.")
    if magic != b"\x93NUMPY":
        raise ArtifactError(f"{path} is no readable .npy file: it does not begin like one.")
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    except UNREADABLE as exc:
        raise ArtifactError(f"{path} is no readable .npy file: {first_line(exc)}") from exc
    return array
