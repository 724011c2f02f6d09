"""The interface of a baseline: fitted on vectors, filled with vectors, searched with vectors."""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np

from .._arrays import Vectors, check_vectors
from ..engines.hits import Hits


class Baseline(Protocol):
    """A method that is fitted without gradients.

    Vectors are features (n, P). Every baseline scales them to unit length first, so that all
    baselines approximate the cosine.
    """

    name: ClassVar[str]

    @classmethod
    def fit(cls, x: Vectors, bits: int, *, seed: int = 0) -> Baseline:
        """Fit the method to ``x`` (n, P), for codes of ``bits`` bits."""
        ...

    def add(self, x: Vectors) -> None:
        """Encode and store vectors (n, P) under the next row numbers."""
        ...

    def search(self, q: Vectors, k: int) -> Hits:
        """The k best rows for each query (nq, P); scores grow with similarity.

        Missing results are -1 and -inf.
        """
        ...

    @property
    def bytes_per_vector(self) -> float:
        """Bytes of one stored code."""
        ...


def unit_rows(x: Vectors, name: str = "x") -> Vectors:
    """A copy of the rows, scaled to unit length; a row of zeros stays zero.

    Raises:
        InvalidInputError: If ``x`` is not finite float32 of shape (n, P).
    """
    x = check_vectors(x, name=name)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    unit: Vectors = np.divide(x, norms, out=np.zeros_like(x), where=norms > 0)
    return unit
