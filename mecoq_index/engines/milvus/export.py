"""Hand an index over to Milvus: files for its bulk import, from whatever engine holds the codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..._arrays import Ids
from ..base import Engine
from .bulk import Rows, rows_per_group, write_rows
from .engine import MilvusEngine
from .profiles import get_profile
from .schema import ID, Columns

NAME = "name"


class Names(Sized, Protocol):
    """What items are called, by id; of length 0 for items without names."""

    def __getitem__(self, id: int, /) -> str: ...


def export_engine(
    folder: str | Path,
    engine: Engine,
    names: Names,
    *,
    profile: str = "exact",
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write the items of an engine as parquet files, in the order of their ids.

    Args:
        folder: The folder to make, see `mecoq_index.engines.milvus.bulk`.
        engine: The engine.
        names: What items are called, which becomes the text column ``name``; empty for none. Of
            items in Milvus the columns are kept.
        profile: In which form Milvus is to store them.
        overwrite: Whether an older export may be replaced.
        on_progress: Told items written and items in all.

    Returns:
        What the note in the folder says.

    Raises:
        InvalidInputError: If there is no such profile, Milvus cannot hold a name, or the folder
            must not be replaced.
        MissingDependencyError: If pyarrow is not installed.
    """
    form = get_profile(profile, engine.codebooks)
    ids = np.sort(engine.ids())
    return write_rows(
        folder,
        form,
        _batches(engine, names, ids, rows_per_group(form)),
        overwrite=overwrite,
        on_written=None if on_progress is None else lambda done: on_progress(done, len(ids)),
    )


def _batches(engine: Engine, names: Names, ids: Ids, size: int) -> Iterator[Rows]:
    for at in range(0, len(ids), size):
        part = ids[at : at + size]
        yield Rows(engine.codes(part), part, _columns(engine, names, part))


def _columns(engine: Engine, names: Names, ids: Ids) -> Columns:
    """The items' names; of items that are in Milvus already, what else their rows hold."""
    if len(names):
        return {NAME: [names[i] for i in ids.tolist()]}
    if not isinstance(engine, MilvusEngine) or not (fields := engine.collection.columns()):
        return {}
    rows = {row[ID]: row for row in engine.collection.fields(ids, fields)}
    return {field: [rows[i][field] for i in ids.tolist()] for field in fields}
