import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

faiss = pytest.importorskip("faiss")

ROOT = Path(__file__).resolve().parents[1]
FEATURES = ROOT.parent / "shared" / "data" / "cifar10-efflite0.npz"

spec = importlib.util.spec_from_file_location("growth", ROOT / "benchmarks" / "growth.py")
growth = importlib.util.module_from_spec(spec)
spec.loader.exec_module(growth)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(growth, "CHUNK", 4096)


def clustered(rng, n, *, width=16):
    centres = np.random.default_rng(0).standard_normal((40, width))
    return (centres[rng.integers(40, size=n)] + 0.1 * rng.standard_normal((n, width))).astype("f4")


def inverted_recall(items, queries, *, lists=64, nprobe=1, k=10):
    """Recall@k of an inverted file over vectors that looks into few of its lists."""
    exact = faiss.IndexFlatL2(items.shape[1])
    exact.add(items)
    inverted = faiss.index_factory(items.shape[1], f"IVF{lists},Flat")
    inverted.train(items)
    inverted.add(items)
    inverted.nprobe = nprobe
    truth, found = (index.search(queries, k)[1] for index in (exact, inverted))
    return (truth[:, :, None] == found[:, None, :]).any(axis=2).mean()


def test_a_chunk_depends_on_real_rows_seed_and_number_alone():
    real = clustered(np.random.default_rng(1), 300)
    grown = growth.Growth(real, seed=5)
    last = grown.chunk(3)
    np.testing.assert_array_equal(growth.Growth(real.copy(), seed=5).chunk(3), last)
    np.testing.assert_array_equal(grown.chunk(3), last)
    assert last.dtype == np.float32
    assert last.shape == (4096, 16)
    assert not np.array_equal(grown.chunk(2), last)
    assert not np.array_equal(growth.Growth(real, seed=6).chunk(3), last)


def test_fewer_rows_are_the_first_of_more():
    grown = growth.Growth(clustered(np.random.default_rng(1), 300))
    few = np.concatenate([rows for _, rows in grown.rows(5000)])
    more = np.concatenate([rows for _, rows in grown.rows(9000)])
    assert [start for start, _ in grown.rows(9000)] == [0, 4096, 8192]
    assert few.shape == (5000, 16)
    np.testing.assert_array_equal(few, more[:5000])


def test_without_noise_a_row_lies_on_the_nearer_half_between_its_parent_and_a_neighbour():
    real = clustered(np.random.default_rng(1), 300)
    grown = growth.Growth(real, noise=0.0)
    rows, parents = grown.chunk(1), grown.parents(1)
    index = faiss.IndexFlatL2(16)
    index.add(real)
    widest = index.search(real, growth.NEIGHBOURS + 1)[0][:, -1] ** 0.5
    moved = np.linalg.norm(rows - real[parents], axis=1)
    assert (moved <= widest[parents] / 2 + 1e-5).all()
    assert (moved > 0).mean() > 0.99


def test_copies_of_a_row_do_not_make_it_its_own_neighbour():
    real = np.repeat(clustered(np.random.default_rng(1), 20), 30, axis=0)
    grown = growth.Growth(real)
    assert grown._neighbours.shape == (600, growth.NEIGHBOURS)
    assert (grown._neighbours != np.arange(600)[:, None]).all()
    assert np.isfinite(grown.chunk(0)).all()


def test_labels_are_those_of_the_parents():
    real = clustered(np.random.default_rng(1), 300)
    grown = growth.Growth(real)
    labels = np.arange(300)
    expected = np.concatenate([grown.parents(0), grown.parents(1)])[:5000]
    np.testing.assert_array_equal(grown.labels(5000, labels), expected)


@pytest.fixture
def books():
    codewords = np.random.default_rng(2).standard_normal((4, 16, 4))
    return growth.Codebooks(codewords / np.linalg.norm(codewords, axis=2, keepdims=True))


def test_codes_on_file_are_those_of_the_rows(tmp_path, books):
    grown = growth.Growth(clustered(np.random.default_rng(1), 300))
    growth.write_codes(tmp_path / "codes.npy", grown, books, 9000)
    rows = np.concatenate([rows for _, rows in grown.rows(9000)])
    np.testing.assert_array_equal(np.load(tmp_path / "codes.npy"), growth.encode(rows, books))


def test_a_space_is_filled_with_codes_true_neighbours_and_labels(books):
    rng = np.random.default_rng(1)
    source = SimpleNamespace(
        codebooks=books,
        items=clustered(rng, 300),
        item_labels=rng.integers(10, size=300),
        queries=clustered(rng, 100),
        query_labels=rng.integers(10, size=100),
    )
    space = growth.GrownSpace(source, queries=20, seed=3, recall_at=5)
    taken = []
    space.fill(9000, [taken.append])
    rows = space.unit(np.concatenate([rows for _, rows in space.growth.rows(9000)]))
    scores = space.unit(space.queries) @ rows.T
    np.testing.assert_array_equal(np.concatenate(taken), rows)
    np.testing.assert_array_equal(space.codes, growth.encode(rows, books))
    np.testing.assert_allclose(
        np.take_along_axis(scores, space.truth, axis=1),
        -np.sort(-scores, axis=1)[:, :5],
        rtol=1e-5,
    )
    np.testing.assert_array_equal(space.labels, space.growth.labels(9000, source.item_labels))
    assert space.queries.shape == space.held.shape == (20, 16)
    assert not np.array_equal(space.queries, space.held)
    assert space.query_labels.shape == (20,)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not FEATURES.exists(), reason="no features in ../shared/data")
def test_grown_rows_have_neighbourhoods_like_real_ones_and_unlike_random_ones():
    with np.load(FEATURES) as archive:
        features = archive["database"][::5].astype(np.float32)  # sorted by class, so all classes
    np.random.default_rng(0).shuffle(features)
    pca = faiss.PCAMatrix(features.shape[1], 32)
    pca.train(features)
    vectors = pca.apply(features)
    items, asked = vectors[:8192], vectors[8192:]
    new_items = np.concatenate([rows for _, rows in growth.Growth(items).rows(8192)])
    new_asked = growth.Growth(asked, seed=1).chunk(0)[: len(asked)]
    normal = np.random.default_rng(2).standard_normal((10_000, 32), np.float32)
    real = inverted_recall(items, asked)
    grown = inverted_recall(new_items, new_asked)
    random = inverted_recall(normal[:8192], normal[8192:])
    assert grown == pytest.approx(real, abs=0.07)
    assert random < real - 0.2
