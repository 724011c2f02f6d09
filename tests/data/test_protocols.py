import pickle

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")

from mecoq_index.data import protocols
from mecoq_index.data.images import Subset
from mecoq_index.data.protocols import PROTOCOLS, load_protocol
from mecoq_index.errors import ArtifactError, InvalidInputError


def batch(n, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(256, size=(n, 3072), dtype=np.uint8), np.arange(n) % 10


def write_python(folder):
    folder.mkdir()
    for i, name in enumerate([f"data_batch_{j}" for j in range(1, 6)] + ["test_batch"]):
        data, labels = batch(20, i)
        content = {b"data": data, b"labels": labels.tolist()}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))


def write_binary(folder):
    folder.mkdir()
    for i, name in enumerate([f"data_batch_{j}.bin" for j in range(1, 6)] + ["test_batch.bin"]):
        data, labels = batch(20, i)
        np.concatenate([labels[:, None].astype(np.uint8), data], axis=1).tofile(folder / name)


def write_folders(root):
    for part, n in (("train", 10), ("test", 2)):
        for c in range(10):
            (root / part / f"class{c}").mkdir(parents=True)
            for i in range(n):
                data = batch(20, 100 * c + i)[0][0].reshape(3, 32, 32).transpose(1, 2, 0)
                Image.fromarray(data).save(root / part / f"class{c}" / f"{i}.png")


@pytest.fixture
def small(monkeypatch):
    """The random CIFAR-10 protocols with 3 queries and 2 training images a class."""
    monkeypatch.setitem(PROTOCOLS, "cifar10-i", protocols._cifar10_random(None, 3))
    monkeypatch.setitem(PROTOCOLS, "cifar10-ii", protocols._cifar10_random(2, 3))


@pytest.mark.parametrize("layout", ["python", "binary", "folders"])
def test_cifar10_is_read_from_its_usual_layouts(tmp_path, small, layout):
    if layout == "folders":
        write_folders(tmp_path)
    else:
        {"python": write_python, "binary": write_binary}[layout](
            tmp_path / f"cifar-10-batches-{layout[:2] if layout == 'python' else 'bin'}"
        )
    split = load_protocol("cifar10", tmp_path)
    assert len(split.images) == 120
    assert len(split.queries) == 20
    np.testing.assert_array_equal(split.train, split.database)
    assert split.images.load(0).size == (32, 32)
    for name, size in (("cifar10-i", 90), ("cifar10-ii", 20)):
        split = load_protocol(name, tmp_path)
        assert len(split.database) == 90
        assert len(split.train) == size
        assert not set(split.queries) & set(split.database)
        assert set(split.train) <= set(split.database)
        assert (np.bincount(split.labels[split.queries]) == 3).all()


def test_python_and_binary_batches_hold_the_same_images(tmp_path):
    write_python(tmp_path / "cifar-10-batches-py")
    write_binary(tmp_path / "b")
    a, b = load_protocol("cifar10", tmp_path), load_protocol("cifar10", tmp_path / "b")
    np.testing.assert_array_equal(a.labels, b.labels)
    for i in (0, 33, 119):
        np.testing.assert_array_equal(np.asarray(a.images.load(i)), np.asarray(b.images.load(i)))


def test_a_draw_depends_on_the_seed_only(tmp_path, small):
    write_python(tmp_path / "cifar-10-batches-py")
    a, b, c = (load_protocol("cifar10-ii", tmp_path, seed=s).queries for s in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_a_batch_with_code_in_it_is_refused_and_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    write_python(tmp_path / "cifar-10-batches-py")
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(pickle.dumps({b"data": Evil(), b"labels": []}))
    with pytest.raises(
        ArtifactError, match=r"data_batch_3 is no CIFAR-10 batch: .* is not allowed"
    ):
        load_protocol("cifar10", tmp_path)
    assert not (tmp_path / "ran").exists()


def test_truncated_or_missing_batches_are_named(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    write_binary(folder)
    whole = (folder / "test_batch.bin").read_bytes()
    (folder / "test_batch.bin").write_bytes(whole[:-1])
    with pytest.raises(ArtifactError, match=r"test_batch\.bin is damaged: its size is no multiple"):
        load_protocol("cifar10", tmp_path)
    (folder / "test_batch.bin").unlink()
    with pytest.raises(ArtifactError, match=r"test_batch\.bin is missing"):
        load_protocol("cifar10", tmp_path)
    with pytest.raises(ArtifactError, match="must hold CIFAR-10: the folders train/<class>"):
        load_protocol("cifar10", tmp_path / "elsewhere")


def test_too_few_images_for_the_protocol_are_refused(tmp_path):
    write_python(tmp_path / "cifar-10-batches-py")
    with pytest.raises(InvalidInputError, match="draws 1000 images of each class, but class 0 has"):
        load_protocol("cifar10-i", tmp_path)


def test_flickr25k_is_read_from_images_and_annotations(tmp_path):
    (tmp_path / "mirflickr").mkdir()
    (tmp_path / "annotations").mkdir()
    for i in range(1, 7011):
        (tmp_path / "mirflickr" / f"im{i}.jpg").touch()
    (tmp_path / "annotations" / "sky.txt").write_text("1\n3\n7000\n")
    (tmp_path / "annotations" / "sky_r1.txt").write_text("1\n")
    (tmp_path / "annotations" / "tree.txt").write_text("3\n")
    split = load_protocol("flickr25k", tmp_path)
    assert (len(split.queries), len(split.database), len(split.train)) == (2000, 5010, 5000)
    assert set(split.train) <= set(split.database)
    np.testing.assert_array_equal(split.labels[[0, 1, 2]], [[1, 0], [0, 0], [1, 1]])
    assert split.labels.sum() == 4
    assert split.images.name(2) == "mirflickr/im3.jpg"


def test_nuswide_is_read_from_lists(tmp_path):
    (tmp_path / "database.txt").write_text("a.jpg 0 1\nb.jpg 1 1\nc.jpg 1 0\n")
    (tmp_path / "train.txt").write_text("b.jpg 1 1\n")
    (tmp_path / "test.txt").write_text("d.jpg 0 1\n")
    split = load_protocol("nuswide", tmp_path)
    names = [split.images.name(i) for i in split.database]
    assert names == ["a.jpg", "b.jpg", "c.jpg"]
    np.testing.assert_array_equal(split.labels[split.database], [[0, 1], [1, 1], [1, 0]])
    assert [split.images.name(i) for i in split.train] == ["b.jpg"]
    assert Subset(split.images, split.queries).name(0) == "d.jpg"
    (tmp_path / "test.txt").write_text("d.jpg 0 2\n")
    with pytest.raises(ArtifactError, match=r"test\.txt, line 1: must be a path and a 0/1"):
        load_protocol("nuswide", tmp_path)
    (tmp_path / "test.txt").unlink()
    with pytest.raises(ArtifactError, match=r"test\.txt is missing; it lists a path"):
        load_protocol("nuswide", tmp_path)


def test_an_unknown_protocol_lists_the_known_ones(tmp_path):
    with pytest.raises(InvalidInputError, match=r"choose one of \['cifar10', 'cifar10-i'"):
        load_protocol("cifar", tmp_path)
