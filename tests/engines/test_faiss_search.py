"""Settings of a call, filters, ranges, re-ranking, tuning and export, each against a full scan."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from faiss_layouts import holds

from mecoq_index import scoring
from mecoq_index.codebooks import Codebooks, Layer
from mecoq_index.engines.faiss.coarse import centroids_of, set_centroids
from mecoq_index.engines.faiss.engine import FaissEngine
from mecoq_index.engines.faiss.grammar import parse
from mecoq_index.engines.faiss.inject import layers_of
from mecoq_index.engines.faiss.plain import export_index
from mecoq_index.engines.faiss.tuning import exact_scores, tune_nprobe
from mecoq_index.errors import InvalidInputError

faiss = pytest.importorskip("faiss")

FLAT = ["MeCoQ", "MeCoQ,IDMap2", "IDMap,MeCoQ"]
FLAT_FAST_SCAN = ["MeCoQ4x4fs", "MeCoQ4x4fs_64", "MeCoQ4x4fs_96,IDMap", "MeCoQ4x4fs,IDMap2"]
IVF = ["IVF8,MeCoQ", "IVF8_HNSW8,MeCoQ", "IVF8(IVF3,Flat),MeCoQ", "IVF8,MeCoQ,IDMap2"]
IVF_FAST_SCAN = ["IVF8,MeCoQ4x4fs", "IVF8,MeCoQ4x4fs_64,IDMap", "IVF8(IVF3,Flat),MeCoQ4x4fs"]
REFINED = [
    "MeCoQ4x4fs,Refine(MeCoQ)",
    "MeCoQ4x4fs_64,Refine(MeCoQ),IDMap2",
    "IVF8,MeCoQ4x4fs,Refine(MeCoQ)",
    "IVF8,MeCoQ4x4fs,Refine(MeCoQ),IDMap",
]
GRAPHS = ["HNSW8,MeCoQ", "HNSW8,MeCoQ,IDMap2"]
ALL = FLAT + FLAT_FAST_SCAN + IVF + IVF_FAST_SCAN + REFINED + GRAPHS
N = 600


def make_codebooks(M=4, K=16, Ds=4, seed=0, projection=()):
    c = np.random.default_rng(seed).standard_normal((M, K, Ds))
    c /= np.linalg.norm(c, axis=-1, keepdims=True)
    return Codebooks(c.astype(np.float32), projection=projection)


def make_codes(n, books, seed=1):
    return np.random.default_rng(seed).integers(books.K, size=(n, books.M)).astype(np.uint8)


def make_queries(n, books, seed=2):
    return np.random.default_rng(seed).standard_normal((n, books.D), dtype=np.float32)


BOOKS = make_codebooks()
CODES = make_codes(N, BOOKS)
QUERIES = make_queries(12, BOOKS)
TRUE = scoring.aqs(QUERIES, CODES, BOOKS)


def keeps_ids(factory):
    return "IDMap" in factory or ("IVF" in factory and "Refine" not in factory)


def ids_of(factory, n=N):
    """The ids that an engine of this layout is given, or gives itself."""
    return 3 * np.random.default_rng(5).permutation(n) + 7 if keeps_ids(factory) else np.arange(n)


def build(factory, codes=CODES, books=BOOKS, **options):
    if "IVF" in factory:
        options = {"nprobe": 8, **options}
    given = ids_of(factory, len(codes)) if keeps_ids(factory) else None
    return FaissEngine.build(books, codes, given, factory=factory, **options)


def rounding(factory, q=QUERIES, books=BOOKS):
    if "fs" not in factory or "Refine" in factory:
        return 1e-5
    span = np.ptp(scoring.lookup_tables(q, books), axis=2).max()
    return float(books.M / 2 * span / 255 + 1e-5)


def assert_best_among(hits, rows, ids, true, tolerance):
    """Hits are the best of just these rows, up to ties and rounding."""
    k = hits.ids.shape[1]
    found = min(k, len(rows))
    assert (hits.ids[:, found:] == -1).all()
    assert np.isneginf(hits.scores[:, found:]).all()
    row_of = {int(ids[row]): row for row in rows}
    best = -np.sort(-true[:, rows], axis=1)[:, :found]
    for row, (got, scores) in enumerate(zip(hits.ids, hits.scores, strict=True)):
        assert len(set(got[:found])) == found
        mine = true[row, [row_of[int(i)] for i in got[:found]]]
        np.testing.assert_allclose(scores[:found], mine, rtol=0, atol=tolerance)
        assert (best[row] - -np.sort(-mine) <= 2 * tolerance).all()


# Filters


@pytest.mark.parametrize("allowed", [1, 5, 100, N])
@pytest.mark.parametrize("factory", ALL)
def test_only_the_best_of_the_allowed_items_are_found(factory, allowed):
    engine, ids = build(factory), ids_of(factory)
    rows = np.random.default_rng(3).permutation(N)[:allowed]
    options = {"k_factor": N} if "Refine" in factory else {}
    hits = engine.search(QUERIES, 10, allowed=ids[rows], **options)
    is_scan = engine.spec.id_map in ("", "IDMap", "IDMap2") and not engine.spec.nlist
    exact = is_scan and not engine.spec.graph
    assert_best_among(hits, rows, ids, TRUE, 1e-5 if exact else rounding(factory))


@pytest.mark.parametrize("factory", ALL)
def test_allowed_ids_that_are_not_held_are_passed_over(factory):
    engine, ids = build(factory), ids_of(factory)
    allowed = np.concatenate([ids[:4], [10**6, 2**62, 8 if keeps_ids(factory) else N]])
    hits = engine.search(QUERIES, 6, allowed=allowed)
    assert_best_among(hits, np.arange(4), ids, TRUE, rounding(factory))
    for nothing in (np.empty(0, np.int64), np.array([10**6])):
        assert (engine.search(QUERIES, 2, allowed=nothing).ids == -1).all()
        assert np.isneginf(engine.search(QUERIES, 2, allowed=nothing).scores).all()


@pytest.mark.parametrize("factory", ALL)
def test_a_zero_query_finds_allowed_items_only(factory):
    engine, ids = build(factory), ids_of(factory)
    hits = engine.search(np.zeros((2, BOOKS.D), np.float32), 60, allowed=ids[:50])
    assert (np.sort(hits.ids, axis=1)[:, 10:] == np.sort(ids[:50])).all()
    np.testing.assert_array_equal(hits.scores[:, :50], 0)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5])
def test_a_graph_finds_what_is_allowed_however_little_that_is(share):
    codes = np.unique(make_codes(4000, BOOKS), axis=0)
    engine = FaissEngine.build(BOOKS, codes, factory="HNSW16,MeCoQ")
    rows = np.random.default_rng(3).permutation(len(codes))[: int(share * len(codes))]
    hits = engine.search(QUERIES, 10, allowed=rows)
    assert np.isin(hits.ids[hits.ids >= 0], rows).all()
    best = -np.sort(-scoring.aqs(QUERIES, codes[rows], BOOKS), axis=1)[:, :10]
    assert (hits.scores[:, : best.shape[1]] >= best[:, -1:] - 1e-5).mean() > 0.95


@pytest.mark.parametrize("factory", ["MeCoQ", "IVF8,MeCoQ", "HNSW8,MeCoQ", REFINED[-1]])
@pytest.mark.parametrize(
    "allowed,message",
    [
        (5, r"allowed must be an int64 array, got int\. Convert it"),
        ([5], r"allowed must be an int64 array, got list\. Convert it"),
        (np.array([1.0]), r"allowed must be an int64 array, got float64\. Convert it"),
        (np.array([[1, 2]]), r"allowed must have shape \(n,\), got \(1, 2\)"),
        (np.array([-1]), r"allowed must not be negative, got -1"),
        (np.array([3, 3]), r"allowed must be distinct, but 1 repeat"),
    ],
)
def test_malformed_filters_are_refused(factory, allowed, message):
    with pytest.raises(InvalidInputError, match=message):
        build(factory).search(QUERIES, 1, allowed=allowed)


# Ranges


@pytest.mark.parametrize(
    "threshold", [-100.0, -4.0, -1.5, 0.0, 1.0, 2.5, 3.9, 100.0, 1e300, -1e300]
)
@pytest.mark.parametrize("factory", FLAT + IVF + IVF_FAST_SCAN)
def test_a_range_holds_all_items_above_the_threshold_best_first(factory, threshold):
    engine, ids = build(factory), ids_of(factory)
    found = engine.range_search(QUERIES, threshold)
    assert found.limits.shape == (13,)
    assert found.limits[-1] == len(found.ids) == len(found.scores)
    assert (found.ids.dtype, found.scores.dtype) == (np.int64, np.float32)
    tolerance, row_of = rounding(factory), {int(id_): row for row, id_ in enumerate(ids)}
    for query, (start, stop) in enumerate(zip(found.limits, found.limits[1:], strict=False)):
        scores = found.scores[start:stop]
        assert (scores[:-1] >= scores[1:]).all()
        assert all(float(score) > threshold for score in scores)
        rows = [row_of[int(id_)] for id_ in found.ids[start:stop]]
        np.testing.assert_allclose(scores, TRUE[query, rows], rtol=0, atol=tolerance)
        assert len(set(rows)) == len(rows)
        surely = np.flatnonzero(TRUE[query].astype(np.float64) > threshold + tolerance)
        assert set(surely) <= set(rows)


@pytest.mark.parametrize("factory", ["MeCoQ", "IVF8,MeCoQ"])
def test_a_range_is_strictly_above_its_threshold(factory):
    books = Codebooks(np.eye(3, dtype=np.float32)[None, :2].repeat(4, axis=0))
    codes = make_codes(100, books)
    q = np.array([[1, 0, 0] * 4], np.float32)  # scores are the whole numbers of zeros in a code
    found = build(factory, codes, books).range_search(q, 3.0)
    assert (found.scores == 4).all()
    assert len(found.ids) == (codes.sum(axis=1) == 0).sum() > 0


@pytest.mark.parametrize("M", [1, 2, 3])
@pytest.mark.parametrize("threshold", [-3.5, -0.9, -0.5, 0.0, 0.9])
def test_fast_scan_ranges_below_the_lowest_score_of_a_query_hold_everything(M, threshold):
    books = make_codebooks(M)
    codes, q = make_codes(300, books), make_queries(30, books)
    engine = FaissEngine.build(books, codes, factory=f"IVF4,MeCoQ{M}x4fs", nprobe=4)
    found = np.diff(engine.range_search(q, threshold).limits)
    true, near = scoring.aqs(q, codes, books), rounding("fs", q, books)
    assert (found >= (true > threshold + near).sum(axis=1)).all()
    assert (found <= (true > threshold - near).sum(axis=1)).all()


@pytest.mark.parametrize("threshold", [-9.0, -3.0, 3.0, 9.0])
def test_fast_scan_ranges_are_right_where_scores_hardly_differ(threshold):
    c = np.ones((4, 16, 4)) + 1e-3 * np.random.default_rng(0).standard_normal((4, 16, 4))
    books = Codebooks((c / np.linalg.norm(c, axis=-1, keepdims=True)).astype(np.float32))
    codes, q = make_codes(100, books), make_queries(20, books)
    engine = FaissEngine.build(books, codes, factory="IVF4,MeCoQ4x4fs", nprobe=4)
    want = (scoring.aqs(q, codes, books) > threshold).sum(axis=1)
    np.testing.assert_array_equal(np.diff(engine.range_search(q, threshold).limits), want)


@pytest.mark.parametrize("factory", FLAT + IVF + IVF_FAST_SCAN)
def test_the_range_of_a_zero_query_is_everything_or_nothing(factory):
    engine, ids = build(factory), ids_of(factory)
    q = np.concatenate([QUERIES[:1], np.zeros((2, BOOKS.D), np.float32)])
    below = engine.range_search(q, -0.1)
    for start, stop in zip(below.limits[1:], below.limits[2:], strict=False):
        np.testing.assert_array_equal(below.ids[start:stop], np.sort(ids))
        np.testing.assert_array_equal(below.scores[start:stop], 0)
    for threshold in (0.0, 0.1):
        assert (np.diff(engine.range_search(q, threshold).limits)[1:] == 0).all()


@pytest.mark.parametrize("factory", IVF + IVF_FAST_SCAN)
def test_a_range_among_allowed_items_holds_no_others(factory):
    engine, ids = build(factory), ids_of(factory)
    rows = np.random.default_rng(3).permutation(N)[:150]
    tolerance = rounding(factory)
    q = np.concatenate([QUERIES, np.zeros((1, BOOKS.D), np.float32)])
    for threshold in (-4.5, -0.1, 1.0):
        found = engine.range_search(q, threshold, allowed=ids[rows])
        assert np.isin(found.ids, ids[rows]).all()
        true = scoring.aqs(q, CODES[rows], BOOKS)
        sizes = np.diff(found.limits)
        assert (sizes >= (true > threshold + tolerance).sum(axis=1)).all()
        assert (sizes <= (true > threshold - tolerance).sum(axis=1)).all()
    assert len(engine.range_search(q, -9.0, allowed=np.array([10**6])).ids) == 0


@pytest.mark.parametrize("factory", FLAT + IVF + IVF_FAST_SCAN)
def test_ranges_without_queries_or_items_are_empty(factory):
    found = build(factory).range_search(QUERIES[:0], 0.0)
    assert found.limits.tolist() == [0]
    assert len(found.ids) == len(found.scores) == 0
    empty = FaissEngine.empty(BOOKS, factory, items=8).range_search(QUERIES[:2], -9.0)
    assert empty.limits.tolist() == [0, 0, 0]
    assert (empty.ids.dtype, empty.scores.dtype) == (np.int64, np.float32)


@pytest.mark.parametrize(
    "factory,message",
    [
        ("HNSW8,MeCoQ", r"no range search for HNSW8,MeCoQ4x4\. Build with 'IVF1,MeCoQ4x4', which"),
        ("MeCoQ4x4fs", r"no range search for MeCoQ4x4fs\. Build with 'IVF1,MeCoQ4x4fs', which"),
        (REFINED[0], r"no range search for MeCoQ4x4fs,Refine\(MeCoQ4x4\)\. Build with 'IVF1,MeC"),
        (REFINED[2], r"no range search for IVF8,MeCoQ4x4fs,Refine\(MeCoQ4x4\)\. Build with 'IVF1"),
    ],
)
def test_indexes_without_a_range_search_name_one_that_has(factory, message):
    with pytest.raises(InvalidInputError, match=message):
        build(factory).range_search(QUERIES, 1.0)
    able = message.rpartition("'IVF1")[0] and f"IVF1,MeCoQ4x4{'fs' * ('fs' in factory)}"
    assert build(able, nprobe=1).range_search(QUERIES, 1.0).limits[-1] > 0


@pytest.mark.parametrize("threshold", [np.nan, np.inf, -np.inf])
def test_a_threshold_must_be_finite(threshold):
    with pytest.raises(InvalidInputError, match="threshold must be a finite score, got"):
        build("MeCoQ").range_search(QUERIES, threshold)


def test_a_range_among_allowed_items_wants_lists():
    with pytest.raises(
        InvalidInputError,
        match=r"among allowed items is for IVF indexes, but this is MeCoQ4x4\. Build with 'IVF1,M",
    ):
        build("MeCoQ").range_search(QUERIES, 1.0, allowed=np.arange(3))


# Re-ranking


@pytest.mark.parametrize("factory", [*FLAT_FAST_SCAN, *REFINED])
def test_re_ranking_all_items_gives_exact_scores_in_exact_order(factory):
    engine, ids = build(factory), ids_of(factory)
    hits = engine.search(QUERIES, 20, k_factor=N)
    assert_best_among(hits, np.arange(N), ids, TRUE, 1e-5)
    np.testing.assert_allclose(hits.scores, -np.sort(-TRUE, axis=1)[:, :20], rtol=0, atol=1e-5)


@pytest.mark.parametrize("factory", [*FLAT_FAST_SCAN, *REFINED])
def test_scores_are_exact_after_any_re_ranking_and_improve_with_more(factory):
    engine, ids = build(factory), ids_of(factory)
    row_of = np.zeros(ids.max() + 1, np.int64)
    row_of[ids] = np.arange(N)
    sums = []
    for k_factor in (1, 2, 8):
        hits = engine.search(QUERIES, 10, k_factor=k_factor)
        true = np.take_along_axis(TRUE, row_of[hits.ids], axis=1)
        np.testing.assert_allclose(hits.scores, true, rtol=0, atol=1e-5)
        assert (hits.scores[:, :-1] >= hits.scores[:, 1:]).all()
        sums.append(hits.scores.sum())
    assert sums[0] <= sums[1] + 1e-4 <= sums[2] + 2e-4


@pytest.mark.parametrize("factory", [*FLAT_FAST_SCAN, *REFINED])
@pytest.mark.parametrize("k_factor", [1, 3, np.int32(3), 10**30])
def test_re_ranking_pads_what_is_missing_and_takes_zero_queries(factory, k_factor):
    codes = CODES[:9]
    engine, ids = build(factory, codes), ids_of(factory, 9)
    q = np.concatenate([QUERIES[:2], np.zeros((1, BOOKS.D), np.float32)])
    hits = engine.search(q, 12, k_factor=k_factor)
    assert_best_among(hits, np.arange(9), ids, scoring.aqs(q, codes, BOOKS), 1e-5)
    np.testing.assert_array_equal(hits.ids[2, :9], np.sort(ids))


def test_many_queries_are_re_ranked_in_batches_alike(monkeypatch):
    engine = build("MeCoQ4x4fs,IDMap2")
    at_once = engine.search(QUERIES, 5, k_factor=4)
    monkeypatch.setattr("mecoq_index.engines.faiss.search._RERANKED_AT_ONCE", 200)
    batched = engine.search(QUERIES, 5, k_factor=4)
    np.testing.assert_array_equal(batched.ids, at_once.ids)
    np.testing.assert_array_equal(batched.scores, at_once.scores)


@pytest.mark.parametrize("factory", [*FLAT_FAST_SCAN, *IVF_FAST_SCAN, *REFINED])
@pytest.mark.parametrize("M", [1, 2])
def test_fast_scan_finds_even_the_items_that_no_item_could_score_below(factory, M):
    books = make_codebooks(M)
    factory = factory.replace("MeCoQ4", f"MeCoQ{M}")
    codes, q = make_codes(200, books), make_queries(20, books)
    for k in (200, 250):
        hits = build(factory, codes, books).search(q, k)
        true, near = scoring.aqs(q, codes, books), rounding(factory, q, books)
        assert_best_among(hits, np.arange(200), ids_of(factory, 200), true, near)
        assert (hits.scores[:, :-1] >= hits.scores[:, 1:]).all()


# Settings of a call


@pytest.mark.parametrize(
    "factory,settings",
    [
        ("IVF8,MeCoQ", {"nprobe": 8}),
        ("IVF8(IVF3,Flat),MeCoQ", {"nprobe": np.int64(8)}),
        ("IVF8,MeCoQ4x4fs,Refine(MeCoQ)", {"nprobe": 8, "k_factor": 50}),
        ("MeCoQ4x4fs,Refine(MeCoQ)", {"k_factor": 50}),
        ("HNSW4,MeCoQ", {"ef_search": 600}),
        ("HNSW4,MeCoQ", {"ef_search": np.int64(600)}),
        ("HNSW4,MeCoQ", {"ef_search": 2**40}),
    ],
)
def test_settings_are_for_one_call(factory, settings):
    codes = np.unique(make_codes(5000, BOOKS), axis=0)
    engine = FaissEngine.build(
        BOOKS, codes, factory=factory, **{"nprobe": 1} if "IVF" in factory else {}
    )
    if engine.spec.graph:
        engine.layers.core.hnsw.efSearch = 10
    if engine.spec.refine:
        engine.layers.refine.k_factor = 1.0
    before = engine.search(QUERIES, 10)
    with_settings = engine.search(QUERIES, 10, **settings)
    with_filter = engine.search(QUERIES, 10, **settings, allowed=np.arange(2000))
    after = engine.search(QUERIES, 10)
    np.testing.assert_array_equal(before.ids, after.ids)
    np.testing.assert_array_equal(before.scores, after.scores)
    best = -np.sort(-scoring.aqs(QUERIES, codes, BOOKS), axis=1)[:, 9:10]
    assert (with_settings.scores >= best - 1e-5).mean() > 0.97
    assert with_settings.scores.sum() > before.scores.sum()
    assert with_filter.ids.max() < 2000


REFUSALS = [
    ("MeCoQ", {"nprobe": 2}, r"nprobe is for IVF indexes, but this is MeCoQ4x4\."),
    ("IVF8,MeCoQ", {"nprobe": 0}, r"nprobe must be an integer between 1 and nlist=8, got 0\."),
    ("IVF8,MeCoQ", {"nprobe": 9}, r"nprobe must be an integer between 1 and nlist=8, got 9\."),
    ("IVF8,MeCoQ", {"nprobe": 2.0}, r"nprobe must be an integer between 1 .* got 2\.0\."),
    ("MeCoQ", {"ef_search": 2}, r"ef_search is for HNSW indexes, but this is MeCoQ4x4\."),
    ("HNSW8,MeCoQ", {"ef_search": 0}, r"ef_search must be an integer of at least 1, got 0\."),
    ("HNSW8,MeCoQ", {"ef_search": True}, r"ef_search must be an integer of at .* got True\."),
    ("HNSW8,MeCoQ", {"nprobe": 2}, r"nprobe is for IVF indexes, but this is HNSW8,MeCoQ4x4\."),
    ("MeCoQ4x4fs", {"k_factor": 0}, r"k_factor must be an integer of at least 1, got 0\."),
    ("MeCoQ4x4fs", {"k_factor": 1.5}, r"k_factor must be an integer of at least 1, got 1\.5\."),
    ("MeCoQ", {"k_factor": 2}, r"k_factor is for re-ranking .* this is MeCoQ4x4, which is exact\."),
    (
        "IVF8,MeCoQ4x4fs",
        {"k_factor": 2},
        r"this is IVF8,MeCoQ4x4fs\. Build with 'IVF8,MeCoQ4x4fs,Refine\(MeCoQ4x4\)'\.",
    ),
]


@pytest.mark.parametrize("factory,settings,message", REFUSALS)
def test_a_setting_that_is_not_for_the_index_is_refused(factory, settings, message):
    engine = build(factory)
    for allowed in (None, np.arange(3)):
        with pytest.raises(InvalidInputError, match=message):
            engine.search(QUERIES, 1, allowed=allowed, **settings)


def test_no_lists_to_look_into_are_refused_like_in_a_search():
    with pytest.raises(InvalidInputError, match=r"nprobe must be an integer between 1 .* got 0"):
        FaissEngine.build(BOOKS, CODES, factory="IVF8,MeCoQ", nprobe=0)
    with pytest.raises(InvalidInputError, match="nprobe is for IVF indexes, but the string is"):
        FaissEngine.build(BOOKS, CODES, factory="MeCoQ", nprobe=3)


@pytest.mark.parametrize(
    "factory,settings",
    [
        ("IVF8,MeCoQ", [{"nprobe": n} for n in range(1, 9)]),
        ("IVF8(IVF3,Flat),MeCoQ,IDMap2", [{"nprobe": n} for n in range(1, 9)]),
        ("IVF8,MeCoQ4x4fs,IDMap2", [{"nprobe": n} for n in range(1, 9)]),
        (REFINED[-1], [{"nprobe": n, "k_factor": n} for n in range(1, 9)]),
        ("MeCoQ4x4fs,IDMap2", [{"k_factor": n} for n in range(1, 9)]),
        ("HNSW4,MeCoQ,IDMap2", [{"ef_search": n} for n in range(1, 9)]),
        ("MeCoQ,IDMap2", [{}]),
    ],
)
def test_threads_with_settings_of_their_own_do_not_disturb_each_other(factory, settings):
    engine, ids = build(factory), ids_of(factory)
    rng = np.random.default_rng(4)
    calls = [
        {**settings[i % len(settings)]}
        | ({"allowed": ids[rng.permutation(N)[: 20 * (i % 5)]]} if i % 3 else {})
        for i in range(120)
    ]
    alone = [engine.search(QUERIES, 7, **call) for call in calls]

    def search(call):
        return engine.search(QUERIES, 7, **call)

    with ThreadPoolExecutor(8, initializer=faiss.omp_set_num_threads, initargs=(1,)) as pool:
        together = list(pool.map(search, calls))
    for want, got in zip(alone, together, strict=True):
        np.testing.assert_array_equal(got.ids, want.ids)
        np.testing.assert_array_equal(got.scores, want.scores)


# What the engine refuses, and remembers


@pytest.mark.parametrize(
    "string,message",
    [
        ("HNSW1,MeCoQ", r"an HNSW graph must have 2 to 1024 links an item, got 1 in 'HNSW1,MeCoQ'"),
        ("IVF4_HNSW1,MeCoQ", r"an HNSW graph must have 2 to 1024 links an item, got 1"),
        ("IVF4(HNSW9999),MeCoQ", r"an HNSW graph must have 2 to 1024 links an item, got 9999"),
        ("IVF99999999999,MeCoQ", r"must be at most 2147483647, got 99999999999 in 'IVF999"),
        ("MeCoQ4x4fs_192", r"block size must be a multiple of 32 up to 160, got 192"),
        ("IVF4(IVF5,Flat),MeCoQ", r"4 lists cannot be grouped into 5\. .* is 'IVF4,MeCoQ4x4'"),
    ],
)
def test_strings_that_faiss_takes_and_crashes_by_are_refused(string, message):
    with pytest.raises(InvalidInputError, match=message):
        parse(string, BOOKS)


@pytest.mark.parametrize("block", [32, 64, 96, 128, 160])
@pytest.mark.parametrize("lists", ["", "IVF8,"])
def test_every_accepted_block_size_can_be_searched(lists, block):
    factory = f"{lists}MeCoQ4x4fs_{block}"
    engine = build(factory)
    for q in (QUERIES, QUERIES[:1]):
        true = scoring.aqs(q, CODES, BOOKS)
        hits = engine.search(q, 10)
        assert_best_among(hits, np.arange(N), ids_of(factory), true, rounding(factory))


def test_the_default_block_size_is_the_same_as_none():
    assert str(parse("MeCoQ4x4fs_32", BOOKS)) == "MeCoQ4x4fs"


@pytest.mark.parametrize("factory", [*IVF, *IVF_FAST_SCAN, *REFINED[2:]])
def test_an_index_without_lists_takes_no_items_and_finds_none(factory):
    engine = FaissEngine.empty(BOOKS, factory, items=N)
    assert (engine.search(QUERIES, 3).ids == -1).all()
    with pytest.raises(InvalidInputError, match="the index has no lists yet to add items to"):
        engine.add(CODES)
    assert len(engine) == 0


@pytest.mark.parametrize(
    "lists,message",
    [
        (np.array([0, 1]), r"lists must be integers of shape \(3,\), got int64 of shape \(2,\)"),
        (np.array([0.0, 1, 2]), r"lists must be integers of shape \(3,\), got float64"),
        (np.array([0, -1, 2]), r"lists must be from 0 to 7, got -1 to 2"),
        (np.array([0, 256, 2]), r"lists must be from 0 to 7, got 0 to 256"),
    ],
)
def test_lists_that_do_not_exist_are_refused(lists, message):
    engine = build("IVF8,MeCoQ")
    with pytest.raises(InvalidInputError, match=message):
        engine.add(CODES[:3], lists=lists)


@pytest.mark.parametrize(
    "centroids,message",
    [
        (np.ones((7, 16), np.float32), r"centroids must be one a list, 8 in all, got 7"),
        (np.ones((8, 15), np.float32), r"centroids must have shape \(n, 16\), got \(8, 15\)"),
        (np.ones((8, 16)), r"centroids must be a float32 array, got float64"),
    ],
)
def test_centroids_must_fit_the_index(centroids, message):
    engine = FaissEngine.empty(BOOKS, "IVF8,MeCoQ", items=N)
    with pytest.raises(InvalidInputError, match=message):
        set_centroids(engine.index, centroids)


@pytest.mark.parametrize("lists,length", [("IVF8", 2), ("IVF8(Flat)", 1)])
def test_a_list_for_every_item_has_a_centroid_of_one_length(lists, length):
    engine = FaissEngine.build(BOOKS, CODES[:8], factory=f"{lists},MeCoQ", nprobe=8)
    centroids = centroids_of(engine.layers.core)
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), length, rtol=0, atol=1e-6)
    hits = engine.search(QUERIES, 8)
    np.testing.assert_array_equal(np.sort(hits.ids, axis=1), np.tile(np.arange(8), (12, 1)))


@pytest.mark.parametrize("distinct", [1, 2, 5])
@pytest.mark.parametrize("string", ["IVF16(IVF16,Flat),MeCoQ", "IVF16(IVF9,Flat),MeCoQ4x4fs"])
def test_lists_of_lists_take_all_items_though_some_are_empty(string, distinct):
    codes = make_codes(distinct, BOOKS)[np.arange(100) % distinct]
    engine = FaissEngine.build(BOOKS, codes, factory=string, nprobe=16)
    engine.add(CODES)  # far from all lists
    everything = np.concatenate([codes, CODES])
    true = scoring.aqs(QUERIES, everything, BOOKS)
    hits = engine.search(QUERIES, 10)
    assert_best_among(hits, np.arange(len(true[0])), np.arange(700), true, rounding(string))


@pytest.mark.parametrize("factory", ["MeCoQ,IDMap2", "IVF8,MeCoQ"])
def test_the_id_of_a_removed_item_is_not_given_again_after_opening_a_file(factory, tmp_path):
    FaissEngine.build(BOOKS, CODES[:20], factory=factory).save(tmp_path / "index")
    engine = FaissEngine.open(tmp_path / "index", BOOKS)
    engine.remove(np.array([19]))
    engine.add(CODES[:1])
    assert sorted(engine.ids()) == [*range(19), 20]


@pytest.mark.parametrize("factory", ["MeCoQ,IDMap2", "IVF8,MeCoQ", "IVF8,MeCoQ4x4fs,IDMap"])
def test_the_largest_id_there_can_be_is_held_and_nothing_comes_after_it(factory):
    engine = build(factory)
    engine.add(CODES[:1], np.array([2**63 - 1]))
    assert engine.search(QUERIES, 1, allowed=np.array([2**63 - 1])).ids.max() == 2**63 - 1
    np.testing.assert_array_equal(engine.codes(np.array([2**63 - 1])), CODES[:1])
    with pytest.raises(InvalidInputError, match=r"no 2 numbers are free after the largest id, 92"):
        engine.add(CODES[:2])


def test_one_id_is_no_array_of_ids():
    engine = build("MeCoQ,IDMap2")
    for method in (engine.codes, engine.reconstruct, engine.remove):
        with pytest.raises(InvalidInputError, match=r"ids must (have shape|be an int64 array)"):
            method(5)


@pytest.mark.parametrize("factory", ALL)
def test_codes_of_an_item_that_is_not_held_are_refused(factory):
    with pytest.raises(
        InvalidInputError, match="ids must be those of items, but 1 are not, for instance 99"
    ):
        build(factory).codes(np.array([ids_of(factory)[0], 999_999]))


# Tuning


def recall_of(engine, z, nprobe, k, codes):
    """By the true scores of the hits, ties included."""
    ids = engine.search(z, k, nprobe=nprobe).ids
    true = scoring.aqs(z, codes, engine.codebooks)
    border = -np.sort(-true, axis=1)[:, k - 1 : k]
    found = np.where(ids < 0, -np.inf, np.take_along_axis(true, np.maximum(ids, 0), axis=1))
    return (found >= border - 1e-5).mean()


TUNED = [
    "IVF32,MeCoQ",
    "IVF32(IVF5,Flat),MeCoQ",
    "IVF32,MeCoQ4x4fs",
    "IVF32,MeCoQ4x4fs,Refine(MeCoQ)",
]


@pytest.mark.parametrize("factory", TUNED)
@pytest.mark.parametrize("recall", [0.3, 0.8, 0.9])
def test_the_tuned_nprobe_reaches_the_recall_and_one_less_does_not(factory, recall):
    codes, z = make_codes(3000, BOOKS), make_queries(60, BOOKS)
    engine = FaissEngine.build(BOOKS, codes, factory=factory)
    before = engine.describe()
    tuned = tune_nprobe(engine, z, recall=recall, k=10)
    assert tuned.recall == pytest.approx(recall_of(engine, z, tuned.value, 10, codes))
    assert tuned.recall >= recall
    assert tuned.value == 1 or recall_of(engine, z, tuned.value - 1, 10, codes) < recall
    assert (tuned.value, tuned.recall) in tuned.curve
    assert list(tuned.curve) == sorted(tuned.curve)
    assert engine.describe() == before


def test_all_of_the_recall_can_be_asked_for_where_scores_are_exact():
    codes, z = make_codes(500, BOOKS), make_queries(20, BOOKS)
    for factory in TUNED[:2]:
        tuned = tune_nprobe(FaissEngine.build(BOOKS, codes, factory=factory), z, recall=1.0)
        assert tuned.recall == 1.0
    few = FaissEngine.build(BOOKS, codes[:5], factory="IVF2,MeCoQ")  # fewer items than k
    assert tune_nprobe(few, z, recall=1.0, k=10).value == 2


def test_the_recall_of_fast_scan_is_not_counted_by_its_rounded_scores():
    codes, z = make_codes(3000, BOOKS), make_queries(60, BOOKS)
    engine = FaissEngine.build(BOOKS, codes, factory="IVF4,MeCoQ4x4fs", nprobe=4)
    highest = recall_of(engine, z, 4, 10, codes)
    assert 0.9 < highest < 1
    message = rf"at most {highest:.4f}, which all 4 lists reach, got 1\.0\. Add ',Refine\(MeCoQ\)'"
    with pytest.raises(InvalidInputError, match=message):
        tune_nprobe(engine, z, recall=1.0)


def test_what_cannot_be_tuned_is_refused():
    engine = build("IVF8,MeCoQ")
    for recall in (0, -1.0, 1.01, np.nan):
        with pytest.raises(InvalidInputError, match="recall must be above 0 and at most 1, got"):
            tune_nprobe(engine, QUERIES, recall=recall)
    with pytest.raises(InvalidInputError, match="only IVF has lists to tune, but this is MeCoQ4x4"):
        tune_nprobe(build("MeCoQ"), QUERIES)
    with pytest.raises(InvalidInputError, match="queries and items are needed to tune, got 0 and"):
        tune_nprobe(engine, QUERIES[:0])
    empty = FaissEngine.empty(BOOKS, "IVF8,MeCoQ", items=8)
    with pytest.raises(InvalidInputError, match="are needed to tune, got 12 and 0"):
        tune_nprobe(empty, QUERIES)
    with pytest.raises(InvalidInputError, match="k, the number of results"):
        tune_nprobe(engine, QUERIES, k=0)
    with pytest.raises(InvalidInputError, match=r"z must have shape \(n, 16\), got \(12, 15\)"):
        tune_nprobe(engine, np.ascontiguousarray(QUERIES[:, 1:]))


@pytest.mark.parametrize("factory", ALL)
def test_exact_scores_are_those_of_a_full_scan(factory):
    want = -np.sort(-TRUE, axis=1)[:, :30]
    np.testing.assert_allclose(exact_scores(build(factory), QUERIES, 30), want, rtol=0, atol=1e-5)


# Export


def layer(out=16, width=20, seed=9):
    weight = np.random.default_rng(seed).standard_normal((out, width), dtype=np.float32)
    return Layer(weight, np.linspace(-1, 1, out, dtype=np.float32))


PROJECTED = make_codebooks(projection=[layer()])


def search_everything(index, x, k):
    layers = layers_of(index)
    if layers.is_ivf:
        layers.core.nprobe = layers.core.nlist
        upper = faiss.downcast_index(layers.core.quantizer)
        if hasattr(upper, "nprobe"):
            upper.nprobe = upper.nlist
    if layers.is_graph:
        layers.core.hnsw.efSearch = N
    if layers.refine is not None:
        layers.refine.k_factor = N / k
    return index.search(x, k)


@pytest.mark.parametrize("takes", ["features", "embeddings", None])
@pytest.mark.parametrize("factory", ALL)
def test_an_exported_index_takes_raw_vectors_in_plain_faiss_and_scores_raw_aqs(
    factory, takes, tmp_path
):
    engine, ids = build(factory, books=PROJECTED), ids_of(factory)
    note = export_index(tmp_path / "x.faiss", PROJECTED, engine=engine, takes=takes)
    index = faiss.read_index(str(tmp_path / "x.faiss"))
    width = 16 if takes == "embeddings" else 20
    assert (index.d, index.ntotal) == (width, N)
    x = np.random.default_rng(6).standard_normal((8, width), dtype=np.float32)
    z = x if takes == "embeddings" else PROJECTED.project(x)
    decoded = scoring.decode(CODES, PROJECTED)
    raw = z @ decoded.T
    scores, found = search_everything(index, x, 10)
    lengths = (z**2).sum(axis=1, keepdims=True)
    if "HNSW8,MeCoQ" in factory and "IVF" not in factory:  # squared distances
        scores = (lengths + PROJECTED.M - scores) / 2
    row_of = np.zeros(ids.max() + 1, np.int64)
    row_of[ids] = np.arange(N)
    # FastScan rounds each table by half a step of the widest one.
    sub = z.reshape(8, 4, 4)
    spans = np.ptp(np.einsum("qmd,mkd->qmk", sub, PROJECTED.codewords), axis=2).max()
    rounded = "fs" in factory and "Refine" not in factory
    tolerance = 4 / 2 * spans / 255 + 1e-4 if rounded else 1e-4
    true = np.take_along_axis(raw, row_of[found], axis=1)
    np.testing.assert_allclose(scores, true, rtol=0, atol=tolerance)
    best = -np.sort(-raw, axis=1)[:, 9:10]
    assert (true >= best - 2 * tolerance).mean() > (0.95 if "HNSW" in factory else 0.999)
    assert note["takes"] == f"{takes or 'features'}, float32 (n, {width})"
    assert note["items"] == N
    assert note == json.loads((tmp_path / "x.faiss.json").read_text())


@pytest.mark.parametrize("factory", ALL)
def test_codes_survive_an_export_and_more_vectors_can_be_added(factory, tmp_path):
    engine, ids = build(factory), ids_of(factory)
    export_index(tmp_path / "x.faiss", BOOKS, engine=engine)
    again = FaissEngine.open(tmp_path / "x.faiss", BOOKS)
    np.testing.assert_array_equal(again.codes(ids), CODES)
    assert again.describe() == engine.describe()
    if not engine.spec.graph:  # whose links depend on the order of adding
        for got, want in zip(
            vars(again.search(QUERIES, 5)).values(),
            vars(engine.search(QUERIES, 5)).values(),
            strict=True,
        ):
            np.testing.assert_array_equal(got, want)
    index = faiss.read_index(str(tmp_path / "x.faiss"))
    new = scoring.decode(CODES[:3], BOOKS)
    index.add_with_ids(new, np.arange(3) + 10**6) if keeps_ids(factory) else index.add(new)
    assert index.ntotal == N + 3


def test_the_note_says_what_the_scores_are(tmp_path):
    note = export_index(tmp_path / "a", BOOKS, engine=build("MeCoQ"))
    assert note["metric"].startswith("raw AQS: inner product of the query with the decoded codes")
    assert (note["factory"], note["faiss"]) == ("MeCoQ4x4", "PQ4x4np")
    assert note["fingerprint"] == BOOKS.fingerprint
    note = export_index(tmp_path / "b", BOOKS, engine=build("HNSW8,MeCoQ"))
    assert note["metric"].startswith("squared L2 distance between the query and the decoded codes")


@pytest.mark.parametrize("factory", ["MeCoQ,IDMap2", "IVF4,MeCoQ", "MeCoQ4x4fs", "HNSW8,MeCoQ"])
def test_an_empty_layout_is_exported_for_features(factory, tmp_path):
    note = export_index(tmp_path / "x", PROJECTED, factory=factory)
    index = faiss.read_index(str(tmp_path / "x"))
    assert holds(index, PROJECTED)
    assert note["trained"] == index.is_trained == ("IVF" not in factory)
    assert (note["items"], index.d) == (0, 20)
    assert note["factory"].startswith("Projection,")


def test_an_export_of_something_else_is_refused(tmp_path):
    with pytest.raises(
        InvalidInputError, match="takes must be 'features' or 'embeddings', got 'x'"
    ):
        export_index(tmp_path / "x", BOOKS, takes="x")
    with pytest.raises(InvalidInputError, match=r"factory is for an empty index, .* MeCoQ4x4 is g"):
        export_index(tmp_path / "x", BOOKS, engine=build("MeCoQ"), factory="IVF8,MeCoQ")
    assert list(tmp_path.iterdir()) == []
