"""The scoring algebra in NumPy, and the reference that every engine is held to.

With unit codewords C^m, an item is M indices i^m = argmax_i <z^m, c^m_i>, and a raw query z is
scored against it by the asymmetric quantized similarity (MeCoQ, section 3.5):

    AQS(z, codes) = sum_m <z^m, c^m_{codes[m]}> / ||z^m||  =  <block_normalize(z), decode(codes)>

so any engine that ranks decoded vectors by inner product ranks by AQS. Larger is better.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._arrays import Codes, Scores, Vectors, as_vectors, check_codes, check_vectors, unit_rows
from .codebooks import Codebooks
from .errors import InvalidInputError

_SCRATCH_BYTES = 64 << 20
# Squared lengths between these lose no digits to the limits of float32.
_ORDINARY = (1e-20, 1e20)
# A sum of as many products as a subvector is wide stays far below the largest float32.
_LARGEST = 1e30


def _rows_per_chunk(bytes_per_row: int) -> int:
    return max(1, _SCRATCH_BYTES // bytes_per_row)


def block_normalize(z: npt.ArrayLike, M: int) -> Vectors:
    """Divide each of the M subvectors of every row by its Euclidean length.

    Args:
        z: Shape (n, D), D a multiple of M; any float or integer dtype, converted to float32. Not
            changed.
        M: Number of subvectors.

    Returns:
        float32, shape (n, D). A subvector of length zero stays zero.

    Raises:
        InvalidInputError: If ``z`` has another shape, is not finite, or M does not divide D.
    """
    if not isinstance(z, np.ndarray) or z.dtype != np.float32:
        z = as_vectors(z, name="z")
    if z.ndim != 2 or M < 1 or z.shape[1] % M or not z.size:
        z = check_vectors(z, name="z")
        if M < 1 or z.shape[1] % M:
            raise InvalidInputError(
                f"M must divide the width of z, got M={M} and a width of {z.shape[1]}."
            )
        return np.array(z)
    blocks = z.reshape(len(z), M, -1)
    squares = np.einsum("nmd,nmd->nm", blocks, blocks)
    # For one query, argmin and argmax, which stop at NaN, take a third of the time of min and max.
    least, most = squares.item(squares.argmin()), squares.item(squares.argmax())
    if least > _ORDINARY[0] and most < _ORDINARY[1]:
        # Nearly all queries come here and take a few microseconds: moderate lengths prove that
        # every entry is finite and that no square left the range of float32.
        normalized = blocks / np.sqrt(squares)[:, :, None]
    else:
        check_vectors(z, name="z")
        ordinary = (squares > _ORDINARY[0]) & (squares < _ORDINARY[1])
        normalized = blocks / np.sqrt(np.where(ordinary, squares, 1))[:, :, None]
        normalized[~ordinary] = unit_rows(blocks[~ordinary])
    result: Vectors = np.ascontiguousarray(normalized).reshape(z.shape)
    return result


def encode(z: npt.ArrayLike, codebooks: Codebooks) -> Codes:
    """Assign each subvector to the codeword with the largest inner product.

    Args:
        z: Embeddings of shape (n, D), any float or integer dtype; converted to float32. Need not be
            normalized: the assignment does not depend on the length of a subvector, and is the
            nearest codeword in L2 for unit subvectors.
        codebooks: The learned codebooks.

    Returns:
        uint8 codes, shape (n, M); ``codes[i, m]`` indexes ``codewords[m]``. On a tie the lowest
        index wins. Takes about 64 MB of memory beside input and output for any n.

    Raises:
        InvalidInputError: If ``z`` has another shape, or is not finite.

    Example:
        >>> import numpy as np
        >>> books = Codebooks(np.eye(2, dtype=np.float32)[None].repeat(3, axis=0))
        >>> encode(np.array([[1, 0, 0, 1, 1, 0]], dtype=np.float32), books)
        array([[0, 1, 0]], dtype=uint8)
    """
    z = as_vectors(z, codebooks.D, name="z")
    codes = np.empty((len(z), codebooks.M), np.uint8)
    rows = _rows_per_chunk(4 * codebooks.K)
    for start in range(0, len(z), rows):
        chunk = _moderate(z[start : start + rows])
        for m in range(codebooks.M):
            sub = chunk[:, m * codebooks.Ds : (m + 1) * codebooks.Ds]
            codes[start : start + rows, m] = (sub @ codebooks.codewords[m].T).argmax(axis=1)
    return codes


def _moderate(z: Vectors) -> Vectors:
    """Return rows that have the same codes, and finite inner products with unit vectors."""
    large = np.abs(z).max(axis=1) > _LARGEST
    if large.any():
        z = z.copy()
        z[large] *= np.float32(2.0**-40)  # a power of 2 rounds nothing
    return z


def decode(codes: Codes, codebooks: Codebooks) -> Vectors:
    """Return the concatenated codewords that the codes stand for.

    Args:
        codes: uint8, shape (n, M).
        codebooks: The learned codebooks.

    Returns:
        float32, shape (n, D); every subvector has unit length.

    Raises:
        InvalidInputError: If ``codes`` has another dtype or shape, or a value of K or more.
    """
    codes = check_codes(codes, codebooks.M, codebooks.K)
    M, K, Ds = codebooks.codewords.shape
    # One take over all codewords is three times as fast as indexing by (m, code).
    rows = np.take(codebooks.codewords.reshape(M * K, Ds), codes + np.arange(M) * K, axis=0)
    decoded: Vectors = rows.reshape(len(codes), codebooks.D)
    return decoded


def lookup_tables(q: npt.ArrayLike, codebooks: Codebooks) -> npt.NDArray[np.float32]:
    """Return the inner products of the block-normalized queries with every codeword.

    Args:
        q: Raw queries, shape (nq, D), any float or integer dtype; converted to float32.
        codebooks: The learned codebooks.

    Returns:
        float32, shape (nq, M, K), every entry in [-1, 1] up to rounding.

    Raises:
        InvalidInputError: If ``q`` has another shape, or is not finite.
    """
    q = block_normalize(as_vectors(q, codebooks.D, name="q"), codebooks.M)
    sub = q.reshape(len(q), codebooks.M, codebooks.Ds).transpose(1, 0, 2)
    tables = np.matmul(sub, codebooks.codewords.transpose(0, 2, 1))  # (M, nq, K)
    return np.ascontiguousarray(tables.transpose(1, 0, 2))


def aqs(q: npt.ArrayLike, codes: Codes, codebooks: Codebooks) -> Scores:
    """Return the asymmetric quantized similarity of every query with every item.

    Args:
        q: Raw queries, shape (nq, D), any float or integer dtype; converted to float32.
        codes: uint8, shape (n, M).
        codebooks: The learned codebooks.

    Returns:
        float32, shape (nq, n), in [-M, M] up to rounding; larger is better.

    Raises:
        InvalidInputError: If ``q`` has another shape or is not finite, or ``codes`` has another
            dtype, shape, or a value of K or more.
    """
    codes = check_codes(codes, codebooks.M, codebooks.K)
    return _sum_tables(lookup_tables(q, codebooks), codes)


def sqs(query_codes: Codes, codes: Codes, codebooks: Codebooks) -> Scores:
    """Return the symmetric quantized similarity, for which queries are quantized too.

    Args:
        query_codes: uint8, shape (nq, M).
        codes: uint8, shape (n, M).
        codebooks: The learned codebooks.

    Returns:
        float32, shape (nq, n): ``sum_m <c^m_{query_codes[m]}, c^m_{codes[m]}>``.

    Raises:
        InvalidInputError: If either argument has another dtype, shape, or a value of K or more.
    """
    query_codes = check_codes(query_codes, codebooks.M, codebooks.K, name="query_codes")
    codes = check_codes(codes, codebooks.M, codebooks.K)
    between = np.matmul(codebooks.codewords, codebooks.codewords.transpose(0, 2, 1))  # (M, K, K)
    tables = between[np.arange(codebooks.M), query_codes]  # (nq, M, K)
    return _sum_tables(tables, codes)


def _sum_tables(tables: npt.NDArray[np.float32], codes: Codes) -> Scores:
    """Return ``out[q, i] = sum_m tables[q, m, codes[i, m]]``, added in the order of m."""
    scores = np.zeros((len(tables), len(codes)), np.float32)
    rows = _rows_per_chunk(8 * max(1, len(tables)))
    for start in range(0, len(codes), rows):
        chunk = codes[start : start + rows]
        for m in range(codes.shape[1]):
            scores[:, start : start + rows] += np.take(tables[:, m], chunk[:, m], axis=1)
    return scores
