"""``.npy`` and ``.npz`` files from somebody else: the one place that reads them.

A head of a few bytes can declare an array of terabytes, and a few megabytes of an archive can
unpack to gigabytes. So every declared size is compared with the bytes that are there before memory
is taken, and pickled objects are never read.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader, BytesIO, FileIO
from math import prod
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ._reading import check_readable, check_unpacked, named_damage
from .errors import ArtifactError

Array = npt.NDArray[Any]

_LONGEST_HEAD = 10_000  # NumPy's own limit
_LONGEST_LIST, _MOST_MEMBERS = 4 << 20, 4096


class Header(NamedTuple):
    """What the head of a ``.npy`` says."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_fortran: bool
    length: int
    """Bytes before the values."""

    @property
    def total(self) -> int:
        """The bytes of head and values."""
        return self.length + prod(self.shape) * self.dtype.itemsize


def load_npy(path: Path, *, mmap: bool = False) -> Array:
    """Read one array from a ``.npy`` file; pickled objects are refused.

    Raises:
        ArtifactError: If the file is missing, empty, no ``.npy`` file, or of another length than
            its head promises.
    """
    path = check_readable(path)
    size = path.stat().st_size
    with named_damage(f"{path} is no readable .npy file"):
        with path.open("rb") as stream:
            header = _read_header(stream)
        if not header.dtype.hasobject and size != header.total:
            raise ArtifactError(
                f"{path} is no complete .npy file: its head promises {header.total} bytes, but it "
                f"has {size}. Make it again."
            )
        array: Array = np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
        _check_texts(array)
    return array


class _Stream(BufferedReader):
    """A file of which no large piece is read at once; the list of an archive's members is one."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to ``size`` bytes."""
        if size is not None and size > _LONGEST_LIST:
            raise ValueError(f"the list of its members takes {size:,} bytes")
        return super().read(size)


class Archive:
    """The arrays of an ``.npz`` that is open; see `open_archive`.

    Attributes:
        headers: Shape, dtype and size of every array, by name.
    """

    def __init__(self, path: Path, file: zipfile.ZipFile, *, compressed: bool) -> None:
        self._file = file
        members = file.infolist()
        names = [member.filename for member in members]
        if len(names) > _MOST_MEMBERS:
            raise ArtifactError(f"{path} must hold at most {_MOST_MEMBERS} arrays, got more.")
        if len(set(names)) < len(names):
            raise ArtifactError(f"{path} is damaged: it holds two arrays of one name.")
        for member in members:
            if member.flag_bits & 1:
                raise ArtifactError(f"{path} must not be encrypted, but {member.filename!r} is.")
            if member.compress_type != zipfile.ZIP_STORED and not (
                compressed and member.compress_type == zipfile.ZIP_DEFLATED
            ):
                kinds = "stored or deflated" if compressed else "stored uncompressed"
                raise ArtifactError(
                    f"{path} must hold arrays {kinds}, but {member.filename!r} is not. Make it "
                    "again."
                )
        check_unpacked(path, sum(member.file_size for member in members))
        self.headers: Mapping[str, Header] = {
            member.filename.removesuffix(".npy"): self._header(member) for member in members
        }
        self._members = dict(zip(self.headers, members, strict=True))

    def _header(self, member: zipfile.ZipInfo) -> Header:
        with self._file.open(member) as stream:
            header = _read_header(stream)
        if not header.dtype.hasobject and header.total != member.file_size:
            raise ValueError(
                f"the head of {member.filename!r} promises {header.total} bytes, but "
                f"{member.file_size} are there"
            )
        return header

    def __contains__(self, name: str) -> bool:
        return name in self.headers

    def __getitem__(self, name: str) -> Array:
        """Read one array."""
        with self._file.open(self._members[name]) as stream:
            array: Array = np.lib.format.read_array(stream, allow_pickle=False)
            if stream.read(1):  # at the end of a member its checksum is compared
                raise ValueError(f"{name!r} is longer than it says")
        _check_texts(array)
        return array


@contextmanager
def open_archive(path: Path, *, what: str, compressed: bool = False) -> Iterator[Archive]:
    """Open an ``.npz`` file; its arrays are read one by one in the block.

    Args:
        path: The file.
        what: The kind of file in messages: ``file of names``.
        compressed: Whether its arrays may be compressed. Files of this package never are.

    Raises:
        ArtifactError: If the file is missing or damaged, if it would unpack to much more than it
            holds, or if the block raises one of the errors that damaged content leads to.
    """
    path = check_readable(path)
    with (
        named_damage(f"{path} is no readable {what}"),
        _Stream(FileIO(path)) as stream,
        zipfile.ZipFile(stream) as file,
    ):
        yield Archive(path, file, compressed=compressed)


def _check_texts(array: Array) -> None:
    """Refuse texts of numbers that are no characters; Python cannot even print them.

    Raises:
        ValueError: If there is one.
    """
    if array.dtype.kind == "U" and array.size:
        numbers = np.ascontiguousarray(array).reshape(-1).view(f"{array.dtype.byteorder}u4")
        if numbers.max() > sys.maxunicode:
            raise ValueError("it holds texts with numbers that are no characters")


def _read_header(stream: IO[bytes]) -> Header:
    """Read the head of a ``.npy``.

    Raises:
        ValueError: If there is none, or it is longer than any of NumPy's.
    """
    start = stream.read(8)
    if not start.startswith(b"\x93NUMPY"):
        kind = "it is an .npz archive" if start.startswith(b"PK") else "it does not begin like one"
        raise ValueError(kind)
    version = start[6:]
    read = {
        b"\1\0": np.lib.format.read_array_header_1_0,
        b"\2\0": np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f"it has version {tuple(version)} of the format")
    size = stream.read(2 if version == b"\1\0" else 4)
    length = int.from_bytes(size, "little")
    if length > _LONGEST_HEAD:
        raise ValueError(f"its head is {length} bytes long")
    try:
        shape, is_fortran, dtype = read(BytesIO(size + stream.read(length)))
    except MemoryError as exc:  # raised by Python's parser, of a few nested signs
        raise ValueError("its head is nested too deep") from exc
    shape = tuple(int(axis) for axis in shape)
    # A dtype without bytes, such as texts of length 0, would make any number of items free.
    if any(axis < 0 for axis in shape) or (0 not in shape and not dtype.itemsize):
        raise ValueError(f"it declares the shape {shape} of {dtype}")
    return Header(shape, dtype, is_fortran, 8 + len(size) + length)
