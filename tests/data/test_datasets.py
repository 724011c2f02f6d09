import numpy as np
import pytest

from mecoq_index.data.datasets import Dataset, load_dataset, load_vectors
from mecoq_index.errors import ArtifactError, InvalidInputError

X = np.random.default_rng(0).standard_normal((7, 5), dtype=np.float32)


def write_fvecs(path, x):
    rows = np.concatenate([np.full((len(x), 1), x.shape[1], "<i4"), x.view("<i4")], axis=1)
    path.write_bytes(rows.tobytes())


def write_fbin(path, x):
    path.write_bytes(np.array(x.shape, "<i4").tobytes() + x.tobytes())


WRITERS = {".npy": np.save, ".fvecs": write_fvecs, ".fbin": write_fbin}


@pytest.mark.parametrize("suffix", WRITERS)
def test_vectors_are_read_back_bit_for_bit(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    WRITERS[suffix](path, X)
    np.testing.assert_array_equal(load_vectors(path), X)


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("cut", [0, 1, 30, -4, -1])
def test_truncated_files_are_refused(tmp_path, suffix, cut):
    path = tmp_path / f"x{suffix}"
    WRITERS[suffix](path, X)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ArtifactError, match=rf"x\{suffix} is "):
        load_vectors(path)


def test_other_dtypes_suffixes_and_values_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", X.astype(np.float64))
    with pytest.raises(InvalidInputError, match=r"x\.npy must be a float32 array .* got float64"):
        load_vectors(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", X * np.nan)
    with pytest.raises(InvalidInputError, match=r"x\.npy must be finite"):
        load_vectors(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", X.astype(np.uint8))
    with pytest.raises(InvalidInputError, match=r"x\.npy must hold float32 vectors, got uint8"):
        load_vectors(tmp_path / "x.npy")
    (tmp_path / "x.txt").write_text("1 2 3")
    with pytest.raises(ArtifactError, match=r"one of \.npy, \.fbin, .* is read, got \.txt"):
        load_vectors(tmp_path / "x.txt")


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
            "for database and queries, or for none",
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
