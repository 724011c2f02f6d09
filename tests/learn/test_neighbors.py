import numpy as np
import pytest
from clusters import clustered_views

from mecoq_index import scoring
from mecoq_index.data.features import FeatureViews
from mecoq_index.errors import InvalidInputError
from mecoq_index.learn.config import TrainConfig
from mecoq_index.learn.objective import neighbors
from mecoq_index.learn.objective.neighbors import draw_partners, neighbor_graph
from mecoq_index.learn.trainer import fit

pytest.importorskip("faiss")

SMALL = TrainConfig(num_codebooks=2, num_codewords=8, dim=8, epochs=3, batch_size=16, lr=0.05)


def vectors(n=400, width=8, seed=0):
    return np.random.default_rng(seed).standard_normal((n, width), dtype=np.float32)


def exact(x, k):
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    scores = unit @ unit.T
    np.fill_diagonal(scores, -np.inf)
    return np.argsort(-scores, axis=1)[:, :k]


def test_the_graph_holds_the_nearest_others_by_cosine_whatever_their_length():
    x = vectors() * np.random.default_rng(1).uniform(0.1, 10, (400, 1)).astype(np.float32)
    np.testing.assert_array_equal(neighbor_graph(x, 5), exact(x, 5))


def test_rows_of_zeros_have_no_neighbors_and_are_nobodys():
    x = vectors(50)
    x[[3, 7, 8]] = 0
    graph = neighbor_graph(x, 40)
    assert (graph[[3, 7, 8]] == -1).all()
    assert not np.isin(graph, [3, 7, 8]).any()
    assert (graph >= 0).sum() > 47 * 36


def test_copies_of_a_row_are_its_neighbors_and_it_is_not():
    x = np.repeat(vectors(20), 6, axis=0)
    graph = neighbor_graph(x, 3)
    assert (graph != np.arange(120)[:, None]).all()
    np.testing.assert_array_equal(graph // 6, np.repeat(np.arange(20), 6)[:, None].repeat(3, 1))


def test_large_sets_are_searched_by_lists_and_find_most(monkeypatch):
    monkeypatch.setattr(neighbors, "EXACT_ROWS", 1000)
    x = clustered_views(n=3000, width=16, clusters=50)[0][0]
    graph = neighbor_graph(x, 5)
    found = (graph[:, :, None] == exact(x, 5)[:, None, :]).any(1).mean()
    assert 0.8 < found <= 1
    assert (graph != np.arange(3000)[:, None]).all()


@pytest.mark.parametrize("k", [0, 400])
def test_too_many_or_no_neighbors_are_refused(k):
    with pytest.raises(InvalidInputError, match=r"neighbors must be between 1 and .* 399 here"):
        neighbor_graph(vectors(), k)


def test_partners_are_neighbors_in_the_share_asked_for():
    graph = neighbor_graph(vectors(), 3)
    rng = np.random.default_rng(0)
    drawn = np.stack([draw_partners(graph, 0.25, rng) for _ in range(200)])
    own = drawn == np.arange(400)
    assert own.mean() == pytest.approx(0.75, abs=0.01)
    assert (own | (drawn[:, :, None] == graph).any(axis=2)).all()
    # each of the three is as likely
    shares = [(drawn == graph[:, j]).mean() for j in range(3)]
    assert shares == pytest.approx([0.25 / 3] * 3, abs=0.01)


def test_an_item_without_a_neighbor_keeps_to_itself():
    graph = np.array([[1, -1], [-1, -1]])
    rng = np.random.default_rng(0)
    drawn = np.stack([draw_partners(graph, 1.0, rng) for _ in range(50)])
    assert set(drawn[:, 0]) == {0, 1}
    assert set(drawn[:, 1]) == {1}


def test_the_second_view_is_the_partners():
    views = np.zeros((2, 10, 2), np.float32)
    views[..., 0] = [[0], [1]]
    views[..., 1] = np.arange(10)
    partners = np.roll(np.arange(10), 3)
    for first, second in FeatureViews(views).batches(0, 4, 0, partners):
        np.testing.assert_array_equal(partners[first[:, 1].int()], second[:, 1])


def test_the_vectors_that_neighbors_are_found_by_are_means_of_unit_views():
    views = np.array([[[3, 4], [0, 0]], [[0, 2], [5, 0]]], np.uint8)
    mean = FeatureViews(views, scale=7.0).frozen_features()
    np.testing.assert_allclose(mean, [[0.3, 0.9], [0.5, 0]], rtol=1e-6)
    features = np.array([[1, 2], [3, 4]], np.float16)
    np.testing.assert_array_equal(
        FeatureViews(views, scale=2.0, features=features).frozen_features(), [[0.5, 1], [1.5, 2]]
    )


def test_features_come_with_the_views_of_a_file(tmp_path):
    views = clustered_views()[0]
    np.savez(tmp_path / "a.npz", view0=views[0], view1=views[1], features=views[0] * 2)
    loaded = FeatureViews.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(loaded.frozen_features(), views[0] * 2)
    np.savez(tmp_path / "b.npz", view0=views[0], view1=views[1], features=views[0, :5])
    with pytest.raises(InvalidInputError, match=r"b\.npz: features must have shape \(90, 12\)"):
        FeatureViews.load(tmp_path / "b.npz")


def test_neighbors_alone_are_enough_to_learn_from():
    views, label = clustered_views(n=300)
    source = FeatureViews(views[:1])
    with pytest.raises(InvalidInputError, match="one view an item"):
        fit(source, SMALL)
    config = SMALL.replace(neighbors=5, neighbor_share=1.0, epochs=10, memory_size=0)
    books = fit(source, config)
    z = books.project(views[0])
    top = np.argsort(-scoring.aqs(z[:50], scoring.encode(z, books), books), axis=1, kind="stable")[
        :, :20
    ]
    assert (label[top] == label[:50, None]).mean() > 0.9


def test_a_source_that_has_neither_vectors_nor_images_is_told_so():
    class Bare:
        width = 12

        def __init__(self):
            self._source = FeatureViews(clustered_views()[0])
            self.batches, self.steps = self._source.batches, self._source.steps

        def __len__(self):
            return len(self._source)

    with pytest.raises(InvalidInputError, match=r"neighbors and distillation need .* got Bare\."):
        fit(Bare(), SMALL.replace(neighbors=3))
    fit(Bare(), SMALL.replace(epochs=1))
