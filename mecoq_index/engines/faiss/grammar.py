"""Factory strings with ``MeCoQ`` where FAISS has ``PQ``: what they may say, and what it means.

    [Projection,] [IDMap,|IDMap2,] [COARSE,] LEAF [,REFINE] [,IDMap|,IDMap2]

    COARSE   IVFn: inverted lists, found by the codes of their centroids. IVFn(Flat), IVFn_HNSWm or
             IVFn(IVFm,Flat): found by a full scan of the centroids, a graph, or lists of lists.
             ``IVF`` without n takes n from the number of items. HNSWm: a graph over the items.
    LEAF     MeCoQ, MeCoQM, MeCoQMxB or MeCoQMx4fs[_bbs]. ``MeCoQ8x8`` is 8 subquantizers of 2**8
             codewords, ``MeCoQ16x4fs`` is FastScan, ``MeCoQ`` takes both from the codebooks.
    REFINE   Refine(MeCoQMx4) re-ranks FastScan's hits by exact AQS over a second copy of the codes;
             RFlat re-ranks by the vectors themselves.

``Projection`` puts the learned linear projection in front, so that features go in. A string that
cannot mean what it says is refused, and the message names the nearest one that can.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

from ...codebooks import Codebooks
from ...errors import InvalidInputError
from .inject import bits_per_code
from .limits import (
    FEWEST_LINKS,
    LARGEST_BLOCK,
    MOST_FAST_SCANNED,
    MOST_FAST_SCANNED_ALONE,
    MOST_LINKS,
    MOST_LISTS,
    graph_fits,
    searches_flat,
)
from .spec import FEWEST_CODED_BITS, FactorySpec

_NUMBER = r"[1-9][0-9]*"
_LEAF = re.compile(rf"MeCoQ(?:({_NUMBER})(?:x({_NUMBER}))?(?:np|(fs)(?:_({_NUMBER}))?)?)?")
_LISTS = re.compile(
    rf"IVF(?P<lists>{_NUMBER})?"
    rf"(?:_HNSW(?P<links>{_NUMBER})?|\((?:"
    rf"HNSW(?P<same>{_NUMBER})?|IVF(?P<upper>{_NUMBER}),Flat|(?P<flat>Flat)|(?P<coded>MeCoQ[^()]*)"
    rf")\))?"
)
_GRAPH = re.compile(rf"HNSW({_NUMBER})?")
_REFINE = re.compile(r"RFlat|Refine\((.*)\)")
_HNSW_LINKS = 32  # FAISS's default
_LONGEST = 200  # characters; the longest string that means something has some 60
_MAX_NUMBER = 2**31 - 1  # what FAISS's parser holds

# What FAISS's factory knows and learned codes cannot be put into: why, and what comes nearest.
_UNFIT = [
    (
        r"(OPQ|PCA|RR|ITQ|Pad|L2norm|LSH).*",
        "codebooks are learned for the embedding space as it is, so nothing may transform it first",
        "",
    ),
    (r"IMI.*", "FAISS's multi-index ranks by L2 only", "IVF4096"),
    (r"(IVF\d+)_NSG\d*", "lists are found by a full scan, a graph (HNSW) or lists of lists", r"\1"),
    (r"(MeCoQ\d*(x4)?fs)r(_\d+)?", "codes of residuals (fsr) are not scored by AQS", r"\1"),
    (r"PQ.*", "PQ is FAISS's own quantizer, whose codebooks it trains itself", "MeCoQ"),
]


def parse(string: str, codebooks: Codebooks, *, items: int | None = None) -> FactorySpec:
    """Read a factory string for the given codebooks.

    Args:
        string: The string.
        codebooks: The codebooks that the index is to hold.
        items: How many items there will be, which ``IVF`` without a number takes its lists from.

    Raises:
        InvalidInputError: If the string cannot be read, or cannot mean what it says for these
            codebooks; the message names one that can.
    """
    nbits = bits_per_code(codebooks)
    spec = FactorySpec(codebooks.M, nbits)
    _check_length(string)
    _check_numbers(string)
    string = string.replace(" ", "")  # in strings that messages suggest too
    parts = _split(string)
    leaves = {place: match for place, part in enumerate(parts) if (match := _LEAF.fullmatch(part))}
    if len(leaves) != 1:
        _refuse_unfit(string, parts, codebooks)
        raise InvalidInputError(
            f"cannot read the factory string {string!r}: it must name one MeCoQ quantizer, like "
            f"{', '.join(map(repr, fitting(codebooks)))}."
        )
    [(where, leaf)] = leaves.items()
    for place, part in enumerate(parts):
        if place == where:
            spec = _read_leaf(spec, string, leaf, codebooks)
        else:
            known = _read_before(spec, part, items) if place < where else _read_after(spec, part)
            if known is None:
                _refuse_unfit(string, parts, codebooks)
                kept = ",".join(p for i, p in enumerate(parts) if i != place)
                raise InvalidInputError(
                    f"cannot read {part!r} in the factory string {string!r}. "
                    f"The nearest one is {_nearest(kept, codebooks)!r}."
                )
            spec = known
    if spec.coarse:
        coded = spec.coarse.startswith("MeCoQ")
        spec = spec.with_coarse(_coded_coarse(spec, string, codebooks) if coded else spec.coarse)
    _check_whole(spec, string, codebooks)
    return spec


def _coded_coarse(spec: FactorySpec, string: str, codebooks: Codebooks) -> str:
    """The whole name of the quantizer of centroids that a string names.

    Raises:
        InvalidInputError: If these codebooks, or FAISS, cannot have it.
    """
    exact = f"MeCoQ{spec.M}x{spec.nbits}"
    able = [exact] if spec.nbits >= FEWEST_CODED_BITS else []
    able += [f"{exact}fs"] if codebooks.K == 16 and spec.M <= MOST_FAST_SCANNED_ALONE else []
    leaf, kind = _LEAF.fullmatch(spec.coarse), ""
    if leaf is not None and not leaf[4] and _asked(leaf, spec) == (spec.M, spec.nbits):
        kind = exact + "fs" * bool(leaf[3])
    if kind not in able:
        raise InvalidInputError(
            f"lists cannot be found by {spec.coarse!r}, as {string!r} says, for codebooks with "
            f"M={codebooks.M} and K={codebooks.K}, but by one of {['Flat', *able]}. The nearest "
            f"string is {str(replace(spec, coarse=''))!r}."
        )
    return kind


def fitting(codebooks: Codebooks) -> list[str]:
    """Some strings that fit the codebooks, the simplest first."""
    name = f"MeCoQ{codebooks.M}x{bits_per_code(codebooks)}"
    names = [_simplest(codebooks), f"IVF1024,{name}"]
    return [*names, f"{name}fs", f"IVF1024,{name}fs"] if _scans_fast(codebooks) else names


def _simplest(codebooks: Codebooks) -> str:
    """The string of the index with the fewest parts that can hold the codebooks."""
    leaf = f"MeCoQ{codebooks.M}x{bits_per_code(codebooks)}"
    return leaf if searches_flat(codebooks.K, codebooks.Ds) else f"IVF1,{leaf}"


def _scans_fast(codebooks: Codebooks) -> bool:
    return codebooks.K == 16 and codebooks.M <= MOST_FAST_SCANNED


def lists_for(items: int) -> int:
    """Inverted lists for n items: the power of two nearest to 4 sqrt(n), 16 items a list at least.

    4 sqrt(n) is FAISS's own advice (wiki, "Guidelines to choose an index").
    """
    wanted = min(4 * max(1, items) ** 0.5, max(1, items) / 16)
    return 1 << max(0, round(math.log2(wanted)))


def _split(string: str) -> list[str]:
    """Parts between the commas that stand in no parentheses."""
    parts, depth = [""], 0
    for character in string:
        depth += (character == "(") - (character == ")")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _check_length(string: str) -> None:
    if not isinstance(string, str):
        raise InvalidInputError(
            f"a factory string must be text like 'IVF1024,MeCoQ8x8', got {type(string).__name__}."
        )
    if len(string) > _LONGEST:
        raise InvalidInputError(
            f"a factory string must have at most {_LONGEST} characters, got {len(string)}: "
            f"{string[:40]!r}... Name each part once, as in 'IVF1024,MeCoQ8x8,IDMap2'."
        )


def _check_numbers(string: str) -> None:
    """Refuse numbers that FAISS takes, and crashes by or fills the memory for."""
    for number in map(int, re.findall(r"[0-9]+", string)):
        if number > _MAX_NUMBER:
            raise InvalidInputError(
                f"numbers in a factory string must be at most {_MAX_NUMBER}, got {number} in "
                f"{string!r}."
            )
    for links in map(int, re.findall(r"HNSW([0-9]+)", string)):
        if not FEWEST_LINKS <= links <= MOST_LINKS:
            raise InvalidInputError(
                f"an HNSW graph must have {FEWEST_LINKS} to {MOST_LINKS} links an item, got "
                f"{links} in {string!r}. FAISS's default is 'HNSW{_HNSW_LINKS}'."
            )
    for lists in map(int, re.findall(r"IVF([0-9]+)", string)):
        if lists > MOST_LISTS:
            raise InvalidInputError(
                f"an index must have at most {MOST_LISTS} lists, got {lists} in {string!r}. "
                "A good number is 4 times the root of the number of items."
            )


def _asked(leaf: re.Match[str], spec: FactorySpec) -> tuple[int, int]:
    """M and the bits of a code that a quantizer's name asks for; those of the codebooks if none."""
    return (int(leaf[1]), int(leaf[2] or 8)) if leaf[1] else (spec.M, spec.nbits)


def _read_leaf(
    spec: FactorySpec, string: str, match: re.Match[str], codebooks: Codebooks
) -> FactorySpec:
    _, _, fast_scan, block_size = match.groups()
    asked = _asked(match, spec)
    if asked != (spec.M, spec.nbits):
        raise InvalidInputError(
            f"{string!r} asks for {asked[0]} subquantizers of {asked[1]} bits, but the codebooks "
            f"have M={codebooks.M} and K={codebooks.K}. The nearest string is "
            f"{_nearest(string, codebooks)!r}."
        )
    if fast_scan and spec.nbits != 4:
        raise InvalidInputError(
            f"FastScan (fs) needs 4-bit codes, K=16, but the codebooks have K={codebooks.K}. Use "
            f"{_nearest(string, codebooks)!r}, or train with 16 codewords."
        )
    if fast_scan and spec.M > MOST_FAST_SCANNED:
        raise InvalidInputError(
            f"FastScan (fs) adds scores in 16 bits, which hold {MOST_FAST_SCANNED} subquantizers, "
            f"but the codebooks have M={codebooks.M}. Use "
            f"{_nearest(string, codebooks)!r}, whose scores are exact."
        )
    block = int(block_size or 32)
    if block % 32 or block > LARGEST_BLOCK:
        raise InvalidInputError(
            f"FastScan's block size must be a multiple of 32 up to {LARGEST_BLOCK}, got {block}."
        )
    return replace(spec, fast_scan=bool(fast_scan), block_size=0 if block == 32 else block)


def _read_before(spec: FactorySpec, part: str, items: int | None) -> FactorySpec | None:
    """What a part in front of the quantizer says; None if it says nothing known there."""
    if part == "Projection" and spec == FactorySpec(spec.M, spec.nbits, id_map=spec.id_map):
        return replace(spec, projection=True)
    if part in ("IDMap", "IDMap2") and not spec.id_map and not spec.nlist and not spec.graph:
        return replace(spec, id_map=part)
    if spec.nlist or spec.graph:
        return None
    if match := _GRAPH.fullmatch(part):
        return replace(spec, graph=int(match[1] or _HNSW_LINKS))
    if (match := _LISTS.fullmatch(part)) is None:
        return None
    if match["lists"] is None and items is None:
        raise InvalidInputError(
            f"{part!r} takes its number of lists from the number of items, which is not known "
            "here. Write it out, for instance 'IVF1024'."
        )
    coarse = f"IVF{match['upper']}" if match["upper"] else match["flat"] or match["coded"] or ""
    if "HNSW" in part:
        coarse = f"HNSW{match['links'] or match['same'] or _HNSW_LINKS}"
    return replace(spec, nlist=int(match["lists"] or lists_for(items or 0)), coarse=coarse)


def _read_after(spec: FactorySpec, part: str) -> FactorySpec | None:
    """What a part behind the quantizer says; None if it says nothing known there."""
    if part in ("IDMap", "IDMap2") and not spec.id_map:
        return replace(spec, id_map=part)
    match = _REFINE.fullmatch(part)
    if match is None or spec.refine:
        return None
    inner = match[1]
    if inner is None or inner == "Flat":
        return replace(spec, refine="Flat")
    exact = {"MeCoQ", *(f"MeCoQ{spec.M}x{spec.nbits}{np}" for np in ("", "np"))}
    return replace(spec, refine="MeCoQ") if inner in exact else None


def _check_whole(spec: FactorySpec, string: str, codebooks: Codebooks) -> None:
    """Refuse parts that are each known, but not together."""
    problem, nearest = "", dict[str, Any]()
    if spec.graph and spec.fast_scan:
        problem = "a graph visits items one by one, which FastScan cannot"
        nearest = {"fast_scan": False, "block_size": 0, "refine": ""}
    elif spec.graph and not graph_fits(spec.M, spec.nbits):
        problem = f"a graph keeps the distances between all codewords, too many for M={spec.M}"
        nearest = {"graph": 0}
    elif spec.refine == "MeCoQ" and not spec.fast_scan:
        problem = "without FastScan (fs) scores are exact AQS, and re-ranking would change nothing"
        nearest = {"refine": ""}
    elif spec.coarse.startswith("IVF") and int(spec.coarse.removeprefix("IVF")) > spec.nlist:
        problem = f"{spec.nlist} lists cannot be grouped into {spec.coarse.removeprefix('IVF')}"
        nearest = {"coarse": ""}
    elif spec.projection and not codebooks.projection:
        problem = "these codebooks have no projection"
        nearest = {"projection": False}
    elif spec.projection and len(codebooks.projection) > 1:
        problem = (
            f"FAISS's transforms are linear, but the projection has {len(codebooks.projection)} "
            "layers with ReLU between them (pass codebooks.embed(x) to the index instead, or "
            "train with projection=linear)"
        )
        nearest = {"projection": False}
    elif not (spec.nlist or spec.graph or searches_flat(codebooks.K, codebooks.Ds)):
        problem = (
            f"FAISS cannot search all codes at once for K={codebooks.K} codewords of width 2, only "
            "list by list"
        )
        nearest = {"nlist": 1}
    if problem:
        raise InvalidInputError(
            f"{string!r} cannot mean what it says: {problem}. "
            f"The nearest string is {str(replace(spec, **nearest))!r}."
        )


def _refuse_unfit(string: str, parts: list[str], codebooks: Codebooks) -> None:
    """Raise if a part belongs to FAISS's grammar, but not to learned codes."""
    for place, part in enumerate(parts):
        for pattern, reason, instead in _UNFIT:
            match = re.fullmatch(pattern, part)
            if match is None:
                continue
            others = [*parts[:place], match.expand(instead), *parts[place + 1 :]]
            nearest = _nearest(",".join(filter(None, others)), codebooks)
            raise InvalidInputError(
                f"{part!r} in {string!r} is not for learned codes: {reason}. "
                f"The nearest string is {nearest!r}."
            )


def _nearest(string: str, codebooks: Codebooks) -> str:
    """The string with a quantizer that fits, if it can be read then; else the simplest one."""
    leaf = f"MeCoQ{codebooks.M}x{bits_per_code(codebooks)}"
    parts = []
    for part in _split(string):
        fast = _scans_fast(codebooks) and "fs" in part
        parts.append(leaf + "fs" * fast if _LEAF.fullmatch(part) else part)
    try:
        found = str(parse(",".join(parts), codebooks, items=1 << 20))
    except InvalidInputError:
        return _simplest(codebooks)
    if re.match(r"(?:Projection,)?IVF\D", string):  # the number of lists is still to be chosen
        found = re.sub(r"IVF\d+", "IVF", found, count=1)
    return found
