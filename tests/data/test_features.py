import copy
import pickle

import numpy as np
import pytest

from mecoq_index.backbone import Backbone
from mecoq_index.data.features import FeatureViews, ViewRows
from mecoq_index.errors import ArtifactError, InvalidInputError


def _numbered(V=3, n=10, P=2, dtype=np.float32):
    """Views in which every vector says which view and item it is: (v, item)."""
    views = np.zeros((V, n, P), dtype)
    views[..., 0] = np.arange(V)[:, None]
    views[..., 1] = np.arange(n)
    return views


def _batches(source, epoch=0, size=4, seed=0):
    return [(a.numpy(), b.numpy()) for a, b in source.batches(epoch, size, seed)]


def test_an_epoch_shows_every_item_once_under_two_different_views():
    for epoch in range(5):
        pairs = _batches(FeatureViews(_numbered()), epoch)
        first, second = (np.concatenate(side) for side in zip(*pairs, strict=True))
        assert sorted(first[:, 1]) == list(range(10))
        np.testing.assert_array_equal(first[:, 1], second[:, 1])
        assert (first[:, 0] != second[:, 0]).all()


def test_all_ordered_pairs_of_views_occur():
    source = FeatureViews(_numbered(n=200))
    first, second = _batches(source, size=200)[0]
    assert len(set(zip(first[:, 0], second[:, 0], strict=True))) == 6


def test_the_features_of_the_items_are_one_view_more():
    views = _numbered(n=200)
    source = FeatureViews(views[:2], features=views[2])
    assert source.num_views == 3
    first, second = _batches(source, size=200)[0]
    np.testing.assert_array_equal(first[:, 1], second[:, 1])
    assert len(set(zip(first[:, 0], second[:, 0], strict=True))) == 6
    assert source.fingerprint != FeatureViews(views[:2]).fingerprint


def test_batches_depend_on_seed_and_epoch_only():
    source = FeatureViews(_numbered())
    a, b = _batches(source, 1, seed=7), _batches(source, 1, seed=7)
    np.testing.assert_array_equal(a[0], b[0])
    for other in (_batches(source, 2, seed=7), _batches(source, 1, seed=8)):
        assert not np.array_equal(
            np.concatenate([x for x, _ in a]), np.concatenate([x for x, _ in other])
        )


@pytest.mark.parametrize("n,size,sizes", [(10, 4, [4, 4, 2]), (9, 4, [4, 4]), (3, 8, [3])])
def test_a_last_batch_of_one_is_dropped(n, size, sizes):
    source = FeatureViews(_numbered(n=n))
    assert [len(a) for a, _ in _batches(source, size=size)] == sizes
    assert source.steps(size) == len(sizes)


def test_scaled_bytes_become_floats():
    views = np.full((2, 4, 3), 85, np.uint8)
    (a, _), *_ = _batches(FeatureViews(views, scale=42.5))
    assert a.dtype == np.float32
    np.testing.assert_allclose(a, 2)


def test_dropout_makes_two_views_of_one_and_keeps_the_mean():
    source = FeatureViews(np.ones((1, 50, 400), np.float32), dropout=0.25)
    a, b = _batches(source, size=50)[0]
    assert not np.array_equal(a, b)
    assert set(np.unique(a)) == {np.float32(0), np.float32(1 / 0.75)}
    assert a.mean() == pytest.approx(1, abs=0.02)


def test_fingerprint_tells_data_sets_apart():
    views = _numbered()
    assert FeatureViews(views).fingerprint == FeatureViews(views.copy()).fingerprint
    assert FeatureViews(views).fingerprint != FeatureViews(views + 1).fingerprint
    assert FeatureViews(views).fingerprint != FeatureViews(views, scale=2.0).fingerprint


def test_npz_and_npy_give_the_same_views(tmp_path):
    views = _numbered(dtype=np.float16)
    np.savez(tmp_path / "a.npz", view0=views[0], view1=views[1], view2=views[2], labels=np.ones(10))
    np.save(tmp_path / "b.npy", views)
    a, b = FeatureViews.load(tmp_path / "a.npz"), FeatureViews.load(tmp_path / "b.npy")
    assert a.fingerprint == b.fingerprint
    assert (len(a), a.width, a.num_views) == (10, 2, 3)


def test_a_plain_matrix_is_one_view(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((5, 3), np.float32))
    source = FeatureViews.load(tmp_path / "x.npy")
    assert (source.num_views, source.has_two_views) == (1, False)
    assert FeatureViews.load(tmp_path / "x.npy", dropout=0.2).has_two_views


@pytest.mark.parametrize(
    "views,options,message",
    [
        (np.zeros(5, np.float32), {}, r"must have shape \(V, n, P\), .* got \(5,\)"),
        (np.zeros((2, 5, 3), complex), {}, r"of floats or integers, got complex128"),
        ("x.npz", {}, r"got str\. Read a file with FeatureViews\.load"),
        ([[1.0], [1.0, 2.0]], {}, r"views must be an array \(V, n, P\), got list"),
        (np.zeros((2, 4, 3)), {"features": np.zeros((4, 2))}, r"features must have shape \(4, 3\)"),
        (np.zeros((2, 4, 3)), {"backbone": "vgg16"}, "must be a Backbone, got str"),
        (np.full((2, 4, 3), 1e300), {}, "view 0 hold NaN or Inf"),
        (np.zeros((2, 1, 3), np.float32), {}, "must hold at least 2 items"),
        (np.zeros((0, 5, 3), np.float32), {}, r"at least one view, got \(0, 5, 3\)"),
        (np.full((2, 4, 3), np.nan, np.float32), {}, "view 0 hold NaN or Inf, first in row 0"),
        (
            np.zeros((2, 4, 3), np.float32),
            {"scale": 0.0},
            r"scale must be a number above 0, got 0\.0",
        ),
        (np.zeros((2, 4, 3)), {"scale": "2"}, r"scale must be a number above 0, got '2'"),
        (np.zeros((2, 4, 3)), {"dropout": 1.0}, r"dropout must be a number in \[0, 1\), got 1"),
        (np.zeros((2, 4, 3)), {"dropout": None}, r"dropout must be a number in .* got None"),
    ],
)
def test_bad_views_say_what_must_hold(views, options, message):
    with pytest.raises(InvalidInputError, match=message):
        FeatureViews(views, **options)


def test_a_nan_deep_inside_is_found():
    views = _numbered(n=70000)
    views[2, 66666, 1] = np.inf
    with pytest.raises(InvalidInputError, match="view 2 hold NaN or Inf, first in row 66666"):
        FeatureViews(views)


@pytest.mark.parametrize("keep", [0, 10, 200])
def test_a_truncated_archive_is_refused(tmp_path, keep):
    path = tmp_path / "views.npz"
    np.savez(path, view0=np.zeros((50, 3)), view1=np.zeros((50, 3)))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ArtifactError, match=r"views\.npz is (empty|no readable \.npz file)"):
        FeatureViews.load(path)


def test_foreign_archives_say_what_they_lack(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    with pytest.raises(ArtifactError, match=r"must hold the arrays view0, .* it holds \['x'\]"):
        FeatureViews.load(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", view0=np.zeros((3, 2)), view1=np.zeros((4, 2)))
    with pytest.raises(ArtifactError, match="all views must have one shape"):
        FeatureViews.load(tmp_path / "b.npz")
    with pytest.raises(ArtifactError, match=r"missing\.npz does not exist"):
        FeatureViews.load(tmp_path / "missing.npz")


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.int8, np.uint16])
def test_other_floats_and_integers_become_float32(dtype):
    views = _numbered(dtype=dtype)
    want = FeatureViews(views.astype(np.float32))
    for given in (views, views.tolist()):
        source = FeatureViews(given, features=given[0])
        assert source.frozen_features().dtype == np.float32
        np.testing.assert_array_equal(source.frozen_features(), views[0])
        assert FeatureViews(given).fingerprint == want.fingerprint


def test_one_matrix_is_one_view():
    source = FeatureViews(np.ones((5, 3)))
    assert (source.num_views, len(source), source.width) == (1, 5, 3)
    assert repr(source) == "FeatureViews(1 views of 5 items, width 3, float32)"


def test_copies_and_pickles_are_the_same_source():
    backbone = Backbone("mecoq:small", "ab" * 32, {"crop": 16})
    source = FeatureViews(_numbered(), dropout=0.1, features=_numbered()[0], backbone=backbone)
    for again in (pickle.loads(pickle.dumps(source)), copy.deepcopy(source)):
        assert again.fingerprint == source.fingerprint
        assert again.backbone.name == "mecoq:small"
        np.testing.assert_array_equal(_batches(again)[0][0], _batches(source)[0][0])
    assert source.with_dropout(0.5).backbone is backbone
    assert source.hold_out(3, 0)[0].backbone is backbone


@pytest.mark.parametrize("count", [0, 9])
def test_too_many_or_no_items_cannot_be_held_out(count):
    with pytest.raises(InvalidInputError, match=r"held_out must leave at least 2 of 10 items"):
        FeatureViews(_numbered()).hold_out(count, 0)


def test_batches_without_negatives_are_refused():
    source = FeatureViews(_numbered())
    with pytest.raises(InvalidInputError, match=r"batch_size must be at least 2, .* got 1"):
        source.steps(1)
    with pytest.raises(InvalidInputError, match=r"batch_size must be at least 2, .* got 0"):
        next(source.batches(0, 0, 0))


def test_rows_of_views_are_the_items_as_they_came():
    rows = ViewRows(FeatureViews(_numbered() + 1))
    np.testing.assert_array_equal(rows.read(2, 5), FeatureViews(_numbered() + 1).items()[2:5])
