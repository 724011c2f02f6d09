"""Product quantization trained for reconstruction (FAISS's PQ and OPQ), and exact floats."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from .._arrays import Vectors, check_k
from .._optional import import_faiss
from ..engines.hits import Hits
from ..errors import InvalidInputError
from .base import unit_rows

_OPQ_SUBVECTOR_WIDTH = 16


class _FloatQueries:
    """A FAISS index over unit vectors, ranked by inner product with the unit query."""

    name: ClassVar[str]

    def __init__(self, index: Any, bytes_per_vector: float) -> None:
        self._index = index
        self._bytes_per_vector = bytes_per_vector

    def add(self, x: Vectors) -> None:
        """Encode and store vectors (n, P) under the next row numbers."""
        self._index.add(unit_rows(x))

    def search(self, q: Vectors, k: int) -> Hits:
        """The k rows with the largest inner product with each unit query.

        Missing results are -1 and -inf.
        """
        scores, ids = self._index.search(unit_rows(q, "q"), check_k(k))
        scores[ids < 0] = -np.inf
        return Hits(scores, ids)

    @property
    def bytes_per_vector(self) -> float:
        """Bytes of one stored code."""
        return self._bytes_per_vector


class PQ(_FloatQueries):
    """Product quantization by k-means, 8 bits per subquantizer (Jegou et al., 2011)."""

    name = "PQ"

    @classmethod
    def fit(cls, x: Vectors, bits: int, *, seed: int = 0) -> PQ:
        """Fit bits / 8 codebooks of 256 codewords; bits / 8 must divide the width P.

        Raises:
            InvalidInputError: If ``bits`` does not fit, or there are fewer than 256 vectors.
        """
        x = unit_rows(x)
        _check_rows(x, 256, f"{cls.name} with 256 codewords a codebook")
        M = _subquantizers(bits)
        if x.shape[1] % M:
            raise InvalidInputError(
                f"PQ splits vectors into bits / 8 = {M} equal parts, but their width is "
                f"{x.shape[1]}. Choose other bits, or OPQ."
            )
        faiss = import_faiss()
        index = faiss.index_factory(x.shape[1], f"PQ{M}x8np", faiss.METRIC_INNER_PRODUCT)
        _prepare(index.pq, seed)
        index.train(x)
        return cls(index, M)


class OPQ(_FloatQueries):
    """Product quantization after a learned rotation (Ge et al., 2013).

    The rotation keeps up to 16 dimensions per subquantizer.
    """

    name = "OPQ"

    @classmethod
    def fit(cls, x: Vectors, bits: int, *, seed: int = 0) -> OPQ:
        """Fit rotation and bits / 8 codebooks of 256 codewords.

        Raises:
            InvalidInputError: If ``bits`` does not fit, or there are fewer than 256 vectors.
        """
        x = unit_rows(x)
        _check_rows(x, 256, f"{cls.name} with 256 codewords a codebook")
        M = _subquantizers(bits)
        width = M * max(1, min(_OPQ_SUBVECTOR_WIDTH, x.shape[1] // M))
        faiss = import_faiss()
        index = faiss.index_factory(
            x.shape[1], f"OPQ{M}_{width},PQ{M}x8np", faiss.METRIC_INNER_PRODUCT
        )
        _prepare(faiss.downcast_index(index.index).pq, seed)
        rotation = faiss.downcast_VectorTransform(index.chain.at(0))
        inner = faiss.ProductQuantizer(width, M, 8)
        _prepare(inner, seed)
        rotation.pq = inner
        index.train(x)
        return cls(index, M)


class ExactCosine(_FloatQueries):
    """The exact cosine of the float vectors, which all other methods approximate."""

    name = "exact cosine"

    @classmethod
    def fit(cls, x: Vectors, bits: int = 0, *, seed: int = 0) -> ExactCosine:
        """Fit nothing; ``bits`` and ``seed`` are ignored."""
        return cls(import_faiss().IndexFlatIP(unit_rows(x).shape[1]), 4.0 * x.shape[1])


def _prepare(pq: Any, seed: int) -> None:
    """Seed the k-means, and silence FAISS's warnings about small data sets on standard output."""
    pq.cp.seed = seed + 1
    pq.cp.min_points_per_centroid = 1


def _check_rows(x: Vectors, least: int, what: str) -> None:
    if len(x) < least:
        raise InvalidInputError(
            f"{what} is fitted to at least {least} vectors, got {len(x)}. Leave it out with "
            "--baseline, or give more."
        )


def _subquantizers(bits: int) -> int:
    if bits < 8 or bits % 8:
        raise InvalidInputError(f"bits must be a positive multiple of 8, got {bits}.")
    return bits // 8
