"""Lists of IVF that are found by the codes of their centroids."""

import numpy as np
import pytest

faiss = pytest.importorskip("faiss")

from faiss_layouts import make_codebooks

from mecoq_index import index_factory, scoring
from mecoq_index.engines.faiss.coarse import centroids_of, set_centroids
from mecoq_index.engines.faiss.engine import FaissEngine
from mecoq_index.engines.faiss.factory import spec_of
from mecoq_index.engines.faiss.grammar import parse
from mecoq_index.errors import InvalidInputError

BOOKS = make_codebooks(M=8, K=16, Ds=4)


def clustered(books, clusters, n, seed=0):
    """Codes of items that differ from the middle of their cluster in some subquantizers."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(books.K, size=(clusters, books.M))[rng.integers(clusters, size=n)]
    other = rng.random(codes.shape) < rng.uniform(0.05, 0.6, size=books.M)
    codes[other] = rng.integers(books.K, size=int(other.sum()))
    return codes.astype(np.uint8)


@pytest.mark.parametrize(
    "string,kind,canonical",
    [
        ("IVF256,MeCoQ8x4fs", "MeCoQ8x4fs", "IVF256,MeCoQ8x4fs"),
        ("IVF256(MeCoQ8x4fs),MeCoQ8x4fs", "MeCoQ8x4fs", "IVF256,MeCoQ8x4fs"),
        ("IVF8,MeCoQ8x4fs", "MeCoQ8x4", "IVF8,MeCoQ8x4fs"),
        ("IVF256,MeCoQ", "MeCoQ8x4", "IVF256,MeCoQ8x4"),
        ("IVF256(MeCoQ),MeCoQ8x4fs", "MeCoQ8x4", "IVF256(MeCoQ8x4),MeCoQ8x4fs"),
        ("IVF8(MeCoQ8x4fs),MeCoQ", "MeCoQ8x4fs", "IVF8(MeCoQ8x4fs),MeCoQ8x4"),
        ("IVF256(Flat),MeCoQ8x4fs", "Flat", "IVF256(Flat),MeCoQ8x4fs"),
        ("IVF8_HNSW4,MeCoQ", "HNSW4", "IVF8_HNSW4,MeCoQ8x4"),
    ],
)
def test_a_string_says_how_lists_are_found(string, kind, canonical):
    spec = parse(string, BOOKS)
    assert (spec.coarse_kind, str(spec)) == (kind, canonical)
    assert parse(canonical, BOOKS) == spec
    assert spec_of(index_factory(BOOKS.D, string, BOOKS), BOOKS) == spec


def test_codes_that_faiss_cannot_search_leave_a_full_scan():
    books = make_codebooks(M=8, K=4, Ds=2)
    assert parse("IVF8,MeCoQ", books).coarse_kind == "Flat"
    with pytest.raises(InvalidInputError, match=r"one of \['Flat'\]\. .* is 'IVF8,MeCoQ8x2'"):
        parse("IVF8(MeCoQ),MeCoQ", books)


@pytest.mark.parametrize("coarse", ["MeCoQ7x4", "MeCoQx", "MeCoQ8x4fs_64", "MeCoQfs", "MeCoQ8x8"])
def test_other_quantizers_of_centroids_are_refused(coarse):
    with pytest.raises(
        InvalidInputError, match=rf"lists cannot be found by '{coarse}', as .*fs'\]"
    ):
        parse(f"IVF8({coarse}),MeCoQ", BOOKS)


@pytest.mark.parametrize("lists", ["IVF256", "IVF256(MeCoQ8x4)"])
def test_no_two_lists_have_one_code(lists):
    codes = clustered(BOOKS, 60, 20_000)  # fewer clusters than lists: means of one code are likely
    engine = FaissEngine.build(BOOKS, codes, factory=f"{lists},MeCoQ8x4fs")
    centroids = centroids_of(engine.layers.core)
    assert len(np.unique(centroids, axis=0)) == 256
    sizes = [engine.layers.core.invlists.list_size(i) for i in range(256)]
    assert sum(sizes) == len(codes)
    assert np.count_nonzero(sizes) > 250


def test_the_same_seed_gives_the_same_lists_with_any_number_of_threads():
    codes = clustered(BOOKS, 400, 20_000)
    threads, made = faiss.omp_get_max_threads(), []
    for count, seed in ((1, 0), (2, 0), (1, 1)):
        faiss.omp_set_num_threads(count)
        engine = FaissEngine.build(BOOKS, codes, factory="IVF256,MeCoQ8x4fs", seed=seed)
        made.append(centroids_of(engine.layers.core))
    faiss.omp_set_num_threads(threads)
    np.testing.assert_array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])


@pytest.mark.parametrize("leaf", ["MeCoQ8x4fs", "MeCoQ"])
def test_items_and_queries_that_fast_scan_gives_no_list_have_one(leaf):
    engine = FaissEngine.empty(BOOKS, f"IVF2(MeCoQ8x4fs),{leaf}", items=0)
    rng = np.random.default_rng(0)
    item = rng.integers(16, size=8).astype(np.uint8)
    own = BOOKS.codewords[np.arange(8), item]
    worst = np.argmin(np.einsum("md,mkd->mk", own, BOOKS.codewords), axis=1).astype(np.uint8)
    centroids = scoring.decode(np.stack([worst, worst]), BOOKS)
    set_centroids(engine.index, centroids)
    engine.layers.core.nprobe = 2
    q = scoring.decode(item[None], BOOKS)
    assert (engine.layers.core.quantizer.search(q, 2)[1] == -1).all()  # what FAISS does
    codes = np.concatenate([item[None], rng.integers(16, size=(50, 8)).astype(np.uint8)])
    engine.add(codes)
    for queries in (q, np.zeros_like(q)):
        hits = engine.search(queries, 51)
        assert sorted(hits.ids[0].tolist()) == list(range(51))
    assert engine.search(q, 1).ids[0, 0] == 0


def test_faiss_trains_and_reads_such_an_index_by_itself(tmp_path):
    index = index_factory(BOOKS.D, "IVF256,MeCoQ8x4fs", BOOKS)
    x = scoring.decode(clustered(BOOKS, 400, 20_000), BOOKS)
    x[:3] = 0  # FastScan gives it no list, by which k-means must not count
    index.train(x)
    index.add(x[3:])
    faiss.write_index(index, str(tmp_path / "x.faiss"))
    again = faiss.read_index(str(tmp_path / "x.faiss"))
    assert type(faiss.downcast_index(again.quantizer)) is faiss.IndexPQFastScan
    again.nprobe = index.nprobe = 8
    np.testing.assert_array_equal(again.search(x[3:50], 5)[1], index.search(x[3:50], 5)[1])
    np.testing.assert_array_equal(
        faiss.vector_to_array(faiss.downcast_index(again.quantizer).pq.centroids),
        BOOKS.codewords.ravel(),
    )
