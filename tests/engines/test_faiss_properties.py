"""Whatever the factory string, the codebooks, the items and the queries: FAISS ranks by AQS."""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mecoq_index import scoring
from mecoq_index.codebooks import Codebooks
from mecoq_index.engines.faiss.coarse import make_centroids, set_centroids
from mecoq_index.engines.faiss.engine import FaissEngine
from mecoq_index.engines.faiss.factory import index_factory
from mecoq_index.engines.faiss.inject import layers_of

faiss = pytest.importorskip("faiss")

EXACT = 1e-5
BLOCKS = ["fs", "fs_64", "fs_96"]


def properties(examples):
    return settings(max_examples=examples, deadline=None, derandomize=True)


@cache
def make_codebooks(M, K, Ds):
    c = np.random.default_rng([M, K, Ds]).standard_normal((M, K, Ds))
    return Codebooks((c / np.linalg.norm(c, axis=-1, keepdims=True)).astype(np.float32))


@dataclass(frozen=True)
class Layout:
    """A factory string for some codebooks, and what a search in it may miss."""

    books: Codebooks
    coarse: str
    leaf: str
    refine: str
    id_map: str

    def __str__(self):
        return ",".join(filter(None, [self.coarse, self.leaf, self.refine, self.id_map]))

    def __repr__(self):
        return f"{self} of M={self.books.M} K={self.books.K} Ds={self.books.Ds}"

    @property
    def is_approximate(self):
        return "HNSW" in self.coarse

    @property
    def is_graph(self):
        return self.coarse.startswith("HNSW")

    @property
    def is_rounded(self):
        return "fs" in self.leaf and not self.refine


def layout(M, K, Ds, coarse="", fast_scan="", refine="", id_map=""):
    leaf = f"MeCoQ{M}x4{fast_scan}" if fast_scan else "MeCoQ"
    return Layout(make_codebooks(M, K, Ds), coarse, leaf, refine, id_map)


@st.composite
def layouts(draw, graphs=True):
    M, K, Ds = draw(st.integers(1, 9)), draw(st.sampled_from([16, 256])), draw(st.integers(1, 5))
    nlist = draw(st.integers(1, 8))
    upper, links = draw(st.integers(1, nlist)), draw(st.integers(2, 16))
    forms = ["", f"IVF{nlist}", f"IVF{nlist}(Flat)", f"IVF{nlist}(IVF{upper},Flat)"]
    forms += [f"IVF{nlist}(MeCoQ{M}x4fs)"] if K == 16 else []
    forms += [f"IVF{nlist}_HNSW{links}", f"HNSW{links}"] if graphs else []
    coarse = draw(st.sampled_from(forms))
    can_scan_fast = K == 16 and not coarse.startswith("HNSW")
    fast_scan = draw(st.sampled_from(["", *BLOCKS])) if can_scan_fast else ""
    refine = draw(st.sampled_from(["", "Refine(MeCoQ)"])) if fast_scan else ""
    id_map = draw(st.sampled_from(["", "IDMap", "IDMap2"]))
    return layout(M, K, Ds, coarse, fast_scan, refine, id_map)


seeds = st.integers(0, 2**20)
sizes = st.sampled_from([0, 1, 2, 31, 32, 33, 97, 300])


def make_codes(books, n, seed, distinct=None):
    """Random codes, of which only so many differ."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(books.K, size=(distinct or n, books.M)).astype(np.uint8)
    return codes[rng.integers(distinct, size=n)] if distinct else codes


@st.composite
def queries(draw, books):
    """Queries at all scales, some of them zero in a subvector or altogether."""
    nq = draw(st.sampled_from([0, 1, 6]))
    rng = np.random.default_rng(draw(seeds))
    q = rng.standard_normal((nq, books.D), dtype=np.float32)
    q *= 10.0 ** rng.uniform(-6, 6, size=(nq, 1)).astype(np.float32)
    if draw(st.booleans()) and nq:
        q[0, : books.Ds] = 0
        q[-1] = 0
    return q


def make_engine(layout, codes, ids=None, pieces=()):
    """All lists probed; the items added piece by piece. Lists are not made from the items, so that
    there may be fewer of those, or none."""
    engine = FaissEngine.empty(layout.books, str(layout), items=len(codes))
    if nlist := engine.spec.nlist:
        engine.layers.core.nprobe = nlist
        sample = make_codes(layout.books, 64, 99)
        set_centroids(engine.index, make_centroids(sample, engine.index, layout.books))
    for start, stop in pairwise([0, *pieces, len(codes)]):
        engine.add(codes[start:stop], None if ids is None else ids[start:stop])
    return engine


def ids_for(layout, n, seed):
    """Ids of one's own where they are kept, else None; and which they are."""
    if layout.id_map or (layout.coarse.startswith("IVF") and not layout.refine):
        ids = np.random.default_rng(seed).permutation(3 * n)[:n] + 2**40
        return ids, ids
    return None, np.arange(n)


def rounding(layout, q):
    """How far the score of each query may be off (nq, 1)."""
    if not layout.is_rounded:
        return np.full((len(q), 1), EXACT)
    tables = scoring.lookup_tables(q, layout.books)
    span = np.ptp(tables, axis=2).max(axis=1)
    return layout.books.M / 2 * span[:, None] / 255 + EXACT


def assert_true_scores(hits, q, codes, ids, layout, tolerance):
    """Hits are of distinct items, best first, with their AQS; missing ones come last."""
    there = hits.ids >= 0
    assert (there[:, :-1] >= there[:, 1:]).all()
    assert np.isneginf(hits.scores[~there]).all()
    assert (hits.scores[:, :-1] >= hits.scores[:, 1:]).all()
    for row in hits.ids:
        assert len(set(row[row >= 0])) == (row >= 0).sum()
    if not len(codes):
        assert not there.any()
        return np.full(hits.ids.shape, -np.inf)
    order = np.argsort(ids)
    columns = order[np.minimum(np.searchsorted(ids, hits.ids, sorter=order), len(ids) - 1)]
    np.testing.assert_array_equal(ids[columns][there], hits.ids[there])
    true = np.take_along_axis(scoring.aqs(q, codes, layout.books), columns, axis=1)
    assert (
        np.abs(true - hits.scores)[there] <= np.broadcast_to(tolerance, true.shape)[there]
    ).all()
    return np.where(there, true, -np.inf)


def assert_parity(hits, q, codes, ids, layout, tolerance):
    """Moreover no better item was left out, up to ties and to what rounding ties."""
    true = assert_true_scores(hits, q, codes, ids, layout, tolerance)
    found = min(hits.ids.shape[1], len(codes))
    assert ((hits.ids >= 0).sum(axis=1) == found).all()
    best = -np.sort(-scoring.aqs(q, codes, layout.books), axis=1)[:, :found]
    assert (best - -np.sort(-true, axis=1)[:, :found] <= 2 * tolerance).all()


@properties(300)
@given(st.data(), layouts(), sizes, seeds, st.sampled_from([None, 1, 3]), st.integers(1, 12))
def test_every_layout_ranks_by_aqs(data, layout, n, seed, distinct, k):
    codes = make_codes(layout.books, n, seed, distinct)
    given_ids, ids = ids_for(layout, n, seed)
    engine = make_engine(layout, codes, given_ids)
    q = data.draw(queries(layout.books))
    k = n + 5 if k > 10 else k
    options = {"k_factor": n} if layout.refine and n else {}
    hits = engine.search(q, k, **options)
    assert hits.ids.shape == hits.scores.shape == (len(q), k)
    assert (hits.ids.dtype, hits.scores.dtype) == (np.int64, np.float32)
    check = assert_true_scores if layout.is_approximate else assert_parity
    check(hits, q, codes, ids, layout, rounding(layout, q))


@properties(80)
@given(st.data(), layouts(graphs=False), sizes, seeds, st.integers(1, 12))
def test_re_ranking_all_of_flat_fast_scan_is_exact(data, layout, n, seed, k):
    layout = Layout(make_codebooks(layout.books.M, 16, layout.books.Ds), "", "", "", layout.id_map)
    block = data.draw(st.sampled_from(BLOCKS))
    layout = Layout(layout.books, "", f"MeCoQ{layout.books.M}x4{block}", "", layout.id_map)
    codes = make_codes(layout.books, n, seed)
    given_ids, ids = ids_for(layout, n, seed)
    q = data.draw(queries(layout.books))
    hits = make_engine(layout, codes, given_ids).search(q, k, k_factor=max(1, n))
    assert_parity(hits, q, codes, ids, layout, EXACT)


@properties(150)
@given(st.data(), layouts(), sizes, seeds, st.sampled_from([None, 3]))
def test_codes_come_back_as_they_went_in_whatever_the_pieces(data, layout, n, seed, distinct):
    codes = make_codes(layout.books, n, seed, distinct)
    given_ids, ids = ids_for(layout, n, seed)
    pieces = sorted(data.draw(st.lists(st.integers(0, n), max_size=4)))
    engine = make_engine(layout, codes, given_ids, pieces)
    assert len(engine) == n
    np.testing.assert_array_equal(np.sort(engine.ids()), np.sort(ids))
    wanted = np.random.default_rng(seed).permutation(n)[: data.draw(st.integers(0, n))]
    np.testing.assert_array_equal(engine.codes(ids[wanted]), codes[wanted])
    np.testing.assert_array_equal(
        engine.reconstruct(ids[wanted]), scoring.decode(codes[wanted], layout.books)
    )


@properties(120)
@given(st.data(), layouts(), sizes, seeds)
def test_items_added_in_pieces_are_found_like_items_added_at_once(data, layout, n, seed):
    codes = make_codes(layout.books, n, seed)
    given_ids, ids = ids_for(layout, n, seed)
    pieces = sorted(data.draw(st.lists(st.integers(0, n), min_size=1, max_size=4)))
    engine = make_engine(layout, codes, given_ids, pieces)
    at_once = make_engine(layout, codes, given_ids)
    q = data.draw(queries(layout.books))
    hits = engine.search(q, 7)
    if layout.is_graph:  # the links depend on the pieces
        assert_true_scores(hits, q, codes, ids, layout, EXACT)
        return
    np.testing.assert_allclose(hits.scores, at_once.search(q, 7).scores, rtol=0, atol=1e-6)
    if not layout.coarse:
        np.testing.assert_array_equal(
            faiss.serialize_index(engine.index), faiss.serialize_index(at_once.index)
        )


@properties(80)
@given(st.data(), layouts(), sizes, seeds)
def test_a_file_gives_the_same_hits_and_grows_like_the_index(
    tmp_path_factory, data, layout, n, seed
):
    path = tmp_path_factory.getbasetemp() / "index.faiss"
    codes = make_codes(layout.books, n + 40, seed)
    given_ids, ids = ids_for(layout, n + 40, seed)
    engine = make_engine(layout, codes[:n], None if given_ids is None else given_ids[:n])
    engine.save(path)
    again = FaissEngine.open(path, layout.books)
    assert again.spec == engine.spec
    assert again.describe() == engine.describe()
    q = data.draw(queries(layout.books))
    for found, want in zip(
        again.search(q, 9).__dict__.values(), engine.search(q, 9).__dict__.values(), strict=True
    ):
        np.testing.assert_array_equal(found, want)
    again.add(codes[n:], None if given_ids is None else given_ids[n:])
    np.testing.assert_array_equal(again.codes(ids), codes)
    check = assert_true_scores if layout.is_approximate else assert_parity
    options = {"k_factor": n + 40} if layout.refine else {}
    check(again.search(q, 9, **options), q, codes, ids, layout, rounding(layout, q))


@properties(100)
@given(layouts(), sizes, seeds)
def test_plain_faiss_makes_the_same_bytes_from_decoded_vectors(layout, n, seed):
    # Ds = 1 has but two codewords that differ: FAISS encodes by the first of each.
    books = layout.books
    codes = scoring.encode(scoring.decode(make_codes(books, n, seed), books), books)
    engine = make_engine(layout, codes)
    index = index_factory(books.D, str(layout), books)
    layers = layers_of(index)
    if layers.is_ivf:
        sample = make_codes(books, 64, 99)
        set_centroids(index, make_centroids(sample, index, books))
        layers.core.nprobe = layers.core.nlist
    vectors = scoring.decode(codes, books)
    if n:  # FAISS crashes when it adds no vectors to FastScan
        index.add_with_ids(vectors, np.arange(n)) if layout.id_map else index.add(vectors)
    np.testing.assert_array_equal(faiss.serialize_index(index), faiss.serialize_index(engine.index))


@pytest.mark.parametrize("Ds", [3, 16, 32])
@pytest.mark.parametrize("string", ["MeCoQ", "HNSW8,MeCoQ", "MeCoQ6x4fs_64", "IVF4,MeCoQ6x4fs"])
def test_codewords_that_are_nearly_equal_are_not_confused(string, Ds):
    rng = np.random.default_rng(0)
    c = rng.standard_normal((6, 16, Ds))
    c[:, 8:] = c[:, :8] + 1e-5 * rng.standard_normal((6, 8, Ds))  # FAISS's encoder loses this
    books = Codebooks((c / np.linalg.norm(c, axis=-1, keepdims=True)).astype(np.float32))
    codes = make_codes(books, 300, 1)
    engine = FaissEngine.build(books, codes[:100], factory=string)
    engine.add(codes[100:])
    np.testing.assert_array_equal(engine.codes(np.arange(300)), codes)


@pytest.mark.parametrize("M,K", [(4, 16), (8, 256), (5, 16)])
@pytest.mark.parametrize("coarse", ["HNSW16", "IVF32_HNSW8"])
def test_a_graph_finds_nearly_all_of_the_best(coarse, M, K):
    form = layout(M, K, 3, coarse)
    codes = np.unique(make_codes(form.books, 2000, 1), axis=0)
    engine = make_engine(form, codes)
    q = np.random.default_rng(2).standard_normal((50, form.books.D), dtype=np.float32)
    hits = engine.search(q, 10)
    best = -np.sort(-scoring.aqs(q, codes, form.books), axis=1)[:, 9:10]
    assert (hits.scores >= best - EXACT).mean() > 0.95
