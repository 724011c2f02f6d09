"""Errors of the system while files are written: each says which file, by the name it is to have."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_PROBE = bytes(1 << 20)
_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Give errors of the system in the block the name of a file, where they have none.

    Raises:
        OSError: As the block did.
    """
    try:
        yield
    except OSError as exc:
        if exc.errno is not None and exc.filename is None:
            exc.filename = str(path)
        raise


@contextmanager
def named_inside(partial: Path, path: Path) -> Iterator[None]:
    """Give errors of the system in the block the names that files in a temporary folder will have.

    Args:
        partial: The temporary folder.
        path: The name that it is to have.

    Raises:
        OSError: As the block did.
    """
    try:
        yield
    except OSError as exc:
        if exc.errno is not None:
            exc.filename = str(exc.filename or path).replace(str(partial), str(path))
            exc.filename2 = None
        raise


@contextmanager
def named_as(files: Mapping[Path, Path]) -> Iterator[None]:
    """Turn errors of writing in the block into those of the system, which name the file to be.

    FAISS and torch raise errors of their own when a disk is full, and NumPy one without a reason.

    Args:
        files: The names that temporary files will have, by those that they have.

    Raises:
        OSError: If the system has refused.
    """
    try:
        yield
    except OSError as exc:
        if exc.errno is None:
            if found := _reason(exc, files):
                raise found from exc
            raise
        names = {str(partial): str(path) for partial, path in files.items()}
        filename = exc.filename if exc.filename is not None else next(iter(names))
        exc.filename, exc.filename2 = names.get(str(filename), filename), None
        raise
    except RuntimeError as exc:
        if found := _reason(exc, files):
            raise found from exc
        raise


def _reason(exc: BaseException, files: Mapping[Path, Path]) -> OSError | None:
    """The error of the system behind another one: it led to it, or it comes again."""
    before = exc.__cause__ or exc.__context__
    while before is not None:
        if isinstance(before, OSError) and before.errno in _OF_WRITING:
            return _error(before.errno, next(iter(files.values())))
        before = before.__cause__ or before.__context__
    for partial, path in files.items():
        try:
            with partial.open("ab") as stream:
                stream.write(_PROBE)
        except OSError as refused:
            return _error(refused.errno, path)
    return None


def _error(reason: int | None, path: Path) -> OSError:
    return OSError(reason, os.strerror(reason or 0), str(path))
