"""Files that are either whole or absent (write beside, sync, rename), and readers that name them.

A crash at any moment leaves the old file, the new file, or a temporary one whose name starts with
a dot and ends in ``.partial``; never a half-written output under the name the user asked for.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import ArtifactError, InvalidInputError

# What zipfile and NumPy raise when bytes of an archive or of a .npy head were changed.
UNREADABLE = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError),
    *(SyntaxError, TokenError, TypeError, ValueError, struct.error, zipfile.BadZipFile, zlib.error),
)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_parent(path: Path) -> None:
    if not path.parent.is_dir():
        raise InvalidInputError(
            f"the folder {path.parent} does not exist. Create it before writing {path.name} there."
        )


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
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    os.close(descriptor)
    partial = Path(name)
    # mkstemp makes private files; an output obeys the user's umask like any other file.
    umask = os.umask(0)
    os.umask(umask)
    partial.chmod(0o666 & ~umask)
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
    path = Path(path)
    _check_parent(path)
    if path.exists():
        raise InvalidInputError(
            f"{path} exists already. Choose another name, or allow overwriting."
        )
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    umask = os.umask(0)
    os.umask(umask)
    partial.chmod(0o777 & ~umask)
    try:
        yield partial
        for file in sorted(partial.rglob("*")):
            sync(file)
        sync(partial)
        os.replace(partial, path)
        sync(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_readable(path: Path) -> Path:
    """Return ``path`` if it is a file with at least one byte.

    Raises:
        ArtifactError: If it is missing, a folder, or empty.
    """
    path = Path(path)
    if not path.exists():
        raise ArtifactError(f"{path} does not exist.")
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
    try:
        array = np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    except UNREADABLE as exc:
        raise ArtifactError(f"{path} is no readable .npy file: {exc}") from exc
    if not isinstance(array, np.ndarray):
        raise ArtifactError(f"{path} must hold one .npy array, but it is an .npz archive.")
    return array
