"""Fill a collection as a whole: made, loaded, indexed and counted, or resumed, or not there."""

from __future__ import annotations

import numpy as np

from ..._arrays import Codes, Ids
from ...errors import InvalidInputError, ServerError
from . import schema
from .collection import MilvusCollection, Progress
from .schema import Columns

_UNFINISHED = "_unfinished"


def check_fill(
    collection: MilvusCollection, *, resume: bool = False, overwrite: bool = False
) -> None:
    """Refuse what `fill` could not make, before any work is done for its rows.

    Raises:
        InvalidInputError: If the server cannot hold the profile, or there is a collection that is
            neither to be resumed nor replaced, or that this package has not made.
        ServerError: If the server fails.
    """
    collection.profile.check_server(collection.connection.server)
    if overwrite:
        for old in (collection, collection.renamed(collection.name + _UNFINISHED)):
            if old.exists():
                schema.check_made_here(schema.describe(old.connection, old.name))
    elif not resume:
        collection.check_free()
    elif collection.exists():
        collection.check()


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
        resume: Go on with a collection that an earlier call with these rows left unfinished.
        overwrite: Replace a collection of this name. It stays in use until the new one is whole.
        on_progress: Told what is done, steps done and steps in all.

    Raises:
        InvalidInputError: If arguments are malformed, the collection exists, or the one that is
            resumed was filled from something else. A collection that this call made is removed.
        ServerError: If the server fails. What was loaded stays, to be resumed.
    """
    check_fill(collection, resume=resume, overwrite=overwrite)
    codes = collection.profile.check_codes(codes)
    ids = np.arange(len(codes), dtype=np.int64) if ids is None else ids
    checked = schema.check_columns(columns, len(codes))
    beside = collection.renamed(collection.name + _UNFINISHED)
    left = overwrite and beside.exists()
    # An earlier call may have ended between dropping the old collection and renaming the new one.
    replaces = overwrite and (collection.exists() or (left and resume))
    new = beside if replaces else collection
    if left and not resume:
        beside.drop()
    found = new.exists()
    if found and resume:
        new.check()
    else:
        new.create(checked, consistency_level=consistency_level)
    try:
        new.insert(
            codes, ids, checked, partition=partition, skip_present=found, on_progress=on_progress
        )
        new.finish(on_progress)
        if (held := len(new)) != len(codes):
            raise ServerError(
                f"collection {new.name!r} holds {held} rows, but {len(codes)} were to be loaded: "
                "somebody else writes to it, or it was filled from something else. Choose "
                "another name, or replace it by --overwrite."
            )
    except InvalidInputError:
        if not found:
            new.drop()
        raise
    if replaces:
        if collection.exists():
            collection.drop()
        new.rename(collection.name)
        collection.make_searchable()
