"""The reference engine: exact AQS in NumPy, in bounded memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .._arrays import Codes, Ids, Vectors, check_k, check_vectors
from ..codebooks import Codebooks
from ..scoring import aqs
from .code_array import Rows
from .hits import Hits

_CHUNK_SCORES = 1 << 23  # scores held at once; 32 MB


class NumpyEngine:
    """A full scan. Ties are broken by the lower id."""

    name: ClassVar[str] = "numpy"
    file_name: ClassVar[str] = "codes.npz"

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    @property
    def codebooks(self) -> Codebooks:
        """The codebooks that the codes belong to."""
        return self._rows.codebooks

    @classmethod
    def build(cls, codebooks: Codebooks, codes: Codes, ids: Ids | None = None) -> NumpyEngine:
        """An engine that holds ``codes`` (n, M), under ``ids`` (n,) or 0..n-1."""
        engine = cls(Rows(codebooks))
        engine.add(codes, ids)
        return engine

    def add(self, codes: Codes, ids: Ids | None = None) -> None:
        """Add codes (n, M) under ``ids``, or under the next free numbers."""
        self._rows.add(codes, ids)

    def search(self, z: Vectors, k: int) -> Hits:
        """The k best items for each raw query (nq, D); missing results are -1 and -inf."""
        z, k = check_vectors(z, self.codebooks.D, name="z"), check_k(k)
        hits = Hits.empty(len(z), k)
        # Sorting rows by id once lets a stable sort by score break ties by id.
        order = np.argsort(self._rows.ids, kind="stable")
        codes, ids = self._rows.codes[order], self._rows.ids[order]
        step = max(1, _CHUNK_SCORES // max(1, len(codes)))
        for start in range(0, len(z), step):
            scores = aqs(z[start : start + step], codes, self.codebooks)
            best = _largest(scores, k)
            found = best.shape[1]
            hits.scores[start : start + step, :found] = np.take_along_axis(scores, best, axis=1)
            hits.ids[start : start + step, :found] = ids[best]
        return hits

    def ids(self) -> Ids:
        """The ids of all items held, in the order in which they were added."""
        held: Ids = self._rows.ids.copy()
        return held

    def codes(self, ids: Ids) -> Codes:
        """The codes (n, M) of the items with these ids.

        Raises:
            InvalidInputError: If ids are malformed, or one is not held.
        """
        return self._rows.codes_of(ids)

    def remove(self, ids: Ids) -> int:
        """Remove the items with these ids; return how many there were."""
        return self._rows.remove(ids)

    def save(self, path: Path) -> None:
        """Write codes and ids to one ``.npz`` file."""
        self._rows.save(path)

    @classmethod
    def open(cls, path: Path, codebooks: Codebooks) -> NumpyEngine:
        """Read what `save` wrote for the same codebooks."""
        return cls(Rows.load(path, codebooks))

    @property
    def bytes_per_vector(self) -> float:
        """M bytes of code and 8 of id."""
        return self.codebooks.M + 8.0

    def describe(self) -> dict[str, Any]:
        """Plain values for people and logs."""
        return {
            "engine": self.name,
            "items": len(self),
            "exact": True,
            "bytes_per_vector": self.bytes_per_vector,
        }

    def __len__(self) -> int:
        return len(self._rows)


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
