"""Fill a collection completely (rows, index, checks), or leave none behind.

Rows first go into a collection whose name ends in ``_unfinished``. It is renamed when it is
complete, so that nobody ever searches half a load. A digest of the rows, among its properties,
distinguishes an unfinished load of the same rows from others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from ..._arguments import check_known
from ..._arrays import Codes, Ids
from ..._progress import Progress, silent
from ...errors import InvalidInputError, ServerError
from ..base import Columns
from . import schema
from .answers import reading
from .batches import Rows, check_rows
from .collection import MilvusCollection
from .options import CONSISTENCY_LEVELS
from .schema import UNFINISHED


def check_fill(
    collection: MilvusCollection, *, resume: bool = False, overwrite: bool = False
) -> None:
    """Refuse the collections that `fill` would refuse, before any work is done for their rows.

    Raises:
        InvalidInputError: If the server cannot hold the profile, or the collection exists and may
            neither be resumed nor replaced, or another program made it.
        ServerError: If the server fails.
    """
    schema.check_target(collection.name)
    connection, name = collection.connection, collection.name
    collection.profile.check_server(connection.server)
    beside = collection.renamed(name + UNFINISHED)
    if collection.exists():
        if not (resume or overwrite):
            raise InvalidInputError(
                f"collection {name!r} exists already at {connection.uri}. Choose another name, or "
                "allow replacing it with --overwrite."
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
                f"a load of collection {name!r} was left unfinished at {connection.uri}. Continue "
                "with --resume, or start again with --overwrite."
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
    **options: Any,
) -> None:
    """Make a collection that holds exactly these rows, indexed and loaded.

    Args:
        collection: The collection to make; it must not exist unless ``resume`` or ``overwrite``.
        codes: uint8, shape (n, width of a code).
        ids: int64, shape (n,); 0..n-1 if None.
        columns: Scalar fields, of n values each.
        options: As `fill_rows` takes them; it also says what is raised.
    """
    rows = check_rows(collection.profile, codes, ids, columns)
    fill_rows(collection, rows, **options)


def check_settings(partition: str, consistency_level: str) -> None:
    """Refuse settings that Milvus does not take, before anything is made.

    Raises:
        InvalidInputError: If the partition cannot have its name, or there is no such level.
    """
    if partition:
        schema.check_name(partition, "a partition")
    check_known([consistency_level], CONSISTENCY_LEVELS, what="consistency level")


def fill_rows(
    collection: MilvusCollection,
    rows: Rows,
    *,
    partition: str = "",
    consistency_level: str = "Session",
    resume: bool = False,
    overwrite: bool = False,
    has_codebooks: bool = False,
    check: Callable[[MilvusCollection], None] | None = None,
    on_progress: Progress = silent,
) -> None:
    """Make a collection that holds exactly these rows, indexed and loaded.

    Args:
        collection: The collection to make; it must not exist unless ``resume`` or ``overwrite``.
        rows: The rows.
        partition: The partition that the rows go into; the default one if empty.
        consistency_level: Which changes by other clients searches see unless they say otherwise.
            With "Session" a client sees at least its own.
        resume: Continue an earlier call with the same rows that was interrupted; do nothing if it
            was finished.
        overwrite: Replace a collection of this name. It stays in use until the new one is complete;
            then there is a moment without one. Aliases are kept.
        has_codebooks: Whether ``check`` stores the codebooks beside the collection.
        check: Called with the complete collection before it takes its name, or with the one that
            ``resume`` found finished. An error that it raises ends this call.
        on_progress: Called with (a few words, steps done, steps in all).

    Raises:
        InvalidInputError: If the collection exists, or the load to resume was one of other rows. A
            collection that this call made is removed.
        ServerError: If the server fails. Loaded rows stay, so that the load can be resumed.
    """
    check_settings(partition, consistency_level)
    check_fill(collection, resume=resume, overwrite=overwrite)
    content = _digest(rows)
    new = collection.renamed(collection.name + UNFINISHED)
    found = new.exists()
    if resume and not found and collection.exists():
        if collection.content() == content:
            collection.make_searchable()
            if check is not None:
                check(collection)
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
        new.create(
            rows.columns,
            consistency_level=consistency_level,
            content=content,
            has_codebooks=has_codebooks,
        )
    try:
        new.insert(
            rows.codes,
            rows.ids,
            rows.columns,
            partition=partition,
            skip_present=found,
            on_progress=on_progress,
        )
        new.finish(on_progress)
        if (held := len(new)) != len(rows.ids):
            raise ServerError(
                f"collection {new.name!r} must hold the {len(rows.ids)} rows that were loaded, but "
                f"holds {held}: another program writes to it. Start again with --overwrite."
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
            answer = connection.call("list_aliases", collection_name=name)
            with reading(connection, "a list of aliases"):
                aliases = [str(alias) for alias in answer["aliases"]]
        for alias in aliases:
            connection.call("drop_alias", alias)
        collection.drop()
    new.rename(name)
    for alias in aliases:
        connection.call("create_alias", name, alias)
    collection.make_searchable()


def _other_content(name: str) -> InvalidInputError:
    return InvalidInputError(
        f"collection {name!r} was filled from other rows, so it cannot be resumed. Choose another "
        "name, or start again with --overwrite."
    )


def _digest(rows: Rows) -> str:
    digest = hashlib.sha256(repr(rows.codes.shape).encode())
    digest.update(rows.codes.tobytes())
    digest.update(rows.ids.tobytes())
    for name in sorted(rows.columns):
        digest.update(json.dumps([name, rows.columns[name].tolist()]).encode())
    return digest.hexdigest()
