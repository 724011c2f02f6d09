"""The one place that checks arrays and words shape errors.

Every check returns the array in C order and never converts a dtype: a silent conversion hides the
caller's mistake, and the engines read the memory as it lies.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .errors import InvalidInputError

Vectors = npt.NDArray[np.float32]  # (n, D)
Codes = npt.NDArray[np.uint8]  # (n, M)
Scores = npt.NDArray[np.float32]  # (nq, k), (nq, n) or (n,)
Ids = npt.NDArray[np.int64]  # (n,) or (nq, k)


def check_vectors(x: object, width: int | None = None, *, name: str = "x") -> Vectors:
    """Return ``x`` in C order if it is a finite float32 array of shape (n, width).

    Args:
        x: What the caller passed.
        width: The number of columns that must come; None accepts any positive number.
        name: The argument's name, the first word of the message.

    Raises:
        InvalidInputError: If ``x`` is no float32 array, has another shape, or holds NaN or Inf.
    """
    if not isinstance(x, np.ndarray) or x.dtype != np.float32:
        got = x.dtype if isinstance(x, np.ndarray) else type(x).__name__
        raise InvalidInputError(
            f"{name} must be a float32 array, got {got}. "
            f"Convert it with np.asarray({name}, dtype=np.float32)."
        )
    columns = "D" if width is None else str(width)
    if x.ndim == 1:
        raise InvalidInputError(
            f"{name} must have shape (n, {columns}), got {x.shape}. "
            f"Use {name}[None, :] for a single vector."
        )
    if x.ndim != 2 or x.shape[1] == 0 or (width is not None and x.shape[1] != width):
        raise InvalidInputError(f"{name} must have shape (n, {columns}), got {x.shape}.")
    finite = np.isfinite(x).all(axis=1)
    if not finite.all():
        rows = np.flatnonzero(~finite)
        raise InvalidInputError(
            f"{name} must be finite, but {len(rows)} of {len(x)} rows hold NaN or Inf, "
            f"the first of them row {rows[0]}. Remove or repair those rows."
        )
    return np.ascontiguousarray(x)


def check_codes(codes: object, M: int, K: int, *, name: str = "codes") -> Codes:
    """Return ``codes`` in C order if it is a uint8 array of shape (n, M) with values below K.

    Raises:
        InvalidInputError: If dtype, shape or a value is wrong.
    """
    if not isinstance(codes, np.ndarray) or codes.dtype != np.uint8:
        got = codes.dtype if isinstance(codes, np.ndarray) else type(codes).__name__
        raise InvalidInputError(
            f"{name} must be a uint8 array, got {got}. Make codes with mecoq_index.encode."
        )
    if codes.ndim != 2 or codes.shape[1] != M:
        raise InvalidInputError(f"{name} must have shape (n, {M}), got {codes.shape}.")
    if K < 256 and codes.size and (largest := int(codes.max())) >= K:
        raise InvalidInputError(
            f"{name} must be below K={K}, got {largest}. "
            "They belong to other codebooks, or several of them are packed into one byte."
        )
    return np.ascontiguousarray(codes)


def check_ids(ids: object, n: int, *, name: str = "ids") -> Ids:
    """Return ``ids`` in C order if it is an int64 array of n distinct values, none below 0.

    Raises:
        InvalidInputError: If dtype, length or a value is wrong.
    """
    if not isinstance(ids, np.ndarray) or ids.dtype != np.int64:
        got = ids.dtype if isinstance(ids, np.ndarray) else type(ids).__name__
        raise InvalidInputError(
            f"{name} must be an int64 array, got {got}. "
            f"Convert it with np.asarray({name}, dtype=np.int64)."
        )
    if ids.shape != (n,):
        raise InvalidInputError(f"{name} must have shape ({n},), got {ids.shape}.")
    if ids.size and ids.min() < 0:
        raise InvalidInputError(
            f"{name} must not be negative, got {ids.min()}: -1 marks a missing result."
        )
    if len(np.unique(ids)) != n:
        raise InvalidInputError(f"{name} must be distinct, but {n - len(np.unique(ids))} repeat.")
    return np.ascontiguousarray(ids)


def distinct_ids(ids: object, *, name: str = "ids") -> tuple[Ids, npt.NDArray[np.intp]]:
    """The distinct values, ascending, of ids that may repeat, and where each one came.

    Returns:
        ``wanted`` int64 (m,) and ``places`` (n,), such that ``wanted[places]`` equals ``ids``.

    Raises:
        InvalidInputError: If ``ids`` is no int64 array with one axis, or a value is below 0.
    """
    if not isinstance(ids, np.ndarray) or ids.dtype != np.int64 or ids.ndim != 1:
        check_ids(ids, np.size(np.asarray(ids)), name=name)
    wanted, places = np.unique(np.asarray(ids, np.int64), return_inverse=True)
    return check_ids(wanted, len(wanted), name=name), places


def check_k(k: object) -> int:
    """Return ``k``, the number of results per query, if it is an integer of at least 1.

    Raises:
        InvalidInputError: If it is not.
    """
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise InvalidInputError(
            f"k, the number of results per query, must be an integer of at least 1, got {k!r}."
        )
    return int(k)
