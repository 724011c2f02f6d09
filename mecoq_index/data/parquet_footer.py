"""What the footer of a ``.parquet`` file declares of its columns, read without pyarrow.

pyarrow ends the process where it looks at the metadata of some damaged columns, before it has read
anything. The footer is a structure in Thrift's compact protocol (FileMetaData in parquet.thrift of
the Parquet format), of which a few numbers are taken here; the rest is passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from .._reading import named_damage

_MAGIC = b"PAR1"
_DEEPEST = 40
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_INTEGERS = (4, 5, 6)
# Numbers of the fields in FileMetaData, RowGroup, ColumnChunk and ColumnMetaData.
_ROW_GROUPS, _COLUMNS, _ROWS, _METADATA = 4, 1, 3, 3
_PATH, _VALUES, _SIZE, _STORED, _PAGES, _DICTIONARY = 3, 5, 6, 7, 9, 11
_OF_PART = dict.fromkeys((_PATH, _VALUES, _SIZE, _STORED, _PAGES, _DICTIONARY))
_UNPACKED, _PACKED = 2, 3  # in PageHeader
_OF_PAGE = dict.fromkeys((_UNPACKED, _PACKED))
_HEADER_BYTES = (1 << 12, 1 << 24)  # usual, and with the longest texts for statistics
_WANTED = {_ROW_GROUPS: {_ROWS: None, _COLUMNS: {_METADATA: _OF_PART}}}


class Part(NamedTuple):
    """A column in a row group."""

    path: str
    """Names from the outermost field on, with dots between them."""
    values: int
    size: int
    """Bytes before compression."""
    start: int
    """Where its first page begins."""
    stored: int
    """Bytes in the file."""


class RowGroup(NamedTuple):
    """Rows that were written together."""

    rows: int
    parts: list[Part]


def read_row_groups(path: Path) -> list[RowGroup]:
    """Return what a file declares of its row groups.

    Raises:
        ArtifactError: If the footer is damaged, or none.
    """
    with named_damage(f"{path} is no readable .parquet file"), path.open("rb") as stream:
        end = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, end - 8))
        size, magic = int.from_bytes(stream.read(4), "little"), stream.read(4)
        if magic != _MAGIC or size > end - 8:
            raise ValueError("it does not end like one")
        stream.seek(end - 8 - size)
        footer = _Compact(stream.read(size)).struct(_WANTED)
        return [_row_group(group) for group in footer.get(_ROW_GROUPS, [])]


def _row_group(group: dict[int, Any]) -> RowGroup:
    parts = []
    for column in group.get(_COLUMNS, []):
        found = column.get(_METADATA, {})
        _check_there(found, (_PATH, _VALUES, _SIZE, _STORED, _PAGES))
        try:
            path = b".".join(found[_PATH]).decode()
        except UnicodeDecodeError as exc:
            raise ValueError("a column's name is not UTF-8.") from exc
        pages = found[_PAGES]
        start = min(pages, found.get(_DICTIONARY) or pages)
        parts.append(Part(path, found[_VALUES], found[_SIZE], start, found[_STORED]))
    _check_there(group, (_ROWS,))
    return RowGroup(group[_ROWS], parts)


def _check_there(found: Mapping[int, Any], wanted: Iterable[int]) -> None:
    if lacking := sorted(set(wanted) - found.keys()):
        raise ValueError(f"its metadata lacks the fields {lacking}")


def largest_page(path: Path, part: Part) -> int:
    """Return the bytes that the largest page of a column in a row group unpacks to.

    pyarrow makes room for as many as the header of a page declares.

    Raises:
        ArtifactError: If a header is damaged.
    """
    largest, at = 0, part.start
    with named_damage(f"{path} is no readable .parquet file"), path.open("rb") as stream:
        end = stream.seek(0, os.SEEK_END)
        while at < part.start + part.stored:
            header, length = _page_header(stream, at)
            _check_there(header, _OF_PAGE)
            if (
                not 0 <= header[_PACKED] <= end - at - length
                or not 0 <= header[_UNPACKED] < 1 << 31
            ):
                raise ValueError("a page of it is larger than the file")
            largest = max(largest, header[_UNPACKED])
            at += length + header[_PACKED]
    return largest


def _page_header(stream: BinaryIO, at: int) -> tuple[dict[int, Any], int]:
    """Return the fields of a header that are wanted, and its length."""
    for most in _HEADER_BYTES:
        stream.seek(at)
        content = stream.read(most)
        reader = _Compact(content)
        try:
            return reader.struct(_OF_PAGE), reader.at
        except (IndexError, ValueError):
            if most == _HEADER_BYTES[-1] or len(content) < most:
                raise
    raise AssertionError


class _Compact:
    """Takes values of Thrift's compact protocol, one after another.

    Raises:
        ValueError, IndexError: If the bytes end early, or are no such values.
    """

    def __init__(self, content: bytes) -> None:
        self._content, self._depth = content, 0
        self.at = 0

    def struct(self, wanted: dict[int, Any]) -> dict[int, Any]:
        """The next structure: its fields with these numbers, by number.

        What a number stands for says which fields are wanted of structures in it; None if it holds
        none.
        """
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError(f"its footer is nested more than {_DEEPEST} deep")
        found, number = {}, 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            kind = head & 15
            if kind in (_TRUE, _FALSE):
                continue
            value = self._value(kind, wanted.get(number) or {})
            if number in wanted:
                found[number] = value
        self._depth -= 1
        return found

    def _value(self, kind: int, wanted: dict[int, Any]) -> Any:
        if kind in _INTEGERS:
            return self._integer()
        if kind in (_TRUE, _FALSE, _BYTE):
            return self._byte()
        if kind == _DOUBLE:
            return self._bytes(8)
        if kind == _BINARY:
            return self._bytes(self._unsigned())
        if kind == _STRUCT:
            return self.struct(wanted)
        if kind in (_LIST, _SET):
            return list(self._items(wanted))
        if kind == _MAP:
            return self._pass_over_map()
        raise ValueError(f"its footer holds a value of the kind {kind}")

    def _items(self, wanted: dict[int, Any]) -> Iterator[Any]:
        head = self._byte()
        count = head >> 4 if head >> 4 < 15 else self._unsigned()
        for _ in range(count):  # each takes a byte at least, so that a false count ends early
            yield self._value(head & 15, wanted)

    def _pass_over_map(self) -> None:
        count = self._unsigned()
        kinds = self._byte() if count else 0
        for _ in range(count):
            self._value(kinds >> 4, {})
            self._value(kinds & 15, {})

    def _byte(self) -> int:
        self.at += 1
        return self._content[self.at - 1]

    def _bytes(self, size: int) -> bytes:
        found = self._content[self.at : self.at + size]
        if len(found) != size:
            raise ValueError("its footer ends early")
        self.at += size
        return found

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise ValueError("its footer holds a number of more than 64 bits")

    def _integer(self) -> int:
        value = self._unsigned()
        return value >> 1 ^ -(value & 1)
