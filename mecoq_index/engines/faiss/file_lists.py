"""The inverted lists in a FAISS file, and the map from items to their places in them."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .file_fields import Fields

_INVALID_CODE_SIZE = 2**64 - 1  # FAISS's, for lists whose codes lie in blocks
_SIZE = struct.Struct("<Q")
_LONG = 100  # items of a list; shorter ones are faster read together

Sizes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Coding:
    """How the codes of a list are laid out.

    Attributes:
        code_size: Bytes of a single code.
        block: Codes in a block of FastScan; 0 for codes one after another.
        block_bytes: Bytes of a block.
    """

    code_size: int
    block: int = 0
    block_bytes: int = 0

    def bytes_of(self, n: int) -> int:
        """Bytes of the codes of n items."""
        return -(-n // self.block) * self.block_bytes if self.block else n * self.code_size


def check_lists(fields: Fields, nlist: int, ntotal: int, coding: Coding, *, rows: bool) -> Sizes:
    """Check the inverted lists that come next; return how many items each of them has.

    Lists that lie in another file are refused, like every kind but FAISS's array and block lists:
    FAISS opens, and writes to, whatever path such an index names.

    Args:
        fields: The file.
        nlist: Number of lists.
        ntotal: Number of items.
        coding: The layout of their codes.
        rows: Whether ids must be the numbers 0..ntotal-1, which something else is looked up by.

    Raises:
        ArtifactError: If they are damaged, or not in this file.
    """
    kind = fields.tag()
    if kind not in ("ilar", "ilbl"):
        raise fields.foreign(
            f"its inverted lists are of the kind {kind!r}, which may lie in any other file. Read "
            "it with FAISS, and write it again with faiss.ArrayInvertedLists"
        )
    fields.check_equal(kind, "ilbl" if coding.block else "ilar", "the kind of lists")
    fields.check_equal(fields.number("Q", "number of lists"), nlist, "the number of lists")
    code_size = fields.number("Q", "size of codes")
    ids = _Ids(fields, ntotal, rows=rows)
    if coding.block:
        fields.check_equal(code_size, _INVALID_CODE_SIZE, "the size of codes in lists")
        fields.check_equal(fields.number("Q", "block"), coding.block, "the block of lists")
        size = fields.number("Q", "size of blocks")
        fields.check_equal(size, coding.block_bytes, "the size of blocks of lists")
        sizes = _check_blocks(fields, nlist, coding, ids)
    else:
        fields.check_equal(code_size, coding.code_size, "the size of codes in lists")
        sizes = _array_sizes(fields, nlist)
        _check_arrays(fields, sizes, coding, ids)
    ids.finish()
    return sizes


class _Ids:
    """The ids in all lists, as they come."""

    def __init__(self, fields: Fields, ntotal: int, *, rows: bool) -> None:
        self._fields, self._ntotal, self._left = fields, ntotal, ntotal
        self._seen: npt.NDArray[np.bool_] | None = None
        if rows:
            fields.check(8 * ntotal <= fields.left, f"the ids of {ntotal} items are not all there")
            self._seen = np.zeros(ntotal, bool)

    def take(self, ids: npt.NDArray[np.int64]) -> None:
        """Check some of them."""
        fields, self._left = self._fields, self._left - len(ids)
        lowest, highest = (int(ids.min()), int(ids.max())) if len(ids) else (0, -1)
        fields.check(lowest >= 0, f"ids must be 0 or more, but one is {lowest}")
        if self._seen is not None:
            n = self._ntotal
            fields.check(highest < n, f"rows in lists must be below {n}, but one is {highest}")
            self._seen[ids] = True

    def finish(self) -> None:
        """Check that there were as many as there are items."""
        found = self._ntotal - self._left
        self._fields.check_equal(found, self._ntotal, "the number of items in all lists")
        whole = self._seen is None or bool(self._seen.all())
        self._fields.check(whole, "lists must hold every row once, but some are missing")


def _array_sizes(fields: Fields, nlist: int) -> Sizes:
    """Items in each list, written in full or for the lists that are not empty."""
    kind = fields.tag()
    if kind == "full":
        sizes = fields.counted("<u8", "sizes of lists")
        fields.check_equal(len(sizes), nlist, "the number of sizes of lists")
    else:
        fields.check_equal(kind, "sprs", "the kind of sizes of lists")
        pairs = fields.counted("<u8", "sizes of lists")
        fields.check(len(pairs) % 2 == 0, f"{len(pairs)} numbers cannot be lists and their sizes")
        numbers, some = pairs[::2], pairs[1::2]
        ascending = bool((numbers[:-1] < numbers[1:]).all())
        fields.check(
            ascending and (not len(numbers) or int(numbers[-1]) < nlist),
            f"the lists that have sizes must ascend and be below {nlist}, but do not",
        )
        sizes = np.zeros(nlist, np.uint64)
        sizes[numbers.astype(np.int64)] = some
    largest = int(sizes.max(initial=0))
    fields.check(largest <= fields.left // 8, f"a list of {largest} items is not all there")
    return sizes.astype(np.int64)


def _check_arrays(fields: Fields, sizes: Sizes, coding: Coding, ids: _Ids) -> None:
    """Check lists that are codes one after another and then ids."""
    filled = sizes[sizes > 0]
    start = 0
    while start < len(filled):
        window = fields.window()
        some = filled[start : start + len(window) // (coding.code_size + 8)]
        ends = np.cumsum(some * (coding.code_size + 8))
        whole = int(np.searchsorted(ends, len(window), side="right"))
        if whole:
            some, ends = some[:whole], ends[:whole]
            ids.take(_gather(window, ends - 8 * some, some))
            fields.skip(int(ends[-1]), "lists")
        else:  # a list that is larger than the window
            n, whole = int(filled[start]), 1
            fields.skip(coding.bytes_of(n), "codes of a list")
            for piece in fields.pieces("<i8", n, "ids of a list"):
                ids.take(piece)
        start += whole


def _check_blocks(fields: Fields, nlist: int, coding: Coding, ids: _Ids) -> Sizes:
    """Check lists that are ids and then blocks of codes, each with its size in front."""
    fields.check(16 * nlist <= fields.left, f"the sizes of {nlist} lists are not all there")
    sizes, number = np.zeros(nlist, np.int64), 0
    unpack, block, block_bytes = _SIZE.unpack_from, coding.block, coding.block_bytes
    while number < nlist:
        window = fields.window()
        at, last, places, counts = 0, len(window) - 8, list[int](), list[int]()
        while at <= last and number + len(counts) < nlist:  # a microsecond for each list
            (n,) = unpack(window, at)
            codes_at = at + 8 + 8 * n
            if codes_at > last:
                break
            (size,) = unpack(window, codes_at)
            if size != -(-n // block) * block_bytes or codes_at + size > last:
                break
            places.append(at + 8)
            counts.append(n)
            at = codes_at + 8 + size
        if places:
            found = np.array(counts)
            ids.take(_gather(window, np.array(places), found))
            fields.skip(at, "lists")
            sizes[number : number + len(found)] = found
            number += len(found)
        else:  # a list that is larger than the window, or damaged
            n = fields.count(8, "ids of a list")
            for piece in fields.pieces("<i8", n, "ids of a list"):
                ids.take(piece)
            size = fields.count(1, "bytes of codes of a list")
            fields.check_equal(size, coding.bytes_of(n), f"the bytes of codes of {n} items")
            fields.skip(size, "codes of a list")
            sizes[number] = n
            number += 1
    return sizes


def _gather(window: bytes, places: Sizes, counts: Sizes) -> npt.NDArray[np.int64]:
    """The ids of several lists, which begin at these bytes."""
    if not (total := int(counts.sum())):
        return np.empty(0, np.int64)
    if total > _LONG * len(counts):
        lists = zip(places.tolist(), counts.tolist(), strict=True)
        return np.concatenate([np.frombuffer(window, "<i8", n, place) for place, n in lists])
    before = np.cumsum(counts) - counts
    starts = np.repeat(places - 8 * before, counts) + 8 * np.arange(total)
    # A number begins at every byte of this view.
    view = np.ndarray((len(window) - 7,), "<i8", window, strides=(1,))
    found: npt.NDArray[np.int64] = view[starts]
    return found


@dataclass(frozen=True)
class DirectMap:
    """Where each item lies, if the file tells: (list << 32 | place in it), or -1 for nowhere."""

    places: npt.NDArray[Any]

    @classmethod
    def read(cls, fields: Fields, ntotal: int) -> DirectMap:
        """Read the map that comes next.

        Raises:
            ArtifactError: If it is damaged.
        """
        kind = fields.take(1, "kind of direct map")[0]
        fields.check_range(kind, 0, 2, "the kind of direct map")
        places = fields.counted("<i8", "places of items")
        fields.check_equal(len(places), ntotal if kind == 1 else 0, "the number of places of items")
        if kind == 2:
            n = fields.count(16, "ids and places of items")
            fields.check_equal(n, ntotal, "the number of ids and places of items")
            places = fields.array("<i8", 2 * n, "ids and places of items")[1::2]
        return cls(places)

    def check(self, fields: Fields, sizes: Sizes) -> None:
        """Refuse places that are in no list.

        Raises:
            ArtifactError: If there are any.
        """
        places = self.places[self.places != -1]
        lists, within = places >> 32, places & 0xFFFFFFFF
        known = bool((lists >= 0).all()) and bool((lists < len(sizes)).all())
        fields.check(
            known and bool((within < sizes[lists]).all()),
            "the direct map names places that are in no list",
        )
