"""True scores against the reference, in chunks smaller than the arrays."""

import numpy as np
import pytest

from mecoq_index import scoring
from mecoq_index.bench import truth
from mecoq_index.codebooks import Codebooks

RNG = np.random.default_rng(0)
CODEWORDS = RNG.standard_normal((3, 8, 2))
BOOKS = Codebooks(CODEWORDS / np.linalg.norm(CODEWORDS, axis=-1, keepdims=True))
CODES = RNG.integers(8, size=(50, 3), dtype=np.uint8)
QUERIES = RNG.standard_normal((7, 6)).astype(np.float32)
IDS = np.array([[4, -1], [0, 49]] + [[1, 2]] * 5)


@pytest.mark.parametrize("k,n", [(1, 50), (9, 50), (60, 50), (3, 0)])
def test_best_scores_are_those_of_the_reference(monkeypatch, k, n):
    monkeypatch.setattr(truth, "_ROWS_PER_CHUNK", 8)
    monkeypatch.setattr(truth, "_QUERIES_PER_CHUNK", 3)
    want = -np.sort(-scoring.aqs(QUERIES, CODES[:n], BOOKS), axis=1)[:, :k]
    np.testing.assert_allclose(truth.best_aqs(QUERIES, CODES[:n], BOOKS, k), want, atol=1e-5)


def test_scores_of_listed_items_are_those_of_the_reference():
    got = truth.aqs_of(QUERIES, CODES, BOOKS, IDS)
    want = np.take_along_axis(scoring.aqs(QUERIES, CODES, BOOKS), IDS, axis=1)
    want[0, 1] = -np.inf
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_cosines_of_listed_items_match_the_formula():
    database = RNG.standard_normal((50, 6)).astype(np.float32)
    database[4] = 0
    got = truth.cosine_of(QUERIES, database, IDS)
    assert got[0].tolist() == [0, -np.inf]
    for row in range(1, 7):
        for column, i in enumerate(IDS[row]):
            q, x = QUERIES[row], database[i]
            cosine = q @ x / np.linalg.norm(q) / np.linalg.norm(x)
            assert got[row, column] == pytest.approx(cosine, abs=1e-6)
