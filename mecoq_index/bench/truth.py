"""True scores: of the best items for each query, and of the items that a search returned."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .._arrays import Codes, Ids, Scores, Vectors
from ..codebooks import Codebooks
from ..scoring import block_normalize, decode

_ROWS_PER_CHUNK = 1 << 14
_QUERIES_PER_CHUNK = 1 << 10


def best_aqs(z: Vectors, codes: Codes, codebooks: Codebooks, k: int) -> Scores:
    """The k largest AQS of each query, best first, in bounded memory.

    Args:
        z: Raw queries, float32, shape (nq, D).
        codes: uint8, shape (n, M).
        codebooks: The learned codebooks.
        k: Scores per query.

    Returns:
        float32, shape (nq, min(k, n)).
    """
    k = min(k, len(codes))
    queries = block_normalize(z, codebooks.M)
    best = np.full((len(z), k), -np.inf, np.float32)
    for start in range(0, len(codes), _ROWS_PER_CHUNK):
        items = decode(codes[start : start + _ROWS_PER_CHUNK], codebooks).T
        for first in range(0, len(z), _QUERIES_PER_CHUNK):
            rows = slice(first, first + _QUERIES_PER_CHUNK)
            both = np.concatenate([best[rows], queries[rows] @ items], axis=1)
            best[rows] = np.partition(both, -k, axis=1)[:, -k:] if k else both[:, :0]
    result: Scores = -np.sort(-best, axis=1)
    return result


def aqs_of(z: Vectors, codes: Codes, codebooks: Codebooks, ids: Ids) -> Scores:
    """The AQS of each query with the items listed for it.

    Args:
        z: Raw queries, float32, shape (nq, D).
        codes: uint8, shape (n, M).
        codebooks: The learned codebooks.
        ids: Rows of ``codes``, int64, shape (nq, k); -1 where a result is missing.

    Returns:
        float32, shape (nq, k); -inf where a result is missing.
    """
    queries = block_normalize(z, codebooks.M)
    return _pairwise(queries, ids, lambda rows: decode(codes[rows], codebooks))


def cosine_of(q: Vectors, database: Vectors, ids: Ids) -> Scores:
    """The cosine of each query with the rows listed for it; 0 for a row of zeros.

    Args:
        q: float32, shape (nq, P).
        database: float32, shape (n, P).
        ids: Rows of ``database``, int64, shape (nq, k); -1 where a result is missing.

    Returns:
        float32, shape (nq, k); -inf where a result is missing.
    """
    return _pairwise(_unit(q), ids, lambda rows: _unit(database[rows]))


def _unit(x: Vectors) -> Vectors:
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    unit: Vectors = np.divide(x, lengths, out=np.zeros_like(x), where=lengths > 0)
    return unit


def _pairwise(queries: Vectors, ids: Ids, items: Callable[[Ids], Vectors]) -> Scores:
    scores = np.full(ids.shape, -np.inf, np.float32)
    for row, (query, listed) in enumerate(zip(queries, ids, strict=True)):
        found = listed >= 0
        scores[row, found] = items(listed[found]) @ query
    return scores
