import tracemalloc

import numpy as np
import pytest
import reference_scoring
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mecoq_index import scoring
from mecoq_index.codebooks import Codebooks
from mecoq_index.errors import InvalidInputError

SHAPES = [(1, 2, 3), (4, 16, 2), (3, 7, 5), (8, 256, 4)]


def make_codebooks(M, K, Ds, seed=0):
    c = np.random.default_rng(seed).standard_normal((M, K, Ds))
    return Codebooks((c / np.linalg.norm(c, axis=-1, keepdims=True)).astype(np.float32))


def case(M, K, Ds, n=30, nq=5):
    rng = np.random.default_rng(1)
    books = make_codebooks(M, K, Ds)
    z = rng.standard_normal((n, books.D), dtype=np.float32)
    q = rng.standard_normal((nq, books.D), dtype=np.float32)
    return books, z, q


@pytest.mark.parametrize("M,K,Ds", SHAPES)
def test_the_algebra_matches_the_loops(M, K, Ds):
    books, z, q = case(M, K, Ds)
    q[0, :Ds] = 0
    codes = scoring.encode(z, books)
    np.testing.assert_array_equal(codes, reference_scoring.encode(z, books.codewords))
    np.testing.assert_allclose(
        scoring.aqs(q, codes, books), reference_scoring.aqs(q, codes, books.codewords), atol=1e-5
    )
    query_codes = scoring.encode(q, books)
    want = reference_scoring.sqs(query_codes, codes, books.codewords)
    np.testing.assert_allclose(scoring.sqs(query_codes, codes, books), want, atol=1e-5)


@pytest.mark.parametrize("M,K,Ds", SHAPES)
def test_aqs_is_the_inner_product_with_the_decoded_vector(M, K, Ds):
    books, z, q = case(M, K, Ds)
    codes = scoring.encode(z, books)
    want = scoring.block_normalize(q, M) @ scoring.decode(codes, books).T
    np.testing.assert_allclose(scoring.aqs(q, codes, books), want, atol=1e-5)


@pytest.mark.parametrize("M,K,Ds", SHAPES)
def test_decoded_vectors_encode_to_their_own_codes(M, K, Ds):
    books, *_ = case(M, K, Ds)
    codes = np.random.default_rng(2).integers(K, size=(50, M)).astype(np.uint8)
    np.testing.assert_array_equal(scoring.encode(scoring.decode(codes, books), books), codes)


def test_lookup_tables_hold_what_aqs_adds_up():
    books, z, q = case(4, 16, 2)
    tables = scoring.lookup_tables(q, books)
    assert tables.shape == (5, 4, 16)
    assert np.abs(tables).max() <= 1 + 1e-6
    codes = scoring.encode(z, books)
    want = tables[:, np.arange(4), codes].sum(axis=2)
    np.testing.assert_allclose(scoring.aqs(q, codes, books), want, atol=1e-6)


def test_a_tie_goes_to_the_lowest_index():
    c = np.array([[[1, 0], [1, 0], [0, 1]]], np.float32)
    z = np.array([[2, 0], [1, 1], [0, 0]], np.float32)
    np.testing.assert_array_equal(scoring.encode(z, Codebooks(c)), [[0], [0], [0]])


@settings(max_examples=60, deadline=None)
@given(
    z=arrays(np.float32, (3, 8), elements=st.floats(-4, 4, width=32)),
    scale=st.sampled_from([1e-30, 1e-3, 7.0, 1e30]),
)
def test_scores_do_not_depend_on_the_length_of_a_query(z, scale):
    books = make_codebooks(4, 16, 2)
    codes = np.random.default_rng(2).integers(16, size=(20, 4)).astype(np.uint8)
    z = np.where(np.abs(z) < 1e-3, np.float32(0), z)  # what a scale would round away
    scaled = z * np.float32(scale)
    np.testing.assert_allclose(
        scoring.aqs(scaled, codes, books), scoring.aqs(z, codes, books), atol=1e-5
    )
    norms = np.linalg.norm(scoring.block_normalize(scaled, 4).reshape(3, 4, 2), axis=2)
    np.testing.assert_allclose(norms, np.abs(z.reshape(3, 4, 2)).max(axis=2) > 0, atol=1e-6)


def test_inputs_are_not_changed():
    books, z, q = case(4, 16, 2)
    before = z.copy(), q.copy()
    scoring.aqs(q, scoring.encode(z, books), books)
    scoring.block_normalize(q, 4)
    np.testing.assert_array_equal(z, before[0])
    np.testing.assert_array_equal(q, before[1])


def test_chunks_change_nothing(monkeypatch):
    books, z, q = case(4, 16, 2, n=101)
    codes = scoring.encode(z, books)
    scores = scoring.aqs(q, codes, books)
    monkeypatch.setattr(scoring, "_SCRATCH_BYTES", 1000)
    np.testing.assert_array_equal(scoring.encode(z, books), codes)
    np.testing.assert_array_equal(scoring.aqs(q, codes, books), scores)


@pytest.mark.slow
def test_encoding_a_million_vectors_needs_little_more_than_its_output():
    # Counted on 200,000 rows: what is needed beside the codes must not grow with them.
    books = make_codebooks(8, 256, 16)
    z = np.zeros((200_000, 128), np.float32)
    tracemalloc.start()
    scoring.encode(z, books)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 250 << 20


@pytest.mark.parametrize("n", [0, 1])
def test_empty_and_single_inputs_work(n):
    books, z, q = case(4, 16, 2)
    codes = scoring.encode(z[:n], books)
    assert codes.shape == (n, 4)
    assert scoring.decode(codes, books).shape == (n, 8)
    assert scoring.aqs(q, codes, books).shape == (5, n)
    assert scoring.aqs(q[:n], codes, books).shape == (n, n)


@pytest.mark.parametrize(
    "bad,message",
    [
        (np.zeros((2, 8), complex), r"z must be a float32 array, got complex128"),
        ([["0.0"] * 8], "z must be a float32 array, got list of <U3"),
        (np.zeros(8, np.float32), r"\(n, 8\), got \(8,\)\. Use z\[None, :\] for a single vector"),
        (np.zeros((2, 9), np.float32), r"z must have shape \(n, 8\), got \(2, 9\)"),
        (
            np.full((2, 8), np.inf, np.float32),
            "2 of 2 rows hold NaN or Inf, the first of them row 0",
        ),
    ],
)
def test_bad_vectors_say_what_to_do(bad, message):
    with pytest.raises(InvalidInputError, match=message):
        scoring.encode(bad, make_codebooks(4, 16, 2))


@pytest.mark.parametrize(
    "bad,message",
    [
        (np.zeros((2, 4), np.int64), "codes must be a uint8 array, got int64"),
        (np.zeros((2, 2), np.uint8), r"codes must have shape \(n, 4\), got \(2, 2\)"),
        (np.full((2, 4), 200, np.uint8), "codes must be below K=16, got 200"),
    ],
)
def test_bad_codes_say_what_to_do(bad, message):
    books = make_codebooks(4, 16, 2)
    with pytest.raises(InvalidInputError, match=message):
        scoring.decode(bad, books)
    with pytest.raises(InvalidInputError, match=message):
        scoring.aqs(np.zeros((1, 8), np.float32), bad, books)


def test_floats_and_integers_of_all_sizes_and_lists_are_vectors():
    books, z, q = case(4, 16, 2)
    z, q = np.round(8 * z), np.round(8 * q)
    codes, scores = scoring.encode(z, books), scoring.aqs(q, scoring.encode(z, books), books)
    for convert in (np.float16, np.float64, np.int8, np.int64, np.ndarray.tolist):
        given = (convert(z), convert(q)) if convert is np.ndarray.tolist else (
            z.astype(convert), q.astype(convert))  # fmt: skip
        np.testing.assert_array_equal(scoring.encode(given[0], books), codes)
        np.testing.assert_array_equal(scoring.aqs(given[1], codes, books), scores)
        found = scoring.block_normalize(given[0], 4)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, scoring.block_normalize(z, 4))


def test_m_must_divide_the_width():
    with pytest.raises(
        InvalidInputError, match="M must divide the width of z, got M=3 and a width"
    ):
        scoring.block_normalize(np.zeros((1, 8), np.float32), 3)
