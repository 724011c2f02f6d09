"""What the FAISS engine adds to FAISS: refusals, zero queries, rounding it can name."""

import numpy as np
import pytest

from mecoq_index import scoring
from mecoq_index.codebooks import Codebooks
from mecoq_index.engines.faiss.coarse import train_coarse_quantizer
from mecoq_index.engines.faiss.engine import FaissEngine
from mecoq_index.engines.faiss.factory import index_factory
from mecoq_index.engines.faiss.inject import protect
from mecoq_index.errors import ArtifactError, InvalidInputError

faiss = pytest.importorskip("faiss")

FOUR_BITS = ["MeCoQ{M}x4fs", "MeCoQ{M}x4fs,IDMap2", "IVF4,MeCoQ{M}x4fs", "IVF4,MeCoQ,IDMap2"]


def make_codebooks(M=4, K=16, Ds=4, seed=0):
    c = np.random.default_rng(seed).standard_normal((M, K, Ds))
    return Codebooks((c / np.linalg.norm(c, axis=-1, keepdims=True)).astype(np.float32))


def make_codes(n, books, seed=1):
    return np.random.default_rng(seed).integers(books.K, size=(n, books.M)).astype(np.uint8)


def make_queries(n, books, seed=2):
    return np.random.default_rng(seed).standard_normal((n, books.D), dtype=np.float32)


def build(books, codes, factory, ids=None):
    options = {"nprobe": 4} if "IVF" in factory else {}
    return FaissEngine.build(books, codes, ids, factory=factory.format(M=books.M), **options)


@pytest.mark.parametrize("factory", FOUR_BITS)
@pytest.mark.parametrize("M", [4, 5])
def test_a_zero_query_finds_items_that_all_tie(factory, M):
    books = make_codebooks(M)
    codes = make_codes(20, books)
    engine = build(books, codes, factory)
    q = make_queries(3, books)
    q[1] = 0
    hits = engine.search(q, 30)
    assert sorted(hits.ids[1, :20]) == list(range(20))
    np.testing.assert_array_equal(hits.scores[1, :20], 0)
    assert (hits.ids[1, 20:] == -1).all()
    assert np.isneginf(hits.scores[1, 20:]).all()
    alone = engine.search(q[[0, 2]], 30)  # the other queries are not touched
    np.testing.assert_array_equal(hits.scores[[0, 2]], alone.scores)


@pytest.mark.parametrize("factory", FOUR_BITS)
def test_codebooks_whose_codewords_are_all_one_still_answer(factory):
    c = np.repeat(make_codebooks().codewords[:, :1], 16, axis=1)
    books = Codebooks(c)
    codes = make_codes(20, books)
    engine = build(books, codes, factory)
    q = make_queries(3, books)
    hits = engine.search(q, 5)
    np.testing.assert_allclose(hits.scores, scoring.aqs(q, codes, books)[:, :5], atol=1e-5)
    assert all(len(set(row)) == 5 for row in hits.ids.tolist())
    assert hits.ids.min() >= 0


@pytest.mark.parametrize("M", [1, 2, 5, 16])
@pytest.mark.parametrize("factory", ["MeCoQ{M}x4fs", "IVF4,MeCoQ{M}x4fs"])
def test_fast_scan_rounds_by_half_a_step_per_table_at_most(factory, M):
    books = make_codebooks(M)
    codes = make_codes(500, books)
    q = make_queries(30, books)
    hits = build(books, codes, factory).search(q, 20)
    tables = scoring.lookup_tables(q, books)
    bound = M * np.ptp(tables, axis=2).max(axis=1) / 510 + 1e-5
    true = np.take_along_axis(scoring.aqs(q, codes, books), hits.ids, axis=1)
    assert (np.abs(hits.scores - true) <= bound[:, None]).all()
    # Nothing better than the last hit by more than both roundings was left out.
    best = -np.sort(-scoring.aqs(q, codes, books), axis=1)[:, :20]
    assert (best - -np.sort(-true, axis=1) <= 2 * bound[:, None]).all()


@pytest.mark.parametrize("factory", ["IVF16,MeCoQ4x4fs", "IVF16,MeCoQ4x4fs,IDMap2", "IVF16,MeCoQ"])
def test_nprobe_of_a_call_reaches_the_lists_and_leaves_no_trace(factory):
    books = make_codebooks()
    engine = FaissEngine.build(books, make_codes(2000, books), factory=factory, nprobe=2)
    q = make_queries(40, books)
    before = engine.search(q, 5)
    one, all_lists = (engine.search(q, 5, nprobe=n).scores.sum() for n in (1, 16))
    assert one < before.scores.sum() < all_lists
    np.testing.assert_array_equal(engine.search(q, 5).ids, before.ids)


@pytest.mark.parametrize("nprobe", [2.5, True, "3"])
def test_nprobe_must_be_an_integer(nprobe):
    books = make_codebooks()
    with pytest.raises(InvalidInputError, match="nprobe must be an integer between 1 and nlist=4"):
        FaissEngine.build(books, make_codes(50, books), factory="IVF4,MeCoQ", nprobe=nprobe)


@pytest.mark.parametrize("seed", [-1, 1.5, 2**31 - 1])
def test_a_seed_that_faiss_cannot_hold_is_refused(seed):
    books = make_codebooks()
    with pytest.raises(InvalidInputError, match=r"seed must be an integer from 0 to 2147483646"):
        FaissEngine.build(books, make_codes(50, books), factory="IVF4,MeCoQ", seed=seed)


def test_lists_are_trained_only_where_there_are_lists_and_no_items_yet():
    books = make_codebooks()
    codes = make_codes(50, books)
    with pytest.raises(InvalidInputError, match=r"must be IVF to have lists to train"):
        train_coarse_quantizer(index_factory(books.D, "MeCoQ", books), codes, books)
    full = build(books, codes, "IVF4,MeCoQ").index
    with pytest.raises(InvalidInputError, match=r"must be empty .* but it holds 50 items"):
        train_coarse_quantizer(full, codes, books)


def test_an_index_of_residuals_is_refused(tmp_path):
    books = make_codebooks()
    index = faiss.index_factory(books.D, "IVF4,PQ4x4np", faiss.METRIC_INNER_PRODUCT)
    index.train(make_queries(700, books))
    faiss.copy_array_to_vector(books.codewords.ravel(), index.pq.centroids)
    faiss.write_index(index, str(tmp_path / "index"))
    with pytest.raises(ArtifactError, match="holds codes of residuals, so its scores are not AQS"):
        FaissEngine.open(tmp_path / "index", books)


def test_an_index_without_lists_is_refused(tmp_path):
    books = make_codebooks()
    faiss.write_index(index_factory(books.D, "IVF4,MeCoQ", books), str(tmp_path / "index"))
    with pytest.raises(ArtifactError, match=r"has no lists yet\. Train the index before"):
        FaissEngine.open(tmp_path / "index", books)


def test_a_file_that_is_protected_again_trains_spherical_lists(tmp_path):
    books = make_codebooks()
    faiss.write_index(index_factory(books.D, "IVF4,MeCoQ", books), str(tmp_path / "index"))
    index = faiss.read_index(str(tmp_path / "index"))
    assert not index.cp.spherical  # what FAISS forgets
    protect(index)
    index.train(make_queries(700, books))
    centroids = faiss.downcast_index(index.quantizer).reconstruct_n(0, 4)
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("factory", ["MeCoQ", "IVF4,MeCoQ", "MeCoQ4x4fs", "IVF4,MeCoQ4x4fs,IDMap2"])
def test_a_file_cut_anywhere_is_refused(factory, tmp_path):
    books = make_codebooks()
    path = tmp_path / "index.faiss"
    build(books, make_codes(50, books), factory).save(path)
    whole = path.read_bytes()
    for size in range(1, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:size])
        with pytest.raises(ArtifactError, match=r"index\.faiss cannot be opened: .* left"):
            FaissEngine.open(path, books)


@pytest.mark.parametrize("factory", ["IVF8,MeCoQ", "IVF8,MeCoQ4x4fs"])
def test_lists_of_items_that_are_all_equal_are_searched(factory):
    books = make_codebooks()
    codes = np.tile(make_codes(1, books), (40, 1))
    q = make_queries(2, books)
    hits = FaissEngine.build(books, codes, factory=factory, nprobe=8).search(q, 40)
    assert sorted(hits.ids[0]) == list(range(40))
    np.testing.assert_allclose(hits.scores, scoring.aqs(q, codes, books), atol=4 * 2 / 510 + 1e-5)
