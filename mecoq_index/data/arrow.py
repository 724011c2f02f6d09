"""``.arrow`` and ``.feather`` files as tables: Arrow's file format and its stream format.

A record batch is read as a whole, so the file's own batches bound the memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .._optional import require
from .._reading import check_unpacked, named_damage
from ..errors import ArtifactError
from .table import Table, pyarrow

_FILE_MAGIC, _FEATHER_1_MAGIC = b"ARROW1", b"FEA1"
_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"


class ArrowTable(Table):
    """An ``.arrow`` or ``.feather`` file; its parts are its record batches.

    Raises:
        ArtifactError: If the file is damaged or of another kind.
        MissingDependencyError: If pyarrow is not installed.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as stream:
            magic = stream.read(6)
            stream.seek(-min(8, path.stat().st_size), os.SEEK_END)
            end = stream.read()
        if magic.startswith(_FEATHER_1_MAGIC):
            raise ArtifactError(
                f"{path} is a Feather file of version 1. Write it again as version 2."
            )
        self._file, self._is_stream = path, magic != _FILE_MAGIC
        if self._is_stream and end != _STREAM_END:
            raise ArtifactError(  # pyarrow takes a stream that was cut between batches for complete
                f"{path} is no complete {path.suffix} file: it does not end like one. Make it "
                "again."
            )
        with self._reader(None, mapped=True) as reader:
            schema = reader.schema
        # Counting the rows of a mapped file touches their values only if they are compressed.
        with self._reader(_cheapest(schema), mapped=True) as reader:
            counts = [batch.num_rows for batch in self._each(reader, 0)]
        self._starts = np.cumsum([0, *counts])
        super().__init__(str(path), schema, int(self._starts[-1]), path)
        check_unpacked(path, self.n, "its rows")  # a byte each at least, as codes

    def part(self, row: int) -> int:
        """Return the number of the record batch that holds a row."""
        return int(np.searchsorted(self._starts, row, "right")) - 1

    def batches(self, column: str, row: int, size: int) -> Iterator[tuple[int, Any]]:
        """Yield Arrow arrays as `Table.batches` says.

        Raises:
            ArtifactError: If the file is damaged.
        """
        part = self.part(row)
        first = int(self._starts[part])
        with self._reader(self.schema.get_field_index(column)) as reader:
            for batch in self._each(reader, part):
                array = batch.column(0)
                array.validate(full=True)  # damaged offsets would read foreign memory
                for at in range(0, len(array), size):
                    yield first + at, array[at : at + size]
                first += len(array)

    def _each(self, reader: Any, part: int) -> Iterator[Any]:
        if not self._is_stream:
            for number in range(part, reader.num_record_batches):
                yield reader.get_batch(number)
            return
        for number, batch in enumerate(reader):
            if number >= part:
                yield batch

    @contextmanager
    def _reader(self, field: int | None, *, mapped: bool = False) -> Iterator[Any]:
        """Open the file for one field; None for all."""
        arrow = pyarrow()
        ipc = require("pyarrow.ipc", extra="parquet", purpose="reading an .arrow file")
        options = ipc.IpcReadOptions(included_fields=[] if field is None else [field])
        name = os.fsencode(self._file)  # bytes, since not all names are UTF-8
        damage = named_damage(
            f"{self._file} is no readable {self._file.suffix} file", arrow.ArrowException
        )
        with damage, arrow.memory_map(name) if mapped else arrow.OSFile(name) as source:
            opener = ipc.open_stream if self._is_stream else ipc.open_file
            yield opener(source, options=options)


def _cheapest(schema: Any) -> int | None:
    """Return the number of a field whose values take little to read; None without fields."""
    types = pyarrow().types
    plain = [i for i, field in enumerate(schema) if types.is_primitive(field.type)]
    return plain[0] if plain else (0 if len(schema) else None)
