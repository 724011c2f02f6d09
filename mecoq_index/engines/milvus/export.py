"""Files for Milvus's bulk import, from the items of any engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..._arrays import Ids
from ..._progress import Progress, silent
from ...codebooks import Codebooks
from ...errors import InvalidInputError
from ..base import Batch, Columns, Engine
from .bulk import rows_per_group, write_rows
from .collection import MilvusCollection
from .profiles import get_profile
from .schema import ID


def export_items(
    folder: Path,
    codebooks: Codebooks,
    source: Engine | None,
    columns: Columns,
    *,
    stored: MilvusCollection | None = None,
    profile: str = "exact",
    overwrite: bool = False,
    on_progress: Progress = silent,
    **profile_options: Any,
) -> dict[str, Any]:
    """Write the items of an engine as parquet files, by ascending ids.

    Args:
        folder: The folder to make, see `mecoq_index.engines.milvus.bulk`.
        codebooks: The codebooks of the items.
        source: The engine that holds the items.
        columns: Columns of the items, in the order of ascending ids.
        stored: The collection of the items if they are in Milvus; its columns are kept.
        profile: The form in which Milvus is going to store codes.
        overwrite: Whether an older export may be replaced.
        on_progress: Called with ("writing", items written, items in all).
        profile_options: Options of the profile, such as ``precision``; None for the default.

    Returns:
        The note in the folder, ``schema.json``.

    Raises:
        InvalidInputError: If there is no source, an option is malformed, there is not one value of
            a column for each item, Milvus cannot hold a column, or the folder must not be replaced.
        MissingDependencyError: If pyarrow is not installed.
    """
    if source is None:
        raise InvalidInputError("source must be an index whose items are exported, got none.")
    given = {name: value for name, value in profile_options.items() if value is not None}
    form = get_profile(profile, codebooks, **given)
    ids = np.sort(source.ids())
    for name, values in columns.items():
        if len(values) != len(ids):
            raise InvalidInputError(
                f"column {name!r} must have one value per item, {len(ids)} in all, got "
                f"{len(values)}."
            )
    return write_rows(
        folder,
        form,
        _batches(source, columns, stored, ids, rows_per_group(form)),
        overwrite=overwrite,
        on_written=lambda done: on_progress("writing", done, len(ids)),
    )


def _batches(
    source: Engine, columns: Columns, stored: MilvusCollection | None, ids: Ids, size: int
) -> Iterator[Batch]:
    for at in range(0, len(ids), size):
        some = ids[at : at + size]
        given = {name: values[at : at + size] for name, values in columns.items()}
        yield Batch(source.codes(some), some, None, {**_stored_columns(stored, some), **given})


def _stored_columns(stored: MilvusCollection | None, ids: Ids) -> Columns:
    """The columns of items that are in Milvus already."""
    if stored is None or not (names := stored.columns()):
        return {}
    rows = {row[ID]: row for row in stored.fields(ids, names)}
    return {name: [rows[i][name] for i in ids.tolist()] for name in names}
