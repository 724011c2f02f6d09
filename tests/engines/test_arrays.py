"""The engines that keep plain arrays: exact order, and ids that are never given twice."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mecoq_index import scoring
from mecoq_index.codebooks import Codebooks
from mecoq_index.engines.numpy import NumpyEngine
from mecoq_index.engines.registry import get_engine


def make_codebooks(M=2, K=4, Ds=2):
    c = np.random.default_rng(0).standard_normal((M, K, Ds))
    return Codebooks((c / np.linalg.norm(c, axis=-1, keepdims=True)).astype(np.float32))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    items=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=17),
    k=st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_numpy_ranks_by_score_and_then_by_id(items, k, seed):
    books, rng = make_codebooks(), np.random.default_rng(seed)
    codes = np.array(items, np.uint8).reshape(-1, 2)
    ids = rng.permutation(50)[: len(codes)].astype(np.int64)
    q = rng.integers(-1, 2, size=(3, books.D)).astype(np.float32)  # zero subvectors and ties
    hits = NumpyEngine.build(books, codes, ids).search(q, k)
    found = min(k, len(codes))
    for row, scores in enumerate(scoring.aqs(q, codes, books)):
        order = sorted(range(len(codes)), key=lambda i: (-scores[i], ids[i]))[:k]
        assert hits.ids[row].tolist() == [int(ids[i]) for i in order] + [-1] * (k - found)
        np.testing.assert_array_equal(hits.scores[row, :found], scores[order])
        assert np.isneginf(hits.scores[row, found:]).all()


@pytest.mark.parametrize(
    "name,options",
    [("numpy", {}), ("torch", {"device": "cpu"}), ("faiss", {"factory": "MeCoQ,IDMap2"})],
)
def test_the_id_of_a_removed_item_is_not_given_again(name, options):
    if name == "faiss":
        pytest.importorskip("faiss")
    books = make_codebooks(Ds=3)  # FAISS cannot search 4 codewords of width 2
    codes = np.zeros((5, 2), np.uint8)
    engine = get_engine(name).build(books, codes, **options)
    engine.remove(np.array([4]))
    engine.add(codes[:1])
    assert sorted(engine.ids()) == [0, 1, 2, 3, 5]
