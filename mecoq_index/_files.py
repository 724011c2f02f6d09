"""Outputs that are either whole or absent: write beside, sync, rename.

A crash at any moment leaves the old file, the new file, or a temporary one whose name starts with
a dot and ends in ``.partial``; never a half-written output under the name the user asked for. What
is left of a folder is removed when it is written again; of a single file it stays.

Every file is made under a name that did not exist, and takes its own name by being renamed, so that
nothing is ever written through a link, or into a file that somebody else put there.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ._addresses import check_no_address, shown
from ._locks import MARK, locked
from ._reading import kind_of
from ._system_errors import named, named_as, named_inside
from .errors import ArtifactError, InvalidInputError

_LOCK = ".lock"
LOCKS = (_LOCK, _LOCK + MARK)
"""Files held in a temporary folder for as long as somebody writes it."""
_NO_NAMES = {errno.ENAMETOOLONG, errno.ELOOP}  # nothing can be called so, or a ring of links
_CANNOT_SYNC_FOLDERS = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    is_folder = path.is_dir()
    if sys.platform == "win32" and is_folder:
        return  # folders cannot be opened there
    descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as exc:
        # Network file systems that have no such call for folders write their names at once.
        if not (is_folder and exc.errno in _CANNOT_SYNC_FOLDERS):
            exc.filename = str(path)
            raise
    finally:
        os.close(descriptor)


def check_output(path: Path, *, overwrite: bool, folder: bool = False) -> None:
    """Refuse an output that could not be written, before any work is done for it.

    Args:
        path: The output.
        overwrite: Whether one that is there may be replaced.
        folder: Whether it is a folder, not a file.

    Raises:
        InvalidInputError: If its name or its folder cannot be, or something is there that may not
            be replaced: anything without ``overwrite``; a link, or what is neither file nor folder,
            in any case.
        OSError: If the system lets nobody write there.
    """
    check_place(path)
    if path.is_symlink():
        raise InvalidInputError(
            f"{path} must not be a link, but it leads to {os.readlink(path)!r}. Outputs are not "
            "written through links: give the name of the file or folder itself."
        )
    if path.exists():
        if not overwrite:
            raise _already_there(path)
        if path.is_dir() != folder or not (folder or path.is_file()):
            wanted = "folder" if folder else "file"
            raise InvalidInputError(
                f"{path} is {kind_of(path.stat())}, but a {wanted} is to be written there."
            )
    check_writable(path if folder and path.exists() else path.parent)


def check_writable(folder: Path) -> None:
    """Refuse a folder in which nothing can be made.

    Raises:
        PermissionError: If the system lets nobody write there.
    """
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def check_place(path: Path) -> None:
    """Refuse a name that nothing can be written to.

    Raises:
        InvalidInputError: If it is none, is an address or too long, or its folder does not exist.
    """
    check_no_address(path)
    if path.name in ("", ".."):
        raise InvalidInputError(
            f"an output must have a name of its own, got {str(path)!r}. Say what to call it."
        )
    if not path.parent.is_dir():
        raise InvalidInputError(
            f"the folder {shown(path.parent)} does not exist. Create it before writing {path.name} "
            "there."
        )
    size, most = len(os.fsencode(path.name)), _longest_name(path.parent)
    if size > most:
        raise InvalidInputError(
            f"a file name may have at most {most} bytes here, but {path.name!r} has {size}. Choose "
            "a shorter one."
        )


def _longest_name(folder: Path) -> int:
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):
        return 255


def beside(path: Path, end: str) -> Path:
    """The hidden name beside an output that ends so; of a long name it has the beginning."""
    return path.with_name(_hidden(path, len(end)) + end)


def _hidden(path: Path, room: int) -> str:
    """A dot and the name, shortened where that and ``room`` bytes more would be too much."""
    encoded, most = os.fsencode(path.name), _longest_name(path.parent) - 1 - room
    if len(encoded) <= most:
        return f".{path.name}"
    digest = hashlib.sha256(encoded).hexdigest()[:16]
    return f".{encoded[: most - len(digest)].decode('utf-8', 'ignore')}{digest}"


_PARTIAL = ".{}.partial"
_PARTIAL_BYTES = len(_PARTIAL.format("0" * 12))


def _partial_of(path: Path) -> Path:
    return beside(path, _PARTIAL.format(secrets.token_hex(6)))


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; when the block succeeds, it becomes ``path``.

    Raises:
        InvalidInputError: If the parent folder does not exist or ``path`` is a folder.
        OSError: If the system refuses; the error names ``path``, also where the code in the block
            raised another one.
    """
    with atomic_files(path) as (partial,):
        yield partial


@contextmanager
def atomic_files(
    *paths: Path, on_complete: Callable[[tuple[Path, ...]], None] | None = None
) -> Iterator[tuple[Path, ...]]:
    """Yield a temporary path for each of several; when the block succeeds, they become these.

    All are complete before the first one gets its name, so that a full disk leaves none of them.

    Args:
        paths: The files, in the order in which they get their names.
        on_complete: Called with the temporary paths when all are on disk.

    Raises:
        InvalidInputError: If a parent folder does not exist or one of ``paths`` is a folder.
        OSError: As for `atomic_file`.
    """
    paths = tuple(map(Path, paths))
    for path in paths:
        check_place(path)
        if path.is_dir():
            raise InvalidInputError(f"{path} is a folder, but a file is to be written there.")
    partials = tuple(map(_partial_of, paths))
    try:
        with named_as(dict(zip(partials, paths, strict=True))):
            for partial in partials:
                partial.touch(exist_ok=False)
            yield partials
            for partial in partials:
                sync(partial)
            if on_complete is not None:
                on_complete(partials)
            for partial, path in zip(partials, paths, strict=True):
                os.replace(partial, path)
            for folder in {path.parent for path in paths}:
                sync(folder)
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; when the block succeeds, it becomes ``path``.

    Raises:
        InvalidInputError: If ``path`` exists, or its parent does not.
        OSError: If the system refuses; the error names ``path`` or a file in it.
    """
    path = Path(path)
    check_place(path)
    if os.path.lexists(path):
        raise _already_there(path)
    _remove_abandoned(path)
    partial = _partial_of(path)
    try:
        with named(path):
            partial.mkdir()
        with locked(partial / _LOCK, what=path), named_inside(partial, path):
            yield partial
            for file in sorted(partial.rglob("*")):
                sync(file)
            sync(partial)
            move_directory(partial, path)
            for name in LOCKS:  # they have come along
                (path / name).unlink(missing_ok=True)
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
        if os.path.lexists(path):
            raise _already_there(path) from exc
        raise
    sync(path.parent)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it; links in it are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _already_there(path: Path) -> InvalidInputError:
    return InvalidInputError(
        f"{path} exists already. Choose another name, or allow replacing it with --overwrite."
    )


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary folders of ``path`` that killed writers have left."""
    ours = re.escape(_hidden(path, _PARTIAL_BYTES)) + r"\.[0-9a-f]{12}\.partial"
    for left in path.parent.iterdir():
        if not re.fullmatch(ours, left.name) or left.is_symlink() or not left.is_dir():
            continue
        if (left / _LOCK).is_file():
            with suppress(ArtifactError, OSError), locked(left / _LOCK, what=left):
                shutil.rmtree(left)
        else:
            with suppress(OSError):
                left.rmdir()  # the first thing made is the lock
