import numpy as np
import pytest

from mecoq_index.baselines.base import unit_rows
from mecoq_index.baselines.hashing import ITQ, LSH, PCARotation, PCASign
from mecoq_index.baselines.quantization import OPQ, PQ, ExactCosine
from mecoq_index.errors import InvalidInputError

pytest.importorskip("faiss")

HASHES = [LSH, PCASign, PCARotation, ITQ]


def clusters(n=600, width=32, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(10, size=n)
    centers = np.random.default_rng(99).standard_normal((10, width))
    x = centers[label] + 0.3 * rng.standard_normal((n, width))
    return x.astype(np.float32), label


@pytest.mark.parametrize("method", HASHES)
def test_hamming_scores_are_the_bits_that_agree(method):
    x, _ = clusters()
    fitted = method.fit(x, 16)
    fitted.add(x)
    codes = np.unpackbits(fitted.encode(x), axis=1)
    assert codes.shape == (600, 16)
    hits = fitted.search(x[:5], 600)
    for q in range(5):
        agree = (codes[hits.ids[q]] == codes[q]).sum(axis=1)
        np.testing.assert_array_equal(hits.scores[q], agree)
        assert sorted(hits.ids[q]) == list(range(600))
    assert fitted.bytes_per_vector == 2


@pytest.mark.parametrize("method", [*HASHES, PQ, OPQ, ExactCosine])
def test_neighbors_are_of_the_same_cluster(method):
    x, label = clusters(1000)
    q, query_label = clusters(50, seed=1)
    fitted = method.fit(x, 16)
    fitted.add(x)
    found = label[fitted.search(q, 20).ids]
    assert (found == query_label[:, None]).mean() > 0.8


@pytest.mark.parametrize("method", [LSH, PQ, OPQ, ITQ])
def test_same_seed_same_ranking(method):
    x, _ = clusters()
    hits = []
    for _ in range(2):
        fitted = method.fit(x, 16, seed=3)
        fitted.add(x)
        hits.append(fitted.search(x[:9], 10).ids)
    np.testing.assert_array_equal(*hits)


def test_exact_cosine_is_exact():
    x, _ = clusters()
    method = ExactCosine.fit(x)
    method.add(x)
    hits = method.search(x[:4], 600)
    want = unit_rows(x[:4]) @ unit_rows(x).T
    np.testing.assert_allclose(hits.scores, -np.sort(-want, axis=1), atol=1e-6)
    assert method.bytes_per_vector == 128


@pytest.mark.parametrize("method", [PQ, OPQ])
def test_a_product_quantizer_takes_bits_over_eight_bytes(method):
    x, _ = clusters()
    assert method.fit(x, 32).bytes_per_vector == 4


def test_more_results_than_rows_are_padded():
    x, _ = clusters()
    for method in (LSH, ExactCosine):
        fitted = method.fit(x, 16)
        fitted.add(x[:3])
        hits = fitted.search(x[:2], 5)
        assert (hits.ids[:, 3:] == -1).all()
        assert np.isneginf(hits.scores[:, 3:]).all()


def test_unit_rows_keeps_zeros_and_the_callers_array():
    x = np.array([[3, 4], [0, 0]], np.float32)
    np.testing.assert_allclose(unit_rows(x), [[0.6, 0.8], [0, 0]])
    np.testing.assert_array_equal(x[0], [3, 4])


@pytest.mark.parametrize(
    "method,bits,message",
    [
        (LSH, 12, "multiple of 8 between 8 and the vectors' width 32, got 12"),
        (ITQ, 64, "multiple of 8 between 8 and the vectors' width 32, got 64"),
        (PQ, 12, "bits must be a positive multiple of 8, got 12"),
        (PQ, 24, r"splits vectors into bits / 8 = 3 equal parts, but their width is 32"),
    ],
)
def test_bits_that_do_not_fit_are_refused(method, bits, message):
    with pytest.raises(InvalidInputError, match=message):
        method.fit(clusters()[0], bits)


@pytest.mark.parametrize("method,least", [(PQ, 256), (OPQ, 256), (ITQ, 2)])
def test_too_few_vectors_are_refused_in_a_sentence(method, least):
    x = np.random.default_rng(0).standard_normal((least - 1, 8)).astype(np.float32)
    with pytest.raises(InvalidInputError, match=f"is fitted to at least {least} vectors, got"):
        method.fit(x, 8)
