"""Fill a collection as a whole: made, loaded, indexed, counted and checked, or not there.

Rows go into a collection beside, whose name ends in ``_unfinished`` and which takes its own name
when it is whole: half a load is never found under the name that others search. A digest of what is
loaded, among its properties, tells an unfinished load of these rows from that of others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._arrays import Codes, Ids, check_ids
from ...errors import InvalidInputError, ServerError
from . import schema
from .collection import MilvusCollection
from .indexing import Progress
from .schema import UNFINISHED, Columns


def check_fill(
    collection: MilvusCollection, *, resume: bool = False, overwrite: bool = False
) -> None:
    """Refuse what `fill` could not make, before any work is done for its rows.

    Raises:
        InvalidInputError: If the server cannot hold the profile, or there is a collection that is
            neither to be resumed nor replaced, or that this package has not made.
        ServerError: If the server fails.
    """
    connection, name = collection.connection, collection.name
    collection.profile.check_server(connection.server)
    beside = collection.renamed(name + UNFINISHED)
    if collection.exists():
        if not (resume or overwrite):
            raise InvalidInputError(
                f"collection {name!r} exists already at {connection.uri}. Choose another name, or "
                "replace it by --overwrite."
            )
        description = schema.describe(connection, name)
        if (real := description["collection_name"]) != name:
            raise InvalidInputError(
                f"{name!r} is an alias of collection {real!r}. Name the collection itself."
            )
        schema.check_made_here(description)
        if not overwrite:
            schema.check(description, collection.profile)
    if beside.exists():
        if not (resume or overwrite):
            raise InvalidInputError(
                f"a load of collection {name!r} was left unfinished at {connection.uri}. Go on by "
                "--resume, or start again by --overwrite."
            )
        description = schema.describe(connection, beside.name)
        schema.check_made_here(description)
        if resume:
            schema.check(description, collection.profile)


def fill(
    collection: MilvusCollection,
    codes: Codes,
    ids: Ids | None = None,
    columns: Columns | None = None,
    *,
    partition: str = "",
    consistency_level: str = "Session",
    resume: bool = False,
    overwrite: bool = False,
    check: Callable[[MilvusCollection], None] | None = None,
    on_progress: Progress | None = None,
) -> None:
    """Make a collection that holds exactly these rows, indexed and loaded.

    Args:
        collection: What to make; it must not exist unless ``resume`` or ``overwrite``.
        codes: uint8, shape (n, width of a code).
        ids: int64, shape (n,); 0..n-1 if None.
        columns: Scalar fields, of n values each.
        partition: The partition that the rows go into; the default one if empty.
        consistency_level: What searches see unless they say otherwise. "Session": what the same
            client has written, at least.
        resume: Go on with what an earlier call with these rows left unfinished; nothing is done if
            it was finished.
        overwrite: Replace a collection of this name. It stays in use until the new one is whole;
            then there is a moment without one. Aliases are kept.
        check: Looks at the new collection before it takes its name; what it raises ends the call.
        on_progress: Told what is done, steps done and steps in all.

    Raises:
        InvalidInputError: If arguments are malformed, the collection exists, or what is to be
            resumed is a load of something else. A collection that this call made is removed.
        ServerError: If the server fails. What was loaded stays, to be resumed.
    """
    schema.check_target(collection.name)
    if partition:
        schema.check_name(partition, "a partition")
    codes = collection.profile.check_codes(codes)
    ids = np.arange(len(codes), dtype=np.int64) if ids is None else check_ids(ids, len(codes))
    checked = schema.check_columns(columns, len(codes))
    check_fill(collection, resume=resume, overwrite=overwrite)
    content = _digest(codes, ids, checked)
    new = collection.renamed(collection.name + UNFINISHED)
    found = new.exists()
    if resume and not found and collection.exists():
        if collection.content() == content:
            collection.make_searchable()
            return
        if not overwrite:
            raise _other_content(collection.name)
    if found and resume:
        new.check()
        if new.content() != content:
            raise _other_content(new.name)
    else:
        if found:
            new.drop()
            found = False
        new.create(checked, consistency_level=consistency_level, content=content)
    try:
        new.insert(
            codes, ids, checked, partition=partition, skip_present=found, on_progress=on_progress
        )
        new.finish(on_progress)
        if (held := len(new)) != len(codes):
            raise ServerError(
                f"collection {new.name!r} holds {held} rows, but {len(codes)} were to be loaded: "
                "somebody else writes to it. Start again by --overwrite."
            )
        if check is not None:
            check(new)
    except InvalidInputError:
        if not found:
            new.drop()
        raise
    _take_name(new, collection)


def _take_name(new: MilvusCollection, collection: MilvusCollection) -> None:
    connection, name = collection.connection, collection.name
    aliases: list[str] = []
    if collection.exists():
        if not connection.server.is_lite:
            aliases = connection.call("list_aliases", collection_name=name)["aliases"]
        for alias in aliases:
            connection.call("drop_alias", alias)
        collection.drop()
    new.rename(name)
    for alias in aliases:
        connection.call("create_alias", name, alias)
    collection.make_searchable()


def _other_content(name: str) -> InvalidInputError:
    return InvalidInputError(
        f"collection {name!r} was filled from something else, so it cannot be resumed. Choose "
        "another name, or start again by --overwrite."
    )


def _digest(codes: Codes, ids: Ids, columns: Mapping[str, npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256(repr(codes.shape).encode())
    digest.update(codes.tobytes())
    digest.update(ids.tobytes())
    for name in sorted(columns):
        digest.update(json.dumps([name, columns[name].tolist()]).encode())
    return digest.hexdigest()
