"""Building an index of FAISS batch by batch: lists first, where there are any, then items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._arrays import Codes, Ids
from ..._progress import Progress, silent
from ...codebooks import Codebooks
from ...errors import InvalidInputError
from ..base import Batch, Engine
from .coarse import assign_lists, make_centroids, sample_runs, set_centroids
from .inject import Layers
from .items import Adder
from .spec import FactorySpec

_CENTROIDS = "centroids"


class FaissBuilder:
    """Fills an empty index.

    Args:
        index: The ``faiss.Index``.
        layers: What it is made of.
        spec: What it was made from.
        codebooks: The codebooks in it.
        seed: Seed of the lists' k-means.
        finished: Gives the engine around the filled index.
    """

    def __init__(
        self,
        index: Any,
        layers: Layers,
        spec: FactorySpec,
        codebooks: Codebooks,
        *,
        seed: int,
        finished: Callable[[], Engine],
    ) -> None:
        self._index, self._layers, self._spec, self._codebooks = index, layers, spec, codebooks
        self._seed, self._finished = seed, finished
        self._adder: Adder | None = None

    @property
    def keeps_ids(self) -> bool:
        """Whether items can have ids of one's own; otherwise they are numbered 0..n-1."""
        return self._spec.keeps_ids

    def check_ids(self, ids: Ids | range) -> None:
        """Refuse ids other than 0..n-1 where the index numbers its items itself.

        Raises:
            InvalidInputError: If so.
        """
        if not self.keeps_ids and not np.array_equal(ids, range(len(ids))):
            raise InvalidInputError(
                f"{self._spec} numbers its items itself, so ids must be their row numbers. "
                f"Use '{self._spec},IDMap2' for ids of your own."
            )

    def rows_to_train_on(self, n: int) -> Sequence[tuple[int, int]]:
        """The rows that lists are made from; none for an index without lists.

        Raises:
            InvalidInputError: If there are fewer rows than lists, or FAISS cannot take the seed.
        """
        return sample_runs(n, self._spec.nlist, self._seed) if self._spec.nlist else ()

    def train(self, codes: Codes, on_progress: Progress = silent) -> Mapping[str, npt.NDArray[Any]]:
        """Make the lists' centroids (nlist, D) from codes (n, M)."""
        trained = {
            _CENTROIDS: make_centroids(
                codes, self._index, self._codebooks, seed=self._seed, on_progress=on_progress
            )
        }
        self.restore(trained)
        return trained

    def restore(self, trained: Mapping[str, npt.NDArray[Any]]) -> None:
        """Make the lists from the centroids that `train` returned."""
        set_centroids(self._index, trained[_CENTROIDS], seed=self._seed)

    def place(self, codes: Codes) -> npt.NDArray[np.int32] | None:
        """The list of each code; None without lists."""
        if not self._spec.nlist:
            return None
        return assign_lists(self._layers.core, codes, self._codebooks).astype(np.int32)

    def add(self, batch: Batch) -> None:
        """Take in items.

        Raises:
            InvalidInputError: If there are no lists yet.
        """
        if self._adder is None:
            self._adder = Adder(self._layers, self._codebooks)
        self._adder.add(batch.codes, batch.ids, lists=batch.places)

    def finish(self, on_progress: Progress = silent) -> Engine:
        """The engine with all items."""
        if self._adder is not None:
            self._adder.finish()
        return self._finished()
