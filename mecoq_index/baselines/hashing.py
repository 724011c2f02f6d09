"""Binary hashing: a linear map, the sign of each coordinate, Hamming distance.

The four methods differ in the map only: random directions (LSH), principal components (PCA-sign),
principal components after a random rotation (PCA-RR), and after the rotation that signs distort
least (ITQ). The maps are FAISS's. Many items tie in Hamming distance, and FAISS breaks ties by row,
so the rows must be in random order; `mecoq_index.bench.runner` shuffles them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from .._arrays import Vectors, check_k
from .._optional import import_faiss
from ..engines.hits import Hits
from ..errors import InvalidInputError
from .base import unit_rows


class SignHash(ABC):
    """Packed signs of a linear map, in a flat binary index.

    Args:
        transform: A trained ``faiss.LinearTransform`` from P to ``bits`` coordinates.
        mean: float32, shape (1, P); subtracted from unit vectors first.
        bits: Number of bits, a multiple of 8.
    """

    name: ClassVar[str]

    def __init__(self, transform: Any, mean: Vectors, bits: int) -> None:
        self._transform = transform
        self._mean = mean
        self._index = import_faiss().IndexBinaryFlat(bits)

    @classmethod
    def fit(cls, x: Vectors, bits: int, *, seed: int = 0) -> SignHash:
        """Fit the map to ``x`` (n, P); ``bits`` must be a multiple of 8 and at most P.

        Raises:
            InvalidInputError: If ``bits`` does not fit, or there are fewer than 2 vectors.
        """
        x = unit_rows(x)
        if bits % 8 or not 8 <= bits <= x.shape[1]:
            raise InvalidInputError(
                f"bits must be a multiple of 8 between 8 and the vectors' width {x.shape[1]}, "
                f"got {bits}."
            )
        if len(x) < 2:
            raise InvalidInputError(f"{cls.name} is fitted to at least 2 vectors, got {len(x)}.")
        mean = x.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
        transform = cls._make(x.shape[1], bits, seed)
        if not transform.is_trained:
            transform.train(x - mean)
        return cls(transform, mean, bits)

    @classmethod
    @abstractmethod
    def _make(cls, width: int, bits: int, seed: int) -> Any:
        """The untrained FAISS transform from ``width`` to ``bits`` coordinates."""

    def encode(self, x: Vectors) -> npt.NDArray[np.uint8]:
        """Packed signs of vectors (n, P): uint8, shape (n, bits / 8)."""
        projected = self._transform.apply(unit_rows(x) - self._mean)
        return np.packbits(projected > 0, axis=1)

    def add(self, x: Vectors) -> None:
        """Encode and store vectors (n, P) under the next row numbers."""
        self._index.add(self.encode(x))

    def search(self, q: Vectors, k: int) -> Hits:
        """The k nearest rows in Hamming distance; the score is the number of equal bits.

        Missing results are -1 and -inf.
        """
        distances, ids = self._index.search(self.encode(q), check_k(k))
        scores = (self._index.d - distances).astype(np.float32)
        scores[ids < 0] = -np.inf
        return Hits(scores, ids)

    @property
    def bytes_per_vector(self) -> float:
        """Bits / 8."""
        return float(self._index.d / 8)


class LSH(SignHash):
    """Signs of random orthonormal directions around the mean."""

    name = "LSH"

    @classmethod
    def _make(cls, width: int, bits: int, seed: int) -> Any:
        rotation = import_faiss().RandomRotationMatrix(width, bits)
        rotation.init(seed + 1)
        return rotation


class PCASign(SignHash):
    """Signs of the leading principal components."""

    name = "PCA-sign"

    @classmethod
    def _make(cls, width: int, bits: int, seed: int) -> Any:
        return import_faiss().PCAMatrix(width, bits)


class PCARotation(SignHash):
    """Signs of the leading principal components after a random rotation."""

    name = "PCA-RR"

    @classmethod
    def _make(cls, width: int, bits: int, seed: int) -> Any:
        return import_faiss().PCAMatrix(width, bits, 0, True)


class ITQ(SignHash):
    """Signs of the principal components under the rotation that signs distort least.

    Source: Gong and Lazebnik, Iterative Quantization, 2011.
    """

    name = "ITQ"

    @classmethod
    def _make(cls, width: int, bits: int, seed: int) -> Any:
        transform = import_faiss().ITQTransform(width, bits, True)
        transform.itq.seed = seed + 1
        return transform
