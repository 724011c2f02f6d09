"""Files in ann-benchmarks' layout, and everything that only looks like one."""

import numpy as np
import pytest

h5py = pytest.importorskip("h5py")

from mecoq_index.data.source import open_source
from mecoq_index.data.vectors import open_vectors
from mecoq_index.errors import ArtifactError, InvalidInputError

X = np.random.default_rng(0).standard_normal((60, 5)).astype(np.float32)


def test_train_is_read_unless_another_data_set_is_named(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file.create_dataset("train", data=X.astype(np.float64), chunks=(7, 2), compression="gzip")
        file["test"] = X[:3]
    rows = open_vectors(tmp_path / "x.hdf5")
    np.testing.assert_array_equal(rows.read(5, 33), X[5:33])
    items = open_source(tmp_path / "x.hdf5", vector_column="test")
    assert (items.n, items.width, items.dtype) == (3, 5, np.float32)


def make_soft_link(file):
    file["train"] = h5py.SoftLink("/nowhere")


def make_external_link(file):
    file["train"] = h5py.ExternalLink("other.hdf5", "train")


def make_external_storage(file):
    file.create_dataset("train", (2, 3), "f4", external=[("values.raw", 0, 24)])


def make_virtual(file):
    layout = h5py.VirtualLayout((2, 3), "f4")
    layout[:] = h5py.VirtualSource("other.hdf5", "train", (2, 3))
    file.create_virtual_dataset("train", layout)


@pytest.mark.parametrize(
    "make,message",
    [
        (make_soft_link, "'train' in .* must be a data set, but it is a link to another place"),
        (make_external_link, "but it is a link to another place"),
        (make_external_storage, "the values of 'train' must lie in .*x.hdf5 itself"),
        (make_virtual, "but they lie in other files"),
        (lambda file: file.create_group("train"), "must be a data set, but it is a group"),
        (lambda file: file.update({"train": 3.0}), "shape .n, width., got a single value"),
        (lambda file: file.update({"train": X[0]}), r"shape .n, width., got \(5,\)"),
        (lambda file: file.update({"train": X[:, :0]}), r"got \(60, 0\)"),
        (lambda file: file.update({"train": [["a"]]}), "must hold floats or integers, got object"),
    ],
)
def test_other_things_under_the_name_are_refused(tmp_path, make, message):
    (tmp_path / "values.raw").write_bytes(bytes(24))
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        make(file)
    with pytest.raises(InvalidInputError, match=message):
        open_vectors(tmp_path / "x.hdf5")


def test_a_file_that_changes_or_lacks_the_data_set_is_an_error(tmp_path):
    path = tmp_path / "x.hdf5"
    with h5py.File(path, "w") as file:
        file["train"] = X
    rows = open_vectors(path)
    with h5py.File(path, "w") as file:
        file["train"] = X[:10]
    with pytest.raises(ArtifactError, match=r"x\.hdf5 changed since it was opened"):
        rows.read(0, 60)
    for name in ("none", "/train"):
        with pytest.raises(ArtifactError, match=r"must hold '.*', but it holds \['train'\]"):
            open_vectors(path, column=name)
