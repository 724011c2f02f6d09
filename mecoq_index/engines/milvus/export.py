"""Hand an index over to Milvus: files for its bulk import, from whatever engine holds the codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..._arrays import Ids
from ...names import Names
from ..base import Engine
from .bulk import Rows, rows_per_group, write_rows
from .profiles import get_profile

NAME = "name"


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
        names: What items are called, which becomes the text column ``name``; empty for none.
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
        columns = {NAME: [names[i] for i in part.tolist()]} if len(names) else {}
        yield Rows(engine.codes(part), part, columns)
