"""Texts as one array of bytes: a hundred million of them without as many objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInputError

Bytes = npt.NDArray[np.uint8]  # (bytes,)
Offsets = npt.NDArray[np.int64]  # (n + 1,)
Rows = npt.NDArray[np.int64]  # (rows,)

BLOCK = 1 << 16
"""Texts handled at a time: temporary arrays take some ten times the bytes of these."""


def decode(text: bytes) -> str:
    """The string of some UTF-8 bytes; others come back as lone surrogates, as file names do."""
    return text.decode("utf-8", "surrogateescape")


def encode(texts: Sequence[str], *, what: str = "names") -> tuple[Offsets, Bytes]:
    """Offsets (n + 1,) and bytes of n strings: text i is ``bytes[offsets[i]:offsets[i + 1]]``.

    Raises:
        InvalidInputError: If a value is no string that UTF-8 can hold.
    """
    if isinstance(texts, str):
        raise InvalidInputError(f"{what} must be a sequence of strings, got one: {texts!r}.")
    offsets = np.zeros(len(texts) + 1, np.int64)
    blocks = []
    for at in range(0, len(texts), BLOCK):
        encoded = [_encode_one(text, what) for text in texts[at : at + BLOCK]]
        offsets[at + 1 : at + 1 + len(encoded)] = [len(text) for text in encoded]
        blocks.append(b"".join(encoded))
    return np.cumsum(offsets), np.frombuffer(b"".join(blocks), np.uint8)


def _encode_one(text: object, what: str) -> bytes:
    if not isinstance(text, str):
        raise InvalidInputError(f"{what} must be strings, got {type(text).__name__}.")
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as exc:
        raise InvalidInputError(f"{what} must be text that UTF-8 can hold, got {text!r}.") from exc


def iterate(offsets: Offsets, text: Bytes) -> Iterator[str]:
    """All texts in order."""
    for at in range(0, len(offsets) - 1, BLOCK):
        bounds = offsets[at : at + BLOCK + 1].tolist()
        block = text[bounds[0] : bounds[-1]].tobytes()
        for start, stop in pairwise(bounds):
            yield decode(block[start - bounds[0] : stop - bounds[0]])


def take(offsets: Offsets, text: Bytes, rows: Rows) -> tuple[Offsets, Bytes]:
    """The texts in these rows, one after the other."""
    starts = offsets[rows]
    lengths = offsets[rows + 1] - starts
    bounds = np.cumsum(np.append(np.int64(0), lengths))
    taken = np.empty(bounds[-1], np.uint8)
    for at in range(0, len(rows), BLOCK):
        block = slice(at, at + BLOCK)
        here = bounds[at : at + BLOCK + 1]
        # How far each byte moves is the same for all bytes of a text.
        moves = np.repeat(starts[block] - here[:-1], lengths[block])
        taken[here[0] : here[-1]] = text[np.arange(here[0], here[-1]) + moves]
    return bounds, taken


def check_offsets(offsets: Offsets, text: Bytes, n: int) -> None:
    """Refuse offsets that do not divide the bytes into n texts.

    Raises:
        InvalidInputError: If so.
    """
    if len(offsets) != n + 1:
        raise InvalidInputError(f"offsets must be one more than ids, {n + 1}, got {len(offsets)}.")
    ends = int(offsets[0]), int(offsets[-1])
    if ends != (0, len(text)) or (offsets[1:] < offsets[:-1]).any():
        raise InvalidInputError(
            f"offsets must ascend from 0 to the {len(text)} bytes of text, but they do not: they "
            f"go from {ends[0]} to {ends[1]}."
        )


def check_array(name: str, array: object, dtype: type[np.generic]) -> None:
    """Refuse anything but an array of one axis and this dtype.

    Raises:
        InvalidInputError: If so.
    """
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 1:
        got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array)
        raise InvalidInputError(
            f"{name} must be an array of {dtype.__name__} with one axis, got {got}. "
            "Use Names.from_strings."
        )
