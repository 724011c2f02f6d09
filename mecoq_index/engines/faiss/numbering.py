"""Ids of new items: free ones, or the caller's if they are new."""

from __future__ import annotations

import numpy as np

from ..._arrays import Ids, check_ids
from ...errors import InvalidInputError
from .inject import Layers
from .items import item_ids
from .spec import FactorySpec


class Numbering:
    """Gives ids to the items of an index, and no id twice.

    Args:
        layers: The index.
        spec: What it is made of.
    """

    def __init__(self, layers: Layers, spec: FactorySpec) -> None:
        self._layers, self._spec = layers, spec
        self._next: int | None = None

    def free(self) -> int:
        """The number after the largest id so far, as far as this object has seen."""
        if self._next is None:
            self._next = int(item_ids(self._layers).max(initial=-1)) + 1
        return self._next

    def note(self, ids: Ids | range) -> None:
        """Remember that items with these ids were added."""
        if len(ids):
            largest = ids[-1] if isinstance(ids, range) else int(ids.max())
            self._next = max(self._next or 0, largest + 1)

    def of_new(self, ids: Ids | range | None, n: int, held: int) -> Ids | range:
        """The ids of n new items.

        Args:
            ids: The caller's; None for the next free numbers.
            n: Number of new items.
            held: Number of items so far.

        Raises:
            InvalidInputError: If ids are malformed or taken, or the index numbers items itself.
        """
        if not self._spec.keeps_ids:
            rows = range(held, held + n)
            if ids is not None and not np.array_equal(check_ids(np.asarray(ids), n), rows):
                raise InvalidInputError(
                    f"{self._spec} numbers its items itself, so ids must be {held}..{held + n - 1}."
                    f" Use '{self._spec},IDMap2' for ids of your own."
                )
            return rows
        free = self.free()
        if ids is None:
            if free + n > 2**63:
                raise InvalidInputError(
                    f"no {n} numbers are free after the largest id, {free - 1}. Give ids."
                )
            return range(free, free + n)
        if isinstance(ids, range):
            if len(ids) == n and ids.step == 1 and ids.start >= free:
                return ids
            ids = np.asarray(ids, np.int64)
        ids = check_ids(ids, n)
        if n and ids.min() >= free:
            return ids
        if len(taken := np.intersect1d(ids, item_ids(self._layers))):
            raise InvalidInputError(
                f"ids must be new, but {len(taken)} are taken already, for instance {taken[0]}. "
                "Remove them first to replace them."
            )
        return ids
