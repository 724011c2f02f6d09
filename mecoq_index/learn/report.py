"""The report on trained codebooks: measures that need no labels, and warnings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import Ids, Vectors
from .._plain import without_infinities
from ..codebooks import Codebooks
from ..scoring import block_normalize, decode, encode

_NEIGHBORS = 10
_FEW_ITEMS = 500
_COLLAPSED = 0.1
_BLOCK = 256
_TIED = 1e-5
"""Scores that differ by less are equal but for rounding."""


def measure(
    codebooks: Codebooks,
    facts: Mapping[str, Any],
    *,
    items: Vectors,
    queries: Vectors,
    own_rows: Ids | None = None,
    num_items: int,
    measured_on: str,
) -> dict[str, Any]:
    """Make the report on codebooks.

    Args:
        codebooks: The codebooks.
        facts: Facts on the run: ``epochs``, perhaps ``best_epoch`` and ``view_agreement``.
        items: float32 (n, P), a sample of the items trained on.
        queries: float32 (nq, P), items to measure by.
        own_rows: int64 (nq,), the row of each query in ``items``, which is no neighbor of its own;
            None if the queries are not among the items.
        num_items: The number of items trained on.
        measured_on: A few words on what the queries are.

    Returns:
        The facts, and ``items``, ``measured_on``, ``distinct_codes`` (the share of the sample's
        codes that are different from each other), ``codeword_usage`` (the share of codewords that
        the sample uses), ``neighbors_kept`` (the share of the 10 nearest items by cosine that are
        among the 10 best by AQS, ties broken at random, on average), and ``warnings``, a list of
        sentences.
    """
    codes = encode(codebooks.embed(items, given="features"), codebooks)
    distinct = len(np.unique(codes, axis=0)) / len(codes)
    used = [len(np.unique(codes[:, m])) / codebooks.K for m in range(codebooks.M)]
    report: dict[str, Any] = {
        **facts,
        "items": num_items,
        "measured_on": measured_on,
        "distinct_codes": round(distinct, 4),
        "codeword_usage": round(float(np.mean(used)), 4),
    }
    if len(items) > _NEIGHBORS:
        kept = _neighbors_kept(codebooks, items, queries, decode(codes, codebooks), own_rows)
        report["neighbors_kept"] = round(kept, 4)
    report["warnings"] = _warnings(report, codebooks, len(codes))
    finite: dict[str, Any] = without_infinities(report)  # a codebook file keeps nothing else
    return finite


def _warnings(report: Mapping[str, Any], codebooks: Codebooks, num_codes: int) -> list[str]:
    """Return sentences on problems; ``num_codes`` is the size of the sample of codes."""
    found = []
    if report["items"] < _FEW_ITEMS:
        found.append(
            f"there were only {report['items']} items to learn from; codebooks learned from fewer "
            f"than {_FEW_ITEMS} rarely serve others."
        )
    possible = min(1.0, 2.0 ** min(codebooks.bits, 64) / num_codes)
    if report["distinct_codes"] < _COLLAPSED * possible:
        found.append(
            f"the codes have collapsed: only {report['distinct_codes']:.1%} of them are different "
            "from each other. Train for more epochs, lower the learning rate lr, take the "
            "objective distillation, or check that the items differ."
        )
    if "best_epoch" in report and report["best_epoch"] < report["epochs"]:
        found.append(
            f"training stopped after epoch {report['epochs']} without a gain on held-out items; "
            f"the codebooks are those of epoch {report['best_epoch']}."
        )
    return found


def _neighbors_kept(
    codebooks: Codebooks,
    items: Vectors,
    queries: Vectors,
    decoded: Vectors,
    own_rows: Ids | None,
) -> float:
    """Mean share of the nearest items by cosine that are among the best by AQS.

    Items that tie for the last places get an equal part of them, so collapsed codes keep no more
    than chance does.
    """
    unit, by_cosine = _unit(items), _unit(queries)
    by_code = block_normalize(codebooks.embed(queries, given="features"), codebooks.M)
    kept = 0.0
    for at in range(0, len(queries), _BLOCK):
        some = slice(at, at + _BLOCK)
        cosine, scores = by_cosine[some] @ unit.T, by_code[some] @ decoded.T
        if own_rows is not None:
            itself = np.arange(len(cosine)), own_rows[some]
            cosine[itself], scores[itself] = -np.inf, -np.inf
        nearest = np.argpartition(-cosine, _NEIGHBORS - 1, axis=1)[:, :_NEIGHBORS]
        border = np.partition(scores, -_NEIGHBORS, axis=1)[:, -_NEIGHBORS, None]
        above, below = scores > border + _TIED, scores < border - _TIED
        places = _NEIGHBORS - above.sum(axis=1, keepdims=True)
        tied = ~above & ~below
        chance = above + tied * (places / tied.sum(axis=1, keepdims=True))
        kept += float(np.take_along_axis(chance, nearest, axis=1).sum())
    return kept / (_NEIGHBORS * len(queries))


def _unit(x: Vectors) -> Vectors:
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    unit: npt.NDArray[np.float32] = np.divide(x, lengths, out=np.zeros_like(x), where=lengths > 0)
    return unit
