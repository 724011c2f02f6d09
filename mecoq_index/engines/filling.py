"""Codes in memory, handed to a builder."""

from __future__ import annotations

import numpy as np

from .._arrays import Codes, Ids
from .._progress import Progress, silent
from .base import Batch, Builder, Columns, Engine

_ADDED_AT_A_TIME = 1 << 16


def fill(
    builder: Builder,
    codes: Codes,
    ids: Ids | range,
    columns: Columns | None = None,
    on_progress: Progress = silent,
) -> Engine:
    """Train a builder, if it wants that, give it all codes, and return its engine.

    Args:
        builder: A new builder.
        codes: uint8, shape (n, M).
        ids: int64, shape (n,), or a range of n.
        columns: Values that the items carry, n each; for engines that store columns.
        on_progress: Called with (text, done, total).

    Raises:
        InvalidInputError: If there are too few codes, or ids or columns do not fit.
        ServerError: If what holds the items is out of reach, refuses, or fails.
    """
    n = len(codes)
    if runs := builder.rows_to_train_on(n):
        sample = np.concatenate([codes[first:last] for first, last in runs])
        builder.train(sample, on_progress)
    for at in range(0, n, _ADDED_AT_A_TIME):
        some = slice(at, at + _ADDED_AT_A_TIME)
        carried = {name: values[some] for name, values in (columns or {}).items()}
        builder.add(Batch(codes[some], ids[some], builder.place(codes[some]), carried))
        on_progress("adding", min(some.stop, n), n)
    return builder.finish(on_progress)
