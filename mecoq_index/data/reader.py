"""Rows of one width, read range by range: the interface of every source of vectors."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ArtifactError, InvalidInputError

Block = npt.NDArray[Any]  # (rows, width) float32 or uint8
AnyDtype = np.dtype[Any]

_SAMPLED_ROWS = 64


class RowReader(ABC):
    """n rows of one width that are read range by range.

    Rows of uint8 stay uint8: they can be codes. All other floats and integers are converted to
    float32 as they are read, which rounds numbers of more than 24 bits.

    Use one object in one thread: a table remembers its place between two reads.

    Args:
        n: Number of rows.
        width: Values in a row.
        stored: The dtype before conversion.
        path: The file or folder that rows are read from; None in memory.
        name: Names the rows in messages; ``path`` if None.

    Attributes:
        path: The file or folder; None in memory.
        n: Number of rows, maybe 0.
        width: Values in a row, at least 1.
        dtype: float32 or uint8, the dtype of the blocks that `read` returns.

    Raises:
        InvalidInputError: If ``stored`` is no dtype of floats or integers.
    """

    def __init__(
        self,
        n: int,
        width: int,
        stored: AnyDtype,
        *,
        path: Path | None = None,
        name: str | None = None,
    ) -> None:
        self.name = name or str(path or "the array")
        self.path, self.n, self.width = path, n, width
        self.dtype = block_dtype(stored, self.name)

    def read(self, start: int, stop: int) -> Block:
        """Return rows start..stop-1 in C order, shape (stop - start, width), of `dtype`.

        Values are not checked: the caller decides whether they must be finite, or below K. Rows
        of an array in memory may share its memory, so do not write to them.

        Raises:
            InvalidInputError: If 0 <= start <= stop <= n does not hold.
            ArtifactError: If the rows on disk are damaged, or the file became shorter.
        """
        if not 0 <= start <= stop <= self.n:
            raise InvalidInputError(
                f"rows {start} to {stop} of {self.name} were asked for, but it has {self.n}: "
                f"0 <= start <= stop <= {self.n} must hold."
            )
        if start == stop:
            return np.empty((0, self.width), self.dtype)
        return as_block(self._read(int(start), int(stop)), self.dtype)

    def chunks(self, rows: int) -> Iterator[tuple[int, Block]]:
        """Yield all rows in order, ``rows`` at a time, each block after the number of its first.

        Raises:
            InvalidInputError: If ``rows`` is below 1.
            ArtifactError: As `read` does.
        """
        if rows < 1:
            raise InvalidInputError(f"rows, the size of a chunk, must be at least 1, got {rows}.")
        return ((at, self.read(at, min(at + rows, self.n))) for at in range(0, self.n, rows))

    @property
    def files(self) -> list[Path]:
        """The files that rows are read from; empty in memory."""
        return [] if self.path is None else [self.path]

    @abstractmethod
    def _read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return at least one row as stored; the range has been checked."""

    def _release(self) -> None:  # noqa: B027 (most kinds keep nothing)
        """Close whatever stays open between two reads."""


class ArrayRows(RowReader):
    """Rows in memory.

    Args:
        array: Shape (n, width), any float or integer dtype; not copied.
        name: Names the array in messages.

    Raises:
        InvalidInputError: If ``array`` is no array of numbers with two axes.
    """

    def __init__(self, array: npt.NDArray[Any], *, name: str = "rows") -> None:
        if not isinstance(array, np.ndarray) or array.ndim != 2 or array.shape[1] == 0:
            raise InvalidInputError(
                f"{name} must be an array of shape (n, width), got {getattr(array, 'shape', array)}"
                f".{_advice(array, name)}"
            )
        n, width = array.shape
        super().__init__(n, width, array.dtype, name=name)
        self._array = array

    def _read(self, start: int, stop: int) -> npt.NDArray[Any]:
        return self._array[start:stop]


class JoinedRows(RowReader):
    """Rows of several readers, one after the other; at most one of them stays open.

    Raises:
        ArtifactError: If widths or dtypes differ.
    """

    def __init__(self, readers: Sequence[RowReader], *, path: Path | None, name: str) -> None:
        first = readers[0]
        for reader in readers:
            if (reader.width, reader.dtype) != (first.width, first.dtype):
                raise ArtifactError(
                    f"the files in {name} must have one width and dtype, but {_short(first)} "
                    f"has {first.width} x {first.dtype} and {_short(reader)} {reader.width} x "
                    f"{reader.dtype}. Put them into folders of their own."
                )
        self._readers = list(readers)
        self._starts = np.cumsum([0, *(reader.n for reader in readers)])
        self._open = first
        super().__init__(int(self._starts[-1]), first.width, first.dtype, path=path, name=name)

    @property
    def files(self) -> list[Path]:
        """The files that rows are read from, in order."""
        return [file for reader in self._readers for file in reader.files]

    def _read(self, start: int, stop: int) -> npt.NDArray[Any]:
        number = int(np.searchsorted(self._starts, start, "right")) - 1
        pieces: list[Block] = []
        while start < stop:
            reader, before = self._readers[number], int(self._starts[number])
            if reader is not self._open:
                self._open._release()
                self._open = reader
            pieces.append(reader.read(start - before, min(stop - before, reader.n)))
            start += len(pieces[-1])
            number += 1
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _short(reader: RowReader) -> str:
    return reader.path.name if reader.path else reader.name


def _advice(array: object, name: str) -> str:
    one = isinstance(array, np.ndarray) and array.ndim == 1
    return f" Use {name}[None, :] for a single vector." if one else ""


def block_dtype(stored: AnyDtype, name: str) -> AnyDtype:
    """Return the dtype in which rows of dtype ``stored`` are read: float32 or uint8.

    Raises:
        InvalidInputError: If ``stored`` is no dtype of floats or integers.
    """
    if stored.kind not in "fiu":
        raise InvalidInputError(f"{name} must hold floats or integers, got {stored}.")
    return np.dtype(np.uint8 if stored == np.uint8 else np.float32)


def as_block(rows: npt.NDArray[Any], dtype: AnyDtype) -> Block:
    """Return rows as a plain array of ``dtype`` in C order; too large floats become infinite."""
    with np.errstate(over="ignore"):
        return np.array(rows, dtype, order="C", copy=None, subok=False)


def sample_digest(rows: RowReader) -> str:
    """Return a digest of a few rows from nine places: other rows most likely have another one."""
    digest = hashlib.sha256(f"{rows.n} {rows.width} {rows.dtype}".encode())
    last = max(0, rows.n - _SAMPLED_ROWS)
    for at in sorted({last * i // 8 for i in range(9)}):
        digest.update(rows.read(at, min(at + _SAMPLED_ROWS, rows.n)).tobytes())
    return digest.hexdigest()[:16]


def state_of_files(rows: RowReader) -> str | None:
    """Return a digest of names, sizes and times of the files of rows; None for rows in memory."""
    if not rows.files:
        return None
    state = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in rows.files]
    return hashlib.sha256(repr(state).encode()).hexdigest()[:16]
