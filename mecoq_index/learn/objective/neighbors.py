"""Nearest neighbors as positives: items whose frozen features are similar.

Two views of one image teach what augmentation leaves unchanged; a view of a neighbor teaches what
a whole neighborhood shares, and needs no augmentation at all. The graph is built once, with FAISS,
before training.
"""

from __future__ import annotations

import math

import numpy as np

from ..._arrays import Ids, Vectors, check_vectors
from ..._optional import import_faiss
from ...errors import InvalidInputError

EXACT_ROWS = 200_000
"""Up to this many vectors, all pairs are compared; above, an inverted file finds most neighbors."""
_LISTS_VISITED = 16
_BLOCK = 4096


def check_neighbors(k: int, n: int) -> None:
    """Refuse early what `neighbor_graph` cannot do.

    Raises:
        InvalidInputError: If n items have no k neighbors each.
        MissingDependencyError: If FAISS is not installed.
    """
    if not 1 <= k < n:
        raise InvalidInputError(
            f"neighbors must be between 1 and the other items, {n - 1} here; got {k}."
        )
    import_faiss()


def neighbor_graph(x: Vectors, k: int) -> Ids:
    """Find the k nearest other rows of every row, by cosine.

    Args:
        x: float32, shape (n, P).
        k: The number of neighbors of a row, at least 1 and below n.

    Returns:
        int64, shape (n, k), nearest first; -1 where an inverted file finds too few rows, and where
        either of the two rows is zero.

    Raises:
        InvalidInputError: If ``x`` is another kind of array, or has too few rows.
        MissingDependencyError: If FAISS is not installed.
    """
    x = check_vectors(x)
    check_neighbors(k, len(x))
    faiss = import_faiss()
    unit = x.copy()
    faiss.normalize_L2(unit)
    index = faiss.IndexFlatIP(unit.shape[1])
    if len(unit) > EXACT_ROWS:
        lists = int(4 * math.sqrt(len(unit)))
        index = faiss.IndexIVFFlat(index, unit.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
        index.train(unit[:: max(1, len(unit) // (64 * lists))])
        index.nprobe = _LISTS_VISITED
    index.add(unit)
    graph = np.empty((len(unit), k), np.int64)
    for start in range(0, len(unit), _BLOCK):
        _, found = index.search(unit[start : start + _BLOCK], k + 1)
        graph[start : start + _BLOCK] = _without_self(found, start)
    zero = np.logical_not(np.any(x, axis=1))
    if zero.any():
        graph[zero] = -1
        graph[(graph >= 0) & zero[graph]] = -1
    return graph


def _without_self(found: Ids, start: int) -> Ids:
    """Drop each row's own number, or the last number if copies of the row displaced it."""
    own = found == np.arange(start, start + len(found))[:, None]
    own[~own.any(axis=1), -1] = True
    others: Ids = found[~own].reshape(len(found), -1)
    return others


def draw_partners(graph: Ids, share: float, rng: np.random.Generator) -> Ids:
    """Draw the item that gives the second view of each item: a neighbor, or the item itself.

    Args:
        graph: From `neighbor_graph`, (n, k).
        share: The probability of a neighbor, in [0, 1]; the k neighbors are equally likely.
        rng: The source of random numbers.

    Returns:
        int64, shape (n,).
    """
    n, k = graph.shape
    picked: Ids = graph[np.arange(n), rng.integers(k, size=n)]
    return np.where((rng.random(n) < share) & (picked >= 0), picked, np.arange(n))
