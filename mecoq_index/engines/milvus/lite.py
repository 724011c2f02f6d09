"""Files of milvus-lite, which are folders: what may be opened as one.

Milvus-lite makes itself at home in any folder that it is given, so others are refused first. It
also trusts what it finds: links and names of files lead it out of the folder, functions send texts
and keys to the servers that they name, and indexes are read by FAISS, which follows the paths in
them. Whoever names a milvus-lite file says that it may be trusted. An index folder, which may come
from anybody, leads only to one that lies inside or beside it, and only if nothing in that leads out
of it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..._addresses import exists, shown
from ..._json import read_json
from ..._optional import require
from ...errors import ArtifactError, InvalidInputError
from .lite_graph import is_plain_graph

_LOCK, _COLLECTIONS = "LOCK", "collections"
_FIRST_ENTRIES = {_LOCK, _COLLECTIONS, "databases", ".database-staging"}
# Indexes that milvus-lite reads without FAISS.
_PLAIN_INDEXES = (".flat.idx", ".brute_force.idx", ".sparse_inverted_index.idx", ".sidx")
_GRAPH = ".hnsw.idx"
_INDEX = (".idx", ".sidx")
# Anything else is data, which pyarrow reads.
_DESCRIPTION = (".json", ".json.prev")
_LEADS_OUT = re.compile(r"[/\\]|[A-Za-z]:|(?:.*[/\\])?\.\.(?:[/\\]|$)", re.DOTALL)
_FUNCTIONS = "functions"  # the key in the description of a collection; absent without any
_NAME_IT = "If you know and trust the file, name it yourself, with --uri (in Python uri=...)."


def check_file(path: Path) -> Path:
    """Return the absolute path of a milvus-lite file, which need not exist.

    Raises:
        InvalidInputError: If its folder does not exist, or something else has its name.
        MissingDependencyError: If milvus-lite is not installed.
    """
    require("milvus_lite", extra="milvus-lite", purpose="a Milvus in a file")
    path = path.absolute()
    if not path.parent.is_dir():
        raise InvalidInputError(f"the folder {shown(path.parent)} does not exist. Create it first.")
    if os.path.lexists(path) and not _is_lite(path):
        raise InvalidInputError(
            f"{path} exists and is no data of milvus-lite 3 or later. Choose another name."
        )
    return path


def _is_lite(path: Path) -> bool:
    """Whether milvus-lite made a folder, or has begun to."""
    if not path.is_dir():
        return False
    names = set(os.listdir(path))
    if {_LOCK, _COLLECTIONS} <= names:
        return (path / _LOCK).is_file() and (path / _COLLECTIONS).is_dir()
    return bool(names) and names <= _FIRST_ENTRIES


def to_stored(path: Path, file: Path) -> str:
    """The path of a milvus-lite file as a file of an index folder tells it.

    Args:
        path: The milvus-lite file.
        file: The file of the index folder.

    Returns:
        A path relative to the index folder, with slashes, if it lies inside or beside that, so that
        both can be moved together; else the absolute path.
    """
    real = path.resolve()
    folder = file.parent.resolve()
    if real.parent == folder:
        return real.name
    if real.parent == folder.parent:
        return f"../{real.name}"
    return str(path)


def from_stored(uri: str, file: Path) -> Path:
    """The milvus-lite file that a file of an index folder names.

    Args:
        uri: What it is called there.
        file: The file that says so.

    Raises:
        InvalidInputError: If it lies elsewhere than inside or beside the index folder, is not
            there, or something in it may lead out of it.
    """
    folder = file.parent.resolve()
    path = folder / uri
    if not uri.isprintable() or path.resolve().parent not in (folder, folder.parent):
        raise InvalidInputError(
            f"{file} names the Milvus {uri[:200]!r}, which lies neither inside nor beside its "
            f"folder. {_NAME_IT}"
        )
    if not exists(path):
        raise InvalidInputError(
            f"there is no Milvus at {path.resolve()}, which {file} names. {_NAME_IT}"
        )
    path = check_file(path.resolve())
    if doubtful := next(_doubtful(path), None):
        raise InvalidInputError(
            f"{path}, which {file} names, holds {doubtful}: opening it may lead elsewhere. "
            f"{_NAME_IT}"
        )
    return path


def _doubtful(path: Path) -> Iterator[str]:
    """What is in a milvus-lite file that may lead out of it, in words."""
    for inside in sorted(path.iterdir()):
        mode = inside.lstat().st_mode
        if stat.S_ISDIR(mode):
            yield from _doubtful(inside)
        elif not stat.S_ISREG(mode):
            yield f"{inside.name!r}, a link or a special file"
        elif inside.name.endswith(_INDEX) and not inside.name.endswith(_PLAIN_INDEXES):
            if not (inside.name.endswith(_GRAPH) and is_plain_graph(inside)):
                yield f"{inside.name!r}, an index of an unusual form"
        elif inside.name.endswith(_DESCRIPTION) and not _stays_inside(inside):
            yield f"{inside.name!r}, which names files elsewhere or functions"


def _stays_inside(file: Path) -> bool:
    """Whether no text in a JSON file can be a path out of its folder, and no function is in it."""
    try:
        texts = list(_texts(read_json(file, links=False)))
    except ArtifactError:
        return False
    return not any(map(_LEADS_OUT.match, texts)) and _FUNCTIONS not in texts


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
