"""Codes as sparse vectors: one-hot documents and shifted lookup tables, for sparse search engines.

Dimension ``m * K + k`` stands for codeword k of codebook m. A document holds M ones, a query its
lookup table, so that their inner product is AQS (see `scoring`). Engines for sparse vectors, such
as Milvus, drop entries that are not positive. Each codebook's part of a query's table is therefore
shifted to be positive, and the sum of the shifts is returned as the query's offset:

    AQS = <query, document> + offset
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ._arrays import Codes, check_codes
from .codebooks import Codebooks
from .scoring import lookup_tables

SparseVector = dict[int, float]
"""Entries by dimension."""

# The smallest entry of a query. An entry of 0 would be dropped, and with it every item that has
# no other entry in common with the query.
_LEAST_ENTRY = 1 / 64


def one_hot(codes: Codes, codebooks: Codebooks) -> list[SparseVector]:
    """Return codes as sparse documents, ``{m * K + code: 1.0}``.

    Args:
        codes: uint8, shape (n, M).
        codebooks: The learned codebooks.

    Returns:
        n dictionaries of M entries each.

    Raises:
        InvalidInputError: If ``codes`` has another dtype or shape, or a value of K or more.

    Example:
        >>> books = Codebooks(np.eye(2, dtype=np.float32)[None].repeat(3, axis=0))
        >>> one_hot(np.array([[0, 1, 0]], dtype=np.uint8), books)
        [{0: 1.0, 3: 1.0, 4: 1.0}]
    """
    codes = check_codes(codes, codebooks.M, codebooks.K)
    places = codes.astype(np.int64) + np.arange(codebooks.M) * codebooks.K
    return [dict.fromkeys(row, 1.0) for row in places.tolist()]


def shifted_tables(
    q: npt.ArrayLike, codebooks: Codebooks
) -> tuple[list[SparseVector], npt.NDArray[np.float32]]:
    """Return sparse queries, and the offsets that turn their inner products into AQS.

    Args:
        q: Raw queries, shape (nq, D), any float or integer dtype; converted to float32.
        codebooks: The learned codebooks.

    Returns:
        nq dictionaries of M K positive entries each, and float32 offsets, shape (nq,).

    Raises:
        InvalidInputError: If ``q`` has another shape, or is not finite.
    """
    tables = lookup_tables(q, codebooks)
    shift = tables.min(axis=2, keepdims=True) - np.float32(_LEAST_ENTRY)
    flat = (tables - shift).reshape(len(tables), codebooks.M * codebooks.K)
    values = [dict(enumerate(row)) for row in flat.tolist()]
    return values, shift.sum(axis=(1, 2), dtype=np.float32)


def codes_of(documents: Sequence[SparseVector], codebooks: Codebooks) -> Codes:
    """Return the codes, uint8 (n, M), of documents that `one_hot` made."""
    places = np.array([sorted(row) for row in documents], np.int64).reshape(-1, codebooks.M)
    return (places - np.arange(codebooks.M) * codebooks.K).astype(np.uint8)


def are_one_hot(documents: Sequence[SparseVector], codebooks: Codebooks) -> npt.NDArray[np.bool_]:
    """Return which documents, bool (n,), hold a single 1 for each codebook, as `one_hot` makes."""
    M, K = codebooks.M, codebooks.K
    fits = [
        len(row) == M
        and set(row.values()) == {1.0}
        and all(m * K <= place < (m + 1) * K for m, place in enumerate(sorted(row)))
        for row in documents
    ]
    return np.array(fits, np.bool_)
