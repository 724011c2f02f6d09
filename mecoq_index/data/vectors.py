"""Vectors or codes on disk, read range by range in bounded memory.

    .npy               two axes
    .fbin, .u8bin      two 4-byte integers, n and width, then n * width float32 or uint8
    .fvecs, .bvecs     for each row a 4-byte integer, its width, then float32 or uint8 values
    .hdf5, .h5         a data set of two axes: ``train``, as ann-benchmarks calls it
    .parquet, .arrow,  a column of lists of numbers, all of one length
    .feather
    .npz               an array of two axes, read whole; see `mecoq_index.data.feature_file`
    a folder           of files of one kind, in natural order of their names, as if one

Numbers may be floats or integers of any size: `RowReader` describes their conversion. Files
without a byte order of their own are little-endian. Rows are copied out of a file rather than
mapped: shortening a mapped file kills the process that reads it, while a short read is an error
with a name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from .._array_file import load_npy
from .._reading import check_readable
from ..errors import ArtifactError, InvalidInputError
from .reader import AnyDtype, JoinedRows, RowReader, block_dtype

_FLOAT32, _UINT8 = np.dtype("<f4"), np.dtype(np.uint8)


def open_vectors(path: str | Path, *, column: str | None = None) -> RowReader:
    """Open vectors or codes without reading them.

    Sizes are compared with the file's head, so a truncated file is refused here. One exception:
    ``.fvecs`` and ``.bvecs`` do not record their number of rows, so a file that was cut exactly
    between two rows counts as a complete file of fewer rows. The widths before their rows, and
    nulls and lengths in tables, are checked when the rows are read.

    Args:
        path: A file of a kind listed at the top of this module, or a folder of files of one kind
            (hidden files are ignored, everything else in it must be of that kind).
        column: The column of a table, the data set of an ``.hdf5``, or the array of an ``.npz``;
            needed only if several hold vectors.

    Raises:
        ArtifactError: If the file is missing, empty, damaged or of another kind, or if the files
            of a folder do not fit together.
        InvalidInputError: If a complete file holds other types or shapes, or ``column`` is wrong.
        MissingDependencyError: If pyarrow or h5py is needed and not installed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "x.npy"
        >>> np.save(path, np.eye(5, 2))
        >>> rows = open_vectors(path)
        >>> rows.n, rows.width, [start for start, _ in rows.chunks(2)]
        (5, 2, [0, 2, 4])
        >>> rows.read(0, 1)
        array([[1., 0.]], dtype=float32)
    """
    path = Path(path)
    if path.is_dir():
        return join_vectors(_files_of_one_kind(path), column=column, path=path)
    check_readable(path)
    if path.suffix not in _OPENERS:
        raise ArtifactError(
            f"{path} must be a file of vectors: one of {', '.join(_OPENERS)}, or a folder of "
            f"them, is read, got {path.suffix or 'no suffix'}."
        )
    check_column(path, column)
    return _OPENERS[path.suffix](path, column)


def join_vectors(
    paths: Sequence[Path], *, column: str | None = None, path: Path | None = None
) -> RowReader:
    """Open several files as if they were one, in the given order.

    Raises:
        MecoqError: As `open_vectors` does.
    """
    readers = [open_vectors(file, column=column) for file in paths]
    return JoinedRows(readers, path=path, name=str(path or "the list"))


def check_column(path: Path, column: str | None) -> None:
    """Refuse the name of a column for a file without columns.

    Raises:
        InvalidInputError: If there are none in this kind of file.
    """
    if column is not None and path.suffix not in NAMED_PARTS:
        raise InvalidInputError(
            f"a column cannot be chosen in {path}: only {', '.join(NAMED_PARTS)} have columns."
        )


class _FlatRows(RowReader):
    """Rows of equal length in sequence, each perhaps after an int32 that repeats its width.

    Args:
        offset: Bytes before the first row.
        headed: Whether each row begins with its width.
    """

    def __init__(
        self, path: Path, shape: tuple[int, int], stored: AnyDtype, offset: int, headed: bool
    ) -> None:
        super().__init__(*shape, stored, path=path)
        self._file, self._stored = path, stored
        self._offset, self._head = offset, 4 * headed

    def _read(self, start: int, stop: int) -> npt.NDArray[Any]:
        stride = self._head + self.width * self._stored.itemsize
        count = (stop - start) * stride
        try:
            raw = np.fromfile(self._file, np.uint8, count, offset=self._offset + start * stride)
        except OSError as exc:
            raise ArtifactError(f"{self._file} can no longer be read: {exc}") from exc
        if len(raw) != count:
            raise ArtifactError(f"{self._file} became shorter since it was opened. Open it again.")
        raw = raw.reshape(stop - start, stride)
        if self._head:
            self._check_heads(raw[:, :4], start)
            raw = np.ascontiguousarray(raw[:, 4:])
        return raw.view(self._stored)

    def _check_heads(self, heads: npt.NDArray[np.uint8], start: int) -> None:
        widths = np.ascontiguousarray(heads).view("<i4").ravel()
        if len(wrong := np.flatnonzero(widths != self.width)):
            raise ArtifactError(
                f"{self._file} is damaged: every row must begin with the width {self.width} of "
                f"the first, but row {start + wrong[0]} begins with {widths[wrong[0]]}. Make it "
                "again."
            )


class _ColumnMajorRows(RowReader):
    """A ``.npy`` in Fortran order, mapped only while it is read."""

    def __init__(self, path: Path, shape: tuple[int, int], stored: AnyDtype) -> None:
        super().__init__(*shape, stored, path=path)
        self._file = path

    def _read(self, start: int, stop: int) -> npt.NDArray[Any]:
        return np.array(map_npy(self._file)[start:stop], order="C", subok=False)


def map_npy(path: Path) -> np.memmap[Any, Any]:
    """Return a ``.npy`` as a map of the file; pickled objects are refused.

    Raises:
        ArtifactError: If the file is missing, empty, truncated, or no ``.npy`` file.
    """
    return cast("np.memmap[Any, Any]", load_npy(path, mmap=True))


def _open_npy(path: Path) -> RowReader:
    array = map_npy(path)
    block_dtype(array.dtype, str(path))
    if array.ndim != 2 or array.shape[1] == 0:
        raise InvalidInputError(f"{path} must have shape (n, width), got {array.shape}.")
    if array.flags.c_contiguous:
        return _FlatRows(path, array.shape, array.dtype, array.offset, headed=False)
    return _ColumnMajorRows(path, array.shape, array.dtype)


def _head(path: Path, count: int) -> list[int]:
    words = np.fromfile(path, "<u4", count)
    if len(words) != count:
        raise ArtifactError(
            f"{path} is no complete {path.suffix} file: it must begin with {count} integers of 4 "
            f"bytes, but it has {path.stat().st_size} bytes. Make it again."
        )
    return [int(word) for word in words]


def _open_bin(path: Path, stored: AnyDtype) -> RowReader:
    n, width = _head(path, 2)
    size = path.stat().st_size
    if width == 0 or size != 8 + n * width * stored.itemsize:
        raise ArtifactError(
            f"{path} is no complete {path.suffix} file: its head promises {n} x {width} "
            f"{stored} after 8 bytes, but {size - 8} bytes follow. Make it again."
        )
    return _FlatRows(path, (n, width), stored, 8, headed=False)


def _open_vecs(path: Path, stored: AnyDtype) -> RowReader:
    (width,) = _head(path, 1)
    n, rest = divmod(path.stat().st_size, 4 + width * stored.itemsize)
    if width == 0 or rest:
        raise ArtifactError(
            f"{path} is no complete {path.suffix} file: its first row has the width {width}, but "
            f"its size of {path.stat().st_size} bytes is no multiple of such rows. Make it again."
        )
    return _FlatRows(path, (n, width), stored, 0, headed=True)


def _open_table(path: Path, column: str | None) -> RowReader:
    from .tables import TableRows, open_table

    return TableRows(open_table(path), column)


def _open_hdf5(path: Path, column: str | None) -> RowReader:
    from .hdf5 import Hdf5Rows

    return Hdf5Rows(path, column)


def _open_npz(path: Path, column: str | None) -> RowReader:
    from .feature_file import FeatureFile

    return FeatureFile(path).rows(column)


def _files_of_one_kind(folder: Path) -> list[Path]:
    """Return the files in a folder in natural order (part2 before part10).

    Raises:
        ArtifactError: If the folder is empty, or holds files of several kinds.
    """
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


_OPENERS: dict[str, Callable[[Path, str | None], RowReader]] = {
    ".npy": lambda path, _: _open_npy(path),
    ".npz": _open_npz,
    ".fbin": lambda path, _: _open_bin(path, _FLOAT32),
    ".u8bin": lambda path, _: _open_bin(path, _UINT8),
    ".fvecs": lambda path, _: _open_vecs(path, _FLOAT32),
    ".bvecs": lambda path, _: _open_vecs(path, _UINT8),
    ".hdf5": _open_hdf5,
    ".h5": _open_hdf5,
    ".parquet": _open_table,
    ".arrow": _open_table,
    ".feather": _open_table,
}
SUFFIXES = tuple(_OPENERS)
"""The suffixes of files of vectors."""
TABLE_SUFFIXES = (".parquet", ".arrow", ".feather")
"""The suffixes of tables, which have columns beside the vectors."""
NAMED_PARTS = (*TABLE_SUFFIXES, ".hdf5", ".h5", ".npz")
"""The suffixes of files in which vectors have a name."""
