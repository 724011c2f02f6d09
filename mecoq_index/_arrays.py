"""The one place that checks arrays and words the errors about their shapes.

``as_vectors`` and ``as_ids`` stand at the door: public functions pass what the caller gave through
them, and they convert other dtypes. The functions called ``check_...`` never convert: inside the
package a wrong dtype is a mistake, and the engines read the memory as it lies. All of them return
arrays in C order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import InvalidInputError

Vectors = npt.NDArray[np.float32]  # (n, D)
Codes = npt.NDArray[np.uint8]  # (n, M)
Scores = npt.NDArray[np.float32]  # (nq, k), (nq, n) or (n,)
Ids = npt.NDArray[np.int64]  # (n,) or (nq, k)

_MOST_RESULTS = 1 << 24


def as_vectors(x: npt.ArrayLike, width: int | None = None, *, name: str = "x") -> Vectors:
    """Return ``x`` as a finite float32 array of shape (n, width).

    Args:
        x: Numbers of shape (n, width): an array of any float or integer dtype, lists of lists, or
            anything else that NumPy turns into such an array. Other dtypes than float32 are
            converted, which rounds float64 to 24 bits.
        width: The required number of columns; None accepts any positive number.
        name: The argument's name, the first word of the message.

    Returns:
        float32, shape (n, width), in C order; ``x`` itself if it is such an array already.

    Raises:
        InvalidInputError: If ``x`` holds anything but real numbers, has another shape, or holds
            values that are not finite in float32.
    """
    if isinstance(x, np.ndarray) and x.dtype == np.float32:
        return check_vectors(x, width, name=name)
    array = _as_numbers(x, "fiu", "a float32 array", "Other floats and integers", name)
    with np.errstate(over="ignore"):  # infinities are refused below
        return check_vectors(array.astype(np.float32), width, name=name)


def check_vectors(x: object, width: int | None = None, *, name: str = "x") -> Vectors:
    """Return ``x`` in C order if it is a finite float32 array of shape (n, width).

    Args:
        x: The argument to check.
        width: The required number of columns; None accepts any positive number.
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


def unit_rows(x: Vectors) -> Vectors:
    """Return a copy of the rows (n, width) divided by their lengths; a row of zeros stays zero.

    Rows whose squared length leaves the range of float32 are divided correctly too.
    """
    peak = np.abs(x).max(axis=1, keepdims=True)
    scaled = np.divide(x, peak, out=np.zeros_like(x), where=peak > 0)
    norms = np.linalg.norm(scaled, axis=1, keepdims=True)
    unit: Vectors = np.divide(scaled, norms, out=scaled, where=norms > 0)
    return unit


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


def as_ids(ids: npt.ArrayLike, n: int | None = None, *, name: str = "ids") -> Ids:
    """Return ``ids`` as an int64 array of n distinct values, none below 0.

    Args:
        ids: Whole numbers of shape (n,): an array of any integer dtype, or a list or range of
            integers. Other dtypes than int64 are converted.
        n: The required number; None accepts any.
        name: The argument's name, the first word of the message.

    Returns:
        int64, shape (n,), in C order.

    Raises:
        InvalidInputError: If ``ids`` holds anything but integers of 64 bits, has another shape, or
            a value repeats or is below 0.
    """
    array = _as_integers(ids, name)
    return check_ids(array, array.size if n is None else n, name=name)


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
    if ids.ndim != 1:
        raise InvalidInputError(f"{name} must have shape (n,), got {ids.shape}.")
    if ids.shape != (n,):
        raise InvalidInputError(f"{name} must have shape ({n},), got {ids.shape}.")
    if ids.size and ids.min() < 0:
        raise InvalidInputError(
            f"{name} must not be negative, got {ids.min()}: -1 marks a missing result."
        )
    if len(np.unique(ids)) != n:
        raise InvalidInputError(f"{name} must be distinct, but {n - len(np.unique(ids))} repeat.")
    return np.ascontiguousarray(ids)


def distinct_ids(ids: npt.ArrayLike, *, name: str = "ids") -> tuple[Ids, npt.NDArray[np.intp]]:
    """Return the distinct values of ids, ascending, and the place of each id among them.

    Args:
        ids: Whole numbers of shape (n,), as `as_ids` takes them.
        name: The argument's name, the first word of the message.

    Returns:
        ``wanted`` int64 (m,) and ``places`` (n,), such that ``wanted[places]`` equals ``ids``.

    Raises:
        InvalidInputError: If ``ids`` are no integers, have another shape, or one is below 0.
    """
    array = _as_integers(ids, name)
    if array.ndim != 1:
        raise InvalidInputError(f"{name} must have shape (n,), got {array.shape}.")
    wanted, places = np.unique(array, return_inverse=True)
    return check_ids(wanted, len(wanted), name=name), places


def check_k(k: object) -> int:
    """Return ``k``, the number of results per query, if it is an integer of 1 to 16,777,216.

    Raises:
        InvalidInputError: If it is not.
    """
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise InvalidInputError(
            f"k, the number of results per query, must be an integer of at least 1, got {k!r}."
        )
    if k > _MOST_RESULTS:  # missing results take memory too
        raise InvalidInputError(
            f"k, the number of results per query, must be at most {_MOST_RESULTS:,}, got {k}."
        )
    return int(k)


def _as_integers(ids: npt.ArrayLike, name: str) -> Ids:
    array = _as_numbers(ids, "iu", "an int64 array", "Other integers", name)
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise InvalidInputError(f"{name} must be below 2**63, got {array.max()}.")
    return array.astype(np.int64, copy=False)


def _as_numbers(
    x: npt.ArrayLike, kinds: str, what: str, converted: str, name: str
) -> npt.NDArray[Any]:
    """Return ``x`` as an array whose dtype is of one of NumPy's ``kinds``."""
    try:
        array = np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as exc:  # ragged lists, tensors on a GPU
        reason = next(iter(str(exc).splitlines()), type(exc).__name__)
        raise InvalidInputError(
            f"{name} must be {what}, got {type(x).__name__} that NumPy cannot turn into one "
            f"({reason})."
        ) from exc
    if not array.size and not isinstance(x, np.ndarray):
        return array.astype(np.float32 if "f" in kinds else np.int64)
    if array.dtype.kind not in kinds:
        got = array.dtype if isinstance(x, np.ndarray) else f"{type(x).__name__} of {array.dtype}"
        raise InvalidInputError(f"{name} must be {what}, got {got}. {converted} are converted.")
    return array
