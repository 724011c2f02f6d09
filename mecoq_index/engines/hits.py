"""What a search returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import Ids, Scores


@dataclass(frozen=True, eq=False)
class Hits:
    """Search results, best first; ``scores, ids = hits`` unpacks them.

    Attributes:
        scores: float32, shape (nq, k), AQS; larger is better, -inf where a result is missing.
        ids: int64, shape (nq, k), -1 where a result is missing.
        fields: For each query, the columns of each result by name, without entries for missing
            results. Empty where the engine holds no columns or none were asked for.
    """

    scores: Scores
    ids: Ids
    fields: Sequence[Sequence[Mapping[str, Any]]] = ()

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        """Scores, then ids: the order of ``faiss.Index.search``."""
        return iter((self.scores, self.ids))

    @classmethod
    def empty(cls, nq: int, k: int) -> Hits:
        """Hits in which every result is missing."""
        return cls(np.full((nq, k), -np.inf, np.float32), np.full((nq, k), -1, np.int64))


@dataclass(frozen=True, eq=False)
class RangeHits:
    """All items above a threshold: those of query i are ``limits[i]:limits[i + 1]``, best first.

    Attributes:
        limits: int64, shape (nq + 1,).
        scores: float32, shape (limits[-1],), AQS.
        ids: int64, shape (limits[-1],).
    """

    limits: Ids
    scores: Scores
    ids: Ids
