"""The fields of a file, read one after another, each held against the bytes that are left."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ...errors import ArtifactError

_AT_ONCE = 1 << 22  # bytes


class Fields:
    """Little-endian fields of a seekable stream, from its beginning on.

    Nothing is read or allocated before the stream is known to have as many bytes.

    Args:
        stream: The stream.
        name: What the messages call it.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream, self._name = stream, name
        self.left = stream.seek(0, os.SEEK_END)
        """Bytes that have not been read yet."""
        stream.seek(0)

    def refusal(self, what: str) -> ArtifactError:
        """The error that says what is wrong with the file."""
        return ArtifactError(
            f"{self._name} cannot be opened: {what}. "
            "The file is damaged, or not an index that this package writes. Make it again."
        )

    def foreign(self, what: str) -> ArtifactError:
        """The error for an index that FAISS can read, but this package does not."""
        return ArtifactError(f"{self._name} is refused: {what}.")

    def check(self, holds: bool, what: str) -> None:
        """Refuse the file unless something holds.

        Args:
            holds: Whether it does.
            what: What must hold, and what the file says instead.

        Raises:
            ArtifactError: If it does not.
        """
        if not holds:
            raise self.refusal(what)

    def check_equal(self, got: object, wanted: object, what: str) -> None:
        """Refuse the file unless two values are the same.

        Raises:
            ArtifactError: If they are not.
        """
        if got != wanted:
            raise self.refusal(f"{what} must be {wanted}, but is {got}")

    def check_range(self, got: float, lowest: float, highest: float, what: str) -> None:
        """Refuse the file unless a value is from ``lowest`` to ``highest``.

        Raises:
            ArtifactError: If it is not, or it is no number.
        """
        if not lowest <= got <= highest:
            raise self.refusal(f"{what} must be from {lowest} to {highest}, but is {got}")

    def take(self, n: int, what: str) -> bytes:
        """The next n bytes."""
        self.check(
            n <= self.left,
            f"the {what} would take {n} bytes, but {self.left} are left",
        )
        content = self._stream.read(n)
        # Somebody may have cut the file since its size was taken.
        self.check(len(content) == n, f"the file ends within the {what}")
        self.left -= n
        return content

    def window(self) -> bytes:
        """The next few MiB, or as many as are left; they are still to be read, or passed over."""
        content = self._stream.read(min(_AT_ONCE, self.left))
        self._stream.seek(-len(content), os.SEEK_CUR)
        return content

    def skip(self, n: int, what: str) -> None:
        """Pass over n bytes."""
        self.check(
            n <= self.left,
            f"the {what} would take {n} bytes, but {self.left} are left",
        )
        self._stream.seek(n, os.SEEK_CUR)
        self.left -= n

    def number(self, kind: str, what: str) -> Any:
        """The next number, of a kind of `struct`: ``i``, ``q``, ``Q`` or ``f``."""
        return struct.unpack("<" + kind, self.take(struct.calcsize("<" + kind), what))[0]

    def flag(self, what: str) -> bool:
        """The next byte, which is 0 or 1."""
        value = self.take(1, f"flag for {what}")[0]
        self.check_range(value, 0, 1, f"the flag for {what}")
        return bool(value)

    def tag(self) -> str:
        """The next four characters, which name a kind."""
        return ascii(self.take(4, "kind").decode("latin-1"))[1:-1]

    def count(self, item_bytes: int, what: str) -> int:
        """The number of items in front of an array, once all of them fit into the file."""
        n = int(self.number("Q", f"number of {what}"))
        self.check(
            n * item_bytes <= self.left,
            f"{n} {what} would take {n * item_bytes} bytes, but {self.left} are left",
        )
        return n

    def array(self, dtype: str, n: int, what: str) -> npt.NDArray[Any]:
        """The next n numbers."""
        kind = np.dtype(dtype)
        return np.frombuffer(self.take(n * kind.itemsize, what), kind)

    def counted(self, dtype: str, what: str) -> npt.NDArray[Any]:
        """An array behind its number of items."""
        return self.array(dtype, self.count(np.dtype(dtype).itemsize, what), what)

    def pieces(self, dtype: str, n: int, what: str) -> Iterator[npt.NDArray[Any]]:
        """The next n numbers, a few MiB at a time."""
        step = _AT_ONCE // np.dtype(dtype).itemsize
        for start in range(0, n, step):
            yield self.array(dtype, min(step, n - start), what)

    def end(self) -> None:
        """Refuse a file that goes on.

        Raises:
            ArtifactError: If it does.
        """
        self.check(not self.left, f"{self.left} bytes follow after the end of the index")
