"""How FAISS lays out codes: packed bits, list numbers in front of them, FastScan's blocks.

What FAISS does that a reader would not guess:

- Codes are packed without gaps unless they have 8 bits each.
- The codes that IVF takes carry a little-endian list number of ``coarse_code_size()`` bytes in
  front.
- FastScan's ``reconstruct`` and ``merge_from`` are right for its default block of 32 vectors only
  (FAISS 1.15 ignores the block size when it reads single codes), so codes are read from its table
  here (`codes_in_blocks`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..._arrays import Codes
from ..._optional import import_faiss
from .inject import Layers
from .spec import FactorySpec

Lists = npt.NDArray[np.integer[Any]]

# Where FastScan puts 16 vectors within a register (perm0 in faiss/impl/pq4_fast_scan.cpp).
_PERMUTED = np.array([0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15])
_PLACE = np.argsort(_PERMUTED)


def pack(codes: Codes, nbits: int) -> Codes:
    """FAISS's codes: nbits a subquantizer, packed without gaps, low bits first."""
    if nbits == 8:
        return codes
    if nbits == 4 and codes.shape[1] % 2 == 0:  # nine times faster than the general way
        pairs = codes.view("<u2")
        halves: Codes = (pairs | pairs >> 4).astype(np.uint8)
        return halves
    packed: Codes = import_faiss().pack_bitstrings(codes.astype(np.int32), nbits)
    return packed


def unpack(packed: Codes, M: int, nbits: int) -> Codes:
    """Our codes (n, M), one byte a subquantizer, from FAISS's."""
    if nbits == 8:
        return packed
    codes: Codes = import_faiss().unpack_bitstrings(packed, M, nbits).astype(np.uint8)
    return codes


def with_list_numbers(lists: Lists, packed: Codes, width: int) -> Codes:
    """Codes, each after the little-endian number of its list in ``width`` bytes."""
    prefix = np.ascontiguousarray(lists, dtype="<i8").view(np.uint8).reshape(len(packed), 8)
    return np.concatenate([prefix[:, :width], packed], axis=1)


def codes_in_blocks(
    table: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64], M: int, block_size: int
) -> Codes:
    """Single codes out of FastScan's table.

    A block holds ``block_size`` vectors. It has 32 bytes for each pair of subquantizers and each 32
    of its vectors, 16 for either subquantizer: vector v < 16 in the low half of a byte, v + 16 in
    the high half, in the order of perm0 (pq4_pack_codes in faiss/impl/pq4_fast_scan.cpp).

    Args:
        table: The bytes of whole blocks.
        rows: Which vectors, shape (n,).
        M: Subquantizers.
        block_size: Vectors in a block.

    Returns:
        uint8 codes, shape (n, M).
    """
    pairs, groups = (M + 1) // 2, block_size // 32
    block, within = np.divmod(rows, block_size)
    group, lane = np.divmod(within, 32)
    m = np.arange(M)
    cell = (block[:, None] * pairs + m // 2) * groups + group[:, None]  # (n, M), of 32 bytes
    found = table[cell * 32 + m % 2 * 16 + _PLACE[lane % 16][:, None]]
    codes: Codes = found >> (lane // 16 * 4)[:, None].astype(np.uint8) & 15
    return codes


def append_table(core: Any, converted: Any) -> None:
    """Append blocks to the full blocks of a flat FastScan index."""
    faiss = import_faiss()
    whole = core.ntotal // core.bbs * core.bbs
    start, size = whole * core.M2 // 2, converted.codes.size()
    core.codes.resize(start + size)
    table = faiss.rev_swig_ptr(core.codes.get(), start + size)
    table[start:] = faiss.rev_swig_ptr(converted.codes.get(), size)
    core.ntotal2 = whole + converted.ntotal2
    core.ntotal = whole + converted.ntotal


def append_lists(core: Any, new: Any) -> None:
    """Append blocks to the full blocks of each list of an IVF FastScan index."""
    faiss, lists, bbs = import_faiss(), core.invlists, core.bbs
    for number in range(core.nlist):
        if not (size := new.list_size(number)):
            continue
        held = lists.list_size(number)
        whole = held // bbs * bbs
        total, start = whole + size, whole * core.M2 // 2
        bytes_new, bytes_total = (-(-n // bbs) * bbs * core.M2 // 2 for n in (size, total))
        lists.resize(number, total)
        table = faiss.rev_swig_ptr(lists.get_codes(number), bytes_total)
        table[start:] = faiss.rev_swig_ptr(new.get_codes(number), bytes_new)
        ids = faiss.rev_swig_ptr(lists.get_ids(number), total)
        ids[whole:] = faiss.rev_swig_ptr(new.get_ids(number), size)
        core.ntotal += total - held


def bytes_per_vector(layers: Layers, spec: FactorySpec, items: int) -> float:
    """Bytes of packed code, of 8-byte ids for IVF and IDMap, and of the links of a graph."""
    code = (spec.M * spec.nbits + 7) // 8
    size = float(code * (1 + bool(spec.refine)) + 8 * bool(spec.nlist) + 8 * bool(spec.id_map))
    if spec.graph and items:
        graph = layers.core.hnsw
        links = 4 * graph.neighbors.size() + 8 * graph.offsets.size() + 4 * graph.levels.size()
        size += links / items
    return size
