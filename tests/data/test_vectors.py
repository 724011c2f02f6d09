"""Every kind of vector file, against the whole array that was written to it."""

import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mecoq_index.data import tables
from mecoq_index.data.vectors import open_vectors
from mecoq_index.errors import ArtifactError, InvalidInputError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((7, 5), dtype=np.float32)
CODES = RNG.integers(0, 256, (7, 5), dtype=np.uint8)
needs_pyarrow = pytest.mark.skipif(not find_spec("pyarrow"), reason="needs pyarrow")
needs_h5py = pytest.mark.skipif(not find_spec("h5py"), reason="needs h5py")


def write_npy(path, x):
    np.save(path, x)


def write_column_major(path, x):
    np.save(path, np.asfortranarray(x))


def write_bin(path, x):
    path.write_bytes(np.array(x.shape, "<i4").tobytes() + x.tobytes())


def write_vecs(path, x):
    head = np.array([x.shape[1]], "<i4").tobytes()
    path.write_bytes(b"".join(head + row.tobytes() for row in x))


def write_npz(path, x):
    np.savez(path, features=x, labels=np.zeros(len(x), int))


def write_hdf5(path, x):
    import h5py

    with h5py.File(path, "w") as file:
        file["train"] = x


def as_table(list_type, x):
    import pyarrow as pa

    value_type = pa.from_numpy_dtype(x.dtype)
    values = pa.array(x.ravel())
    if list_type == "fixed":
        column = pa.FixedSizeListArray.from_arrays(values, x.shape[1])
    else:
        offsets = np.arange(len(x) + 1) * x.shape[1]
        column = pa.LargeListArray.from_arrays(pa.array(offsets), values)
        if list_type == "list":
            column = column.cast(pa.list_(value_type))
    # A second column, whose name begins like the first one's, is to be left alone.
    return pa.table({"v.x": pa.array(range(len(x))), "v": column})


def parquet_writer(list_type, row_group_size):
    def write(path, x):
        import pyarrow.parquet as pq

        pq.write_table(as_table(list_type, x), path, row_group_size=row_group_size)

    return write


def arrow_writer(list_type, batch, *, opener="new_file", compression=None):
    def write(path, x):
        import pyarrow as pa

        table = as_table(list_type, x)
        options = pa.ipc.IpcWriteOptions(compression=compression)
        with getattr(pa.ipc, opener)(str(path), table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=batch)

    return write


def kind(writer, suffix, dtype, *, headless=False, name=""):
    """A way to write a file; ``headless`` kinds cannot say how wide no rows are."""
    marks = needs_pyarrow if suffix in (".parquet", ".arrow", ".feather") else ()
    marks = needs_h5py if suffix == ".hdf5" else marks
    title = f"{suffix[1:]}-{name or dtype.__name__}"
    return pytest.param(writer, suffix, dtype, headless, id=title, marks=marks)


KINDS = [
    kind(write_npy, ".npy", np.float32),
    kind(write_npy, ".npy", np.uint8),
    kind(write_column_major, ".npy", np.float32, name="column-major"),
    kind(write_bin, ".fbin", np.float32),
    kind(write_bin, ".u8bin", np.uint8),
    kind(write_vecs, ".fvecs", np.float32, headless=True),
    kind(write_vecs, ".bvecs", np.uint8, headless=True),
    kind(parquet_writer("fixed", 3), ".parquet", np.float32, name="fixed-float32"),
    kind(parquet_writer("fixed", 100), ".parquet", np.uint8, name="fixed-uint8"),
    kind(parquet_writer("list", 4), ".parquet", np.float32, headless=True, name="list"),
    kind(parquet_writer("large", 5), ".parquet", np.float32, headless=True, name="large-list"),
    kind(arrow_writer("fixed", 3), ".arrow", np.float32, name="fixed"),
    kind(arrow_writer("list", 4, opener="new_stream"), ".arrow", np.uint8, headless=True),
    kind(arrow_writer("large", 3, compression="lz4"), ".feather", np.float32, headless=True),
    kind(write_hdf5, ".hdf5", np.float32),
    kind(write_npz, ".npz", np.uint8),
]
every_kind = pytest.mark.parametrize("writer,suffix,dtype,headless", KINDS)


def sample(dtype):
    return X if dtype == np.float32 else CODES


@st.composite
def matrices(draw, dtype, least=0):
    shape = draw(st.integers(least, 12)), draw(st.integers(1, 4))
    bits = draw(arrays(np.uint32 if dtype == np.float32 else np.uint8, shape))
    return bits.view(dtype)  # every bit pattern, NaN and Inf too


@every_kind
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_range_of_rows_comes_back_bit_for_bit(writer, suffix, dtype, headless, data):
    x = data.draw(matrices(dtype, least=int(headless)))
    ranges = st.tuples(st.integers(0, len(x)), st.integers(0, len(x))).map(sorted)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_BATCH_BYTES", data.draw(st.integers(1, 64)))
        path = Path(folder) / f"x{suffix}"
        writer(path, x)
        file = open_vectors(path)
        assert (file.path, file.n, file.width, file.dtype) == (path, *x.shape, dtype)
        for start, stop in data.draw(st.lists(ranges, min_size=1, max_size=6)):
            rows = file.read(start, stop)
            assert rows.dtype == dtype
            assert rows.shape == (stop - start, x.shape[1])
            assert rows.flags.c_contiguous
            assert rows.flags.writeable
            assert type(rows) is np.ndarray
            assert rows.tobytes() == np.ascontiguousarray(x[start:stop]).tobytes()


@every_kind
@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_folder_of_shards_reads_like_one_file(writer, suffix, dtype, headless, data):
    x = data.draw(matrices(dtype, least=1))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(x)), max_size=11)))
    if headless:
        cuts = sorted(set(cuts) - {0, len(x)})
    rows = data.draw(st.integers(1, 13))
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(x))] * 2)))
    with tempfile.TemporaryDirectory() as folder:
        for i, piece in enumerate(np.split(x, cuts)):
            writer(Path(folder) / f"part{i}{suffix}", np.ascontiguousarray(piece))
        (Path(folder) / ".hidden.txt").write_text("ignored")
        file = open_vectors(folder)
        assert (file.n, file.width, file.dtype) == (*x.shape, dtype)
        chunks = list(file.chunks(rows))
        assert [at for at, _ in chunks] == list(range(0, len(x), rows))
        assert b"".join(chunk.tobytes() for _, chunk in chunks) == x.tobytes()
        assert file.read(start, stop).tobytes() == x[start:stop].tobytes()


@every_kind
def test_a_file_cut_anywhere_is_refused_or_has_fewer_whole_rows(
    tmp_path, writer, suffix, dtype, headless
):
    path, x = tmp_path / f"x{suffix}", sample(dtype)
    writer(path, x)
    content = path.read_bytes()
    row = 4 + x[0].nbytes
    for size in range(0, len(content), 1 + len(content) // 300):
        path.write_bytes(content[:size])
        if suffix in (".fvecs", ".bvecs") and size and size % row == 0:
            np.testing.assert_array_equal(open_vectors(path).read(0, size // row), x[: size // row])
            continue
        with pytest.raises(ArtifactError, match=rf"x\{suffix} is (empty|no (complete|readable)) ?"):
            open_vectors(path)


@every_kind
def test_bytes_after_the_end_are_refused(tmp_path, writer, suffix, dtype, headless):
    path = tmp_path / f"x{suffix}"
    writer(path, sample(dtype))
    path.write_bytes(path.read_bytes() + b"\1")
    if suffix in (".hdf5", ".npz"):  # their own index says where everything lies
        np.testing.assert_array_equal(open_vectors(path).read(0, 7), sample(dtype))
        return
    with pytest.raises(ArtifactError, match=rf"x\{suffix} is no (complete|readable) \{suffix} f"):
        open_vectors(path)


@pytest.mark.parametrize("suffix", [".npy", ".fbin", ".u8bin", ".fvecs", ".bvecs"])
def test_other_files_under_a_known_name_are_refused(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    for content in (b"\0" * 64, b"\xff" * 64, b"\x89PNG\r\n\x1a\n" + bytes(range(200))):
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match=rf"x\{suffix} is no (complete|readable) \{suffix}"):
            open_vectors(path)


@pytest.mark.filterwarnings("ignore:Reading `.npy`")  # NumPy tries whether Python 2 wrote it
def test_a_damaged_npy_head_is_refused_or_read(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, X)
    content = path.read_bytes()
    for at in range(128):
        for byte in b"(}\0\xff9":
            path.write_bytes(content[:at] + bytes([byte]) + content[at + 1 :])
            try:
                file = open_vectors(path)
            except (ArtifactError, InvalidInputError):
                continue
            assert file.n * file.width == X.size


def test_a_wrong_width_inside_fvecs_is_named_by_its_row(tmp_path):
    path = tmp_path / "x.fvecs"
    write_vecs(path, X)
    content = bytearray(path.read_bytes())
    content[4 * 24 : 4 * 24 + 4] = np.array([6], "<i4").tobytes()
    path.write_bytes(content)
    file = open_vectors(path)
    np.testing.assert_array_equal(file.read(0, 4), X[:4])
    with pytest.raises(
        ArtifactError, match=r"the width 5 of the first, but row 4 begins with 6\. Make it again"
    ):
        file.read(2, 6)


def test_a_file_that_shrinks_or_goes_after_opening_is_an_error_and_no_crash(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, X)
    file = open_vectors(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ArtifactError, match=r"x\.npy became shorter since it was opened"):
        file.read(0, 7)
    path.unlink()
    with pytest.raises(ArtifactError, match=r"x\.npy can no longer be read: .*No such file"):
        file.read(0, 7)


@pytest.mark.parametrize(
    "x,message",
    [
        (X.astype(np.complex64), r"x\.npy must hold floats or integers, got complex64"),
        (X > 0, r"must hold floats or integers, got bool"),
        (X[0], r"must have shape \(n, width\), got \(5,\)"),
        (X[:, :0], r"must have shape \(n, width\), got \(7, 0\)"),
        (X[None], r"must have shape \(n, width\), got \(1, 7, 5\)"),
    ],
)
def test_other_types_and_shapes_are_refused(tmp_path, x, message):
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(InvalidInputError, match=message):
        open_vectors(tmp_path / "x.npy")


CONVERTED = [np.float16, np.float64, ">f4", np.int8, np.int16, np.uint16, ">i4", np.int64]


@pytest.mark.parametrize("dtype", CONVERTED)
@pytest.mark.parametrize(
    "writer,suffix",
    [
        (write_npy, ".npy"),
        (write_column_major, ".npy"),
        (write_npz, ".npz"),
        pytest.param(write_hdf5, ".hdf5", marks=needs_h5py),
        pytest.param(parquet_writer("fixed", 3), ".parquet", marks=needs_pyarrow),
        pytest.param(arrow_writer("list", 3), ".arrow", marks=needs_pyarrow),
    ],
)
def test_floats_and_integers_become_float32(tmp_path, writer, suffix, dtype):
    if suffix in (".parquet", ".arrow"):
        dtype = np.dtype(dtype).newbyteorder("=")
    x = (X * 20).astype(dtype)
    path = tmp_path / f"x{suffix}"
    writer(path, x)
    rows = open_vectors(path)
    assert rows.dtype == np.float32
    found = rows.read(2, 6)
    assert found.dtype == np.float32
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, x[2:6].astype(np.float32))


def test_too_large_numbers_become_infinite_without_a_warning(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[1e300, 1.0]]))
    np.testing.assert_array_equal(open_vectors(tmp_path / "x.npy").read(0, 1), [[np.inf, 1]])


def test_what_cannot_be_a_vector_file_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"none\.npy does not exist"):
        open_vectors(tmp_path / "none.npy")
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(ArtifactError, match=r"one of \.npy, .* folder of them, is read, got \.csv"):
        open_vectors(tmp_path / "x.csv")
    (tmp_path / "x").write_text("1,2")
    with pytest.raises(ArtifactError, match="got no suffix"):
        open_vectors(tmp_path / "x")


def test_ranges_and_columns_that_cannot_be_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", X)
    file = open_vectors(tmp_path / "x.npy")
    for start, stop in [(-1, 2), (3, 2), (0, 8)]:
        with pytest.raises(
            InvalidInputError, match=rf"rows {start} to {stop} .*start <= stop <= 7"
        ):
            file.read(start, stop)
    with pytest.raises(InvalidInputError, match="size of a chunk, must be at least 1, got 0"):
        file.chunks(0)
    with pytest.raises(
        InvalidInputError, match=r"chosen in .*npy: only \.parquet, .* have columns"
    ):
        open_vectors(tmp_path / "x.npy", column="v")


def test_folders_that_are_no_shards_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"must hold files of vectors, but it is empty"):
        open_vectors(tmp_path)
    np.save(tmp_path / "b.npy", X)
    write_bin(tmp_path / "c.fbin", X)
    with pytest.raises(ArtifactError, match=r"but it holds b\.npy and c\.fbin\. Move one kind"):
        open_vectors(tmp_path)
    (tmp_path / "c.fbin").unlink()
    (tmp_path / "a.txt").write_text("notes")
    with pytest.raises(ArtifactError, match=r"one kind of \.npy, .*, but it holds a\.txt"):
        open_vectors(tmp_path)
    (tmp_path / "a.txt").unlink()
    (tmp_path / "c.npy").mkdir()
    with pytest.raises(ArtifactError, match=r"but it holds b\.npy and c\.npy"):
        open_vectors(tmp_path)
    (tmp_path / "c.npy").rmdir()
    np.save(tmp_path / "c.npy", X[:, :4].copy())
    with pytest.raises(ArtifactError, match=r"b\.npy has 5 x float32 and c\.npy 4 x float32"):
        open_vectors(tmp_path)
    np.save(tmp_path / "c.npy", CODES)
    with pytest.raises(ArtifactError, match=r"b\.npy has 5 x float32 and c\.npy 5 x uint8"):
        open_vectors(tmp_path)


def test_shards_stand_in_natural_order_whatever_order_the_folder_lists_them_in(tmp_path):
    names = ["10", "a9", "x", "x1", "x01", "x2", "x2-10", "x10"]
    for i in RNG.permutation(len(names)):
        np.save(tmp_path / f"{names[i]}.npy", np.full((1, 1), i, np.uint8))
    order = open_vectors(tmp_path).read(0, len(names)).ravel()
    expected = ["10", "a9", "x01", "x1", "x2-10", "x2", "x10", "x"]
    assert [names[i] for i in order] == expected
