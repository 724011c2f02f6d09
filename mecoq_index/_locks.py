"""Locks between programs that write one place.

A lock is a file that stays where it is, locked by the system, which frees it when its holder ends,
however that happens. Some network file systems have no such locks. There a mark takes their place,
a file that only one program can create: it is as safe, but stays when its holder is killed. Then it
must be removed by hand, as the message says.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ._reading import open_own
from .errors import ArtifactError

_log = logging.getLogger("mecoq_index")

MARK = ".held"
"""What the name of a mark has in addition to that of its lock."""

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
_BUSY = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES}
_PAUSE = 0.05


@contextmanager
def locked(path: Path, *, what: Path, seconds: float = 0) -> Iterator[None]:
    """Hold a lock while the block runs.

    Args:
        path: The lock file; made if it is missing, never through a link.
        what: The place that the lock is for, which messages name.
        seconds: How long to wait for another program.

    Raises:
        ArtifactError: If another program holds the lock, or the lock file is no file.
        FileNotFoundError: If the folder is missing, or another program removes it meanwhile.
    """
    deadline = time.monotonic() + seconds
    while (descriptor := _acquired(path)) is None:
        if time.monotonic() > deadline:
            raise _busy(path, what)
        time.sleep(_PAUSE)
    try:
        if descriptor < 0:
            yield
            return
        mark = path.with_name(path.name + MARK)
        if os.path.lexists(mark):  # another machine has no locks here
            raise _busy(path, what)
        yield
    finally:
        if descriptor < 0:
            with suppress(OSError):
                path.with_name(path.name + MARK).unlink()
        else:
            os.close(descriptor)


def _acquired(path: Path) -> int | None:
    """The descriptor of the locked file, -1 if there is a mark instead; None if it is taken."""
    descriptor = open_own(path, os.O_RDWR | os.O_CREAT, hard_links=True)
    try:
        if not _lock(descriptor):
            os.close(descriptor)
            return None
    except OSError as exc:
        os.close(descriptor)
        if exc.errno not in _NO_LOCKS:
            exc.filename = str(path)
            raise
        return _mark(path, exc)
    # Its last holder may have removed the file after it was opened here: then it locks nothing.
    try:
        same = os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        same = False
    if not same:
        os.close(descriptor)
        return _acquired(path)
    return descriptor


def _lock(descriptor: int) -> bool:
    """Whether the system has locked the file for us."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno in _BUSY:
            return False
        raise
    return True


def _mark(path: Path, why: OSError) -> int | None:
    mark = path.with_name(path.name + MARK)
    try:
        descriptor = os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return None
    try:
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    except OSError:
        mark.unlink()
        raise
    finally:
        os.close(descriptor)
    _log.warning(
        "the file system has no locks here (%s), so %s marks that a program is writing; remove it "
        "if this program is killed.",
        os.strerror(why.errno or 0),
        mark,
    )
    return -1


def _busy(path: Path, what: Path) -> ArtifactError:
    mark, holder = path.with_name(path.name + MARK), ""
    with suppress(ArtifactError, OSError):
        with os.fdopen(open_own(mark, os.O_RDONLY), "rb") as stream:
            text = stream.read(200).decode("ascii", "replace").strip()
        holder = f" It left {mark} ({text!r}): if it no longer runs, remove that file."
    return ArtifactError(
        f"another program is at work in {what}. Try again when it is done.{holder}"
    )
