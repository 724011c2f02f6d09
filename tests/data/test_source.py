"""One function opens whatever a person has."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from mecoq_index.data.features import FeatureViews
from mecoq_index.data.source import ImageItems, VectorItems, open_source
from mecoq_index.errors import InvalidInputError, MecoqError

X = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
PIXELS = np.random.default_rng(1).integers(256, size=(4, 9, 8, 3), dtype=np.uint8)


def pictures(folder, names=("a/0.png", "a/1.png", "b/2.png", "b/3.png")):
    Image = pytest.importorskip("PIL.Image")
    paths = [folder / name for name in names]
    for path, pixels in zip(paths, PIXELS, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return paths


def check_images(items, names=None):
    assert isinstance(items, ImageItems)
    assert len(items) == len(PIXELS)
    for i, pixels in enumerate(PIXELS):
        np.testing.assert_array_equal(np.asarray(items.images.load(i)), pixels)
    if names is not None:
        assert items.names == names


@pytest.mark.parametrize(
    "source",
    [X, X.astype(np.float64), np.asfortranarray(X), X.tolist(), list(X), torch.from_numpy(X)],
)
def test_numbers_are_vectors(source):
    items = open_source(source)
    assert isinstance(items, VectorItems)
    assert (items.n, items.width, items.dtype, items.path) == (6, 4, np.float32, None)
    np.testing.assert_array_equal(items.to_array(), X)
    assert open_source(items) is items


def test_bytes_may_be_codes():
    items = open_source(PIXELS[0, :, :, 0])
    assert items.has_codes
    assert items.to_array().dtype == np.uint8
    assert items.to_vectors().dtype == np.float32


def test_views_are_known(tmp_path):
    stack = np.stack([X, X + 1])
    np.save(tmp_path / "x.npy", stack)
    for source in (stack, FeatureViews(stack), tmp_path / "x.npy"):
        items = open_source(source)
        assert items.views.num_views == 2
        np.testing.assert_allclose(items.read(0, 6), FeatureViews(stack).items())
        assert pickle.loads(pickle.dumps(items)).views.num_views == 2
    assert open_source(X).views is None


def test_paths_of_vectors_are_opened_and_may_be_listed(tmp_path):
    np.save(tmp_path / "a.npy", X[:4])
    np.save(tmp_path / "b.npy", X[4:].astype(np.float64))
    listed = open_source([str(tmp_path / "a.npy"), tmp_path / "b.npy"])
    for items in (open_source(str(tmp_path)), listed):
        np.testing.assert_array_equal(items.to_array(), X)
        assert items.files == [tmp_path / "a.npy", tmp_path / "b.npy"]


def test_images_are_found_in_folders_lists_and_arrays(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    paths = pictures(tmp_path / "photos")
    items = open_source(tmp_path / "photos")
    check_images(items, ["a/0.png", "a/1.png", "b/2.png", "b/3.png"])
    assert items.labels.tolist() == [0, 0, 1, 1]
    check_images(open_source([str(path) for path in paths]), [str(path) for path in paths])
    check_images(open_source([Image.fromarray(pixels) for pixels in PIXELS]))
    check_images(open_source(PIXELS))
    assert len(open_source(paths[0])) == len(open_source(Image.fromarray(PIXELS[0]))) == 1


def test_ids_names_and_labels_may_be_given(tmp_path):
    items = open_source(X, ids=range(10, 16), labels=["b", "a", "b", "b", "a", "a"])
    assert items.ids.tolist() == list(range(10, 16))
    assert items.names is None
    assert items.labels.tolist() == [1, 0, 1, 1, 0, 0]
    (tmp_path / "names.txt").write_text("".join(f"n{i}\n" for i in range(6)))
    assert open_source(X, ids=tmp_path / "names.txt").names[5] == "n5"
    paths = pictures(tmp_path / "photos")
    images = open_source(paths, ids=[4, 3, 2, 1])
    assert images.ids.tolist() == [4, 3, 2, 1]
    assert images.names == [str(path) for path in paths]
    assert open_source(tmp_path / "photos", labels=[3, 2, 1, 0]).labels.tolist() == [3, 2, 1, 0]


def test_identities_tell_sources_apart(tmp_path):
    np.save(tmp_path / "x.npy", X)
    same = open_source(tmp_path / "x.npy")
    assert same.identity == open_source(tmp_path / "x.npy").identity
    np.save(tmp_path / "y.npy", X)
    others = [open_source(X), open_source(X + 1), open_source(tmp_path / "y.npy")]
    others += [open_source(tmp_path / "x.npy", ids=list("abcdef")), open_source(PIXELS)]
    identities = [repr(items.identity) for items in [same, *others]]
    assert len(set(identities)) == len(identities)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".feather"])
def test_tables_bring_ids_names_columns_and_labels(tmp_path, suffix):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.feather
    import pyarrow.parquet

    for part, rows in enumerate((slice(0, 4), slice(4, 6))):
        table = pa.table(
            {
                "id": pa.array(np.arange(6)[rows] * 2, pa.int32()),
                "name": [f"n{i}" for i in range(6)][rows],
                "kind": ["x", "y", "x", "z", "y", "z"][rows],
                "price": np.arange(6.0)[rows],
                "emb": list(X.astype(np.float64)[rows]),
            }
        )
        path = tmp_path / f"part{part}{suffix}"
        if suffix == ".parquet":
            pyarrow.parquet.write_table(table, path)
        else:
            pyarrow.feather.write_feather(table, path)
    options = {"columns": ["price", "kind"], "label_column": "kind"}
    items = open_source(tmp_path, id_column="id", **options)
    np.testing.assert_array_equal(items.to_array(), X)
    assert items.ids.tolist() == [0, 2, 4, 6, 8, 10]
    assert items.columns["price"].tolist() == [0, 1, 2, 3, 4, 5]
    assert items.columns["kind"].tolist() == ["x", "y", "x", "z", "y", "z"]
    assert items.labels.tolist() == [0, 1, 0, 2, 1, 2]
    named = open_source(tmp_path, id_column="name", vector_column="emb")
    assert (named.ids, named.names[5]) == (None, "n5")
    with pytest.raises(InvalidInputError, match="must have one column 'x' of integers or strings"):
        open_source(tmp_path, id_column="x")


class Pictures(torch.utils.data.Dataset):
    def __init__(self, form, label):
        self.form, self.label = form, label

    def __len__(self):
        return len(PIXELS)

    def __getitem__(self, i):
        from PIL import Image

        image = Image.fromarray(PIXELS[i])
        if self.form != "pil":
            image = torch.from_numpy(PIXELS[i].transpose(2, 0, 1))
        if self.form == "float":
            image = image / 255
        return (image, i % 2) if self.label else image


@pytest.mark.parametrize("label", [False, True])
@pytest.mark.parametrize("form", ["pil", "uint8", "float"])
def test_data_sets_of_torch_hold_images(form, label):
    pytest.importorskip("PIL.Image")
    items = open_source(Pictures(form, label))
    check_images(items, [f"image {i}" for i in range(4)])
    assert (items.labels is None) is not label
    if label:
        assert items.labels.tolist() == [0, 1, 0, 1]


def test_data_sets_of_torch_hold_vectors():
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.arange(6) % 3)
    items = open_source(data)
    np.testing.assert_array_equal(items.to_array(), X)
    assert items.labels.tolist() == [0, 1, 2, 0, 1, 2]
    with pytest.raises(InvalidInputError, match=r"got a DataLoader\. Give its \.dataset"):
        open_source(torch.utils.data.DataLoader(data))


class TestHuggingFace:
    @pytest.fixture(autouse=True)
    def package(self):
        self.datasets = pytest.importorskip("datasets")

    def test_a_column_of_vectors_with_ids_names_and_labels(self):
        data = self.datasets.Dataset.from_dict(
            {"id": list(range(6)), "text": list("abcdef"), "emb": X.tolist(), "y": [1, 0] * 3}
        )
        shuffled = data.select([5, 0, 3])
        items = open_source(shuffled, id_column="text", columns=["id"], label_column="y")
        np.testing.assert_array_equal(items.to_array(), X[[5, 0, 3]])
        np.testing.assert_array_equal(items.read(1, 2), X[[0]])
        assert items.names == ["f", "a", "d"]
        assert items.columns["id"].tolist() == [5, 0, 3]
        assert items.labels.tolist() == [0, 1, 0]

    def test_a_column_of_images(self, tmp_path):
        paths = [str(path) for path in pictures(tmp_path)]
        data = self.datasets.Dataset.from_dict({"photo": paths, "y": [0, 1, 2, 3]})
        data = data.cast_column("photo", self.datasets.Image())
        items = open_source(data, label_column="y", id_column="y")
        check_images(items, paths)
        assert items.labels.tolist() == items.ids.tolist() == [0, 1, 2, 3]
        both = data.add_column("emb", X[:4].tolist())
        with pytest.raises(InvalidInputError, match=r"by vector_column: one of \['photo', 'emb'\]"):
            open_source(both)
        check_images(open_source(both, vector_column="photo"))
        np.testing.assert_array_equal(open_source(both, vector_column="emb").to_array(), X[:4])

    def test_a_broken_image_is_named(self, tmp_path):
        paths = pictures(tmp_path)
        paths[1].write_bytes(b"broken")
        data = self.datasets.Dataset.from_dict({"photo": [str(path) for path in paths]})
        items = open_source(data.cast_column("photo", self.datasets.Image()))
        with pytest.raises(InvalidInputError, match="image 1 is no readable image"):
            items.images.load(1)

    def test_several_splits_and_streams_are_refused(self):
        data = self.datasets.Dataset.from_dict({"emb": X.tolist()})
        splits = self.datasets.DatasetDict(train=data, test=data)
        with pytest.raises(InvalidInputError, match=r"one split, got \['test', 'train'\]"):
            open_source(splits)
        with pytest.raises(InvalidInputError, match="but it is streamed"):
            open_source(data.to_iterable_dataset())


@pytest.mark.parametrize(
    "source,options,message",
    [
        ([], {}, "must hold at least one item, got an empty list"),
        ([X[0], "a.png"], {}, "only paths and images, or only vectors, got 1 of the first"),
        (X[0], {}, r"source must be an array .*, got \(4,\)\. Use source\[None, :\]"),
        (3, {}, "a source must be an array, a path, a list, .* got int"),
        (b"abc", {}, "got bytes"),
        ("/nowhere/x.npy", {}, "x.npy does not exist"),
        (X, {"id_column": "id"}, "id_column must be left out: only tables have columns"),
        (X, {"columns": ["a"]}, "columns must be left out: only tables"),
        (X, {"columns": "a"}, "columns must be a list of names, got 'a'"),
        (X, {"vector_column": "a"}, "vector_column must be left out"),
        (X, {"ids": [1, 2]}, "ids must be one an item, 6 in all, got 2"),
        (X, {"ids": range(6), "id_column": "a"}, "ids and id_column cannot both be given"),
        (X, {"labels": [1], "label_column": "a"}, "labels and label_column cannot both"),
        (X > 0, {}, "source must hold floats or integers, got bool"),
        ({"a": X}, {}, "got dict"),
    ],
)
def test_other_sources_are_refused(source, options, message):
    with pytest.raises(InvalidInputError, match=message):
        open_source(source, **options)


def test_folders_without_images_or_vectors_are_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="holds no images"):
        open_source(tmp_path)
    (tmp_path / "x.txt").write_text("1 2 3")
    with pytest.raises(MecoqError, match=r"one of \.npy, .* is read, got \.txt"):
        open_source(tmp_path / "x.txt")
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(MecoqError, match=r"x\.npy and x\.txt|it holds x\.txt"):
        open_source(Path(tmp_path))
