import numpy as np
import pytest

from mecoq_index.data.datasets import Dataset, load_dataset
from mecoq_index.errors import ArtifactError, InvalidInputError

X = np.random.default_rng(0).standard_normal((7, 5), dtype=np.float32)


def test_a_scaled_feature_pack_is_a_dataset(tmp_path):
    path = tmp_path / "pack.npz"
    x = np.arange(12, dtype=np.uint8).reshape(4, 3)
    np.savez(
        path,
        database=x,
        queries=x[:2],
        database_labels=np.arange(4),
        query_labels=np.arange(2),
        scale=np.float32(2),
    )
    data = load_dataset(path)
    np.testing.assert_array_equal(data.database, x / 2)
    assert data.database.dtype == np.float32
    np.testing.assert_array_equal(data.query_labels, [0, 1])


def test_an_ann_benchmarks_file_is_a_dataset(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "glove.hdf5", "w") as file:
        file["train"], file["test"] = X, X[:2]
    data = load_dataset(tmp_path / "glove.hdf5")
    np.testing.assert_array_equal(data.queries, X[:2])
    assert data.query_labels is None
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["x"] = X
    with pytest.raises(ArtifactError, match=r"must hold 'train' and 'test', .* \['x'\]"):
        load_dataset(tmp_path / "other.hdf5")
    (tmp_path / "bad.hdf5").write_bytes(b"no")
    with pytest.raises(ArtifactError, match=r"bad\.hdf5 is no readable \.hdf5 file"):
        load_dataset(tmp_path / "bad.hdf5")


@pytest.mark.parametrize(
    "arrays,error,message",
    [
        ({"x": X}, ArtifactError, r"must hold the array 'database', but it holds \['x'\]"),
        ({"database": X}, ArtifactError, r"must hold the array 'queries'"),
        ({"database": X, "queries": X[:, :3]}, InvalidInputError, r"\(n, 5\), got \(7, 3\)"),
        (
            {"database": X, "queries": X, "query_labels": np.zeros(7)},
            InvalidInputError,
            "for database and queries, or for neither",
        ),
        (
            {
                "database": X,
                "queries": X,
                "query_labels": np.zeros(7),
                "database_labels": np.zeros(6),
            },
            InvalidInputError,
            "database_labels must be one a row, 7 in all, got 6",
        ),
    ],
)
def test_packs_that_do_not_fit_say_why(tmp_path, arrays, error, message):
    np.savez(tmp_path / "pack.npz", **arrays)
    with pytest.raises(error, match=message):
        load_dataset(tmp_path / "pack.npz")


def test_shuffling_keeps_rows_and_labels_together():
    data = Dataset("x", X, X[:1], np.arange(7), np.zeros(1))
    mixed = data.shuffled(0)
    np.testing.assert_array_equal(mixed.database, X[mixed.database_labels])
    assert not np.array_equal(mixed.database_labels, np.arange(7))
    assert len(data.first(3, None).database) == 3


def test_database_and_queries_may_be_two_sources_with_labels_of_their_own(tmp_path):
    np.save(tmp_path / "x.npy", X.astype(np.float64))
    np.save(tmp_path / "y.npy", np.arange(7))
    data = load_dataset(
        tmp_path / "x.npy",
        queries=X[:2].tolist(),
        labels=tmp_path / "y.npy",
        query_labels=["a", "b"],
    )
    assert data.name == "x"
    np.testing.assert_array_equal(data.database, X)
    np.testing.assert_array_equal(data.queries, X[:2])
    assert data.query_labels.tolist() == [0, 1]


def test_sources_without_queries_or_vectors_are_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="queries must be given, the vectors to search"):
        load_dataset(X)
    with pytest.raises(InvalidInputError, match="queries must be given where columns are named"):
        load_dataset(tmp_path / "x.parquet", vector_column="v")
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(ArtifactError, match=r"got \.npy\. Give the queries separately"):
        load_dataset(tmp_path / "x.npy")
    with pytest.raises(InvalidInputError, match="queries must be vectors, but they are images"):
        load_dataset(X, queries=np.zeros((2, 8, 8, 3), np.uint8))
