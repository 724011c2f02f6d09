"""``.hdf5`` files in ann-benchmarks' layout: ``train`` to search in, ``test`` to search with.

Only plain data sets inside the file are read. Links, external storage and virtual data sets are
refused, since they would make one file read others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._optional import require
from .._reading import check_unpacked
from ..errors import ArtifactError, InvalidInputError, MecoqError, first_line
from .reader import RowReader, block_dtype

_CACHE_BYTES = 64 << 20


class Hdf5Rows(RowReader):
    """A data set of two axes in an ``.hdf5`` file, read range by range.

    Args:
        path: The file.
        name: The data set, at the top of the file; ``train`` if None.

    Raises:
        ArtifactError: If the file is damaged, no ``.hdf5`` file, or has no such data set.
        InvalidInputError: If the data set has another shape or type, or lies outside the file.
        MissingDependencyError: If h5py is not installed.
    """

    def __init__(self, path: Path, name: str | None = None) -> None:
        self._file, self._name = path, name or "train"
        with self._open() as data:
            n, width = data.shape
            title = f"{self._name!r} in {path}"
            super().__init__(n, width, data.dtype, path=path, name=title)

    def _read(self, start: int, stop: int) -> npt.NDArray[Any]:
        with self._open() as data:
            if len(data) < stop or data.shape[1] != self.width:
                raise ArtifactError(f"{self._file} changed since it was opened. Open it again.")
            return np.asarray(data[start:stop])

    @contextmanager
    def _open(self) -> Iterator[Any]:
        with open_hdf5(self._file) as file:
            yield _find(file, self._name, self._file)


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Open an ``.hdf5`` file for reading.

    Raises:
        ArtifactError: If the file is damaged or no ``.hdf5`` file, or a read of it fails.
        MissingDependencyError: If h5py is not installed.
    """
    h5py = require("h5py", extra="bench", purpose="reading an .hdf5 file")
    try:
        with h5py.File(path, "r", rdcc_nbytes=_CACHE_BYTES) as file:
            yield file
    except MecoqError:
        raise
    except Exception as exc:  # a damaged file can make h5py raise anything at all
        raise ArtifactError(f"{path} is no readable .hdf5 file: {first_line(exc)}") from exc


def names_in_hdf5(path: Path) -> set[str]:
    """Return the names at the top of an ``.hdf5`` file.

    Raises:
        ArtifactError: If the file is damaged or no ``.hdf5`` file.
        MissingDependencyError: If h5py is not installed.
    """
    with open_hdf5(path) as file:
        return set(file)


def _find(file: Any, name: str, path: Path) -> Any:
    h5py = require("h5py", extra="bench", purpose="reading an .hdf5 file")
    if "/" in name or name not in set(file):
        raise ArtifactError(f"{path} must hold {name!r}, but it holds {sorted(file)}.")
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise InvalidInputError(
            f"{name!r} in {path} must be a data set, but it is a link to another place. Copy the "
            "values into the file."
        )
    data = file[name]
    if not isinstance(data, h5py.Dataset):
        raise InvalidInputError(f"{name!r} in {path} must be a data set, but it is a group.")
    if data.external or data.is_virtual:
        raise InvalidInputError(
            f"the values of {name!r} must lie in {path} itself, but they lie in other files. Copy "
            "them into it."
        )
    if len(data.shape or ()) != 2 or data.shape[1] == 0:
        raise InvalidInputError(
            f"{name!r} in {path} must have shape (n, width), got {data.shape or 'a single value'}."
        )
    block_dtype(data.dtype, f"{name!r} in {path}")
    # Rows that were never written take no room in the file, and a chunk is unpacked as a whole.
    check_unpacked(path, data.size * data.dtype.itemsize, repr(name))
    check_unpacked(path, prod(data.chunks or ()) * data.dtype.itemsize, f"a chunk of {name!r}")
    return data
