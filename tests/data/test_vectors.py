"""Every kind of vector file, against the whole array that was written to it."""

import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mecoq_index.data import parquet, vectors
from mecoq_index.data.vectors import load_ids, open_vectors
from mecoq_index.errors import ArtifactError, InvalidInputError, MissingDependencyError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((7, 5), dtype=np.float32)
CODES = RNG.integers(0, 256, (7, 5), dtype=np.uint8)
needs_pyarrow = pytest.mark.skipif(not find_spec("pyarrow"), reason="needs pyarrow")


def write_npy(path, x):
    np.save(path, x)


def write_column_major(path, x):
    np.save(path, np.asfortranarray(x))


def write_bin(path, x):
    path.write_bytes(np.array(x.shape, "<i4").tobytes() + x.tobytes())


def write_vecs(path, x):
    head = np.array([x.shape[1]], "<i4").tobytes()
    path.write_bytes(b"".join(head + row.tobytes() for row in x))


def parquet_writer(list_type, row_group_size):
    def write(path, x):
        import pyarrow as pa
        import pyarrow.parquet as pq

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
        table = pa.table({"v.x": pa.array(range(len(x))), "v": column})
        pq.write_table(table, path, row_group_size=row_group_size)

    return write


def kind(writer, suffix, dtype, *, headless=False, name=""):
    """A way to write a file; ``headless`` kinds cannot say how wide no rows are."""
    marks = needs_pyarrow if suffix == ".parquet" else ()
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
        patch.setattr(vectors, "_BATCH_BYTES", data.draw(st.integers(1, 64)))
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
    for size in range(len(content)):
        path.write_bytes(content[:size])
        if suffix in (".fvecs", ".bvecs") and size and size % row == 0:
            np.testing.assert_array_equal(open_vectors(path).read(0, size // row), x[: size // row])
            continue
        with pytest.raises(ArtifactError, match=rf"x\{suffix} is (empty|no (whole|readable)) ?"):
            open_vectors(path)


@every_kind
def test_bytes_after_the_end_are_refused(tmp_path, writer, suffix, dtype, headless):
    path = tmp_path / f"x{suffix}"
    writer(path, sample(dtype))
    path.write_bytes(path.read_bytes() + b"\1")
    with pytest.raises(ArtifactError, match=rf"x\{suffix} is no (whole|readable) \{suffix} file"):
        open_vectors(path)


@pytest.mark.parametrize("suffix", [".npy", ".fbin", ".u8bin", ".fvecs", ".bvecs"])
def test_other_files_under_a_known_name_are_refused(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    for content in (b"\0" * 64, b"\xff" * 64, b"\x89PNG\r\n\x1a\n" + bytes(range(200))):
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match=rf"x\{suffix} is no (whole|readable) \{suffix}"):
            open_vectors(path)


@pytest.mark.filterwarnings("ignore:Reading `.npy`")  # NumPy tries whether Python 2 wrote it
def test_a_damaged_npy_head_is_refused_or_read(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, X)
    content = path.read_bytes()
    for at in range(128):
        for byte in b"(}',\0\xff9#\n\"":
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
        (X.astype(np.float16), r"must be a float32 array of vectors .* got float16\. Convert"),
        (X.astype(np.float64), r"got float64\. Convert vectors with np\.asarray\(x, dtype=np\.f"),
        (X.astype(">f4"), r"got >f4"),
        (CODES.astype(np.int8), r"a uint8 array of codes, got int8"),
        (X[0], r"must have shape \(n, width\), got \(5,\)"),
        (X[:, :0], r"must have shape \(n, width\), got \(7, 0\)"),
        (X[None], r"must have shape \(n, width\), got \(1, 7, 5\)"),
    ],
)
def test_other_dtypes_and_shapes_are_refused_not_converted(tmp_path, x, message):
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(InvalidInputError, match=message):
        open_vectors(tmp_path / "x.npy")


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
    with pytest.raises(InvalidInputError, match=r"only \.parquet files have columns, but .*x\.npy"):
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


@needs_pyarrow
class TestParquet:
    def write(self, path, **columns):
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table(columns), path, row_group_size=2)
        return path

    def lists(self, values, value_type="float32", size=-1):
        import pyarrow as pa

        return pa.array(values, pa.list_(getattr(pa, value_type)(), size))

    def test_the_column_must_be_said_where_several_could_be_meant(self, tmp_path):
        a, b = self.lists([[1, 2]]), self.lists([[3, 4, 5]], "uint8")
        path = self.write(tmp_path / "x.parquet", id=[1], a=a, b=b)
        assert open_vectors(path, column="a").read(0, 1).tolist() == [[1, 2]]
        assert open_vectors(path, column="b").dtype == np.uint8
        with pytest.raises(InvalidInputError, match=r"which column .*: one of \['a', 'b'\] could"):
            open_vectors(path)
        with pytest.raises(
            InvalidInputError, match=r"one column 'id' of float32 .*are: id \(int64\), a \(list<"
        ):
            open_vectors(path, column="id")

    def test_a_column_of_another_dtype_is_refused_not_converted(self, tmp_path):
        path = self.write(tmp_path / "x.parquet", v=self.lists([[1, 2]], "float64"))
        with pytest.raises(InvalidInputError, match=r"a column of float32 .* v \(list<.*double>\)"):
            open_vectors(path)

    def test_two_columns_of_one_name_are_refused(self, tmp_path):
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_arrays([self.lists([[1, 2]]), pa.array([1])], names=["v", "v"])
        pq.write_table(table, tmp_path / "x.parquet")
        for column in ("v", None):
            with pytest.raises(InvalidInputError, match=r"must have one column 'v' of float32"):
                open_vectors(tmp_path / "x.parquet", column=column)

    @pytest.mark.parametrize(
        "size,bad,message",
        [
            (-1, None, r"a value in every place, but row 3 holds a null"),
            (2, None, r"a value in every place, but row 3 holds a null"),
            (-1, [1, None], r"a value in every place, but row 3 holds a null"),
            (2, [1, None], r"a value in every place, but row 3 holds a null"),
            (-1, [1, 2, 3], r"one length, 2 as in row 0, but row 3 holds 3 values"),
            (-1, [], r"one length, 2 as in row 0, but row 3 holds 0 values"),
        ],
    )
    def test_nulls_and_ragged_rows_are_named_by_their_row(
        self, tmp_path, monkeypatch, bad, message, size
    ):
        monkeypatch.setattr(vectors, "_BATCH_BYTES", 16)  # two rows
        values = [[1, 2], [3, 4], [5, 6], bad, [7, 8]]
        path = self.write(tmp_path / "x.parquet", v=self.lists(values, size=size))
        file = open_vectors(path)
        for _ in range(2):  # an error leaves the reader usable
            assert file.read(0, 2).tolist() == values[:2]
            with pytest.raises(ArtifactError, match=message):
                file.read(1, 5)
        assert file.read(4, 5).tolist() == values[4:]

    @pytest.mark.parametrize(
        "values,error,message",
        [
            ([], ArtifactError, "no rows, so the width of column 'v' is unknown"),
            ([None, [1]], ArtifactError, "row 0 holds a null"),
            ([[], []], InvalidInputError, "column 'v' of .* must not hold empty lists"),
        ],
    )
    def test_a_width_that_cannot_be_known_is_refused(self, tmp_path, values, error, message):
        path = self.write(tmp_path / "x.parquet", v=self.lists(values))
        with pytest.raises(error, match=message):
            open_vectors(path)

    def test_reading_in_order_decodes_once_and_holds_little(self, tmp_path, monkeypatch):
        import pyarrow as pa

        monkeypatch.setattr(vectors, "_BATCH_BYTES", 1 << 16)
        starts = []
        real = parquet.Column.batches
        monkeypatch.setattr(
            parquet.Column, "batches", lambda *args: starts.append(args[1:]) or real(*args)
        )
        x = np.random.default_rng(1).standard_normal((50_000, 64), dtype=np.float32)
        path = tmp_path / "x.parquet"
        parquet_writer("fixed", len(x))(path, x)
        file = open_vectors(path)
        before = held = pa.total_allocated_bytes()
        for start, rows in file.chunks(999):
            np.testing.assert_array_equal(rows, x[start : start + 999])
            held = max(held, pa.total_allocated_bytes())
        assert starts == [(0, 256)]
        assert held - before < x.nbytes // 2

    def test_row_groups_in_between_are_skipped(self, tmp_path, monkeypatch):
        path = self.write(tmp_path / "x.parquet", v=self.lists([[i] for i in range(9)]))
        file = open_vectors(path)
        starts = []
        real = parquet.Column.batches
        monkeypatch.setattr(
            parquet.Column, "batches", lambda *args: starts.append(args[1]) or real(*args)
        )
        monkeypatch.setattr(file, "_batch_rows", 1)
        assert [file.read(row, row + 1).item() for row in (0, 1, 7, 8, 2)] == [0, 1, 7, 8, 2]
        assert starts == [0, 7, 2]

    def test_a_missing_pyarrow_names_the_extra(self, tmp_path, monkeypatch):
        path = self.write(tmp_path / "x.parquet", v=self.lists([[1]]))
        monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
        for reader in (open_vectors, load_ids):
            with pytest.raises(MissingDependencyError, match=r"mecoq-index\[parquet\]"):
                reader(path)

    @pytest.mark.parametrize("string_type", ["string", "large_string"])
    def test_ids_come_from_a_column_of_integers_or_strings(self, tmp_path, string_type):
        import pyarrow as pa

        names = pa.array(["ä", "b", ""], getattr(pa, string_type)())
        path = self.write(tmp_path / "x.parquet", id=[7, 5, 2**62], name=names, w=[0.5] * 3)
        ids = load_ids(path, column="id")
        assert ids.dtype == np.int64
        assert ids.tolist() == [7, 5, 2**62]
        assert load_ids(path, column="name") == ["ä", "b", ""]
        with pytest.raises(InvalidInputError, match=r"one of \['id', 'name'\] could be"):
            load_ids(path)
        with pytest.raises(InvalidInputError, match=r"one column 'w' of int64 or strings"):
            load_ids(path, column="w")

    def test_text_that_is_no_utf8_is_refused(self, tmp_path):
        import pyarrow as pa

        text = pa.Array.from_buffers(
            pa.string(), 1, [None, pa.py_buffer(np.array([0, 1], "<i4")), pa.py_buffer(b"\xff")]
        )
        path = self.write(tmp_path / "x.parquet", name=text)
        with pytest.raises(ArtifactError, match=r"column 'name' .* must hold UTF-8 strings"):
            load_ids(path)

    @pytest.mark.parametrize("letter", range(6))
    def test_a_file_whose_column_name_is_damaged_is_refused(self, tmp_path, letter):
        path = self.write(tmp_path / "x.parquet", vector=self.lists([[1.0, 2.0]]))
        damaged = bytearray(b"vector")
        damaged[letter] = 0xFF
        path.write_bytes(path.read_bytes().replace(b"vector", damaged))
        with pytest.raises(ArtifactError, match=r"x\.parquet is no readable \.parquet file: "):
            open_vectors(path)

    def test_ids_that_are_null_or_none_at_all(self, tmp_path):
        import pyarrow as pa

        path = self.write(tmp_path / "x.parquet", id=pa.array([1, 2, None], pa.int64()))
        with pytest.raises(ArtifactError, match=r"column 'id' .* row 2 holds a null"):
            load_ids(path)
        path = self.write(tmp_path / "x.parquet", id=pa.array([], pa.int64()))
        assert load_ids(path).shape == (0,)
        path = self.write(tmp_path / "x.parquet", id=pa.array([], pa.string()))
        assert load_ids(path) == []


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    lines=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n")), min_size=1),
    end=st.sampled_from(["\n", "\r\n"]),
    closed=st.booleans(),
    mark=st.sampled_from(["", "\ufeff"]),
)
def test_lines_of_text_come_back_as_strings(lines, end, closed, mark):
    if lines[0].startswith("\ufeff"):
        lines[0] = "x" + lines[0]
    if lines[-1] == "":
        closed = True  # nothing else tells an empty last line from none
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.txt"
        path.write_bytes((mark + end.join(lines) + end * closed).encode())
        assert load_ids(path) == lines


def test_numbers_in_a_text_file_stay_strings(tmp_path):
    (tmp_path / "x.txt").write_text("007\n7\n")
    assert load_ids(tmp_path / "x.txt") == ["007", "7"]


def test_ids_come_from_an_int64_array(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.array([3, 1, -4]))
    np.testing.assert_array_equal(load_ids(path), [3, 1, -4])
    for wrong, came in [(np.zeros(3, np.int32), "int32"), (np.zeros((3, 1), int), r"int64 \(3, 1")]:
        np.save(path, wrong)
        with pytest.raises(InvalidInputError, match=rf"int64 array of shape \(n,\), got {came}"):
            load_ids(path)


def test_id_files_of_another_kind_or_encoding_are_refused(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"a\nb\n\xff\n")
    with pytest.raises(ArtifactError, match=r"must be UTF-8 text, but line 3 is not"):
        load_ids(tmp_path / "x.txt")
    (tmp_path / "x.csv").write_text("a")
    with pytest.raises(ArtifactError, match=r"\.npy, \.txt, \.parquet is read, got \.csv"):
        load_ids(tmp_path / "x.csv")
    with pytest.raises(ArtifactError, match="folder"):
        load_ids(tmp_path)
    with pytest.raises(InvalidInputError, match=r"only \.parquet files have columns"):
        load_ids(tmp_path / "x.txt", column="id")
