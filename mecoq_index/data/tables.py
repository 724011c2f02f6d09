"""Columns of tables, batch by batch, whatever file or library the table comes from.

A table gives Arrow arrays. `Column` checks them, `TableRows` turns a column of lists into rows, and
`read_ids`, `read_scalars` and `read_labels` read whole columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import Ids
from .._reading import check_unpacked
from ..errors import ArtifactError, InvalidInputError
from .reader import Block, RowReader
from .table import Table, pyarrow

# The amount of a table that is decoded at a time.
_BATCH_BYTES = 1 << 24
_SCALAR_ROWS = 1 << 16


def open_table(path: Path) -> Table:
    """Open a ``.parquet``, ``.arrow`` or ``.feather`` file.

    Raises:
        ArtifactError: If the file is damaged or of another kind.
        MissingDependencyError: If pyarrow is not installed.
    """
    if path.suffix == ".parquet":
        from .parquet import ParquetTable

        return ParquetTable(path)
    from .arrow import ArrowTable

    return ArrowTable(path)


class Column:
    """One column of a table, which must exist and have no nulls.

    Args:
        table: The table.
        name: The column; None for the only one whose type fits.
        fits: Whether an Arrow type can be used.
        wanted: Such types in words.

    Attributes:
        name: The column.
        type: Its Arrow type.
        title: Names the column in messages.

    Raises:
        InvalidInputError: If there is no such column, its type does not fit, or None was given
            and not exactly one fits.
    """

    def __init__(
        self, table: Table, name: str | None, fits: Callable[[Any], bool], wanted: str
    ) -> None:
        self.table = table
        self.name = _choose(table, name, fits, wanted)
        self.type: Any = table.schema.field(self.name).type
        self.title = f"column {self.name!r} of {table.name}"

    def batches(self, row: int, size: int) -> Iterator[tuple[int, Any]]:
        """Yield the column as `Table.batches` does.

        Raises:
            ArtifactError: If the file is damaged, or a row is null.
        """
        end = 0
        for first, array in self.table.batches(self.name, row, size):
            self.check_no_null(array, first)
            end = first + len(array)
            yield first, array
        if end != self.table.n:
            raise ArtifactError(
                f"{self.table.name} is damaged: it must have {self.table.n} rows, but column "
                f"{self.name!r} ends after {end}. Make it again."
            )

    def all(self) -> Iterator[Any]:
        """Yield the whole column, array by array.

        Raises:
            ArtifactError: If the file is damaged, or a row is null.
        """
        if self.table.n:
            for _, array in self.batches(0, _SCALAR_ROWS):
                yield array

    def check_no_null(self, array: Any, first: int, width: int = 1) -> None:
        """Refuse nulls in ``array``, whose values, ``width`` a row, begin with row ``first``.

        Raises:
            ArtifactError: If there is one.
        """
        if array.null_count:
            nulls: npt.NDArray[np.bool_] = array.is_null().to_numpy(zero_copy_only=False)
            raise ArtifactError(
                f"{self.title} must hold a value in every place, but row "
                f"{first + int(nulls.argmax()) // width} holds a null. Remove such rows."
            )


def vector_columns(table: Table) -> list[str]:
    """Return the names of the columns of lists of floats or of uint8."""
    return [field.name for field in table.schema if _is_list_of_vectors(field.type)]


class ListColumn(Column):
    """A column of lists of numbers, all of one length.

    If no name is given, columns of floats and of uint8 come before columns of other integers.

    Attributes:
        width: The length of the lists.
        dtype: The dtype of their values.

    Raises:
        ArtifactError: If the file is damaged, or the width is unknown because there are no rows.
        InvalidInputError: As `Column` does, or if the lists are empty.
    """

    def __init__(self, table: Table, name: str | None) -> None:
        fits = (
            _is_list_of_vectors if name is None and vector_columns(table) else _is_list_of_numbers
        )
        super().__init__(table, name, fits, "lists of numbers")
        self.dtype: np.dtype[Any] = np.dtype(self.type.value_type.to_pandas_dtype())
        self.width = self._find_width()
        if self.width == 0:
            raise InvalidInputError(f"{self.title} must not hold empty lists.")

    def _find_width(self) -> int:
        if pyarrow().types.is_fixed_size_list(self.type):
            return int(self.type.list_size)
        if self.table.n == 0:
            raise ArtifactError(
                f"{self.table.name} has no rows, so the width of column {self.name!r} is unknown. "
                "Make it with rows, or with lists of fixed size."
            )
        _, array = next(self.batches(0, 1))
        return len(array[0])

    def rows(self, row: int, size: int) -> Iterator[tuple[int, Block]]:
        """Yield `batches` as arrays (rows, width), which must not be written to.

        Raises:
            ArtifactError: If the file is damaged, a list has another length, or a value is null.
        """
        for first, array in self.batches(row, size):
            lengths = array.value_lengths().to_numpy()
            if len(wrong := np.flatnonzero(lengths != self.width)):
                raise ArtifactError(
                    f"{self.title} must hold lists of one length, {self.width} as in row 0, but "
                    f"row {first + wrong[0]} holds {lengths[wrong[0]]} values. Repair or remove "
                    "such rows."
                )
            values = array.flatten()
            self.check_no_null(values, first, self.width)
            yield first, values.to_numpy().reshape(-1, self.width)


class TableRows(RowReader):
    """A column of lists as rows. The last batch is kept, so that reading in order decodes once.

    Args:
        table: The table.
        column: The column; None for the only one that holds vectors.

    Raises:
        MecoqError: As `ListColumn` does.
    """

    def __init__(self, table: Table, column: str | None) -> None:
        self._column = ListColumn(table, column)
        width, stored = self._column.width, self._column.dtype
        if table.path is not None:
            size = table.n * width * stored.itemsize
            check_unpacked(table.path, size, f"column {self._column.name!r}")
        super().__init__(table.n, width, stored, path=table.path, name=table.name)
        self._stored = stored
        self._batch_rows = max(1, _BATCH_BYTES // (width * stored.itemsize))
        self._release()

    @property
    def column(self) -> str:
        """The column of vectors."""
        return self._column.name

    def _release(self) -> None:
        self._stream: Iterator[tuple[int, Block]] = iter(())
        self._first, self._batch = 0, np.empty((0, self.width), self._stored)

    def _read(self, start: int, stop: int) -> npt.NDArray[Any]:
        out = np.empty((stop - start, self.width), self._stored)
        at = start
        while at < stop:
            self._seek(at)
            piece = self._batch[at - self._first : stop - self._first]
            out[at - start :][: len(piece)] = piece
            at += len(piece)
        return out

    def _seek(self, row: int) -> None:
        """Keep the batch that holds ``row``, reading on from the last one if that is shorter."""
        end, table = self._first + len(self._batch), self._column.table
        if row < self._first or end == 0 or table.part(row) > table.part(end):
            self._release()
            self._stream = self._column.rows(row, self._batch_rows)
        try:
            while row >= self._first + len(self._batch):
                self._first, self._batch = next(self._stream)
        except ArtifactError:
            self._release()
            raise


def read_ids(table: Table, name: str | None) -> Ids | list[str]:
    """Read a whole column of integers, as int64 (n,), or of n strings.

    Args:
        table: The table.
        name: The column; None for the only one of such a type.

    Raises:
        MecoqError: As `Column` does, or if an integer is no int64.
    """
    column = Column(table, name, _is_id, "integers or strings")
    if not pyarrow().types.is_integer(column.type):
        return _strings(column)
    pieces = [array.to_numpy() for array in column.all()]
    for piece in pieces:
        if piece.dtype == np.uint64 and piece.max(initial=0) > np.iinfo(np.int64).max:
            raise InvalidInputError(f"{column.title} must be below 2**63, got {piece.max()}.")
    return np.concatenate([np.empty(0, np.int64), *(p.astype(np.int64) for p in pieces)])


def read_scalars(table: Table, name: str) -> npt.NDArray[Any]:
    """Read a whole column of plain values, shape (n,).

    Returns:
        int64, float64, bool, or for strings an object array of str.

    Raises:
        MecoqError: As `Column` does, or if an integer is no int64.
    """
    column = Column(table, name, _is_scalar, "integers, floats, booleans or strings")
    types = pyarrow().types
    if types.is_integer(column.type):
        return np.asarray(read_ids(table, name))
    if is_text(column.type):
        texts = np.empty(table.n, object)
        texts[:] = _strings(column)
        return texts
    dtype = np.dtype(np.bool_ if types.is_boolean(column.type) else np.float64)
    pieces = [array.to_numpy(zero_copy_only=False).astype(dtype) for array in column.all()]
    return np.concatenate([np.empty(0, dtype), *pieces])


def read_labels(table: Table, name: str) -> npt.NDArray[Any] | list[str]:
    """Read a column of labels: one integer, boolean or string a row, or lists of 0 and 1.

    Raises:
        MecoqError: As `Column` does.
    """
    index = table.schema.get_field_index(name)
    if index >= 0 and _is_list_of_numbers(table.schema.field(index).type):
        rows = TableRows(table, name)
        return rows.read(0, rows.n).astype(np.int64)
    return read_scalars(table, name)


def _strings(column: Column) -> list[str]:
    texts: list[str] = []
    size, path = 0, column.table.path
    try:
        for array in column.all():
            if pyarrow().types.is_dictionary(array.type):
                words = array.dictionary.to_pylist()
                found = [words[i] for i in array.indices.to_pylist()]
                size += sum(map(len, found))
            else:
                found, size = None, size + array.nbytes
            if path is not None:  # a text that repeats takes no room in the file
                check_unpacked(path, size, f"column {column.name!r}")
            texts += array.to_pylist() if found is None else found
        return texts
    except UnicodeDecodeError as exc:
        raise ArtifactError(
            f"{column.title} must hold UTF-8 strings, but it does not: {exc}"
        ) from exc


def _is_list(kind: Any) -> bool:
    types = pyarrow().types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_list_of_numbers(kind: Any) -> bool:
    types = pyarrow().types
    return _is_list(kind) and bool(
        types.is_floating(kind.value_type) or types.is_integer(kind.value_type)
    )


def _is_list_of_vectors(kind: Any) -> bool:
    types = pyarrow().types
    return _is_list(kind) and bool(
        types.is_floating(kind.value_type) or types.is_uint8(kind.value_type)
    )


def is_text(kind: Any) -> bool:
    """Whether an Arrow type is one of strings, categories of strings included."""
    types = pyarrow().types
    if types.is_dictionary(kind):
        kind = kind.value_type
    is_view = getattr(types, "is_string_view", lambda _: False)  # newer than pyarrow 15
    return bool(types.is_string(kind) or types.is_large_string(kind) or is_view(kind))


def _is_id(kind: Any) -> bool:
    return bool(pyarrow().types.is_integer(kind)) or is_text(kind)


def _is_scalar(kind: Any) -> bool:
    types = pyarrow().types
    return _is_id(kind) or bool(types.is_floating(kind) or types.is_boolean(kind))


def _choose(table: Table, name: str | None, fits: Callable[[Any], bool], wanted: str) -> str:
    found = ", ".join(f"{field.name} ({field.type})" for field in table.schema) or "none"
    fitting = [field.name for field in table.schema if fits(field.type)]
    if name is None and len(fitting) > 1:
        raise InvalidInputError(
            f"say which column of {table.name} is meant: one of {fitting} could be."
        )
    chosen = fitting[0] if name is None and fitting else name
    if chosen not in fitting or table.schema.names.count(chosen) != 1:
        which = "a column" if chosen is None else f"one column {chosen!r}"
        raise InvalidInputError(
            f"{table.name} must have {which} of {wanted}, but its columns are: {found}."
        )
    return str(chosen)
