import numpy as np
import pytest

from mecoq_index import scoring
from mecoq_index.codebooks import Codebooks
from mecoq_index.learn import report
from mecoq_index.learn.report import measure


def codebooks(M=2, K=4, Ds=3, seed=0):
    codewords = np.random.default_rng(seed).standard_normal((M, K, Ds))
    return Codebooks(codewords / np.linalg.norm(codewords, axis=-1, keepdims=True))


def report_of(books, items, queries, num_items=1000, own_rows=None, **facts):
    return measure(
        books, facts, items=items, queries=queries, own_rows=own_rows, num_items=num_items,
        measured_on="some items",
    )  # fmt: skip


def neighbors_kept(books, items, queries, own_rows):
    """Each of the 10 nearest items by cosine counts by the chance that it is among the 10 best."""
    codes = scoring.encode(items, books)
    total = 0.0
    for query, own in zip(queries, own_rows, strict=True):
        cosine = [query @ x / np.linalg.norm(query) / np.linalg.norm(x) for x in items]
        others = [i for i in range(len(items)) if i != own]
        nearest = sorted(others, key=lambda i: -cosine[i])[:10]
        scores = scoring.aqs(query[None], codes, books)[0]
        for i in nearest:
            better = sum(scores[j] > scores[i] + 1e-5 for j in others)
            equal = sum(abs(scores[j] - scores[i]) <= 1e-5 for j in others)
            total += min(1.0, max(0.0, (10 - better) / equal))
    return total / (10 * len(queries))


@pytest.mark.parametrize("are_items", [False, True])
def test_neighbors_kept_matches_the_slow_count(are_items, monkeypatch):
    monkeypatch.setattr(report, "_BLOCK", 7)
    rng = np.random.default_rng(1)
    items = rng.standard_normal((300, 6), dtype=np.float32)
    items[50] = items[40]  # a copy is a neighbor like any other
    queries, own_rows = rng.standard_normal((20, 6), dtype=np.float32), None
    if are_items:
        own_rows = rng.permutation(300)[:20]
        own_rows[0] = 40
        queries = items[own_rows]
    books = codebooks()
    got = report_of(books, items, queries, own_rows=own_rows)["neighbors_kept"]
    want = neighbors_kept(books, items, queries, [None] * 20 if own_rows is None else own_rows)
    assert got == pytest.approx(want, abs=1e-4)
    assert 0.05 < got < 0.9


def test_codes_that_keep_every_neighbor_are_told_so():
    # The items are all codes there are, so the codes rank them as the vectors do.
    books = codebooks(K=8)
    codes = np.stack(np.meshgrid(*[np.arange(8, dtype=np.uint8)] * 2), -1).reshape(-1, 2)
    items = scoring.decode(codes, books)
    told = report_of(books, items, items, own_rows=np.arange(64))
    assert told["neighbors_kept"] == pytest.approx(1, abs=0.02)  # cosines may tie, too
    assert (told["distinct_codes"], told["codeword_usage"]) == (1, 1)
    assert told["warnings"] == []


def test_collapsed_codes_keep_what_chance_keeps_and_are_warned_of():
    rng = np.random.default_rng(0)
    items = (10 + 0.01 * rng.standard_normal((500, 6))).astype(np.float32)
    queries = (10 + 0.01 * rng.standard_normal((50, 6))).astype(np.float32)
    told = report_of(codebooks(K=64, M=1, Ds=6), items, queries)
    assert told["distinct_codes"] == 1 / 500
    assert told["codeword_usage"] == pytest.approx(1 / 64, abs=1e-4)
    assert told["neighbors_kept"] == pytest.approx(10 / 500, abs=1e-4)
    (warning,) = told["warnings"]
    assert warning.startswith("the codes have collapsed: only 0.2% of them are different")


def test_as_many_codes_as_there_can_be_have_not_collapsed():
    # 16 codes, for a sample of 2,000 out of very many items
    items = np.random.default_rng(0).standard_normal((2000, 6), dtype=np.float32)
    told = report_of(codebooks(), items, items[:10], num_items=10**9)
    assert told["distinct_codes"] == 16 / 2000
    assert told["warnings"] == []
    one = np.repeat(items[:1], 2000, axis=0)
    (warning,) = report_of(codebooks(), one, items[:10], num_items=10**9)["warnings"]
    assert "collapsed" in warning


def test_facts_are_taken_over_and_few_items_are_warned_of():
    items = np.random.default_rng(0).standard_normal((10, 6), dtype=np.float32)
    told = report_of(codebooks(), items, items, num_items=499, epochs=5, best_epoch=3)
    assert (told["epochs"], told["best_epoch"], told["items"]) == (5, 3, 499)
    assert "neighbors_kept" not in told  # no item has ten others
    few, stopped = told["warnings"]
    assert few.startswith("there were only 499 items")
    assert "after epoch 5 " in stopped
    assert stopped.endswith("those of epoch 3.")
    whole = report_of(codebooks(), items, items, num_items=500, epochs=5, best_epoch=5)
    assert whole["warnings"] == []
