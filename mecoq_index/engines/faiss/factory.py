"""Factory strings with ``MeCoQ`` where FAISS has ``PQ``.

    [IDMap,|IDMap2,] [IVFn,] MeCoQ[MxB[fs[_bbs]]] [,IDMap|,IDMap2]

``MeCoQ8x8`` is 8 subquantizers of 2**8 codewords, ``MeCoQ16x4fs`` is FastScan, and plain ``MeCoQ``
takes both numbers from the codebooks. FAISS's own parser cannot be extended from Python, so the
string is translated, the index built by FAISS, and the codebooks written into its leaf.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...codebooks import Codebooks
from ...errors import InvalidInputError
from .inject import bits_per_code, import_faiss, inject

_GRAMMAR = re.compile(
    r"(?:(?P<before>IDMap2?),)?(?:IVF(?P<nlist>[1-9]\d*),)?"
    r"MeCoQ(?:(?P<M>[1-9]\d*)x(?P<nbits>[1-9]\d*)(?P<fs>fs(?:_(?P<bbs>[1-9]\d*))?)?)?"
    r"(?:,(?P<after>IDMap2?))?"
)


@dataclass(frozen=True)
class FactorySpec:
    """A factory string, understood.

    Attributes:
        M: Subquantizers.
        nbits: Bits of one code, log2 K.
        nlist: Inverted lists; 0 for a flat index.
        fast_scan: Whether the codes are scanned with 8-bit tables in registers (FastScan).
        block_size: FastScan's block of vectors; 0 for FAISS's default.
        id_map: ``IDMap``, ``IDMap2`` or empty.
    """

    M: int
    nbits: int
    nlist: int = 0
    fast_scan: bool = False
    block_size: int = 0
    id_map: str = ""

    def _string(self, quantizer: str) -> str:
        parts = [f"IVF{self.nlist}"] if self.nlist else []
        parts.append(quantizer)
        return ",".join([*parts, self.id_map] if self.id_map else parts)

    @property
    def _suffix(self) -> str:
        return ("fs" + (f"_{self.block_size}" if self.block_size else "")) if self.fast_scan else ""

    def __str__(self) -> str:
        return self._string(f"MeCoQ{self.M}x{self.nbits}{self._suffix}")

    @property
    def faiss_string(self) -> str:
        """The string that FAISS builds the same structure from; ``np`` is: no polysemous codes."""
        return self._string(f"PQ{self.M}x{self.nbits}{self._suffix or 'np'}")


def parse(string: str, codebooks: Codebooks) -> FactorySpec:
    """Read a factory string for the given codebooks.

    Raises:
        InvalidInputError: If the string cannot be read, or does not fit the codebooks; the message
            names strings that do.
    """
    match = _GRAMMAR.fullmatch(string.replace(" ", ""))
    if match is None or (match["before"] and match["after"]):
        raise InvalidInputError(
            f"cannot read the factory string {string!r}; it must be like "
            f"{', '.join(_fitting(codebooks))}, each with ',IDMap2' behind it for ids of your own."
        )
    nbits = bits_per_code(codebooks)
    if match["M"] and (int(match["M"]), int(match["nbits"])) != (codebooks.M, nbits):
        raise InvalidInputError(
            f"{string!r} asks for {match['M']} subquantizers of {match['nbits']} bits, but the "
            f"codebooks have M={codebooks.M} and K={codebooks.K}. Use {_fitting(codebooks)[0]!r} "
            "in its place."
        )
    if match["fs"] and nbits != 4:
        raise InvalidInputError(
            f"FastScan (fs) needs 4-bit codes, K=16, but the codebooks have K={codebooks.K}. Use "
            f"{_fitting(codebooks)[0]!r}, or train with 16 codewords."
        )
    block_size = int(match["bbs"] or 0)
    if block_size % 32:
        raise InvalidInputError(
            f"FastScan's block size must be a multiple of 32, got {block_size}."
        )
    return FactorySpec(
        M=codebooks.M,
        nbits=nbits,
        nlist=int(match["nlist"] or 0),
        fast_scan=bool(match["fs"]),
        block_size=block_size,
        id_map=match["before"] or match["after"] or "",
    )


def _fitting(codebooks: Codebooks) -> list[str]:
    name = f"MeCoQ{codebooks.M}x{bits_per_code(codebooks)}"
    names = [name, f"IVF1024,{name}"]
    return [*names, f"{name}fs", f"IVF1024,{name}fs"] if codebooks.K == 16 else names


def index_factory(d: int, string: str, codebooks: Codebooks | str | Path) -> Any:
    """A plain ``faiss.Index`` that holds learned codebooks and ranks by inner product.

    Takes the place of ``faiss.index_factory(d, string, faiss.METRIC_INNER_PRODUCT)``. A flat index
    is ready for ``add``; ``train`` on it changes nothing. An IVF index wants ``train``, which fits
    its coarse quantizer by spherical k-means and leaves the codebooks alone.

    FAISS itself does not divide vectors by the length of their subvectors: pass
    ``mecoq_index.block_normalize(z, M)`` to ``train``, ``add`` and ``search``. Raw embeddings in a
    flat index give the same codes and the "raw" AQS of the official code; in an IVF index they
    give lists that are nearly useless. `mecoq_index.engines.faiss.coarse` makes lists from codes.

    Args:
        d: Width of the embeddings, D of the codebooks.
        string: For instance ``MeCoQ8x8``, ``IVF1024,MeCoQ8x8``, ``MeCoQ16x4fs,IDMap2``.
        codebooks: The codebooks, or the path of their file.

    Returns:
        A ``faiss.Index`` with METRIC_INNER_PRODUCT.

    Raises:
        InvalidInputError: If the string cannot be read or does not fit, or d is not D.
        ArtifactError: If the codebook file cannot be read.
        MissingDependencyError: If FAISS is not installed.
    """
    faiss = import_faiss()
    if not isinstance(codebooks, Codebooks):
        codebooks = Codebooks.load(codebooks)
    if d != codebooks.D:
        hint = ""
        if d == codebooks.P:
            hint = " That is the width of features: embed them first, with codebooks.project(x)."
        raise InvalidInputError(
            f"d must be the width of embeddings, D={codebooks.D}, got {d}.{hint}"
        )
    spec = parse(string, codebooks)
    index = faiss.index_factory(d, spec.faiss_string, faiss.METRIC_INNER_PRODUCT)
    inject(index, codebooks)
    return index
