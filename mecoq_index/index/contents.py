"""Names and columns of the items of an index, by id, and which items somebody means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import Ids, distinct_ids
from ..data.metadata import Metadata
from ..errors import InvalidInputError
from .columns import ItemColumns
from .names import Names


@dataclass(frozen=True, eq=False)
class Contents:
    """What items carry beside their codes.

    Attributes:
        names: The names of all items, by id; of length 0 without.
        columns: The columns of all items, by id; of length 0 without.
    """

    names: Names = field(default_factory=lambda: Names.from_strings([]))
    columns: ItemColumns = field(default_factory=ItemColumns.none)

    def check_new(self, new: Metadata) -> None:
        """Refuse new items that do not carry what the others carry.

        Raises:
            InvalidInputError: If so.
        """
        if bool(len(self.names)) != (new.names is not None):
            raise InvalidInputError(
                "the items of this index have names, so new items need names too."
                if len(self.names)
                else "the items of this index have no names, so new items cannot have any."
            )
        if set(self.columns.names) != set(new.columns):
            raise InvalidInputError(
                f"new items must carry the columns {sorted(self.columns.names)}, got "
                f"{sorted(new.columns)}."
            )

    def added(self, new: Metadata, ids: Ids) -> Contents:
        """These and those of new items ``ids``.

        Raises:
            InvalidInputError: If an id or a name is taken.
        """
        names, columns = self.names, self.columns
        if new.names is not None:
            names = names.added(Names.from_strings(new.names, ids))
        if new.columns:
            carried = ItemColumns.from_values(new.columns, ids)
            columns = columns.added(carried) if len(columns) else carried
        return Contents(names, columns)

    def without(self, ids: Ids) -> Contents:
        """These but for the items ``ids``."""
        return Contents(self.names.without(ids), self.columns.without(ids))

    def ids_of(self, items: Sequence[str] | npt.ArrayLike) -> Ids:
        """The ids of items that are given by names or ids, ascending and distinct.

        Raises:
            InvalidInputError: If a name is unknown, or there are no names.
        """
        if isinstance(items, str):
            raise InvalidInputError(
                f"items must be a sequence of names or ids, got one: {items!r}."
            )
        given: list[Any] = list(items)  # type: ignore[arg-type]
        if given and all(isinstance(item, str) for item in given):
            if not len(self.names):
                raise InvalidInputError(
                    "the items of this index have no names. Give their ids as integers."
                )
            return np.unique(self.names.ids_of(given))
        return distinct_ids(given, name="items")[0]

    def check_findable(self, ids: Ids, found: Metadata) -> None:
        """Refuse a source whose rows cannot be told to be the items ``ids``.

        Raises:
            InvalidInputError: If it has neither ids nor, for items with names, names; and items
                are not numbered 0..n-1 without names, as the rows of a source are.
        """
        if found.ids is not None or (found.names is not None and len(self.names)):
            return
        if len(self.names) or not np.array_equal(ids, np.arange(len(ids))):
            what = "names" if len(self.names) else "ids"
            raise InvalidInputError(
                f"the items of this index have {what}, so the source must say the {what} of its "
                "rows too. Give them with ids (--ids), or name their column with id_column "
                "(--id-column)."
            )

    def rows_of(self, ids: Ids, found: Metadata, n: int) -> npt.NDArray[np.intp]:
        """The rows of a source of n items that the items ``ids`` are in.

        Items are found by their names, or by the ids of the source, or are the rows in order, which
        `check_findable` allows for.

        Raises:
            InvalidInputError: If an item is not in the source.
        """
        rows: dict[Any, int]
        wanted: list[Any]
        if found.names is not None and len(self.names):
            rows = {name: row for row, name in enumerate(found.names)}
            wanted = [self.names[int(i)] for i in ids]
        elif found.ids is not None:
            rows, wanted = {int(i): row for row, i in enumerate(found.ids)}, ids.tolist()
        elif n == len(ids):
            return np.arange(len(ids))
        else:
            raise InvalidInputError(
                f"the source must have a row for each of the {len(ids)} items, got {n}."
            )
        if missing := [item for item in wanted if item not in rows]:
            raise InvalidInputError(
                f"all items must be in the source, but {len(missing)} are not, for instance "
                f"{missing[0]!r}."
            )
        return np.array([rows[item] for item in wanted], np.intp)

    def values(self) -> dict[str, list[Any]]:
        """Names (as ``name``) and columns, in the order of ascending ids."""
        named = {"name": list(self.names)} if len(self.names) else {}
        return {**named, **self.columns.of(self.columns.ids)} if len(self.columns) else named
