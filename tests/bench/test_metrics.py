import numpy as np
import pytest

from mecoq_index.bench import metrics
from mecoq_index.errors import InvalidInputError


def loop_average_precision(ids, database_labels, query_labels):
    """The definition, one query and one rank at a time."""
    result = []
    for q in range(len(ids)):
        found, total = 0, 0.0
        for rank, i in enumerate(ids[q], start=1):
            if i < 0:
                continue
            if np.ndim(query_labels[q]):
                good = any(
                    a and b for a, b in zip(database_labels[i], query_labels[q], strict=True)
                )
            else:
                good = database_labels[i] == query_labels[q]
            if good:
                found += 1
                total += found / rank
        result.append(total / found if found else 0.0)
    return np.array(result)


def random_lists(multi, n=40, nq=7, k=15, seed=0):
    rng = np.random.default_rng(seed)
    ids = np.stack([rng.permutation(n)[:k] for _ in range(nq)])
    ids[0, 5:8] = ids[1, -1] = -1
    if multi:
        return ids, rng.random((n, 6)) < 0.2, rng.random((nq, 6)) < 0.3
    return ids, rng.integers(4, size=n), rng.integers(5, size=nq)


@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_average_precision_matches_the_loops(multi, seed):
    ids, database, queries = random_lists(multi, seed=seed)
    got = metrics.average_precision(metrics.relevance(ids, database, queries))
    want = loop_average_precision(ids, database, queries)
    np.testing.assert_allclose(got, want, rtol=1e-12)
    assert metrics.mean_average_precision(ids, database, queries) == pytest.approx(want.mean())


def test_average_precision_divides_by_what_is_found_within_the_top_k():
    # Relevant at ranks 1 and 3 of 4; ten more relevant items of the database were not found.
    database = np.array([1, 0, 1, 0] + [1] * 10)
    ap = metrics.average_precision(
        metrics.relevance(np.array([[0, 1, 2, 3]]), database, np.array([1]))
    )
    assert ap[0] == pytest.approx((1 / 1 + 2 / 3) / 2)


def test_chunks_change_nothing(monkeypatch):
    for multi in (False, True):
        lists = random_lists(multi)
        whole = metrics.mean_average_precision(*lists)
        monkeypatch.setattr(metrics, "_QUERIES_PER_CHUNK", 2)
        assert metrics.mean_average_precision(*lists) == whole
        monkeypatch.undo()


def test_precision_counts_padding_as_misses():
    relevant = metrics.relevance(np.array([[0, -1]]), np.array([3]), np.array([3]))
    assert metrics.precision_at(relevant, 1) == 1
    assert metrics.precision_at(relevant, 2) == 0.5
    with pytest.raises(InvalidInputError, match="k must be between 1 and the lists' 2, got 3"):
        metrics.precision_at(relevant, 3)


@pytest.mark.parametrize("multi", [False, True])
def test_precision_recall_curve_matches_the_loops(multi):
    ids, database, queries = random_lists(multi)
    relevant = metrics.relevance(ids, database, queries)
    totals = metrics.count_relevant(database, queries)
    for q in range(len(queries)):
        everything = metrics.relevance(np.arange(40)[None], database, queries[q : q + 1])
        assert totals[q] == everything.sum()
    recall, precision = metrics.precision_recall_curve(relevant, totals, points=100)
    asked = np.flatnonzero(totals)
    for r in range(1, 16):
        hits = [relevant[q, :r].sum() for q in asked]
        assert recall[r - 1] == pytest.approx(
            np.mean([h / totals[q] for h, q in zip(hits, asked, strict=True)])
        )
        assert precision[r - 1] == pytest.approx(np.mean(hits) / r)


def test_recall_counts_ties_as_found_and_padding_as_missed():
    best = np.array([[3.0, 2.0, 2.0]], np.float32)
    ids = np.array([[7, 9, -1]])  # item 9 ties with the true second
    true_scores = np.array([[3.0, 2.0, 99.0]], np.float32)
    assert metrics.recall_at(ids, true_scores, best, 2) == 1
    assert metrics.recall_at(ids, true_scores, best, 3) == pytest.approx(2 / 3)
    worse = np.array([[3.0, 1.9, 0.0]], np.float32)
    assert metrics.recall_at(ids, worse, best, 2) == 0.5
    assert metrics.recall_at(ids, worse, best, 2, tolerance=0.2) == 1


def test_an_item_that_is_returned_twice_counts_once():
    best = np.array([[3.0, 2.0]], np.float32)
    twice, scores = np.array([[7, 7]]), np.array([[3.0, 3.0]], np.float32)
    assert metrics.recall_at(twice, scores, best, 2) == 0.5


def test_lists_that_do_not_fit_are_refused():
    scores = np.zeros((3, 2), np.float32)
    with pytest.raises(InvalidInputError, match="of the same queries, got 1 and 3 rows"):
        metrics.recall_at(np.zeros((1, 2), np.int64), scores, scores, 1)
    for bad in (-2, 3):
        with pytest.raises(
            InvalidInputError, match=r"ids must be rows of the database, 0\.\.2, or"
        ):
            metrics.relevance(np.array([[bad]]), np.zeros(3), np.zeros(1))
    with pytest.raises(InvalidInputError, match="a mean over queries, but there are none"):
        metrics.mean_average_precision(np.zeros((0, 2), np.int64), np.zeros(3), np.zeros(0))
    with pytest.raises(InvalidInputError, match="no query has a relevant item in the database"):
        metrics.precision_recall_curve(np.zeros((2, 3), bool), np.zeros(2, np.int64))


def test_an_empty_database_has_nothing_relevant():
    assert not metrics.relevance(np.array([[-1]]), np.zeros(0), np.zeros(1)).any()


def test_id_recall_matches_sets():
    got, want = np.array([[1, 2, -1], [4, 5, 6]]), np.array([[2, 3, 1], [6, 5, 4]])
    assert metrics.id_recall_at(got, want, 3) == pytest.approx((2 / 3 + 1) / 2)
    assert metrics.id_recall_at(got, want, 1) == 0


@pytest.mark.parametrize(
    "database,queries,message",
    [
        (np.zeros(3), np.zeros((1, 2)), r"must be both \(n,\) classes or both"),
        (np.zeros((3, 4)), np.zeros((1, 2)), "must have the same L, got 4 and 2"),
        (np.zeros(3), np.zeros(2), "there must be 1 query labels, got 2"),
    ],
)
def test_labels_that_do_not_fit_are_refused(database, queries, message):
    with pytest.raises(InvalidInputError, match=message):
        metrics.relevance(np.array([[0]]), database, queries)
