"""``.parquet`` files as tables.

A file written in one go is one row group of a million rows, so memory is bounded by batches, not
by row groups. The format has no way to start in the middle of a row group: reading a batch there
decodes the batches before it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .._optional import require
from .._reading import check_unpacked
from ..errors import ArtifactError
from .parquet_footer import largest_page, read_row_groups
from .table import Table, pyarrow, readable_names

# Without a buffer size, Arrow reads the whole compressed column of a row group before the first
# value of it.
_BUFFER_BYTES = 1 << 20
_TEXT_BYTES = 64 << 20


class ParquetTable(Table):
    """A ``.parquet`` file; its parts are its row groups.

    Raises:
        ArtifactError: If the file is damaged or no ``.parquet`` file.
        MissingDependencyError: If pyarrow is not installed.
    """

    def __init__(self, path: Path) -> None:
        with _open(path) as file:
            # Kept because it can be large, and every new start would parse it again.
            self._metadata, schema = file.metadata, file.schema_arrow
            with readable_names(str(path)):
                columns = [file.schema.column(i).path for i in range(len(file.schema))]
        self._groups = read_row_groups(path)
        if len(self._groups) != self._metadata.num_row_groups:
            raise ArtifactError(f"{path} is damaged: its row groups cannot be counted.")
        # pyarrow finds columns by their place; here they are found by their names.
        if any([part.path for part in group.parts] != columns for group in self._groups):
            raise ArtifactError(f"{path} is damaged: a row group has other columns than the file.")
        self._starts = np.cumsum([0, *(group.rows for group in self._groups)])
        super().__init__(str(path), schema, int(self._starts[-1]), path)
        self._file = path
        self._row_limits: dict[str, int] = {}
        if self.n < 0 or (np.diff(self._starts) < 0).any():
            raise ArtifactError(f"{path} is damaged: it declares a negative number of rows.")
        check_unpacked(path, self.n, "its rows")  # a byte each at least, as codes

    def _check_column(self, column: str) -> None:
        """Refuse a column that unpacks to much more than the file can hold."""
        parts = [part for group in self._groups for part in group.parts]
        own = [part for part in parts if f"{part.path}.".startswith(f"{column}.")]
        size, values = sum(part.size for part in own), sum(part.values for part in own)
        check_unpacked(self._file, size, f"column {column!r}")
        check_unpacked(self._file, values, f"column {column!r}")
        page = max((largest_page(self._file, part) for part in own), default=0)
        check_unpacked(self._file, page, f"a page of column {column!r}")

    def _rows_at_a_time(self, column: str, most: int) -> int:
        """Return the number of rows of a column to decode at a time.

        A group may hold one long text and a short number in each row that stands for it.
        """
        kind = self.schema.field(column).type
        types, longest = pyarrow().types, 1
        if not (types.is_string(kind) or types.is_large_string(kind)):
            return most
        compute = require("pyarrow.compute", extra="parquet", purpose="reading a .parquet file")
        with _open(self._file, self._metadata, dictionary=column) as file:
            for group in range(len(self._starts) - 1):
                for batch in file.iter_batches(1, row_groups=[group], columns=[column]):
                    array = batch.column(batch.schema.get_field_index(column))
                    lengths = compute.binary_length(array.dictionary)
                    longest = max(longest, compute.max(lengths).as_py() or 1)
                    break
        return max(1, min(most, _TEXT_BYTES // longest))

    def part(self, row: int) -> int:
        """Return the number of the row group that holds a row."""
        return int(np.searchsorted(self._starts, row, "right")) - 1

    def batches(self, column: str, row: int, size: int) -> Iterator[tuple[int, Any]]:
        """Yield Arrow arrays as `Table.batches` says.

        Raises:
            ArtifactError: If the file is damaged.
        """
        if column not in self._row_limits:
            self._check_column(column)
            self._row_limits[column] = self._rows_at_a_time(column, 1 << 20)
        size = min(size, self._row_limits[column])
        group = self.part(row)
        first = int(self._starts[group])
        with _open(self._file, self._metadata) as file:
            for batch in file.iter_batches(
                size,
                row_groups=range(group, len(self._starts) - 1),
                columns=[column],
                use_threads=False,
            ):
                # Asking for "v" also brings a column called "v.x".
                array = batch.column(batch.schema.get_field_index(column))
                yield first, array
                first += len(array)


@contextmanager
def _open(path: Path, metadata: Any = None, dictionary: str | None = None) -> Iterator[Any]:
    arrow = pyarrow()
    parquet = require("pyarrow.parquet", extra="parquet", purpose="reading a .parquet file")
    try:
        with (
            arrow.OSFile(os.fsencode(path)) as source,  # bytes, since not all names are UTF-8
            parquet.ParquetFile(
                source,
                metadata=metadata,
                read_dictionary=None if dictionary is None else [dictionary],
                buffer_size=_BUFFER_BYTES,
                pre_buffer=False,
                page_checksum_verification=True,
            ) as file,
        ):
            yield file
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as exc:
        reason = " ".join(str(exc).split())  # Arrow's messages have several lines
        raise ArtifactError(f"{path} is no readable .parquet file: {reason}") from exc
