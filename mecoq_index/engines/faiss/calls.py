"""Calls of a FAISS index with NumPy arrays, unaffected by ``import faiss.contrib.torch_utils``.

That import replaces methods of every index in the process: ``search`` and ``range_search`` lose
``params``, and ``reconstruct_n`` returns a tensor. FAISS keeps the replaced methods under their
names with ``_numpy`` at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..._arrays import Ids, Scores, Vectors
from .forking import about_to_work


def search(index: Any, x: Vectors, k: int, params: Any = None) -> tuple[Scores, Ids]:
    """Return scores and ids (n, k) from ``index.search``, with parameters for this call."""
    about_to_work()
    found: tuple[Scores, Ids] = _method(index, "search")(x, k, params=params)
    return found


def range_search(
    index: Any, x: Vectors, threshold: float, params: Any = None
) -> tuple[Ids, Scores, Ids]:
    """Return limits, int64 (n + 1,), scores and ids from ``index.range_search``."""
    about_to_work()
    limits, scores, ids = _method(index, "range_search")(x, threshold, params=params)
    return limits.astype(np.int64), scores, ids


def reconstruct_n(index: Any, start: int, n: int) -> Vectors:
    """Return the vectors (n, d) of n items from ``start`` on."""
    vectors: Vectors = _method(index, "reconstruct_n")(start, n)
    return vectors


def _method(index: Any, name: str) -> Callable[..., Any]:
    method: Callable[..., Any] = getattr(index, f"{name}_numpy", None) or getattr(index, name)
    return method
