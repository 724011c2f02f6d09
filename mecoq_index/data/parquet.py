"""One column of a ``.parquet`` file, batch by batch; what comes out is Arrow arrays.

A file written in one go is one row group of a million rows, so memory is bounded by batches, not
by row groups. Nothing in the format allows to start in the middle of a row group: a batch there
costs decoding what stands before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from .._optional import require
from ..errors import ArtifactError, InvalidInputError

_PURPOSE = "reading a .parquet file"
# Without a buffer size, Arrow reads the whole compressed column of a row group before the first
# value of it.
_BUFFER_BYTES = 1 << 20
_ID_ROWS = 1 << 16


def pyarrow() -> ModuleType:
    """The pyarrow package.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    return require("pyarrow", extra="parquet", purpose=_PURPOSE)


class Column:
    """One column of a ``.parquet`` file, which must exist.

    Args:
        path: The file.
        name: The column; None for the only one whose type fits.
        fits: Whether an Arrow type is one that the caller can use.
        wanted: Such types in words.

    Attributes:
        path: The file.
        name: The column.
        type: Its Arrow type.
        n: Number of rows.

    Raises:
        ArtifactError: If the file is damaged or no ``.parquet`` file.
        InvalidInputError: If there is no such column, its type does not fit, or None was given
            and not exactly one fits.
        MissingDependencyError: If pyarrow is not installed.
    """

    def __init__(
        self, path: Path, name: str | None, fits: Callable[[Any], bool], wanted: str
    ) -> None:
        self.path = path
        with _open(path) as file:
            # Kept, since it can be large and every new start of reading would parse it again.
            self._metadata, schema = file.metadata, file.schema_arrow
            self.name = _choose(path, schema, name, fits, wanted)
        self.type: Any = schema.field(self.name).type
        groups = range(self._metadata.num_row_groups)
        self._starts = np.cumsum([0, *(self._metadata.row_group(i).num_rows for i in groups)])
        self.n = int(self._starts[-1])

    def group(self, row: int) -> int:
        """Number of the row group that holds ``row``."""
        return int(np.searchsorted(self._starts, row, "right")) - 1

    def batches(self, row: int, size: int) -> Iterator[tuple[int, Any]]:
        """Arrow arrays of up to ``size`` rows from the row group that holds ``row`` to the end.

        Each comes with the number of its first row. The file is open until the iterator ends or
        is dropped.

        Raises:
            ArtifactError: If the file is damaged, or a row is null.
        """
        group = self.group(row)
        first = int(self._starts[group])
        with _open(self.path, self._metadata) as file:
            for batch in file.iter_batches(
                size,
                row_groups=range(group, len(self._starts) - 1),
                columns=[self.name],
                use_threads=False,
            ):
                # Asking for "v" also brings a column called "v.x".
                array = batch.column(batch.schema.get_field_index(self.name))
                self._check_no_null(array, first)
                yield first, array
                first += len(array)
        if first != self.n:
            raise ArtifactError(
                f"{self.path} is damaged: it must have {self.n} rows, but column {self.name!r} "
                f"ends after {first}. Make it again."
            )

    def _check_no_null(self, array: Any, first: int, width: int = 1) -> None:
        """Refuse nulls in ``array``, whose values, ``width`` a row, begin with row ``first``."""
        if array.null_count:
            nulls: npt.NDArray[np.bool_] = array.is_null().to_numpy(zero_copy_only=False)
            raise ArtifactError(
                f"column {self.name!r} of {self.path} must hold a value in every place, but row "
                f"{first + int(nulls.argmax()) // width} holds a null. Remove such rows."
            )


class ListColumn(Column):
    """A column of float32 or uint8 lists, all of one length.

    Attributes:
        width: The length of the lists.
        dtype: float32 or uint8.

    Raises:
        ArtifactError: As `Column` does, or if the width is unknown because there are no rows.
        InvalidInputError: As `Column` does, or if the lists are empty.
        MissingDependencyError: If pyarrow is not installed.
    """

    def __init__(self, path: Path, name: str | None) -> None:
        super().__init__(path, name, _is_list_of_numbers, "float32 or uint8 lists")
        self.dtype = np.dtype(self.type.value_type.to_pandas_dtype())
        self.width = self._find_width()
        if self.width == 0:
            raise InvalidInputError(f"column {self.name!r} of {path} must not hold empty lists.")

    def _find_width(self) -> int:
        if pyarrow().types.is_fixed_size_list(self.type):
            return int(self.type.list_size)
        if self.n == 0:
            raise ArtifactError(
                f"{self.path} has no rows, so the width of column {self.name!r} is unknown. "
                "Make it with rows, or with lists of fixed size."
            )
        _, array = next(self.batches(0, 1))
        return len(array[0])

    def rows(self, row: int, size: int) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """`batches` as arrays (rows, width), which must not be written to.

        Raises:
            ArtifactError: If the file is damaged, a list has another length, or a value is null.
        """
        for first, array in self.batches(row, size):
            lengths = array.value_lengths().to_numpy()
            if len(wrong := np.flatnonzero(lengths != self.width)):
                raise ArtifactError(
                    f"column {self.name!r} of {self.path} must hold lists of one length, "
                    f"{self.width} as in row 0, but row {first + wrong[0]} holds "
                    f"{lengths[wrong[0]]} values. Repair or remove such rows."
                )
            values = array.flatten()
            self._check_no_null(values, first, self.width)
            yield first, values.to_numpy().reshape(-1, self.width)


def read_ids(path: Path, name: str | None) -> npt.NDArray[np.int64] | list[str]:
    """A whole column of int64 (n,) or of n strings.

    Raises:
        MecoqError: As `Column` does.
    """
    column = Column(path, name, _is_id, "int64 or strings")
    batches = column.batches(0, _ID_ROWS) if column.n else iter(())
    if pyarrow().types.is_int64(column.type):
        return np.concatenate([np.empty(0, np.int64), *(array.to_numpy() for _, array in batches)])
    try:
        return [text for _, array in batches for text in array.to_pylist()]
    except UnicodeDecodeError as exc:
        raise ArtifactError(
            f"column {column.name!r} of {path} must hold UTF-8 strings, but it does not: {exc}"
        ) from exc


def _is_list_of_numbers(kind: Any) -> bool:
    types = pyarrow().types
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return bool(is_list and (types.is_float32(kind.value_type) or types.is_uint8(kind.value_type)))


def _is_id(kind: Any) -> bool:
    types = pyarrow().types
    return bool(types.is_int64(kind) or types.is_string(kind) or types.is_large_string(kind))


@contextmanager
def _open(path: Path, metadata: Any = None) -> Iterator[Any]:
    arrow = pyarrow()
    parquet = require("pyarrow.parquet", extra="parquet", purpose=_PURPOSE)
    try:
        with parquet.ParquetFile(
            path,
            metadata=metadata,
            buffer_size=_BUFFER_BYTES,
            pre_buffer=False,
            page_checksum_verification=True,
        ) as file:
            yield file
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as exc:
        reason = " ".join(str(exc).split())  # Arrow tells in several lines
        raise ArtifactError(f"{path} is no readable .parquet file: {reason}") from exc


def _choose(
    path: Path, schema: Any, name: str | None, fits: Callable[[Any], bool], wanted: str
) -> str:
    found = ", ".join(f"{field.name} ({field.type})" for field in schema) or "none"
    fitting = [field.name for field in schema if fits(field.type)]
    if name is None and len(fitting) > 1:
        raise InvalidInputError(
            f"column must say which column of {path} is meant: one of {fitting} could be."
        )
    chosen = fitting[0] if name is None and fitting else name
    if chosen not in fitting or [field.name for field in schema].count(chosen) != 1:
        which = "a column" if chosen is None else f"one column {chosen!r}"
        raise InvalidInputError(
            f"{path} must have {which} of {wanted}, but its columns are: {found}."
        )
    return str(chosen)
