"""The .npz of features: which array is meant, what comes along, and the backbone that made it."""

import json

import numpy as np
import pytest

from mecoq_index.backbone import Backbone
from mecoq_index.data.feature_file import FeatureFile, save_features
from mecoq_index.data.features import FeatureViews
from mecoq_index.data.source import open_source
from mecoq_index.errors import ArtifactError, InvalidInputError

X = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
BACKBONE = Backbone("vgg16", "ab" * 32, {"resize": 40, "crop": 32, "mean": [0.5, 0.25, 0.5]})


def test_all_that_is_saved_comes_back(tmp_path):
    path = tmp_path / "f.npz"
    names = [f"class{i % 2}/ä{i}.jpg" for i in range(6)]
    saved = save_features(
        path,
        features=X,
        views=np.stack([X + 1, X + 2]),
        names=names,
        labels=np.arange(6),
        backbone=BACKBONE,
    )
    assert saved == ["features", "view0", "view1", "paths", "labels", "backbone"]
    items = open_source(path)
    np.testing.assert_array_equal(items.to_array(), X)
    assert items.names == names
    assert items.labels.tolist() == list(range(6))
    assert items.has_views
    assert items.views.num_views == 3
    for found in (items.backbone, items.views.backbone, FeatureViews.load(path).backbone):
        assert (found.name, found.weights_sha256) == (BACKBONE.name, BACKBONE.weights_sha256)
        assert dict(found.transform) == dict(BACKBONE.transform)
        assert found.state is None


def test_the_database_of_a_benchmark_is_the_source(tmp_path):
    split = {"database": X, "queries": X[:2], "database_labels": np.ones(6, int)}
    save_features(tmp_path / "f.npz", features=X[:3], views=X[None, :3], split=split)
    items = open_source(tmp_path / "f.npz")
    assert (items.n, len(items.views)) == (6, 3)
    assert items.labels.tolist() == [1] * 6
    assert items.names is None
    assert open_source(tmp_path / "f.npz", vector_column="queries").n == 2


def test_scaled_bytes_are_divided_as_they_are_read(tmp_path):
    pixels = np.arange(24, dtype=np.uint8).reshape(6, 4)
    np.savez(tmp_path / "f.npz", features=pixels, scale=np.float64(4))
    items = open_source(tmp_path / "f.npz")
    assert (items.dtype, items.has_codes) == (np.float32, False)
    np.testing.assert_array_equal(items.read(1, 3), pixels[1:3] / np.float32(4))
    np.savez(tmp_path / "g.npz", features=pixels)
    assert open_source(tmp_path / "g.npz").has_codes


def test_of_views_alone_the_first_is_read(tmp_path):
    np.savez(tmp_path / "f.npz", view0=X, view1=2 * X)
    items = open_source(tmp_path / "f.npz")
    np.testing.assert_array_equal(items.read(0, 6), X)


def test_the_only_matrix_is_meant_whatever_its_name(tmp_path):
    np.savez(tmp_path / "f.npz", emb=X, title=np.array(["a"] * 6))
    assert open_source(tmp_path / "f.npz").width == 4
    np.savez(tmp_path / "f.npz", emb=X, other=X)
    with pytest.raises(InvalidInputError, match=r"say which array .* one of \['emb', 'other'\]"):
        open_source(tmp_path / "f.npz")
    np.savez(tmp_path / "f.npz", title=np.array(["a"] * 6))
    with pytest.raises(ArtifactError, match=r"must hold vectors, .* but it holds \['title'\]"):
        open_source(tmp_path / "f.npz")
    with pytest.raises(ArtifactError, match=r"must hold the array 'x', but it holds \['title'\]"):
        open_source(tmp_path / "f.npz", vector_column="x")


@pytest.mark.parametrize("text", ["{", json.dumps({"name": "vgg16"}), "3", json.dumps([1])])
def test_a_damaged_note_on_the_backbone_is_refused(tmp_path, text):
    np.savez(tmp_path / "f.npz", features=X, backbone=np.array(text))
    with pytest.raises(ArtifactError, match=r"the entry 'backbone' in .*f\.npz is damaged"):
        open_source(tmp_path / "f.npz")


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.ones(2), np.array("2")])
def test_a_scale_that_is_no_number_above_zero_is_refused(tmp_path, scale):
    np.savez(tmp_path / "f.npz", features=X, scale=scale)
    with pytest.raises(ArtifactError, match=r"scale in .* must be a number above 0, got"):
        open_source(tmp_path / "f.npz")


def test_arrays_of_objects_are_refused(tmp_path):
    np.savez(tmp_path / "f.npz", features=np.array([[{}]], object))
    with pytest.raises(InvalidInputError, match=r"'features' in .* must hold floats or integers"):
        open_source(tmp_path / "f.npz")
    with pytest.raises(ArtifactError, match=r"no readable \.npz file: Object arrays cannot be"):
        FeatureFile(tmp_path / "f.npz").array("features")


@pytest.mark.parametrize(
    "options,message",
    [
        ({"features": X, "names": ["a"]}, r"one row an item, got \{'features': 6, 'paths': 1\}"),
        (
            {"features": X, "backbone": Backbone("vgg16", "ab" * 32, {}, {"w": X})},
            "features can only name a backbone, but 'vgg16' was trained further",
        ),
    ],
)
def test_features_that_cannot_be_saved_leave_no_file(tmp_path, options, message):
    with pytest.raises(InvalidInputError, match=message):
        save_features(tmp_path / "f.npz", **options)
    with pytest.raises(InvalidInputError, match=r"must end in \.npz, got 'f\.npy'"):
        save_features(tmp_path / "f.npy", features=X)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("order", ["<", ">"])
def test_texts_of_numbers_that_are_no_characters_are_refused(tmp_path, order):
    paths = np.array(["a", "b"], f"{order}U1")
    paths.view(f"{order}u4")[1] = 0x110000
    np.savez(tmp_path / "f.npz", features=X[:2], paths=paths)
    np.save(tmp_path / "p.npy", paths)
    with pytest.raises(ArtifactError, match="texts with numbers that are no characters"):
        open_source(tmp_path / "f.npz")
    with pytest.raises(ArtifactError, match="texts with numbers that are no characters"):
        open_source(tmp_path / "p.npy")
