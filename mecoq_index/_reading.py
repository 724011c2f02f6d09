"""Files that somebody else may have made: what is opened, how much of it, and how damage is named.

Every reader of files goes through here: `check_readable` before it opens one, `open_own` for files
that nobody else may have put there, `check_unpacked` before it takes memory, and `named_damage`
around what reads the bytes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError

from ._addresses import shown
from .errors import ArtifactError, MecoqError, first_line

# What readers of other libraries raise when bytes of a file were changed.
_OF_DAMAGE: tuple[type[BaseException], ...] = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, SyntaxError),
    *(TokenError, TypeError, ValueError, Warning, struct.error, zipfile.BadZipFile, zlib.error),
)
# Errors of the system that bytes of a file can lead to: none, and a place that no file has.
_REASONS_OF_DAMAGE = (None, errno.EINVAL)
_NO_NAMES = {errno.ENAMETOOLONG, errno.ELOOP}  # nothing can be called so, or a ring of links

# A file may unpack to this many times its size, and this many bytes more. Vectors hardly shrink;
# labels, and rows of zeros, do.
_RATIO, _FREE_BYTES = 100, 64 << 20


@contextmanager
def named_damage(what: str, *more: type[BaseException]) -> Iterator[None]:
    """Turn what the bytes of a damaged file lead to in the block into an error that says so.

    Args:
        what: The beginning of the message, which ends with what was raised.
        more: Errors, beside Python's own, that stand for damage.

    Raises:
        ArtifactError: If the block raised such an error.
        OSError, MemoryError: If the system refused, which says nothing about the file.
    """
    try:
        yield
    except MecoqError:
        raise
    except (*_OF_DAMAGE, *more) as exc:
        if isinstance(exc, OSError) and exc.errno not in _REASONS_OF_DAMAGE:
            raise
        raise ArtifactError(f"{what}: {first_line(exc)}") from exc


def check_unpacked(path: Path, size: int, what: str = "it") -> None:
    """Refuse a file that declares much more than it can reasonably hold.

    Args:
        path: The file.
        size: The bytes that its content takes in memory.
        what: The part of the file that takes them, in words.

    Raises:
        ArtifactError: If that is more than a hundred times the size of the file, and 64 MiB.
    """
    there = path.stat().st_size
    if size > _FREE_BYTES + _RATIO * there:
        raise ArtifactError(
            f"{path} has {there:,} bytes, but {what} would unpack to {size:,}, and no more than "
            f"{_RATIO} times the size is read. If you trust it, write it again uncompressed."
        )


def kind_of(found: os.stat_result) -> str:
    """Return what something on disk is, with its article."""
    kinds = [
        (stat.S_ISREG, "a file"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISLNK, "a link"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
    ]
    return next((name for holds, name in kinds if holds(found.st_mode)), "a device")


def _status(path: Path, links: bool) -> os.stat_result | None:
    """Return what the system says of a file; None if there is none.

    An error raised while another is handled carries that one, and its text would be the path.
    """
    try:
        return path.stat() if links else path.lstat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as exc:
        if exc.errno in _NO_NAMES:
            return None
        raise


def check_readable(path: Path, *, links: bool = True) -> Path:
    """Return ``path`` if it is a file with at least one byte.

    Args:
        path: The file.
        links: Whether a link to a file will do. False for files that another file names, or that
            belong to a folder: whoever made these must not choose files elsewhere.

    Raises:
        ArtifactError: If it is missing, empty, or no file.
        OSError: If the system does not let us look.
    """
    path = Path(path)
    found = _status(path, links)
    if found is None:
        raise ArtifactError(f"{shown(path)} does not exist.")
    if not stat.S_ISREG(found.st_mode):
        remedy = " Put a copy of what it leads to in its place." if not links else ""
        remedy = remedy if stat.S_ISLNK(found.st_mode) else ""
        raise ArtifactError(f"{path} must be a file, but it is {kind_of(found)}.{remedy}")
    if found.st_size == 0:
        raise ArtifactError(f"{path} is empty. Make it again.")
    return path


def open_own(
    path: Path, flags: int, *, remedy: str = "Remove it.", hard_links: bool = False
) -> int:
    """Return the descriptor of a file that this package wrote, or makes; links are not followed.

    Args:
        path: The file.
        flags: As ``os.open`` takes them.
        remedy: What to do about a file that is not ours, as a sentence.
        hard_links: Whether it may have other names, which matters for what is written into it.

    Raises:
        ArtifactError: If it is a link or no file, or has another name that it may not have.
        OSError: If the system refuses.
    """
    flags |= (
        getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )
    odd = ArtifactError(f"{path} must be a file of its own, but it is linked or special. {remedy}")
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as exc:
        if exc.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO) or path.is_symlink():
            raise odd from exc
        raise
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or (found.st_nlink > 1 and not hard_links):
        os.close(descriptor)
        raise odd
    return descriptor


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
