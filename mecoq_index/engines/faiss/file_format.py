"""The format of FAISS's index files: what a file declares is compared with what it holds.

FAISS takes a file at its word. It makes room for arrays of any length, opens the files that on-disk
lists name, and leaves numbers unchecked that a search later uses as addresses. `check_file` walks
through a file first, as ``faiss/impl/index_read.cpp`` of FAISS 1.9 to 1.15 would, and allocates
nothing that the file does not fill. It accepts what `factory.make_index` makes and no more:

    [IxMp | IxM2]     IDMap, IDMap2
      [IxPT]          transforms of queries and items: VNrm, LTra
        [IxRF]        re-ranking by IxPq, or by the vectors of IxFI or IxF2
          IxPq        codes one after another            IPfs   blocks of FastScan
          IwPQ        inverted lists of codes            IwPf   inverted lists of blocks
          IHNp        an HNSW graph over an IxPq

The lists of IwPQ and IwPf are found by IxPq or IPfs, which hold codes of their centroids, by IxFI,
by IHNf over IxFI, or by IwFl, which are lists of lists. An index in a file is its kind, four
characters, and its fields; an index inside it stands among them. Arrays have their number of items
in front.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from ...codebooks import Codebooks
from ...errors import ArtifactError
from .file_fields import Fields
from .file_graph import check_graph
from .file_lists import Coding, DirectMap, check_lists
from .limits import LARGEST_BLOCK, MOST_FAST_SCANNED, MOST_UNTRAINED_LISTS, graph_fits

_INNER_PRODUCT, _L2 = 0, 1
_WIDEST = 1 << 20
_MOST_BITS = 8
_MOST_FACTOR = 1000  # of re-ranking; as FAISS 1.15
_SEARCH_BY_TABLES = 0  # IndexPQ's other searches are of Hamming distances


@dataclass(frozen=True)
class _Head:
    """What every index begins with."""

    kind: str
    d: int
    ntotal: int
    trained: bool
    metric: int


@dataclass(frozen=True)
class _Quantizer:
    """A product quantizer."""

    M: int
    nbits: int

    @property
    def code_size(self) -> int:
        """Bytes of a code, packed without gaps."""
        return (self.M * self.nbits + 7) // 8


def check_file(stream: BinaryIO, name: str, codebooks: Codebooks | None = None) -> None:
    """Refuse an index file that FAISS should not read.

    Args:
        stream: The file, seekable, from its beginning on.
        name: What the messages call it.
        codebooks: The codebooks that it must hold; any if None.

    Raises:
        ArtifactError: If it is damaged, goes on after the index, is of a kind that this package
            does not write, keeps its lists in another file, or holds other codebooks.
    """
    fields = Fields(stream, name)
    _Walk(fields, name, codebooks).outermost()
    fields.end()


class _Walk:
    """A way through the file, from the outermost index to those inside it."""

    def __init__(self, fields: Fields, name: str, codebooks: Codebooks | None) -> None:
        self._fields, self._name, self._codebooks = fields, name, codebooks

    def outermost(self) -> None:
        """Check an index that may be inside IDMap, transforms and re-ranking."""
        self._wrapped(self._fields.tag(), ("id_map", "transform", "refine"), rows=False)

    def _wrapped(self, kind: str, wrappers: tuple[str, ...], *, rows: bool) -> _Head:
        """Check an index of a kind that was read already, inside at most these wrappers."""
        for place, wrapper in enumerate(wrappers):
            if kind in _WRAPPERS[wrapper]:
                check: Callable[..., _Head] = getattr(self, f"_{wrapper}")
                return check(self._head(kind), wrappers[place + 1 :], rows=rows)
        cores: dict[str, Callable[..., _Head]] = {
            "IxPq": self._codes,
            "IPfs": self._blocks,
            "IwPQ": self._lists_of_codes,
            "IwPf": self._lists_of_blocks,
            "IHNp": self._graph_of_codes,
        }
        if kind not in cores:
            raise self._fields.foreign(
                f"it holds an index of the kind {kind!r}, which this package does not write there. "
                "Search it with FAISS itself, or build one with mecoq_index.index_factory"
            )
        return cores[kind](self._head(kind), rows=rows)

    def _head(self, kind: str) -> _Head:
        fields = self._fields
        d, ntotal = fields.number("i", "width"), fields.number("q", "number of items")
        fields.number("q", "unused number")
        fields.number("q", "unused number")
        trained, metric = fields.flag("training"), fields.number("i", "metric")
        fields.check_range(d, 1, _WIDEST, "the width of vectors")
        fields.check_range(
            ntotal, 0, 2**31 - 1 if kind[:2] == "IH" else 2**63 - 1, "the number of items"
        )
        fields.check_range(metric, _INNER_PRODUCT, _L2, "the metric")
        fields.check(trained or not ntotal, f"an index without training cannot hold {ntotal} items")
        return _Head(kind, d, ntotal, trained, metric)

    def _check_alike(self, outer: _Head, inner: _Head, *except_for: str) -> None:
        """Refuse an index whose inner one has other items, or measures otherwise."""
        what = {
            "d": "width of vectors",
            "ntotal": "number of items",
            "trained": "flag for training",
            "metric": "metric",
        }
        for name in [name for name in what if name not in except_for]:
            self._fields.check_equal(
                getattr(inner, name),
                getattr(outer, name),
                f"the {what[name]} of {inner.kind} inside {outer.kind}",
            )

    # The wrappers.

    def _id_map(self, head: _Head, wrappers: tuple[str, ...], *, rows: bool) -> _Head:
        self._check_alike(head, self._wrapped(self._fields.tag(), wrappers, rows=True))
        n = self._fields.count(8, "ids")
        self._fields.check_equal(n, head.ntotal, "the number of ids")
        for ids in self._fields.pieces("<i8", n, "ids"):
            lowest = int(ids.min())
            self._fields.check(lowest >= 0, f"ids must be 0 or more, but one is {lowest}")
        return head

    def _transform(self, head: _Head, wrappers: tuple[str, ...], *, rows: bool) -> _Head:
        fields, width = self._fields, head.d
        chain = fields.number("i", "number of transforms")
        fields.check_range(chain, 1, 2, "the number of transforms")
        for _ in range(chain):
            width = self._one_transform(width)
        inner = self._wrapped(fields.tag(), wrappers, rows=rows)
        self._check_alike(head, inner, "d")
        fields.check_equal(inner.d, width, "the width of vectors after the transforms")
        return head

    def _one_transform(self, width: int) -> int:
        """Check a transform of vectors of this width; return the width after it."""
        fields, kind = self._fields, self._fields.tag()
        if kind == "VNrm":
            fields.check_equal(fields.number("f", "norm"), 2.0, "the norm that lengths are of")
            weights = biases = None
        elif kind == "LTra":
            has_bias = fields.flag("biases")
            weights, biases = self._finite("weights"), self._finite("biases")
        else:
            raise fields.foreign(f"it has a transform of the kind {kind!r}, which is not learned")
        d_in, d_out = int(fields.number("i", "width")), int(fields.number("i", "width"))
        fields.check_equal(d_in, width, "the width of vectors before a transform")
        fields.check_range(d_out, 1, _WIDEST, "the width of vectors after a transform")
        fields.check(fields.flag("training"), "its transform is not trained")
        if weights is None:
            fields.check_equal(d_out, d_in, "the width of vectors after a division by lengths")
        else:
            fields.check_equal(weights, d_in * d_out, "the number of weights")
            fields.check_equal(biases, d_out if has_bias else 0, "the number of biases")
        return d_out

    def _finite(self, what: str) -> int:
        """Pass over an array of finite numbers; return how many there are."""
        n = self._fields.count(4, what)
        for part in self._fields.pieces("<f4", n, what):
            self._fields.check(bool(np.isfinite(part).all()), f"{what} must be finite numbers")
        return n

    def _refine(self, head: _Head, wrappers: tuple[str, ...], *, rows: bool) -> _Head:
        fields = self._fields
        self._check_alike(head, self._wrapped(fields.tag(), wrappers, rows=True))
        kind = fields.tag()
        exact = self._vectors(kind) if kind != "IxPq" else self._codes(self._head(kind), rows=True)
        self._check_alike(head, exact, "trained")  # the codes are ready before the lists are
        fields.check_range(fields.number("f", "k_factor"), 1, _MOST_FACTOR, "k_factor")
        return head

    # The cores.

    def _codes(self, head: _Head, *, rows: bool, in_graph: bool = False) -> _Head:
        fields = self._fields
        pq = self._product_quantizer(head)
        fields.check(
            not in_graph or graph_fits(pq.M, pq.nbits),
            f"a graph over M={pq.M} codes of {pq.nbits} bits would take too much memory",
        )
        n = fields.count(1, "bytes of codes")
        fields.check_equal(n, head.ntotal * pq.code_size, f"the bytes of {head.ntotal} codes")
        fields.skip(n, "codes")
        how = fields.number("i", "kind of search")
        fields.check_equal(how, _SEARCH_BY_TABLES, "the kind of search")
        fields.check_equal(fields.flag("sign bits"), False, "the flag for codes of signs")
        fields.number("i", "threshold")  # for Hamming distances
        return head

    def _blocks(self, head: _Head, *, rows: bool) -> _Head:
        fields = self._fields
        pq = self._product_quantizer(head, fast_scan=True)
        fields.check_equal(fields.number("i", "search"), 0, "the kind of search")
        block = self._block()
        fields.check_equal(fields.number("i", "query block"), 0, "the block of queries")
        padded = -(-head.ntotal // block) * block
        fields.check_equal(fields.number("Q", "size"), padded, "the number of items in blocks")
        self._even(pq)
        n = fields.count(1, "bytes of codes")
        coding = _coding(pq, block)
        fields.check_equal(n, coding.bytes_of(head.ntotal), f"the bytes of {head.ntotal} codes")
        fields.skip(n, "codes")
        return head

    def _lists_of_codes(self, head: _Head, *, rows: bool) -> _Head:
        fields = self._fields
        nlist, places, quantizer = self._lists_head(head)
        by_residual = fields.flag("residuals")
        # FAISS would make a table of residuals as large as the lists are many.
        fields.check(
            not by_residual or quantizer.metric == head.metric == _INNER_PRODUCT,
            "codes of residuals must be scored by inner product",
        )
        size = fields.number("Q", "size of codes")
        pq = self._product_quantizer(head)
        fields.check_equal(size, pq.code_size, "the size of codes")
        coding = Coding(pq.code_size)
        places.check(fields, check_lists(fields, nlist, head.ntotal, coding, rows=rows))
        return head

    def _lists_of_blocks(self, head: _Head, *, rows: bool) -> _Head:
        fields = self._fields
        nlist, places, _ = self._lists_head(head)
        fields.check_equal(fields.flag("residuals"), False, "the flag for codes of residuals")
        size = fields.number("Q", "size of codes")
        block, even = self._block(), fields.number("Q", "padded M")
        fields.check_equal(fields.number("i", "search"), 0, "the kind of search")
        fields.check_equal(fields.number("Q", "query block"), 0, "the block of queries")
        pq = self._product_quantizer(head, fast_scan=True)
        fields.check_equal(size, pq.code_size, "the size of codes")
        fields.check_equal(even, pq.M + pq.M % 2, "M in pairs")
        coding = _coding(pq, block)
        places.check(fields, check_lists(fields, nlist, head.ntotal, coding, rows=rows))
        return head

    def _graph_of_codes(self, head: _Head, *, rows: bool) -> _Head:
        check_graph(self._fields, head.ntotal)
        kind = self._fields.tag()
        self._fields.check_equal(kind, "IxPq", "the kind of index under a graph")
        self._check_alike(head, self._codes(self._head(kind), rows=True, in_graph=True))
        return head

    # What cores are made of.

    def _product_quantizer(self, head: _Head, *, fast_scan: bool = False) -> _Quantizer:
        fields = self._fields
        d, M, nbits = (fields.number("Q", what) for what in ("width", "M", "bits of a code"))
        fields.check_equal(d, head.d, "the width of the product quantizer")
        fields.check_range(M, 1, MOST_FAST_SCANNED if fast_scan else d, "M")
        fields.check(d % M == 0, f"the width of vectors, {d}, must be a multiple of M, {M}")
        fields.check_range(nbits, 4 if fast_scan else 1, 4 if fast_scan else _MOST_BITS, "the bits")
        n = fields.count(4, "coordinates of codewords")
        fields.check_equal(n, d << nbits, "the number of coordinates of codewords")
        found = fields.array("<f4", n, "codewords").reshape(M, 1 << nbits, d // M)
        if self._codebooks is not None and not np.array_equal(found, self._codebooks.codewords):
            raise ArtifactError(
                f"{self._name} holds other codebooks than the ones given "
                f"({self._codebooks.fingerprint[:12]}). Search it with its own."
            )
        return _Quantizer(M, nbits)

    def _block(self) -> int:
        block = int(self._fields.number("i", "block"))
        allowed = range(32, LARGEST_BLOCK + 1, 32)
        self._fields.check(block in allowed, f"blocks must be one of {[*allowed]}, but are {block}")
        return block

    def _even(self, pq: _Quantizer) -> None:
        padded = self._fields.number("Q", "padded M")
        self._fields.check_equal(padded, pq.M + pq.M % 2, "M in pairs")

    def _lists_head(self, head: _Head) -> tuple[int, DirectMap, _Head]:
        """Check what stands before the codes of an index with lists."""
        fields = self._fields
        nlist, nprobe = fields.number("Q", "number of lists"), fields.number("Q", "nprobe")
        quantizer = self._coarse_quantizer()
        fields.check_equal(quantizer.d, head.d, "the width of centroids")
        if head.trained:
            fields.check_equal(nlist, quantizer.ntotal, "the number of lists")
            fields.check(quantizer.trained, "its lists cannot be found without training")
        else:
            fields.check_equal(quantizer.ntotal, 0, "the number of centroids without training")
            fields.check_range(nlist, 1, MOST_UNTRAINED_LISTS, "the number of lists")
        fields.check_range(nprobe, 1, nlist, "nprobe")
        return nlist, DirectMap.read(fields, head.ntotal), quantizer

    def _coarse_quantizer(self) -> _Head:
        fields, kind = self._fields, self._fields.tag()
        if kind == "IHNf":
            head = self._head(kind)
            check_graph(fields, head.ntotal)
            self._check_alike(head, self._vectors(fields.tag()))
            return head
        if kind == "IwFl":
            head = self._head(kind)
            nlist, places, _ = self._lists_head(head)
            coding = Coding(4 * head.d)
            places.check(fields, check_lists(fields, nlist, head.ntotal, coding, rows=True))
            return head
        if kind in ("IxPq", "IPfs"):
            head = self._head(kind)
            return (self._codes if kind == "IxPq" else self._blocks)(head, rows=True)
        return self._vectors(kind)

    def _vectors(self, kind: str) -> _Head:
        """Check vectors one after another."""
        fields = self._fields
        if kind not in ("IxFI", "IxF2"):
            raise fields.foreign(
                f"it holds an index of the kind {kind!r} where this package writes vectors. "
                "Search it with FAISS itself, or build one with mecoq_index.index_factory"
            )
        head = self._head(kind)
        metric = _INNER_PRODUCT if kind == "IxFI" else _L2
        fields.check_equal(head.metric, metric, "the metric of vectors")
        n = fields.count(4, "coordinates of vectors")
        fields.check_equal(n, head.ntotal * head.d, "the number of coordinates of vectors")
        fields.skip(4 * n, "vectors")
        return head


_WRAPPERS = {"id_map": ("IxMp", "IxM2"), "transform": ("IxPT",), "refine": ("IxRF",)}


def _coding(pq: _Quantizer, block: int) -> Coding:
    return Coding(pq.code_size, block, block * (pq.M + pq.M % 2) // 2)
