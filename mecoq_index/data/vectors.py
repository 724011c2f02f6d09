"""Vectors, codes and ids on disk, read row range by row range in bounded memory.

    .npy              2 axes, float32 or uint8
    .fbin, .u8bin     two 4-byte integers, n and width, then n * width float32 or uint8
    .fvecs, .bvecs    each row a 4-byte integer, its width, then that many float32 or uint8
    .parquet          a column of float32 or uint8 lists, all of one length
    a folder          of such files: all of one kind, in natural order of their names, as if one

Everything but ``.npy`` is little-endian. Rows are copied out of the file rather than mapped: a
map of a file that somebody shortens kills the process, a short read is an error with a name.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from .._files import check_readable, load_npy
from ..errors import ArtifactError, InvalidInputError
from .parquet import ListColumn, read_ids

Rows = npt.NDArray[Any]  # (rows, width) float32 or uint8

_FLOAT32, _UINT8 = np.dtype(np.float32), np.dtype(np.uint8)
# How much of a .parquet file is decoded at a time.
_BATCH_BYTES = 1 << 24


class VectorFile(ABC):
    """n rows of one width that stay on disk until they are read; see `open_vectors`.

    One object serves one thread: a ``.parquet`` file keeps its place between two reads.

    Attributes:
        path: The file or folder.
        n: Number of rows, maybe 0.
        width: Values per row, at least 1.
        dtype: float32 for vectors, uint8 for codes.
    """

    def __init__(self, path: Path, n: int, width: int, dtype: np.dtype[Any]) -> None:
        self.path, self.n, self.width, self.dtype = path, n, width, dtype

    def read(self, start: int, stop: int) -> Rows:
        """Rows start..stop-1 as a new array (stop - start, width) of `dtype`, in C order.

        Values are not judged: whether they are finite, or codes below K, is the caller's check.

        Raises:
            InvalidInputError: If not 0 <= start <= stop <= n.
            ArtifactError: If the rows on disk are damaged, or the file became shorter.
        """
        if not 0 <= start <= stop <= self.n:
            raise InvalidInputError(
                f"rows {start} to {stop} of {self.path} were asked for, but it has {self.n}: "
                f"0 <= start <= stop <= {self.n} must hold."
            )
        if start == stop:
            return np.empty((0, self.width), self.dtype)
        return self._read(int(start), int(stop))

    def chunks(self, rows: int) -> Iterator[tuple[int, Rows]]:
        """All rows in order, ``rows`` at a time, each chunk with the number of its first row.

        Raises:
            InvalidInputError: If ``rows`` is below 1.
            ArtifactError: As `read` does.
        """
        if rows < 1:
            raise InvalidInputError(f"rows, the size of a chunk, must be at least 1, got {rows}.")
        return ((at, self.read(at, min(at + rows, self.n))) for at in range(0, self.n, rows))

    @abstractmethod
    def _read(self, start: int, stop: int) -> Rows:
        """`read` of at least one row, the range being checked."""

    def _release(self) -> None:  # noqa: B027 (most kinds keep nothing)
        """Let go of what is kept open between two reads."""


def open_vectors(path: str | Path, *, column: str | None = None) -> VectorFile:
    """Open vectors or codes without reading them.

    Sizes are compared with what the file's head says, so a truncated file is refused here. One
    exception: ``.fvecs`` and ``.bvecs`` do not say how many rows they have, and one that was cut
    exactly between two rows is a whole file with fewer rows. The widths before their rows, and
    nulls and lengths in ``.parquet``, are checked when the rows are read.

    Args:
        path: A file of a kind listed at the top of this module, or a folder of files of one kind
            (hidden files are ignored, everything else in it must be of that kind).
        column: The column of a ``.parquet`` file; needed only if several hold vectors.

    Raises:
        ArtifactError: If the file is missing, empty, damaged or of another kind, or if the files
            of a folder do not fit together.
        InvalidInputError: If a whole file holds other dtypes or shapes, or ``column`` is wrong.
        MissingDependencyError: If pyarrow is needed and not installed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "x.npy"
        >>> np.save(path, np.eye(5, 2, dtype=np.float32))
        >>> file = open_vectors(path)
        >>> file.n, file.width, [start for start, _ in file.chunks(2)]
        (5, 2, [0, 2, 4])
        >>> file.read(0, 1)
        array([[1., 0.]], dtype=float32)
    """
    path = Path(path)
    if path.is_dir():
        return _Shards(path, [open_vectors(file, column=column) for file in _shards(path)])
    check_readable(path)
    if path.suffix not in _OPENERS:
        raise ArtifactError(
            f"{path} must be a file of vectors: one of {', '.join(_OPENERS)}, or a folder of "
            f"them, is read, got {path.suffix or 'no suffix'}."
        )
    _check_no_column(path, column)
    return _OPENERS[path.suffix](path, column)


def load_ids(path: str | Path, *, column: str | None = None) -> npt.NDArray[np.int64] | list[str]:
    r"""What the rows of a vector file are called, all of them in memory.

    Args:
        path: ``.npy`` of int64 (n,); ``.txt`` of UTF-8, a string a line; or ``.parquet`` with a
            column of int64 or strings. Lines end with ``\n`` or ``\r\n``. A ``.txt`` always gives
            strings, also where all of them look like numbers: "007" is not 7. An empty line is an
            empty string, so that line i stays with row i.
        column: The column of a ``.parquet`` file; needed only if several could be meant.

    Returns:
        int64 (n,), or n strings. Not judged: whether they repeat is the caller's check.

    Raises:
        ArtifactError: If the file is missing, empty, damaged or of another kind.
        InvalidInputError: If a whole file holds other dtypes or shapes, or ``column`` is wrong.
        MissingDependencyError: If pyarrow is needed and not installed.
    """
    path = check_readable(Path(path))
    _check_no_column(path, column)
    if path.suffix == ".txt":
        return _read_lines(path)
    if path.suffix == ".parquet":
        return read_ids(path, column)
    if path.suffix != ".npy":
        raise ArtifactError(
            f"{path} must be a file of ids: one of .npy, .txt, .parquet is read, "
            f"got {path.suffix or 'no suffix'}."
        )
    ids = _map_npy(path)
    if ids.dtype != np.int64 or ids.ndim != 1:
        raise InvalidInputError(
            f"{path} must be an int64 array of shape (n,), got {ids.dtype} {ids.shape}. "
            "Convert it with np.asarray(ids, dtype=np.int64).ravel()."
        )
    return np.array(ids, subok=False)


def _check_no_column(path: Path, column: str | None) -> None:
    if column is not None and path.suffix != ".parquet":
        raise InvalidInputError(
            f"column must be left out: only .parquet files have columns, but {path} was given."
        )


class _Flat(VectorFile):
    """Rows of equal length one after the other, each maybe after an int32 that repeats its width.

    Args:
        offset: Bytes before the first row.
        headed: Whether each row begins with its width.
    """

    def __init__(
        self, path: Path, shape: tuple[int, int], dtype: np.dtype[Any], offset: int, headed: bool
    ) -> None:
        super().__init__(path, *shape, dtype)
        self._offset, self._head = offset, 4 * headed

    def _read(self, start: int, stop: int) -> Rows:
        stride = self._head + self.width * self.dtype.itemsize
        count = (stop - start) * stride
        try:
            raw = np.fromfile(self.path, np.uint8, count, offset=self._offset + start * stride)
        except OSError as exc:
            raise ArtifactError(f"{self.path} can no longer be read: {exc}") from exc
        if len(raw) != count:
            raise ArtifactError(f"{self.path} became shorter since it was opened. Open it again.")
        raw = raw.reshape(stop - start, stride)
        if self._head:
            self._check_heads(raw[:, :4], start)
            raw = np.ascontiguousarray(raw[:, 4:])
        return cast(Rows, raw.view(self.dtype.newbyteorder("<")).astype(self.dtype, copy=False))

    def _check_heads(self, heads: Rows, start: int) -> None:
        widths = np.ascontiguousarray(heads).view("<i4").ravel()
        if len(wrong := np.flatnonzero(widths != self.width)):
            raise ArtifactError(
                f"{self.path} is damaged: every row must begin with the width {self.width} of the "
                f"first, but row {start + wrong[0]} begins with {widths[wrong[0]]}. Make it again."
            )


class _ColumnMajor(VectorFile):
    """A ``.npy`` in Fortran order: mapped for the time of a read, and turned into C order."""

    def _read(self, start: int, stop: int) -> Rows:
        return np.array(_map_npy(self.path)[start:stop], order="C", subok=False)


def _map_npy(path: Path) -> np.memmap[Any, Any]:
    return cast("np.memmap[Any, Any]", load_npy(path, mmap=True))


def _open_npy(path: Path) -> VectorFile:
    array = _map_npy(path)
    if array.dtype not in (_FLOAT32, _UINT8):
        raise InvalidInputError(
            f"{path} must be a float32 array of vectors or a uint8 array of codes, got "
            f"{array.dtype}. Convert vectors with np.asarray(x, dtype=np.float32)."
        )
    if array.ndim != 2 or array.shape[1] == 0:
        raise InvalidInputError(f"{path} must have shape (n, width), got {array.shape}.")
    n, width = array.shape
    whole = array.offset + array.nbytes
    if (size := path.stat().st_size) != whole:
        raise ArtifactError(
            f"{path} is no whole .npy file: its head promises {whole} bytes, but it has {size}. "
            "Make it again."
        )
    if array.flags.c_contiguous:
        return _Flat(path, (n, width), array.dtype, array.offset, headed=False)
    return _ColumnMajor(path, n, width, array.dtype)


def _head(path: Path, count: int) -> list[int]:
    words = np.fromfile(path, "<u4", count)
    if len(words) != count:
        raise ArtifactError(
            f"{path} is no whole {path.suffix} file: it must begin with {count} integers of 4 "
            f"bytes, but it has {path.stat().st_size} bytes. Make it again."
        )
    return [int(word) for word in words]


def _open_bin(path: Path, dtype: np.dtype[Any]) -> VectorFile:
    n, width = _head(path, 2)
    size = path.stat().st_size
    if width == 0 or size != 8 + n * width * dtype.itemsize:
        raise ArtifactError(
            f"{path} is no whole {path.suffix} file: its head promises {n} x {width} {dtype} after "
            f"8 bytes, but {size - 8} bytes follow. Make it again."
        )
    return _Flat(path, (n, width), dtype, 8, headed=False)


def _open_vecs(path: Path, dtype: np.dtype[Any]) -> VectorFile:
    (width,) = _head(path, 1)
    n, rest = divmod(path.stat().st_size, 4 + width * dtype.itemsize)
    if width == 0 or rest:
        raise ArtifactError(
            f"{path} is no whole {path.suffix} file: its first row has the width {width}, but its "
            f"size of {path.stat().st_size} bytes is no multiple of such rows. Make it again."
        )
    return _Flat(path, (n, width), dtype, 0, headed=True)


class _Shards(VectorFile):
    """Several files as if one stood after the other; at most one of them is kept open."""

    def __init__(self, path: Path, files: list[VectorFile]) -> None:
        first = files[0]
        for file in files:
            if (file.width, file.dtype) != (first.width, first.dtype):
                raise ArtifactError(
                    f"the files in {path} must have one width and dtype, but {first.path.name} "
                    f"has {first.width} x {first.dtype} and {file.path.name} {file.width} x "
                    f"{file.dtype}. Put them into folders of their own."
                )
        self._files = files
        self._starts = np.cumsum([0, *(file.n for file in files)])
        self._open = first
        super().__init__(path, int(self._starts[-1]), first.width, first.dtype)

    def _read(self, start: int, stop: int) -> Rows:
        shard = int(np.searchsorted(self._starts, start, "right")) - 1
        pieces: list[Rows] = []
        while start < stop:
            file, before = self._files[shard], int(self._starts[shard])
            if file is not self._open:
                self._open._release()
                self._open = file
            pieces.append(file.read(start - before, min(stop - before, file.n)))
            start += len(pieces[-1])
            shard += 1
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _shards(folder: Path) -> list[Path]:
    """The files in a folder in natural order (part2 before part10), being of one kind."""
    files = [file for file in folder.iterdir() if not file.name.startswith(".")]
    if not files:
        raise ArtifactError(f"{folder} must hold files of vectors, but it is empty.")
    files.sort(key=lambda file: (_natural(file.name), file.name))
    if files[0].is_dir() or files[0].suffix not in _OPENERS:
        raise ArtifactError(
            f"{folder} must hold only files of one kind of {', '.join(_OPENERS)}, but it holds "
            f"{files[0].name}. Move other files away."
        )
    for file in files:
        if file.is_dir() or file.suffix != files[0].suffix:
            raise ArtifactError(
                f"{folder} must hold only files of one kind, but it holds {files[0].name} and "
                f"{file.name}. Move one kind away."
            )
    return files


def _natural(name: str) -> list[str | int]:
    # Text and digits alternate, text first, so that two lists compare place by place.
    return [int(part) if i % 2 else part for i, part in enumerate(re.split("([0-9]+)", name))]


class _Parquet(VectorFile):
    """A column of lists. The batch read last is kept, so that reading in order decodes once."""

    def __init__(self, path: Path, column: str | None) -> None:
        self._column = ListColumn(path, column)
        super().__init__(path, self._column.n, self._column.width, self._column.dtype)
        self._batch_rows = max(1, _BATCH_BYTES // (self.width * self.dtype.itemsize))
        self._release()

    def _release(self) -> None:
        self._stream: Iterator[tuple[int, Rows]] = iter(())
        self._first, self._held = 0, np.empty((0, self.width), self.dtype)

    def _read(self, start: int, stop: int) -> Rows:
        out = np.empty((stop - start, self.width), self.dtype)
        at = start
        while at < stop:
            self._seek(at)
            piece = self._held[at - self._first : stop - self._first]
            out[at - start :][: len(piece)] = piece
            at += len(piece)
        return out

    def _seek(self, row: int) -> None:
        """Make the batch that holds ``row`` the one held, by reading on where that is shorter."""
        end = self._first + len(self._held)
        column = self._column
        if row < self._first or column.group(row) > column.group(end) or end == 0:
            self._release()
            self._stream = column.rows(row, self._batch_rows)
        try:
            while row >= self._first + len(self._held):
                self._first, self._held = next(self._stream)
        except ArtifactError:
            self._release()
            raise


_OPENERS: dict[str, Callable[[Path, str | None], VectorFile]] = {
    ".npy": lambda path, _: _open_npy(path),
    ".fbin": lambda path, _: _open_bin(path, _FLOAT32),
    ".u8bin": lambda path, _: _open_bin(path, _UINT8),
    ".fvecs": lambda path, _: _open_vecs(path, _FLOAT32),
    ".bvecs": lambda path, _: _open_vecs(path, _UINT8),
    ".parquet": _Parquet,
}
SUFFIXES = tuple(_OPENERS)
"""The kinds of files that are read."""


def _read_lines(path: Path) -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = exc.object[: exc.start].count(b"\n") + 1
        raise ArtifactError(f"{path} must be UTF-8 text, but line {line} is not.") from exc
    # Not str.splitlines: it also splits at characters that a file name may hold.
    return text.removesuffix("\n").replace("\r\n", "\n").removesuffix("\r").split("\n")
