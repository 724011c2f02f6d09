"""Rows in the form that Milvus takes, in requests of a suitable size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._arrays import Codes, Ids, as_ids
from ..base import Columns
from .profile import Profile
from .schema import ID, VECTOR, check_columns

_BYTES = 8 << 20  # of vectors a request; Milvus's own limit is 64 MB
_ROWS = 5000


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows that have been checked.

    Attributes:
        codes: uint8, shape (n, width of a code).
        ids: int64, shape (n,).
        columns: Scalar fields by name, n values each.
    """

    codes: Codes
    ids: Ids
    columns: Mapping[str, npt.NDArray[Any]]

    def part(self, start: int, stop: int) -> Rows:
        """The rows from ``start`` to before ``stop``."""
        columns = {name: values[start:stop] for name, values in self.columns.items()}
        return Rows(self.codes[start:stop], self.ids[start:stop], columns)


def check_rows(
    profile: Profile,
    codes: Codes,
    ids: Ids | range | None = None,
    columns: Columns | None = None,
) -> Rows:
    """Check rows before anything is made for them; ids are 0..n-1 if None.

    Raises:
        InvalidInputError: If codes, ids or columns are malformed.
    """
    codes = profile.check_codes(codes)
    numbers = np.arange(len(codes), dtype=np.int64) if ids is None else as_ids(ids, len(codes))
    return Rows(codes, numbers, check_columns(columns, len(codes)))


def split(profile: Profile, rows: Rows) -> list[Rows]:
    """Divide rows into requests of at most 5,000 rows and 8 MB of vectors."""
    size = max(1, min(_ROWS, _BYTES // (4 * (profile.width or 1))))
    return [rows.part(at, at + size) for at in range(0, len(rows.ids), size)]


def as_entities(profile: Profile, rows: Rows) -> list[dict[str, Any]]:
    """Return one dictionary per row: its id, its vector and its columns, by field."""
    entities = [
        {ID: number, VECTOR: value}
        for number, value in zip(rows.ids.tolist(), profile.documents(rows.codes), strict=True)
    ]
    for name, column in rows.columns.items():
        for entity, value in zip(entities, column.tolist(), strict=True):
            entity[name] = value
    return entities
