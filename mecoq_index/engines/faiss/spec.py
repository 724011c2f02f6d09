"""What a factory string means: the parts of an index, and the strings that name it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .limits import MOST_FAST_SCANNED_ALONE

# Fewer lists are found as fast one by one, and a FastScan finds none if all score the lowest.
_FEWEST_FAST_LISTS = 256
FEWEST_CODED_BITS = 3
"""Bits of a code of a centroid: FAISS may be unable to search all with fewer, see `limits`."""


@dataclass(frozen=True)
class FactorySpec:
    """A factory string, understood.

    Attributes:
        M: Subquantizers.
        nbits: Bits of one code, log2 K.
        nlist: Inverted lists; 0 for an index without.
        coarse: How lists are found: empty for the usual way, which is by the codes of their
            centroids where FAISS can search those; ``MeCoQMxB`` or ``MeCoQMx4fs`` for codes that
            are searched otherwise; ``Flat`` for a full scan, ``HNSWm``, or ``IVFm`` for lists of
            lists.
        graph: Links per item of an HNSW graph over the items; 0 without one.
        fast_scan: Whether the codes are scanned with 8-bit tables in registers (FastScan).
        block_size: FastScan's block of vectors; 0 for FAISS's default, 32.
        refine: ``MeCoQ`` to re-rank by exact AQS, ``Flat`` to re-rank by vectors, or empty.
        id_map: ``IDMap``, ``IDMap2`` or empty.
        projection: Whether the learned projection stands in front.
    """

    M: int
    nbits: int
    nlist: int = 0
    coarse: str = ""
    graph: int = 0
    fast_scan: bool = False
    block_size: int = 0
    refine: str = ""
    id_map: str = ""
    projection: bool = False

    def __str__(self) -> str:
        return self._string(f"MeCoQ{self.M}x{self.nbits}", "")

    @property
    def keeps_ids(self) -> bool:
        """Whether items can have ids of one's own; otherwise they are numbered 0..n-1."""
        return bool(self.id_map or (self.nlist and not self.refine))

    @property
    def faiss_string(self) -> str:
        """The string of the same structure for FAISS, without the projection.

        ``np`` keeps polysemous training off, which would reorder the codewords.
        """
        return replace(self, projection=False)._string(f"PQ{self.M}x{self.nbits}", "np")

    @property
    def coarse_kind(self) -> str:
        """What finds the lists: `coarse`, or what is usual in its place."""
        return self.coarse or self._usual_coarse()

    def _usual_coarse(self) -> str:
        if self.nbits < FEWEST_CODED_BITS:
            return "Flat"
        fits = self.M <= MOST_FAST_SCANNED_ALONE and self.nlist >= _FEWEST_FAST_LISTS
        return f"MeCoQ{self.M}x{self.nbits}" + "fs" * (self.fast_scan and fits)

    def with_coarse(self, kind: str) -> FactorySpec:
        """Return this with lists that are found so."""
        usual = replace(self, coarse="")
        return usual if kind == usual.coarse_kind else replace(self, coarse=kind)

    def _string(self, quantizer: str, suffix: str) -> str:
        block = f"_{self.block_size}" if self.block_size else ""
        parts = [
            "Projection" if self.projection else "",
            f"HNSW{self.graph}" if self.graph else self._lists(quantizer, suffix),
            quantizer + (f"fs{block}" if self.fast_scan else suffix),
            {"": "", "Flat": "RFlat", "MeCoQ": f"Refine({quantizer}{suffix})"}[self.refine],
            self.id_map,
        ]
        return ",".join(filter(None, parts))

    def _lists(self, quantizer: str, suffix: str) -> str:
        if not self.nlist:
            return ""
        for_faiss, kind = not quantizer.startswith("MeCoQ"), self.coarse_kind
        inside = f"({kind})"
        if kind.startswith("MeCoQ"):
            inside = f"({quantizer}{'fs' if kind.endswith('fs') else suffix})"
        elif kind.startswith("IVF"):
            inside = f"({kind},Flat)"
        elif kind.startswith("HNSW"):
            inside = f"_{kind}"
        elif for_faiss:
            inside = ""
        return f"IVF{self.nlist}" + (inside if for_faiss or self.coarse else "")
