"""Any number of rows, grown from real ones.

There are 50,000 real embeddings here, and the questions of speed are about millions. A new row is a
convex mixture of a real row, the larger part, and one of its ten nearest neighbours, plus noise of
a fraction of the gap between the two. So it lies where real rows lie, close to them where they are
dense and far where they are sparse, and belongs to the class of the row that it mostly is.

Uniform or Gaussian random rows would mislead. They have no neighbourhoods: all pairs are about
equally far apart, so an inverted file must look into most of its lists to find anything, a graph
has nothing to follow, and how many results an index finds says nothing about real data. Their codes
are all different and all equally likely, while real codes repeat and crowd some lists, which is
what a scan, a heap of results, and the longest list have to cope with.

A chunk depends on the real rows, the seed and its number alone, so any chunk can be made by itself,
in any order, in the memory of one chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mecoq_index._arrays import Codes, Ids, Scores, Vectors
from mecoq_index.codebooks import Codebooks
from mecoq_index.engines.faiss.inject import import_faiss
from mecoq_index.scoring import block_normalize, encode

if TYPE_CHECKING:
    from trained import Trained

CHUNK = 2**17
NEIGHBOURS = 10
NOISE = 0.5


class Growth:
    """An endless set of rows with the neighbourhoods of ``real``.

    Args:
        real: float32, shape (m, D), m above `NEIGHBOURS`. Not copied.
        seed: Another seed grows other rows.
        noise: Length of the noise, as a fraction of the gap between the two mixed rows.
    """

    def __init__(self, real: Vectors, *, seed: int = 0, noise: float = NOISE) -> None:
        index = import_faiss().IndexFlatL2(real.shape[1])
        index.add(real)
        _, found = index.search(real, NEIGHBOURS + 1)
        self._real = real
        self._neighbours = _without_self(found)
        self._seed = seed
        self._noise = noise

    def _recipe(self, number: int) -> tuple[np.random.Generator, Ids]:
        rng = np.random.default_rng([self._seed, number])
        return rng, rng.integers(len(self._real), size=CHUNK)

    def parents(self, number: int) -> Ids:
        """The real row that each row of a chunk mostly is, int64 (CHUNK,)."""
        return self._recipe(number)[1]

    def chunk(self, number: int) -> Vectors:
        """Rows number * CHUNK up to (number + 1) * CHUNK, float32 (CHUNK, D)."""
        rng, parents = self._recipe(number)
        which = rng.integers(NEIGHBOURS, size=CHUNK)
        share = rng.random((CHUNK, 1), np.float32) / 2
        gap = self._real[self._neighbours[parents, which]]
        gap -= self._real[parents]
        lengths = np.linalg.norm(gap, axis=1, keepdims=True)
        rows = rng.standard_normal(gap.shape, np.float32)
        rows *= lengths * np.float32(self._noise / gap.shape[1] ** 0.5)
        gap *= share
        rows += gap
        rows += self._real[parents]
        return rows

    def rows(self, n: int) -> Iterator[tuple[int, Vectors]]:
        """The first n rows in chunks, each with the number of its first row."""
        for number, start in enumerate(range(0, n, CHUNK)):
            yield start, self.chunk(number)[: n - start]

    def labels(self, n: int, real_labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The classes of the first n rows, given those of the real ones."""
        chunks = [real_labels[self.parents(number)] for number in range(-(-n // CHUNK))]
        return np.concatenate(chunks)[:n]


def _without_self(found: Ids) -> Ids:
    """Drop each row itself from its list, or the last entry where copies of it push it out."""
    itself = found == np.arange(len(found))[:, None]
    itself[~itself.any(axis=1), -1] = True
    return found[~itself].reshape(len(found), NEIGHBOURS)


def write_codes(
    path: Path, growth: Growth, codebooks: Codebooks, n: int, *, threads: int = 2
) -> None:
    """Write the codes of the first n rows to an ``.npy`` file, uint8 (n, M), chunk by chunk."""
    codes = np.lib.format.open_memmap(path, "w+", np.uint8, (n, codebooks.M))

    def write_chunk(number: int) -> None:
        start = number * CHUNK
        codes[start : start + CHUNK] = encode(growth.chunk(number)[: n - start], codebooks)

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(write_chunk, range(-(-n // CHUNK))):
            pass
    codes.flush()


class GrownSpace:
    """The embedding space of one book, with items and queries grown in it.

    Args:
        source: The book with real rows.
        queries: How many queries, and as many others again, held back to choose settings with.
        seed: As for `Growth`. The same seed in another space grows from the same real rows.
        recall_at: How many true neighbours of each query to keep.

    Attributes:
        books: The codebooks.
        growth: What the items come from.
        queries: float32, (queries, D), grown from held-out rows, raw.
        held: float32, (queries, D), others.
        query_labels: Classes of the queries.
        codes: uint8, (n, M), of the items; after `fill`, as what follows.
        labels: uint8, (n,), classes of the items.
        truth: int64, (queries, recall_at), the items with the largest inner product between
            block-normalised vectors, best first.
    """

    codes: Codes
    labels: npt.NDArray[np.uint8]
    truth: Ids

    def __init__(self, source: Trained, *, queries: int, seed: int, recall_at: int) -> None:
        self.books = source.codebooks
        self.growth = Growth(source.items, seed=seed)
        self._item_labels = source.item_labels
        self._recall_at = recall_at
        asked = Growth(source.queries, seed=seed + 1)
        grown = asked.chunk(0)
        self.queries, self.held = grown[:queries].copy(), grown[queries : 2 * queries].copy()
        self.query_labels = asked.labels(queries, source.query_labels)

    def unit(self, z: Vectors) -> Vectors:
        """Block-normalised vectors."""
        return block_normalize(z, self.books.M)

    def sample(self, rows: int) -> Vectors:
        """The first rows, block-normalised."""
        return self.unit(np.concatenate([chunk for _, chunk in self.growth.rows(rows)]))

    def fill(self, n: int, takers: Sequence[Callable[[Vectors], None]] = ()) -> None:
        """Grow n items once, in the memory of a chunk, and show them to ``takers``."""
        self.codes = np.empty((n, self.books.M), np.uint8)
        self.labels = self.growth.labels(n, self._item_labels).astype(np.uint8)
        queries = self.unit(self.queries)
        best = np.full((len(queries), 0), -np.inf, np.float32), np.empty((len(queries), 0), int)
        for start, rows in self.growth.rows(n):
            unit = self.unit(rows)
            self.codes[start : start + len(unit)] = encode(unit, self.books)
            best = self._merge(best, unit, queries, start)
            for take in takers:
                take(unit)
        self.truth = best[1]

    def _merge(
        self, best: tuple[Scores, Ids], rows: Vectors, queries: Vectors, start: int
    ) -> tuple[Scores, Ids]:
        """The best of what was found before and of the rows from ``start`` on."""
        faiss = import_faiss()
        found = faiss.knn(queries, rows, self._recall_at, metric=faiss.METRIC_INNER_PRODUCT)
        scores, ids = np.hstack([best[0], found[0]]), np.hstack([best[1], found[1] + start])
        order = np.argsort(-scores, axis=1, kind="stable")[:, : self._recall_at]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1)
