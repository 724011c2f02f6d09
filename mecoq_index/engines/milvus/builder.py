"""Building a collection from codes that come batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..._arrays import Codes, Ids, as_ids
from ..._progress import Progress, silent
from ...codebooks import Codebooks
from ...errors import InvalidInputError, ServerError
from ..base import Batch, Columns, UntrainedBuilder
from . import codebook_store
from .batches import check_rows
from .collection import MilvusCollection
from .filling import fill_rows
from .profile import Profile
from .verification import Verification, verify

Finished = Callable[[MilvusCollection, Verification], Any]


class MilvusBuilder(UntrainedBuilder):
    """Gathers codes and columns in memory, and fills a collection with them at the end.

    Args:
        target: Connects, and returns the collection to make.
        profile: How the collection stores codes.
        codebooks: The codebooks of the codes.
        finished: Makes the engine from the collection and what verifying it found.
        options: Further arguments of `mecoq_index.engines.milvus.filling.fill_rows`.
    """

    def __init__(
        self,
        target: Callable[[], MilvusCollection],
        profile: Profile,
        codebooks: Codebooks,
        finished: Finished,
        **options: Any,
    ) -> None:
        self._target, self._profile, self._codebooks = target, profile, codebooks
        self._finished, self._options = finished, options
        self._codes: list[Codes] = []
        self._ids: list[Ids] = []
        self._columns: list[Columns] = []

    def add(self, batch: Batch) -> None:
        """Take in items.

        Raises:
            InvalidInputError: If ids or columns do not fit the codes.
        """
        if self._columns and set(self._columns[0]) != set(batch.columns):
            raise InvalidInputError(
                f"all items must have the columns of the first, {sorted(self._columns[0])}, got "
                f"{sorted(batch.columns)}."
            )
        self._ids.append(as_ids(batch.ids, len(batch.codes)))
        self._codes.append(batch.codes)
        self._columns.append(batch.columns)

    def finish(self, on_progress: Progress = silent) -> Any:
        """Fill the collection, store the codebooks beside it, and verify both.

        The collection takes its name only if rows, index and results are as they must be.

        Returns:
            The engine with all items.

        Raises:
            InvalidInputError: If codes, ids or columns are malformed, or the collection exists.
            ServerError: If the server fails, or verifying finds problems.
        """
        codebooks = self._codebooks
        codes = np.concatenate([np.empty((0, codebooks.M), np.uint8), *self._codes])
        ids = np.concatenate([np.empty(0, np.int64), *self._ids])
        # Before connecting, which makes the file of a milvus-lite.
        rows = check_rows(self._profile, codes, ids, _joined(self._columns))
        target = self._target()
        found: list[Verification] = []

        def check(filled: MilvusCollection) -> None:
            on_progress("verifying", 0, 1)
            codebook_store.store(filled.connection, codebooks)
            result = verify(filled, codebooks, expected_rows=len(codes))
            found.append(replace(result, collection=target.name))
            if not result.ok:
                raise ServerError(f"{found[0]} Start again with --overwrite.")
            on_progress("verifying", 1, 1)

        fill_rows(
            target,
            rows,
            has_codebooks=True,
            check=check,
            on_progress=on_progress,
            **self._options,
        )
        return self._finished(target, found[0])


def _joined(parts: Sequence[Columns]) -> Columns:
    joined: dict[str, Any] = {}
    for name in parts[0] if parts else ():
        values = [part[name] for part in parts]
        if all(isinstance(some, np.ndarray) for some in values):
            joined[name] = np.concatenate(values)
        else:
            joined[name] = [value for some in values for value in some]
    return joined
