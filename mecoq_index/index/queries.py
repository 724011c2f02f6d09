"""Queries as embeddings: one vector or many, images, paths."""

from __future__ import annotations

import numpy as np

from ..codebooks import Codebooks, VectorKind
from ..data.source import Source
from ..embed.embedder import Embedder


class Embedders:
    """Embedders for the settings that were asked for; each keeps its network once it has one.

    Args:
        codebooks: The codebooks.
    """

    def __init__(self, codebooks: Codebooks) -> None:
        self._codebooks = codebooks
        self._made: dict[tuple[object, ...], Embedder] = {}

    def get(
        self,
        given: VectorKind | None,
        backbone: str | None,
        device: str | None,
        workers: int,
        strict: bool,
    ) -> Embedder:
        """The embedder with these settings."""
        key = (given, backbone, device, workers, strict)
        if key not in self._made:
            self._made[key] = Embedder(
                self._codebooks,
                given=given,
                device=device,
                workers=workers,
                strict=strict,
                backbone=backbone,
            )
        return self._made[key]


def as_rows(query: Source) -> Source:
    """A query as a source: one vector (P,) or (D,) becomes one row."""
    if isinstance(query, (np.ndarray, list, tuple)) and len(query):
        numbers = query if isinstance(query, np.ndarray) else None
        if numbers is None and all(isinstance(v, (int, float, np.number)) for v in query):
            numbers = np.asarray(query)
        if numbers is not None and numbers.ndim == 1 and numbers.dtype.kind in "fiu":
            return numbers[None, :]
    return query
