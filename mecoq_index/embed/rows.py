"""Codes of rows that lie on disk, or in memory, chunk by chunk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .._arrays import Codes, check_codes
from ..codebooks import Codebooks, VectorKind
from ..errors import InvalidInputError
from ..scoring import encode

_CHUNK_BYTES = 64 << 20
_MAX_CHUNK = 1 << 16
_SAMPLED = 64

Progress = Callable[[str, int, int], None]
"""Told what is done (a few words), steps done and steps in all."""


class Rows(Protocol):
    """Rows to build from, such as a `mecoq_index.data.vectors.VectorFile`.

    Where there is an attribute ``path`` too, a build goes on only if its files are unchanged.
    """

    n: int
    width: int
    dtype: np.dtype[Any]

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows start..stop-1, float32 vectors or uint8 codes."""
        ...


class ArrayRows:
    """Rows that are in memory.

    Raises:
        InvalidInputError: If they are not an array with two axes.
    """

    def __init__(self, array: npt.NDArray[Any]) -> None:
        if not isinstance(array, np.ndarray) or array.ndim != 2:
            raise InvalidInputError(
                f"rows must be an array of shape (n, width), got {getattr(array, 'shape', array)}."
            )
        self.n, self.width = array.shape
        self.dtype = array.dtype
        self._array = array

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows start..stop-1."""
        return self._array[start:stop]


class RowEncoder:
    """Encodes ranges of rows.

    Attributes:
        chunk: How many rows to take at a time.
    """

    def __init__(self, rows: Rows, codebooks: Codebooks, given: VectorKind | None = None) -> None:
        self._rows, self._codebooks, self._given = rows, codebooks, given
        self._are_codes = _check_rows(rows, codebooks)
        self.chunk = max(1024, min(_MAX_CHUNK, _CHUNK_BYTES // (4 * rows.width) // 1024 * 1024))

    def encode(self, start: int, stop: int) -> Codes:
        """The codes (stop - start, M) of these rows.

        Raises:
            InvalidInputError: If codes are K or more, or vectors are not finite.
            ArtifactError: If the rows on disk are damaged.
        """
        found = self._rows.read(start, stop)
        if self._are_codes:
            K = self._codebooks.K
            if K < 256 and len(rows := np.flatnonzero((found >= K).any(axis=1))):
                raise InvalidInputError(
                    f"codes must be below K={K}, but row {start + rows[0]} holds "
                    f"{found[rows[0]].max()}. They belong to other codebooks, or several of them "
                    "are packed into one byte."
                )
            return check_codes(found, self._codebooks.M, K)
        if not (finite := np.isfinite(found).all(axis=1)).all():
            row = start + int(np.flatnonzero(~finite)[0])
            raise InvalidInputError(
                f"vectors must be finite, but row {row} holds NaN or Inf. Remove or repair it."
            )
        return encode(self._codebooks.embed(found, given=self._given), self._codebooks)


def encode_all(
    rows: Rows,
    codebooks: Codebooks,
    *,
    given: VectorKind | None = None,
    on_progress: Progress | None = None,
) -> Codes:
    """Codes (n, M), in memory, of rows that are too many to be there themselves.

    Raises:
        InvalidInputError: If the rows do not fit the codebooks, or are not finite.
        ArtifactError: If the rows on disk are damaged.
    """
    encoder = RowEncoder(rows, codebooks, given)
    codes = np.empty((rows.n, codebooks.M), np.uint8)
    for at in range(0, rows.n, encoder.chunk):
        end = min(at + encoder.chunk, rows.n)
        codes[at:end] = encoder.encode(at, end)
        if on_progress:
            on_progress("encoding", end, rows.n)
    return codes


def _check_rows(rows: Rows, codebooks: Codebooks) -> bool:
    """Whether the rows are codes.

    Raises:
        InvalidInputError: If they are neither codes nor vectors for the codebooks.
    """
    if rows.dtype == np.uint8:
        if rows.width != codebooks.M:
            raise InvalidInputError(
                f"codes must have shape (n, {codebooks.M}), got a width of {rows.width}."
            )
        return True
    if rows.dtype != np.float32:
        raise InvalidInputError(
            f"rows must be float32 vectors or uint8 codes, got {rows.dtype}. Convert them first."
        )
    if rows.width not in (codebooks.P, codebooks.D):
        raise InvalidInputError(
            f"vectors must be features of width P={codebooks.P} or embeddings of width "
            f"D={codebooks.D}, got width {rows.width}."
        )
    return False


def sample_digest(rows: Rows) -> str:
    """A digest of a few rows in places all over: other rows have, in all likelihood, another."""
    digest = hashlib.sha256(f"{rows.n} {rows.width} {rows.dtype}".encode())
    last = max(0, rows.n - _SAMPLED)
    for at in sorted({last * i // 8 for i in range(9)}):
        digest.update(np.ascontiguousarray(rows.read(at, min(at + _SAMPLED, rows.n))).tobytes())
    return digest.hexdigest()[:16]


def state_of_files(rows: Rows) -> str | None:
    """A digest of names, sizes and times of the files that rows are read from; None without."""
    path: Path | None = getattr(rows, "path", None)
    if path is None:
        return None
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    state = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(state).encode()).hexdigest()[:16]
