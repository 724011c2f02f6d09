"""The reference engine: exact AQS in NumPy, in bounded memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .._arrays import Codes, Ids, Vectors, as_vectors, check_k
from ..codebooks import Codebooks
from ..scoring import aqs
from .arrays import ArrayBuilder, ArrayEngine, CodeArray
from .hits import Hits

_CHUNK_SCORES = 1 << 23  # scores in memory at once; 32 MB


class NumpyEngine(ArrayEngine):
    """A full scan. Ties are broken by the lower id."""

    name: ClassVar[str] = "numpy"

    @classmethod
    def build(cls, codebooks: Codebooks, codes: Codes, ids: Ids | None = None) -> NumpyEngine:
        """An engine that holds ``codes`` (n, M), under ``ids`` (n,) or 0..n-1."""
        engine = cls(CodeArray(codebooks))
        engine.add(codes, ids)
        return engine

    @classmethod
    def builder(cls, codebooks: Codebooks, items: int) -> ArrayBuilder:
        """A builder; any number of items will do."""
        return ArrayBuilder(codebooks, cls)

    @classmethod
    def open(cls, path: Path, codebooks: Codebooks) -> NumpyEngine:
        """Read what `save` wrote for the same codebooks."""
        return cls(CodeArray.load(path, codebooks))

    def search(self, z: Vectors, k: int) -> Hits:
        """The k best items for each raw query (nq, D); missing results are -1 and -inf."""
        z, k = as_vectors(z, self.codebooks.D, name="z"), check_k(k)
        hits = Hits.empty(len(z), k)
        # Sorting rows by id once lets a stable sort by score break ties by id.
        order = np.argsort(self._array.ids, kind="stable")
        codes, ids = self._array.codes[order], self._array.ids[order]
        step = max(1, _CHUNK_SCORES // max(1, len(codes)))
        for start in range(0, len(z), step):
            scores = aqs(z[start : start + step], codes, self.codebooks)
            best = _largest(scores, k)
            found = best.shape[1]
            hits.scores[start : start + step, :found] = np.take_along_axis(scores, best, axis=1)
            hits.ids[start : start + step, :found] = ids[best]
        return hits


def _largest(scores: np.ndarray[Any, np.dtype[np.float32]], k: int) -> Ids:
    """Columns of the k largest scores of every row, best first, ties by the lower column."""
    n = scores.shape[1]
    if k >= n:
        return np.argsort(-scores, axis=1, kind="stable")
    # argpartition picks arbitrarily among ties at the border; take everything that reaches it.
    border = np.partition(scores, n - k, axis=1)[:, n - k]
    result = np.empty((len(scores), k), np.int64)
    for row, threshold in enumerate(border):
        candidates = np.flatnonzero(scores[row] >= threshold)
        ranked = np.argsort(-scores[row, candidates], kind="stable")
        result[row] = candidates[ranked[:k]]
    return result
