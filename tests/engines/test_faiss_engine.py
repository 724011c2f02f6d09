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
    index = index_factory(books.D, "IVF4(Flat),MeCoQ", books)
    faiss.write_index(index, str(tmp_path / "index"))
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
        with pytest.raises(
            ArtifactError, match=r"index\.faiss cannot be opened: .* (are left|all there)"
        ):
            FaissEngine.open(path, books)


@pytest.mark.parametrize("factory", ["IVF8,MeCoQ", "IVF8,MeCoQ4x4fs"])
def test_lists_of_items_that_are_all_equal_are_searched(factory):
    books = make_codebooks()
    codes = np.tile(make_codes(1, books), (40, 1))
    q = make_queries(2, books)
    hits = FaissEngine.build(books, codes, factory=factory, nprobe=8).search(q, 40)
    assert sorted(hits.ids[0]) == list(range(40))
    np.testing.assert_allclose(hits.scores, scoring.aqs(q, codes, books), atol=4 * 2 / 510 + 1e-5)


@pytest.mark.parametrize("factory", ["MeCoQ{M}x4fs", "MeCoQ{M}x4fs_64,IDMap2", "IVF1,MeCoQ{M}x4fs"])
@pytest.mark.parametrize("M", [128, 129, 257])
def test_fast_scan_adds_up_as_many_subquantizers_as_16_bits_hold(factory, M):
    # One codebook M times: the perfect match of its first codeword has the largest sum there is.
    books = Codebooks(np.repeat(make_codebooks(1).codewords, M, axis=0))
    codes = make_codes(50, books)
    codes[7] = 0
    q = books.codewords[:, 0].reshape(1, -1)
    engine = FaissEngine.build(books, codes, factory=factory.format(M=M))
    true = -np.sort(-scoring.aqs(q, codes, books)[0])
    for k in (1, 2, 30):
        hits = engine.search(q, k)
        assert hits.ids[0, 0] == 7
        np.testing.assert_allclose(hits.scores[0], true[:k], atol=M / 200)
    if "IVF" in factory:
        assert engine.range_search(q, 0.9 * M).ids.tolist() == [7]


def test_fast_scan_of_more_subquantizers_is_refused_with_the_layout_that_works(tmp_path):
    books = Codebooks(np.repeat(make_codebooks(1).codewords, 258, axis=0))
    codes = make_codes(50, books)
    for string, nearest in (
        ("MeCoQ258x4fs", "'MeCoQ258x4'"),
        ("IVF4,MeCoQfs", "'IVF4,MeCoQ258x4'"),
    ):
        string = string.replace("MeCoQfs", "MeCoQ258x4fs")
        with pytest.raises(
            InvalidInputError, match=rf"hold 257 .* have M=258\. Use {nearest}, whose"
        ):
            FaissEngine.build(books, codes, factory=string)
    index = faiss.index_factory(books.D, "PQ258x4fs", faiss.METRIC_INNER_PRODUCT)
    faiss.copy_array_to_vector(books.codewords.ravel(), index.pq.centroids)
    index.is_trained = True
    faiss.write_index(index, str(tmp_path / "index.faiss"))
    with pytest.raises(ArtifactError, match="M must be from 1 to 257, but is 258"):
        FaissEngine.open(tmp_path / "index.faiss", books)


@pytest.mark.parametrize("K", [2, 4])
def test_few_codewords_of_width_2_are_searched_list_by_list(K, tmp_path):
    books = make_codebooks(M=6, K=K, Ds=2)
    codes = make_codes(100, books)
    q = make_queries(5, books)
    nbits = K.bit_length() - 1
    with pytest.raises(InvalidInputError, match=rf"K={K} .* width 2.* is 'IVF1,MeCoQ6x{nbits}'"):
        FaissEngine.build(books, codes)
    with pytest.raises(
        InvalidInputError, match=rf"must name one MeCoQ .* like 'IVF1,MeCoQ6x{nbits}'"
    ):
        FaissEngine.build(books, codes, factory="Flat")
    for factory in ("IVF1,MeCoQ", "IVF4,MeCoQ", "HNSW8,MeCoQ"):
        nprobe = {"nprobe": int(factory[3])} if "IVF" in factory else {}
        engine = FaissEngine.build(books, codes, factory=factory, **nprobe)
        for allowed in (None, np.arange(10, 60)):
            held = np.arange(100) if allowed is None else allowed
            true = -np.sort(-scoring.aqs(q, codes[held], books), axis=1)[:, :3]
            np.testing.assert_allclose(engine.search(q, 3, allowed=allowed).scores, true, atol=1e-5)
        if "IVF" in factory:
            assert engine.tune(q, recall=0.9).recall >= 0.9
    flat = faiss.index_factory(books.D, f"PQ6x{nbits}np", faiss.METRIC_INNER_PRODUCT)
    faiss.copy_array_to_vector(books.codewords.ravel(), flat.pq.centroids)
    flat.is_trained = True
    faiss.write_index(flat, str(tmp_path / "index.faiss"))
    with pytest.raises(ArtifactError, match=r"cannot be searched\. .* is 'IVF1,MeCoQ6x"):
        FaissEngine.open(tmp_path / "index.faiss", books)


@pytest.mark.parametrize("make", [FaissEngine.build, FaissEngine.builder])
def test_more_lists_than_items_are_refused_before_room_is_made_for_them(make, monkeypatch):
    books = make_codebooks()
    monkeypatch.setattr(faiss, "index_factory", lambda *args: pytest.fail("FAISS has made it"))
    items = make_codes(3000, books) if make == FaissEngine.build else 3000
    with pytest.raises(InvalidInputError, match=r"IVF3001 needs at least 3001 items .*, got 3000"):
        make(books, items, factory="IVF3001,MeCoQ")
    with pytest.raises(InvalidInputError, match="at most 4194304 lists, got 100000000"):
        make(books, items, factory="IVF100000000,MeCoQ")


def test_an_index_that_does_not_fit_into_memory_gets_a_sentence(monkeypatch, tmp_path):
    def too_much(*args):
        raise MemoryError("std::bad_alloc")

    books = make_codebooks()
    path = tmp_path / "index.faiss"
    FaissEngine.build(books, make_codes(5, books)).save(path)
    monkeypatch.setattr(faiss, "read_index", too_much)
    with pytest.raises(ArtifactError, match=r"index\.faiss does not fit into memory"):
        FaissEngine.open(path, books)
    monkeypatch.setattr(faiss, "index_factory", too_much)
    with pytest.raises(InvalidInputError, match="'IVF9,MeCoQ4x4' does not fit into memory"):
        index_factory(16, "IVF9,MeCoQ", books)
