"""Values that items carry beside their codes, by id: years, labels, titles."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._array_file import open_archive
from .._arrays import Ids
from .._files import atomic_file
from .._json import parse_json
from ..errors import ArtifactError, InvalidInputError
from .texts import check_array, check_offsets, encode, iterate, take

Values = npt.NDArray[Any]  # (n,) int64, float64 or bool
Columns = Mapping[str, Sequence[Any] | Values]
"""Columns as a caller gives them: n values each, by name."""

_LARGEST_INTEGER = 2**63 - 1
_RESERVED = ("id", "name", "score", "vector")


@dataclass(frozen=True, eq=False)
class _Texts:
    """A column of text."""

    offsets: npt.NDArray[np.int64]
    text: npt.NDArray[np.uint8]

    def take(self, rows: npt.NDArray[np.int64]) -> _Texts:
        return _Texts(*take(self.offsets, self.text, rows))

    def after(self, other: _Texts) -> _Texts:
        offsets = np.concatenate([other.offsets, self.offsets[1:] + other.offsets[-1]])
        return _Texts(offsets, np.concatenate([other.text, self.text]))

    def tolist(self) -> list[str]:
        return list(iterate(self.offsets, self.text))


@dataclass(frozen=True, eq=False)
class ItemColumns:
    """Columns of n items. Make them with `from_values` or `load`.

    Attributes:
        ids: int64, shape (n,), ascending.

    Raises:
        InvalidInputError: If the columns do not fit the ids.

    Example:
        >>> import numpy as np
        >>> columns = ItemColumns.from_values({"year": [1999, 2020]}, np.array([7, 3]))
        >>> columns[7]
        {'year': 1999}
    """

    ids: Ids
    _columns: Mapping[str, Values | _Texts] = field(default_factory=dict)

    @classmethod
    def from_values(cls, values: Columns, ids: Ids) -> ItemColumns:
        """Columns of the items ``ids`` (n,), in any order, whose values are given in that order.

        Raises:
            InvalidInputError: If a column has another length, a name that is taken, or values that
                are not all integers, floats, booleans or strings.
        """
        rows = np.argsort(ids, kind="stable")
        columns: dict[str, Values | _Texts] = {}
        for name, given in values.items():
            columns[name] = _taken(_column(name, given, len(ids)), rows)
        return cls(ids[rows], columns)

    @classmethod
    def load(cls, path: Path) -> ItemColumns:
        """Read what `save` wrote.

        Raises:
            ArtifactError: If the file is missing, damaged, or holds no columns.
        """
        try:
            with open_archive(path, what="file of columns") as archive:
                ids = archive["ids"]
                check_array("ids", ids, np.int64)
                if (ids[1:] <= ids[:-1]).any():
                    raise InvalidInputError("ids must ascend, but they do not.")
                columns: dict[str, Values | _Texts] = {}
                for place, name in enumerate(parse_json(archive["names"].tobytes())):
                    if f"{place}.values" in archive:
                        values = _column(str(name), archive[f"{place}.values"], len(ids))
                        columns[str(name)] = values
                        continue
                    texts = _Texts(archive[f"{place}.offsets"], archive[f"{place}.text"])
                    check_array("offsets", texts.offsets, np.int64)
                    check_array("text", texts.text, np.uint8)
                    check_offsets(texts.offsets, texts.text, len(ids))
                    columns[str(name)] = texts
                return cls(ids, columns)
        except InvalidInputError as exc:
            raise ArtifactError(f"{path} is damaged: {exc}") from exc

    def save(self, path: Path) -> None:
        """Write an uncompressed ``.npz``; equal columns give equal bytes."""
        arrays: dict[str, npt.NDArray[Any]] = {"ids": self.ids}
        arrays["names"] = np.frombuffer(json.dumps(list(self._columns)).encode(), np.uint8)
        for place, column in enumerate(self._columns.values()):
            if isinstance(column, _Texts):
                arrays[f"{place}.offsets"], arrays[f"{place}.text"] = column.offsets, column.text
            else:
                arrays[f"{place}.values"] = column
        with atomic_file(path) as partial, partial.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]

    @classmethod
    def none(cls) -> ItemColumns:
        """Columns of no items."""
        return cls(np.empty(0, np.int64))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self._columns)

    def __len__(self) -> int:
        """Number of items with columns; 0 where there are no columns."""
        return len(self.ids) if self._columns else 0

    def __getitem__(self, id: int) -> dict[str, Any]:
        """The values of one item, by column; empty if there are no columns.

        Raises:
            InvalidInputError: If no item has this id.
        """
        if not self._columns:
            return {}
        return {name: values[0] for name, values in self.of(np.array([id], np.int64)).items()}

    def of(self, ids: Ids) -> dict[str, list[Any]]:
        """The values of the items ``ids`` (n,), by column.

        Raises:
            InvalidInputError: If no item has one of the ids.
        """
        rows = np.searchsorted(self.ids, ids)
        rows[rows == len(self)] = 0
        if len(self) == 0 or (self.ids[rows] != ids).any():
            raise InvalidInputError("ids must be those of items with columns, but some are not.")
        return {name: _taken(column, rows).tolist() for name, column in self._columns.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def of_ids(self, ids: Ids) -> ItemColumns:
        """The columns of those of ``ids``, ascending, that have them."""
        rows = np.flatnonzero(np.isin(self.ids, ids))
        columns = {name: _taken(column, rows) for name, column in self._columns.items()}
        return ItemColumns(self.ids[rows], columns)

    def added(self, other: ItemColumns) -> ItemColumns:
        """These columns and those of ``other``, whose items are new.

        Raises:
            InvalidInputError: If the columns have other names or types.
        """
        if set(self._columns) != set(other._columns):
            raise InvalidInputError(
                f"new items must carry the columns {sorted(self._columns)}, got "
                f"{sorted(other._columns)}."
            )
        ids = np.concatenate([self.ids, other.ids])
        rows = np.argsort(ids, kind="stable")
        joined: dict[str, Values | _Texts] = {}
        for name, mine in self._columns.items():
            theirs = other._columns[name]
            if isinstance(mine, _Texts) and isinstance(theirs, _Texts):
                joined[name] = theirs.after(mine).take(rows)
            elif _kind(mine) != _kind(theirs):
                raise InvalidInputError(
                    f"column {name!r} must hold values of one type, but new items bring another."
                )
            else:
                joined[name] = np.concatenate([mine, theirs])[rows]
        return ItemColumns(ids[rows], joined)

    def without(self, ids: Ids) -> ItemColumns:
        """These columns but for the items ``ids``; ids without columns are passed over."""
        return self.of_ids(np.setdiff1d(self.ids, ids))


def _kind(column: Values | _Texts) -> str:
    return "text" if isinstance(column, _Texts) else column.dtype.kind


def _taken(column: Values | _Texts, rows: npt.NDArray[np.int64]) -> Values | _Texts:
    return column.take(rows) if isinstance(column, _Texts) else column[rows]


def _column(name: str, given: Sequence[Any] | Values, n: int) -> Values | _Texts:
    """A column of int64, float64, bool or text.

    Raises:
        InvalidInputError: If it is none.
    """
    if name in _RESERVED or not name:
        raise InvalidInputError(f"columns must have names other than {_RESERVED}, got {name!r}.")
    values = np.asarray(given)
    if values.shape != (n,):
        raise InvalidInputError(
            f"column {name!r} must have one value an item, {n} in all, got shape {values.shape}."
        )
    kind = values.dtype.kind
    listed = given if isinstance(given, Sequence) else values.tolist()
    if kind == "u" and n and int(values.max()) > _LARGEST_INTEGER:
        raise InvalidInputError(
            f"column {name!r} must hold integers up to {_LARGEST_INTEGER}, got {values.max()}."
        )
    if kind in "iu":
        return values.astype(np.int64)
    if kind == "f":
        return values.astype(np.float64)
    if kind == "b":
        return values.astype(np.bool_)
    if kind in "UO" and all(isinstance(value, str) for value in listed):
        return _Texts(*encode(list(listed), what=f"values of column {name!r}"))
    raise InvalidInputError(
        f"column {name!r} must hold integers, floats, booleans or text, got {values.dtype}."
    )
