"""How many lists to visit: the smallest nprobe that finds enough of what a full scan finds."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ..._arrays import Codes, Ids, Scores, Vectors, as_vectors, check_k
from ...codebooks import Codebooks
from ...errors import InvalidInputError
from ...scoring import aqs, block_normalize
from ..abilities import Tuned
from ..hits import Hits
from .calls import search
from .inject import Layers
from .items import plain_index, read_items
from .layout import pack
from .spec import FactorySpec

_TIE = 1e-5  # scores that differ by less tie


class Searched(Protocol):
    """What tuning needs of an engine of FAISS."""

    spec: FactorySpec
    layers: Layers

    @property
    def codebooks(self) -> Codebooks:
        """The codebooks that the codes belong to."""
        ...

    def search(self, z: Vectors, k: int, *, nprobe: int | None = None) -> Hits:
        """The k best items for each raw query (nq, D)."""
        ...

    def codes(self, ids: Ids) -> Codes:
        """The codes (n, M) of the items with these ids."""
        ...

    def __len__(self) -> int: ...


def tune_nprobe(engine: Searched, z: Vectors, *, recall: float = 0.95, k: int = 10) -> Tuned:
    """Find the smallest nprobe that reaches a recall, against exact AQS over all items.

    Recall is counted by exact AQS, ties within 1e-5 included: the share of hits that score as well
    as the k-th best item of a full scan. It is searched by halving, since it does not fall as
    nprobe grows (but for the rounding of FastScan and lists that a graph misses, which may make it
    waver). The engine is not changed.

    Args:
        engine: An IVF engine.
        z: float32, shape (nq, D), queries like those to come.
        recall: What to reach, above 0 and at most 1.
        k: Results per query that count.

    Returns:
        The nprobe, its recall, and every pair that was measured, ascending.

    Raises:
        InvalidInputError: If the engine is not IVF or empty, arguments are malformed, or visiting
            all lists does not reach the recall (for FastScan's rounding, mostly).
    """
    z, k = as_vectors(z, engine.codebooks.D, name="z"), check_k(k)
    if not 0 < recall <= 1:
        raise InvalidInputError(f"recall must be above 0 and at most 1, got {recall}.")
    if not engine.spec.nlist:
        raise InvalidInputError(f"only IVF has lists to tune, but this is {engine.spec}.")
    if not len(z) or not len(engine):
        raise InvalidInputError(
            f"queries and items are needed to tune, got {len(z)} and {len(engine)}."
        )
    borders = exact_scores(engine, z, min(k, len(engine)))[:, -1]
    seen: dict[int, float] = {}

    def reached(nprobe: int) -> bool:
        if nprobe not in seen:
            hits = engine.search(z, min(k, len(engine)), nprobe=nprobe)
            seen[nprobe] = float((_unrounded(engine, z, hits) >= borders[:, None] - _TIE).mean())
        return seen[nprobe] >= recall

    high = 1
    while not reached(high):
        if high == engine.spec.nlist:
            rounded = engine.spec.fast_scan and not engine.spec.refine
            raise InvalidInputError(
                f"recall must be at most {seen[high]:.4f}, which all {high} lists reach, got "
                f"{recall}. "
                + (
                    "Add ',Refine(MeCoQ)' to the factory string for more."
                    if rounded
                    else "Ask for less."
                )
            )
        high = min(2 * high, engine.spec.nlist)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return Tuned("nprobe", high, seen[high], tuple(sorted(seen.items())))


def _unrounded(engine: Searched, z: Vectors, hits: Hits) -> Scores:
    """The exact AQS of hits; that of FastScan would count items by its rounding."""
    if not engine.spec.fast_scan or engine.spec.refine:
        return hits.scores
    ids, places = np.unique(hits.ids, return_inverse=True)
    found = ids >= 0  # all, or all but the first
    codes = np.zeros((len(ids), engine.codebooks.M), np.uint8)
    codes[found] = engine.codes(ids[found])
    exact = np.empty(hits.scores.shape, np.float32)
    for row, columns in enumerate(places.reshape(hits.ids.shape)):
        exact[row] = aqs(z[row : row + 1], codes[columns], engine.codebooks)
    exact[hits.ids < 0] = -np.inf
    return exact


def exact_scores(engine: Searched, z: Vectors, k: int) -> Scores:
    """The k largest AQS (nq, k) over all items, best first, in bounded memory.

    Args:
        engine: Any engine of FAISS.
        z: float32, shape (nq, D).
        k: At most the number of items.
    """
    queries = block_normalize(z, engine.codebooks.M)
    best = np.empty((len(z), 0), np.float32)
    scan: Any = plain_index(engine.layers)

    def take_in() -> None:
        nonlocal best
        scores, _ = search(scan, queries, min(k, scan.ntotal))
        best = -np.sort(-np.concatenate([best, scores], axis=1), axis=1)[:, :k]
        scan.reset()

    for part in read_items(engine.layers):
        scan.add_sa_codes(pack(part.codes, engine.spec.nbits))
        if scan.ntotal >= 1 << 20:
            take_in()
    if scan.ntotal:
        take_in()
    return best
