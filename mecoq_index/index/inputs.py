"""Items on their way into an index: a source, and what the caller says of its items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.metadata import as_ids_or_names
from ..data.source import ImageItems, Source, VectorItems, open_source
from ..errors import InvalidInputError
from .columns import Columns

Items = VectorItems | ImageItems


def open_items(
    source: Source,
    *,
    ids: npt.ArrayLike | str | Path | None = None,
    names: Sequence[str] | None = None,
    columns: Sequence[str] | Columns = (),
    vector_column: str | None = None,
    id_column: str | None = None,
) -> Items:
    """The items of a source, with the ids, names and columns that the caller gives.

    Args:
        source: As `open_source` takes it.
        ids: Integers (n,), or n names, or a file of either; those of the source if None.
        names: n names; those of the source if None.
        columns: Names of a table's columns, or values (n,) by name, added to those of the source.
        vector_column: For tables: the column of vectors.
        id_column: For tables: the column of ids or names.

    Raises:
        InvalidInputError: If there is not one of each for each item, or the source is of no kind
            that is known.
        ArtifactError: If a file is missing, damaged, or of another kind.
    """
    given = columns if isinstance(columns, Mapping) else {}
    items = open_source(
        source,
        vector_column=vector_column,
        id_column=id_column,
        columns=() if isinstance(columns, Mapping) else tuple(columns),
    )
    if ids is None and names is None and not given:
        return items
    metadata = items.metadata
    if ids is not None:
        numbers, called = as_ids_or_names(ids)
        metadata = replace(
            metadata, ids=numbers, names=metadata.names if called is None else called
        )
    if names is not None:
        if isinstance(names, str):
            raise InvalidInputError(f"names must be a sequence of strings, got one: {names!r}.")
        metadata = replace(metadata, names=list(names))
    if given:
        metadata = replace(metadata, columns={**metadata.columns, **_arrays(given)})
    return items.with_metadata(metadata)


def _arrays(columns: Columns) -> dict[str, npt.NDArray[Any]]:
    """Columns as arrays; text as arrays of objects, which keep strings of any length."""
    arrays = {}
    for name, values in columns.items():
        array = np.asarray(values)
        arrays[name] = np.array(list(values), object) if array.dtype.kind == "U" else array
    return arrays
