"""Sparse codes: documents and queries whose inner product is AQS up to the offset."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mecoq_index import scoring, sparse_codes
from mecoq_index.codebooks import Codebooks
from mecoq_index.errors import InvalidInputError


def make_codebooks(M, K, seed=0):
    c = np.random.default_rng(seed).standard_normal((M, K, 3))
    return Codebooks(c / np.linalg.norm(c, axis=2, keepdims=True))


@given(st.integers(1, 5), st.integers(2, 256), st.integers(0, 2**32 - 1))
def test_inner_products_and_offsets_give_aqs_and_codes_come_back(M, K, seed):
    books, rng = make_codebooks(M, K), np.random.default_rng(seed)
    codes = rng.integers(K, size=(6, M)).astype(np.uint8)
    q = rng.standard_normal((3, books.D)) * 10
    documents = sparse_codes.one_hot(codes, books)
    queries, offsets = sparse_codes.shifted_tables(q, books)
    assert all(min(query.values()) > 0 for query in queries)  # or engines drop the entry
    found = [[sum(query[i] for i in document) for document in documents] for query in queries]
    np.testing.assert_allclose(
        np.array(found) + offsets[:, None], scoring.aqs(q, codes, books), atol=1e-5
    )
    np.testing.assert_array_equal(sparse_codes.codes_of(documents, books), codes)
    assert sparse_codes.are_one_hot(documents, books).all()


def test_rows_that_are_no_documents_are_told_apart():
    books = make_codebooks(2, 4)
    rows = [{0: 1.0, 7: 1.0}, {0: 1.0}, {0: 1.0, 3: 1.0}, {0: 1.0, 7: 0.5}, {0: 1.0, 8: 1.0}]
    assert sparse_codes.are_one_hot(rows, books).tolist() == [True, False, False, False, False]
    assert sparse_codes.codes_of([], books).shape == (0, 2)


def test_codes_above_k_are_refused():
    with pytest.raises(InvalidInputError, match="codes must be below K=4, got 4"):
        sparse_codes.one_hot(np.array([[0, 4]], np.uint8), make_codebooks(2, 4))
