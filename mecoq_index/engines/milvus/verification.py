"""Checks that Milvus ranks by AQS, by recomputing a sample of rows and results.

This finds mistakes that Milvus does not report: an index that is missing or of another kind,
vectors that were inserted without being decoded, codewords that ``compact`` has lost, missing rows,
codebooks beside the collection that cannot be read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..._arrays import Codes, Ids, Vectors
from ...codebooks import Codebooks
from ...errors import InvalidInputError
from ...scoring import aqs, decode
from ..hits import Hits
from . import codebook_store, schema
from .answers import reading
from .collection import MilvusCollection
from .schema import ID, VECTOR
from .searching import search

_EXACT_TOLERANCE = 1e-5  # of float32, for each codebook
_COARSE_TOLERANCE = 2e-3  # of float16, or of centroids that k-means has moved, for each codebook
# For profiles that are not exact, because codewords that Milvus's k-means misses give wrong scores.
_LEAST_RECALL = 0.9
_MOST_WRONG = 0.1


@dataclass(frozen=True)
class Verification:
    """The result of `verify`; ``str()`` of it is one line for people.

    Attributes:
        collection: The collection's name.
        rows: Number of rows in the collection.
        checked: Number of rows whose content was compared.
        recall: The share of results that are as good as the best of the compared rows.
        score_error: The largest difference between a returned score and AQS.
        problems: The problems found, one sentence each.
    """

    collection: str
    rows: int
    checked: int
    recall: float
    score_error: float
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    def __str__(self) -> str:
        if self.problems:
            return f"collection {self.collection!r}: {' '.join(self.problems)}"
        return (
            f"collection {self.collection!r}: {self.rows} rows indexed; {self.checked} compared, "
            f"recall {self.recall:.4f} of AQS, scores within {self.score_error:.1e}."
        )


def verify(
    collection: MilvusCollection,
    codebooks: Codebooks,
    *,
    rows: int = 1000,
    queries: int = 32,
    k: int = 10,
    expected_rows: int | None = None,
    seed: int = 0,
) -> Verification:
    """Compare a sample of a collection, and searches among it, with the reference.

    Args:
        collection: The collection to verify.
        codebooks: The codebooks that its codes belong to.
        rows: Number of rows to compare, chosen at random; at most 10,000.
        queries: Number of searches.
        k: Results per search.
        expected_rows: The number of rows that there must be, if it is known.
        seed: Seed of the sample.

    Returns:
        Everything found; nothing is raised for a problem.

    Raises:
        InvalidInputError: If ``rows``, ``queries`` or ``k`` is below 1.
        ServerError: If the server is out of reach or fails.
    """
    for name, value in (("rows", rows), ("queries", queries), ("k", k)):
        if value < 1:
            raise InvalidInputError(f"{name} must be at least 1, got {value}.")
    collection.make_searchable()
    held, all_ids = len(collection), collection.ids()
    problems = _index_problems(collection, held, expected_rows)
    problems += _codebook_problems(collection, codebooks)
    if held > len(all_ids):
        problems.append(f"{held - len(all_ids)} rows have an id that another row has as well.")
    ids = _sample(all_ids, min(rows, 10_000), seed)
    stored = collection.values(ids)
    with reading(collection.connection, "vectors of the width of the collection"):
        fits = collection.profile.are_codes(stored)
    if len(wrong := np.flatnonzero(~fits)):
        problems.append(
            f"{len(wrong)} of {len(ids)} rows are not made of these codebooks' codewords, for "
            f"instance id {ids[wrong[0]]}: insert decoded codes, not embeddings."
        )
    ids, stored = ids[fits], [value for value, fit in zip(stored, fits, strict=True) if fit]
    if not stored:
        return Verification(collection.name, held, 0, 1.0, 0.0, tuple(problems))
    codes = collection.profile.codes(stored)
    z = _queries(decode(codes, codebooks), queries, seed)
    checks = [_Check("a search", search(collection, z, k, consistency_level="Strong"))]
    if _can_filter(collection):
        inside = f"{ID} in {ids.tolist()}"
        hits = search(collection, z, k, filter=inside, consistency_level="Strong")
        checks.append(_Check("a search among some rows only", hits))
    recall, worst = 1.0, 0.0
    for check in checks:
        found, errors = _compare(collection, codebooks, check.hits, z, ids, codes)
        recall, worst = min(recall, found), max(worst, float(errors.max(initial=0.0)))
        wrong_scores = (errors > _tolerance(collection, codebooks)).sum()
        if wrong_scores > (0 if collection.profile.exact else _MOST_WRONG * errors.size):
            problems.append(
                f"{wrong_scores} of {errors.size} scores of {check.what} differ from AQS, by up to "
                f"{errors.max():.2g}."
            )
        if found < (1.0 if collection.profile.exact else _LEAST_RECALL):
            problems.append(f"{check.what} missed {1 - found:.1%} of the best rows by AQS.")
    return Verification(collection.name, held, len(ids), recall, worst, tuple(problems))


@dataclass(frozen=True, eq=False)
class _Check:
    """The results of a search, with words for it."""

    what: str
    hits: Hits


def _can_filter(collection: MilvusCollection) -> bool:
    try:
        collection.profile.check_skipping(collection.connection.server, "a filter")
    except InvalidInputError:
        return False
    return True


def _tolerance(collection: MilvusCollection, codebooks: Codebooks) -> float:
    exact = collection.profile.exact and collection.profile.field_type != "FLOAT16_VECTOR"
    return codebooks.M * (_EXACT_TOLERANCE if exact else _COARSE_TOLERANCE)


def _compare(
    collection: MilvusCollection,
    codebooks: Codebooks,
    hits: Hits,
    z: Vectors,
    ids: Ids,
    codes: Codes,
) -> tuple[float, Vectors]:
    """The recall among the compared rows, and the distance of each score from AQS."""
    returned = np.unique(hits.ids[hits.ids >= 0])
    values = collection.values(returned)
    fits = collection.profile.are_codes(values)  # others have been reported already
    returned = returned[fits]
    values = [value for value, fit in zip(values, fits, strict=True) if fit]
    truth = aqs(z, collection.profile.codes(values), codebooks)
    places = np.minimum(np.searchsorted(returned, hits.ids), max(len(returned) - 1, 0))
    present = np.isin(hits.ids, returned)
    errors: Vectors = np.empty(0, np.float32)
    if present.any():
        errors = np.abs(hits.scores - np.take_along_axis(truth, places, axis=1))[present]
    # A sampled row must be a hit if it scores above the query's last hit, or hits are missing.
    last = hits.scores.min(axis=1, keepdims=True) + _tolerance(collection, codebooks)
    missed = (aqs(z, codes, codebooks) > last) & ~np.stack([np.isin(ids, row) for row in hits.ids])
    return 1.0 - missed.sum() / hits.ids.size, errors


def _index_problems(
    collection: MilvusCollection, held: int, expected_rows: int | None
) -> list[str]:
    problems = []
    if expected_rows is not None and held != expected_rows:
        problems.append(f"it holds {held} rows, not {expected_rows}.")
    try:
        state = collection.index_state()
    except InvalidInputError:
        return [*problems, "it has no index: call collection.finish()."]
    if state["index_type"] != collection.profile.index_type:
        problems.append(
            f"its index on {VECTOR!r} is {state['index_type']}, but profile "
            f"{collection.profile.name!r} needs {collection.profile.index_type}."
        )
    if state["metric_type"] != collection.profile.metric_type:
        problems.append(
            f"its metric is {state['metric_type']}, but AQS needs {collection.profile.metric_type}."
        )
    if int(state["indexed_rows"]) < int(state["total_rows"]):
        problems.append(
            f"the index covers {state['indexed_rows']} of {state['total_rows']} rows: wait, or "
            "call collection.finish()."
        )
    return problems


def _codebook_problems(collection: MilvusCollection, codebooks: Codebooks) -> list[str]:
    """The reason why codebooks that should be beside a collection cannot be read, if any."""
    connection = collection.connection
    if not schema.has_codebooks(schema.describe(connection, collection.name)):
        return []
    try:
        codebook_store.fetch(connection, codebooks.fingerprint)
    except InvalidInputError as exc:
        return [str(exc)]
    return []


def _sample(ids: Ids, rows: int, seed: int) -> Ids:
    """A sample of the ids, ascending."""
    if len(ids) <= rows:
        return ids
    chosen: Ids = np.sort(np.random.default_rng(seed).choice(ids, rows, replace=False))
    return chosen


def _queries(decoded: Vectors, n: int, seed: int) -> Vectors:
    """Vectors near randomly chosen rows."""
    rng = np.random.default_rng(seed + 1)
    near = decoded[rng.integers(len(decoded), size=n)]
    noise = rng.standard_normal(near.shape, dtype=np.float32)
    noise *= np.linalg.norm(near, axis=1, keepdims=True) / np.sqrt(np.float32(near.shape[1]))
    queries: Vectors = near + noise
    return queries
