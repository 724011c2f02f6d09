"""Codes of ranges of rows that lie on disk or in memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .._arrays import Codes, Vectors, check_codes
from .._progress import Progress, silent
from ..codebooks import Codebooks, VectorKind
from ..data.reader import Block, RowReader
from ..errors import InvalidInputError
from ..scoring import encode

_CHUNK_BYTES = 64 << 20
_MAX_CHUNK = 1 << 16
# Rows that are compared with the statistics of training: this many runs of this many rows.
_RUNS, _RUN_ROWS = 16, 256


class RowEncoder:
    """Embeds and encodes ranges of rows.

    Rows of uint8 are codes if they have the width M and ``given`` is None, and numbers of a vector
    otherwise. A sample of vectors is compared with the statistics of the codebooks once, here.

    Args:
        rows: float32 or uint8 rows: features (n, P), embeddings (n, D) or codes (n, M).
        codebooks: The codebooks.
        given: Whether vectors are features or embeddings; decided by their width if None.

    Attributes:
        n: Number of rows.
        chunk: The number of rows to take at a time.
        are_codes: Whether the rows are codes already.

    Raises:
        InvalidInputError: If the rows do not fit the codebooks, or more than nine tenths of a
            sample do not fit their statistics.
        ArtifactError: If the rows on disk are damaged.
    """

    def __init__(
        self, rows: RowReader, codebooks: Codebooks, given: VectorKind | None = None
    ) -> None:
        self._rows, self._given, self.n = rows, given, rows.n
        self.are_codes = rows.dtype == np.uint8 and rows.width == codebooks.M and given is None
        if not self.are_codes:
            _check_width(rows, codebooks)
            codebooks.embed(_sample(rows), given)  # compares them with the statistics
        self._codebooks = replace(codebooks, statistics=None)
        self.chunk = max(1024, min(_MAX_CHUNK, _CHUNK_BYTES // (4 * rows.width) // 1024 * 1024))

    def embed(self, start: int, stop: int) -> Vectors:
        """Return the embeddings (stop - start, D) of these rows, float32.

        Raises:
            InvalidInputError: If the rows are codes, or not finite.
            ArtifactError: If the rows on disk are damaged.
        """
        if self.are_codes:
            raise InvalidInputError(
                "the rows are codes already, which have no embeddings. Give vectors, or say with "
                "given what the numbers are."
            )
        found = self._rows.read(start, stop)
        if not (finite := np.isfinite(found).all(axis=1)).all():
            row = start + int(np.flatnonzero(~finite)[0])
            raise InvalidInputError(
                f"vectors must be finite, but row {row} holds NaN or Inf. Remove or repair it."
            )
        return self._codebooks.embed(found, self._given)

    def encode(self, start: int, stop: int) -> Codes:
        """Return the codes (stop - start, M) of these rows.

        Raises:
            InvalidInputError: If codes are K or more, or vectors are not finite.
            ArtifactError: If the rows on disk are damaged.
        """
        if self.are_codes:
            return self._check_codes(self._rows.read(start, stop), start)
        return encode(self.embed(start, stop), self._codebooks)

    def _check_codes(self, codes: Block, start: int) -> Codes:
        M, K = self._codebooks.M, self._codebooks.K
        if K < 256 and len(rows := np.flatnonzero((codes >= K).any(axis=1))):
            raise InvalidInputError(
                f"codes must be below K={K}, but row {start + rows[0]} holds "
                f"{codes[rows[0]].max()}. They belong to other codebooks, or several of them "
                "are packed into one byte."
            )
        return check_codes(codes, M, K)

    def encode_all(self, on_progress: Progress = silent) -> Codes:
        """Return the codes (n, M) of all rows, which need not fit into memory themselves.

        Args:
            on_progress: Called with ("encoding", rows done, rows in all).

        Raises:
            InvalidInputError: If codes are K or more, or vectors are not finite.
            ArtifactError: If the rows on disk are damaged.
        """
        codes = np.empty((self.n, self._codebooks.M), np.uint8)
        for at in range(0, self.n, self.chunk):
            end = min(at + self.chunk, self.n)
            codes[at:end] = self.encode(at, end)
            on_progress("encoding", end, self.n)
        return codes

    def embed_all(self, on_progress: Progress = silent) -> Vectors:
        """Return the embeddings (n, D) of all rows, float32.

        Args:
            on_progress: Called with ("embedding", rows done, rows in all).

        Raises:
            InvalidInputError: If the rows are codes, or not finite.
            ArtifactError: If the rows on disk are damaged.
        """
        z = np.empty((self.n, self._codebooks.D), np.float32)
        for at in range(0, self.n, self.chunk):
            end = min(at + self.chunk, self.n)
            z[at:end] = self.embed(at, end)
            on_progress("embedding", end, self.n)
        return z


def _sample(rows: RowReader) -> Block:
    """Return the finite ones of some rows from all over the source."""
    last = max(0, rows.n - _RUN_ROWS)
    starts = sorted({last * i // (_RUNS - 1) for i in range(_RUNS)})
    found = np.concatenate([rows.read(at, min(at + _RUN_ROWS, rows.n)) for at in starts])
    finite: Block = found[np.isfinite(found).all(axis=1)]
    return finite


def _check_width(rows: RowReader, codebooks: Codebooks) -> None:
    fitting = {codebooks.P, codebooks.D}
    if rows.width in fitting:
        return
    if rows.dtype == np.uint8:
        raise InvalidInputError(
            f"codes must have shape (n, {codebooks.M}), got a width of {rows.width}, which is not "
            f"that of vectors either (P={codebooks.P}, D={codebooks.D})."
        )
    raise InvalidInputError(
        f"vectors must be features of width P={codebooks.P} or embeddings of width "
        f"D={codebooks.D}, got width {rows.width}."
    )
