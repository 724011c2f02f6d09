"""Metrics of ranked lists, in the definitions of the deep-hashing and ANN literature.

Lists are ids, int64 (nq, k), best first, -1 where a result is missing. Labels are either one class
per item, integers (n,), or several labels per item, 0/1 (n, L). Two items are relevant to each
other if they share a class or a label.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import Ids, Scores
from ..errors import InvalidInputError

Labels = npt.NDArray[Any]
Relevance = npt.NDArray[np.bool_]

_QUERIES_PER_CHUNK = 256


def check_labels(database: Labels, queries: Labels) -> tuple[Labels, Labels]:
    """Return both label arrays if they are of the same kind.

    Raises:
        InvalidInputError: If they are neither both (n,) nor both (n, L) with the same L.
    """
    if database.ndim != queries.ndim or database.ndim not in (1, 2):
        raise InvalidInputError(
            "labels must be both (n,) classes or both (n, L) of 0 and 1, got shapes "
            f"{database.shape} and {queries.shape}."
        )
    if database.ndim == 2 and database.shape[1] != queries.shape[1]:
        raise InvalidInputError(
            f"multi-label arrays must have the same L, got {database.shape[1]} and "
            f"{queries.shape[1]}."
        )
    return database, queries


def relevance(ids: Ids, database_labels: Labels, query_labels: Labels) -> Relevance:
    """Whether each returned item is relevant, (nq, k); False where a result is missing.

    Raises:
        InvalidInputError: If the labels do not fit together or there is not one per query, or an
            id is not a row of the database.
    """
    database, queries = check_labels(database_labels, query_labels)
    if len(queries) != len(ids):
        raise InvalidInputError(f"there must be {len(ids)} query labels, got {len(queries)}.")
    if ids.size and not -1 <= ids.min() <= ids.max() < len(database):
        raise InvalidInputError(
            f"ids must be rows of the database, 0..{len(database) - 1}, or -1 for a missing "
            f"result, got values from {ids.min()} to {ids.max()}."
        )
    if not len(database):
        return np.zeros(ids.shape, bool)
    result = np.zeros(ids.shape, bool)
    for start in range(0, len(ids), _QUERIES_PER_CHUNK):
        rows = slice(start, start + _QUERIES_PER_CHUNK)
        found = ids[rows]
        if database.ndim == 1:
            result[rows] = database[found] == queries[rows, None]
        else:
            shared = np.einsum("qkl,ql->qk", database[found] != 0, queries[rows] != 0)
            result[rows] = shared
        result[rows] &= found >= 0
    return result


def average_precision(relevant: Relevance) -> npt.NDArray[np.float64]:
    """AP@k of each list (nq, k).

    ``sum_i precision@i * relevant_i / (relevant items within the top k)``, the convention of the
    deep-hashing literature. A list without any relevant item has 0.
    """
    result = np.zeros(len(relevant))
    ranks = np.arange(1, relevant.shape[1] + 1)
    for start in range(0, len(relevant), _QUERIES_PER_CHUNK):
        chunk = relevant[start : start + _QUERIES_PER_CHUNK]
        precision = np.cumsum(chunk, axis=1) / ranks
        found = chunk.sum(axis=1)
        total = (precision * chunk).sum(axis=1)
        result[start : start + len(chunk)] = total / np.maximum(found, 1)
    return result


def mean_average_precision(ids: Ids, database_labels: Labels, query_labels: Labels) -> float:
    """mAP@k over all queries, k being the length of the lists.

    Raises:
        InvalidInputError: If there are no queries, or the labels do not fit.
    """
    if not len(ids):
        raise InvalidInputError("mAP is a mean over queries, but there are none.")
    return float(average_precision(relevance(ids, database_labels, query_labels)).mean())


def precision_at(relevant: Relevance, k: int) -> float:
    """Mean fraction of relevant items among the first k.

    Raises:
        InvalidInputError: If the lists are shorter than k.
    """
    _check_length(relevant, k)
    return float(relevant[:, :k].mean())


def precision_recall_curve(
    relevant: Relevance, total_relevant: npt.NDArray[np.int64], points: int = 50
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Recall and precision at ranks that are spaced evenly on a logarithmic scale.

    Args:
        relevant: (nq, k).
        total_relevant: Relevant items in the whole database for each query, (nq,).
        points: The largest number of ranks.

    Returns:
        Mean recall and mean precision over the queries that have a relevant item at all: two arrays
        of up to ``points`` values each, by ascending recall.

    Raises:
        InvalidInputError: If no query has a relevant item.
    """
    if not total_relevant.any():
        raise InvalidInputError("no query has a relevant item in the database: there is no curve.")
    ranks = np.unique(np.geomspace(1, relevant.shape[1], points).round().astype(int))
    asked = total_relevant > 0
    hits = np.cumsum(relevant[asked], axis=1)[:, ranks - 1]
    recall = (hits / total_relevant[asked, None]).mean(axis=0)
    return recall, (hits / ranks).mean(axis=0)


def count_relevant(database_labels: Labels, query_labels: Labels) -> npt.NDArray[np.int64]:
    """The number of relevant items in the whole database for each query, int64 (nq,).

    Raises:
        InvalidInputError: If the labels do not fit together.
    """
    database, queries = check_labels(database_labels, query_labels)
    if database.ndim == 1:
        classes, counts = np.unique(database, return_counts=True)
        table = dict(zip(classes.tolist(), counts.tolist(), strict=True))
        return np.array([table.get(label, 0) for label in queries.tolist()], np.int64)
    items = (database != 0).astype(np.float32)
    counted = np.zeros(len(queries), np.int64)
    for start in range(0, len(queries), _QUERIES_PER_CHUNK):
        chunk = (queries[start : start + _QUERIES_PER_CHUNK] != 0).astype(np.float32)
        counted[start : start + len(chunk)] = (chunk @ items.T > 0).sum(axis=1)
    return counted


def recall_at(
    ids: Ids, true_scores_of_ids: Scores, best_scores: Scores, k: int, *, tolerance: float = 1e-5
) -> float:
    """Fraction of the first k returned items that score as well as the true k best.

    An item counts if its true score is at least the true k-th best minus ``tolerance``, so that
    ties count as found. Missing results and repeated items count as misses.

    Args:
        ids: Returned ids, (nq, >= k).
        true_scores_of_ids: The true scores of those items, (nq, >= k); any value where missing.
        best_scores: True scores of the best items, best first, (nq, >= k).
        k: The number of results that count.
        tolerance: Scores that differ by less are equal.

    Raises:
        InvalidInputError: If a list is shorter than k.
    """
    for lists in (ids, true_scores_of_ids, best_scores):
        _check_length(lists, k)
        if len(lists) != len(ids):
            raise InvalidInputError(
                f"all lists must be of the same queries, got {len(ids)} and {len(lists)} rows."
            )
    good = true_scores_of_ids[:, :k] >= best_scores[:, k - 1 : k] - tolerance
    return float((good & (ids[:, :k] >= 0) & _first_of_its_id(ids[:, :k])).mean())


def _first_of_its_id(ids: Ids) -> Relevance:
    """Whether each id is the first of its kind in its row."""
    order = np.argsort(ids, axis=1, kind="stable")
    in_order = np.take_along_axis(ids, order, axis=1)
    first = np.ones(ids.shape, bool)
    first[:, 1:] = in_order[:, 1:] != in_order[:, :-1]
    result = np.empty(ids.shape, bool)
    np.put_along_axis(result, order, first, axis=1)
    return result


def id_recall_at(ids: Ids, true_ids: Ids, k: int) -> float:
    """Fraction of the true k best ids found among the first k returned ones.

    Raises:
        InvalidInputError: If a list is shorter than k.
    """
    _check_length(ids, k)
    _check_length(true_ids, k)
    found = [
        len(np.intersect1d(got[got >= 0], want))
        for got, want in zip(ids[:, :k], true_ids[:, :k], strict=True)
    ]
    return float(np.mean(found) / k)


def _check_length(lists: npt.NDArray[Any], k: int) -> None:
    if not 1 <= k <= lists.shape[1]:
        raise InvalidInputError(f"k must be between 1 and the lists' {lists.shape[1]}, got {k}.")
