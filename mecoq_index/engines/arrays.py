"""Codes in plain arrays with an id per row: what engines without an index library share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .._array_file import open_archive
from .._arrays import Codes, Ids, Vectors, check_codes, check_ids, distinct_ids
from .._files import atomic_file
from .._progress import Progress, silent
from ..codebooks import Codebooks
from ..errors import ArtifactError, InvalidInputError
from .base import Batch, Engine, Option, UntrainedBuilder
from .hits import Hits


class CodeArray:
    """n codes (n, M) and their ids (n,), in the order in which they were added."""

    def __init__(self, codebooks: Codebooks) -> None:
        self.codebooks = codebooks
        self.codes: Codes = np.empty((0, codebooks.M), np.uint8)
        self.ids: Ids = np.empty(0, np.int64)
        self._next_id = 0

    def __len__(self) -> int:
        return len(self.codes)

    def add(self, codes: Codes, ids: Ids | None) -> None:
        """Append codes under ``ids``, or under the numbers after the largest id so far.

        Raises:
            InvalidInputError: If codes or ids are malformed, or an id is taken.
        """
        codes = check_codes(codes, self.codebooks.M, self.codebooks.K)
        if ids is None:
            ids = np.arange(self._next_id, self._next_id + len(codes), dtype=np.int64)
        ids = check_ids(ids, len(codes))
        if len(taken := np.intersect1d(ids, self.ids)):
            raise InvalidInputError(
                f"ids must be new, but {len(taken)} are taken already, for instance {taken[0]}. "
                "Remove them first to replace them."
            )
        self.codes = np.concatenate([self.codes, codes])
        self.ids = np.concatenate([self.ids, ids])
        self._next_id = max(self._next_id, int(ids.max(initial=-1)) + 1)

    def remove(self, ids: Ids) -> int:
        """Remove the rows with these ids; return how many there were."""
        leaving = np.isin(self.ids, check_ids(ids, len(ids)))
        self.codes, self.ids = self.codes[~leaving], self.ids[~leaving]
        return int(leaving.sum())

    def codes_of(self, ids: Ids) -> Codes:
        """The codes (n, M) of the items with these ids, which may repeat.

        Raises:
            InvalidInputError: If ids are malformed, or no item has one of them.
        """
        wanted, places = distinct_ids(ids)
        order = np.argsort(self.ids)
        rows = np.searchsorted(self.ids, wanted, sorter=order)
        if len(missing := np.setdiff1d(wanted, self.ids)):
            raise InvalidInputError(
                f"ids must be those of items, but {len(missing)} are not, for instance "
                f"{missing[0]}."
            )
        found: Codes = self.codes[order[rows]][places]
        return found

    def save(self, path: Path) -> None:
        """Write an ``.npz`` of codes, ids and the codebooks' fingerprint."""
        with atomic_file(Path(path)) as partial, partial.open("wb") as stream:
            np.savez(
                stream,
                codes=self.codes,
                ids=self.ids,
                fingerprint=np.array(self.codebooks.fingerprint),
            )

    @classmethod
    def load(cls, path: Path, codebooks: Codebooks) -> CodeArray:
        """Read what `save` wrote.

        Raises:
            ArtifactError: If the file is damaged, or belongs to other codebooks.
        """
        with open_archive(Path(path), what="file of codes") as archive:
            codes, ids, fingerprint = archive["codes"], archive["ids"], str(archive["fingerprint"])
        if fingerprint != codebooks.fingerprint:
            raise ArtifactError(
                f"{path} was built with other codebooks ({fingerprint[:12]}) than the ones given "
                f"({codebooks.fingerprint[:12]}). Search it with its own."
            )
        array = cls(codebooks)
        try:
            array.add(codes, ids)
        except InvalidInputError as exc:
            raise ArtifactError(f"{path} is damaged: {exc}") from exc
        return array


class ArrayEngine(ABC):
    """An engine that scans codes in plain arrays; subclasses say how."""

    name: ClassVar[str]
    file_name: ClassVar[str] = "codes.npz"
    options: ClassVar[Sequence[Option]] = ()
    holds_items: ClassVar[bool] = True
    stores_columns: ClassVar[bool] = False

    def __init__(self, array: CodeArray) -> None:
        self._array = array

    @property
    def codebooks(self) -> Codebooks:
        """The codebooks that the codes belong to."""
        return self._array.codebooks

    @property
    def keeps_ids(self) -> bool:
        """True: items can have ids of one's own."""
        return True

    @abstractmethod
    def search(self, z: Vectors, k: int) -> Hits:
        """The k best items for each raw query (nq, D); missing results are -1 and -inf."""

    def builder_alike(self) -> ArrayBuilder:
        """A builder of an empty engine of this kind."""
        return ArrayBuilder(self.codebooks, type(self))

    def merge_obstacle(self, other: Engine) -> str:
        """Nothing keeps the items of another engine out, if it has the same codebooks."""
        return ""

    def items(self) -> Iterator[Batch]:
        """All items, in the order in which they were added."""
        yield Batch(self._array.codes, self._array.ids)

    def add(self, codes: Codes, ids: Ids | None = None) -> None:
        """Add codes (n, M) under ``ids``, or under the next free numbers.

        Raises:
            InvalidInputError: If codes or ids are malformed, or an id is taken.
        """
        self._array.add(codes, ids)

    def ids(self) -> Ids:
        """The ids of all items, in the order in which they were added."""
        copy: Ids = self._array.ids.copy()
        return copy

    def codes(self, ids: Ids) -> Codes:
        """The codes (n, M) of the items with these ids.

        Raises:
            InvalidInputError: If ids are malformed, or no item has one of them.
        """
        return self._array.codes_of(ids)

    def remove(self, ids: Ids) -> int:
        """Remove the items with these ids; return how many there were."""
        return self._array.remove(ids)

    def save(self, path: Path) -> None:
        """Write codes and ids to one ``.npz`` file."""
        self._array.save(path)

    @property
    def bytes_per_vector(self) -> float:
        """M bytes of code and 8 of id."""
        return self.codebooks.M + 8.0

    def describe(self) -> dict[str, Any]:
        """Plain values for people and logs."""
        return {
            "engine": self.name,
            "items": len(self),
            "exact": True,
            "bytes_per_vector": self.bytes_per_vector,
        }

    def __len__(self) -> int:
        return len(self._array)


class ArrayBuilder(UntrainedBuilder):
    """Gathers codes in memory.

    Args:
        codebooks: The codebooks.
        make: Makes the engine from the array of all codes.
    """

    def __init__(self, codebooks: Codebooks, make: Callable[[CodeArray], ArrayEngine]) -> None:
        self._codebooks, self._make = codebooks, make
        self._codes: list[Codes] = []
        self._ids: list[Ids] = []

    def add(self, batch: Batch) -> None:
        """Take in items."""
        self._codes.append(batch.codes)
        self._ids.append(np.asarray(batch.ids, np.int64))

    def finish(self, on_progress: Progress = silent) -> ArrayEngine:
        """The engine with all items.

        Raises:
            InvalidInputError: If codes or ids are malformed, or an id occurs twice.
        """
        array = CodeArray(self._codebooks)
        if self._codes:
            array.add(np.concatenate(self._codes), np.concatenate(self._ids))
        return self._make(array)
