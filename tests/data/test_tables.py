"""Tables: choosing columns, nulls and ragged rows, ids, labels and plain values."""

import os

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq

from mecoq_index.data import tables
from mecoq_index.data.metadata import load_ids, load_labels
from mecoq_index.data.tables import open_table, read_scalars
from mecoq_index.data.vectors import open_vectors
from mecoq_index.errors import ArtifactError, InvalidInputError, MissingDependencyError


class TestParquet:
    def write(self, path, **columns):
        pq.write_table(pa.table(columns), path, row_group_size=2)
        return path

    def lists(self, values, value_type="float32", size=-1):
        return pa.array(values, pa.list_(getattr(pa, value_type)(), size))

    def test_the_column_must_be_said_where_several_could_be_meant(self, tmp_path):
        a, b = self.lists([[1, 2]]), self.lists([[3, 4, 5]], "uint8")
        path = self.write(tmp_path / "x.parquet", id=[1], a=a, b=b)
        assert open_vectors(path, column="a").read(0, 1).tolist() == [[1, 2]]
        assert open_vectors(path, column="b").dtype == np.uint8
        with pytest.raises(
            InvalidInputError, match=r"say which column .*: one of \['a', 'b'\] could"
        ):
            open_vectors(path)
        with pytest.raises(
            InvalidInputError,
            match=r"one column 'id' of lists of numbers.*are: id \(int64\), a \(list<",
        ):
            open_vectors(path, column="id")

    def test_integers_other_than_uint8_are_taken_only_if_there_is_nothing_likelier(self, tmp_path):
        tags, v = self.lists([[7, 8]], "int64"), self.lists([[1, 2]], "float64")
        path = self.write(tmp_path / "x.parquet", tags=tags, v=v)
        assert open_vectors(path).read(0, 1).tolist() == [[1, 2]]
        assert open_vectors(path, column="tags").read(0, 1).tolist() == [[7, 8]]
        path = self.write(tmp_path / "y.parquet", tags=tags)
        assert open_vectors(path).read(0, 1).tolist() == [[7, 8]]

    def test_a_column_of_other_lists_is_refused(self, tmp_path):
        path = self.write(tmp_path / "x.parquet", v=self.lists([[True, False]], "bool_"))
        with pytest.raises(InvalidInputError, match=r"a column of lists of numbers, .* v \(list<"):
            open_vectors(path)

    def test_two_columns_of_one_name_are_refused(self, tmp_path):
        table = pa.Table.from_arrays([self.lists([[1, 2]]), pa.array([1])], names=["v", "v"])
        pq.write_table(table, tmp_path / "x.parquet")
        for column in ("v", None):
            with pytest.raises(InvalidInputError, match=r"must have one column 'v' of lists"):
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
        monkeypatch.setattr(tables, "_BATCH_BYTES", 16)  # two rows
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
        monkeypatch.setattr(tables, "_BATCH_BYTES", 1 << 16)
        starts = []
        real = tables.Column.batches
        monkeypatch.setattr(
            tables.Column, "batches", lambda *args: starts.append(args[1:]) or real(*args)
        )
        x = np.random.default_rng(1).standard_normal((50_000, 64), dtype=np.float32)
        path = tmp_path / "x.parquet"
        column = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 64)
        pq.write_table(pa.table({"v": column}), path, row_group_size=len(x))
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
        real = tables.Column.batches
        monkeypatch.setattr(
            tables.Column, "batches", lambda *args: starts.append(args[1]) or real(*args)
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
        names = pa.array(["ä", "b", ""], getattr(pa, string_type)())
        path = self.write(tmp_path / "x.parquet", id=[7, 5, 2**62], name=names, w=[0.5] * 3)
        ids = load_ids(path, column="id")
        assert ids.dtype == np.int64
        assert ids.tolist() == [7, 5, 2**62]
        assert load_ids(path, column="name") == ["ä", "b", ""]
        with pytest.raises(InvalidInputError, match=r"one of \['id', 'name'\] could be"):
            load_ids(path)
        with pytest.raises(InvalidInputError, match=r"one column 'w' of integers or strings"):
            load_ids(path, column="w")

    def test_text_that_is_no_utf8_is_refused(self, tmp_path):
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
        path = self.write(tmp_path / "x.parquet", id=pa.array([1, 2, None], pa.int64()))
        with pytest.raises(ArtifactError, match=r"column 'id' .* row 2 holds a null"):
            load_ids(path)
        path = self.write(tmp_path / "x.parquet", id=pa.array([], pa.int64()))
        assert load_ids(path).shape == (0,)
        path = self.write(tmp_path / "x.parquet", id=pa.array([], pa.string()))
        assert load_ids(path) == []


def write_arrow(path, **columns):
    table = pa.table(columns)
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return path


def test_plain_columns_keep_their_kind(tmp_path):
    path = write_arrow(
        tmp_path / "x.arrow",
        price=pa.array([1.5, 2.5, 3.5], pa.float32()),
        year=pa.array([1, 2, 3], pa.int16()),
        sold=pa.array([True, False, True]),
        kind=pa.array(["a", "b", "a"]).dictionary_encode(),
        when=pa.array([1, 2, 3], pa.timestamp("s")),
    )
    table = open_table(path)
    dtypes = {name: read_scalars(table, name).dtype for name in ("price", "year", "sold", "kind")}
    assert dtypes == {"price": float, "year": np.int64, "sold": bool, "kind": object}
    assert read_scalars(table, "kind").tolist() == ["a", "b", "a"]
    assert read_scalars(table, "price").tolist() == [1.5, 2.5, 3.5]
    with pytest.raises(InvalidInputError, match=r"'when' of integers, floats, booleans or strings"):
        read_scalars(table, "when")
    with pytest.raises(InvalidInputError, match=r"must have one column 'size' of"):
        read_scalars(table, "size")


def test_ids_are_integers_of_any_size_below_2_to_63(tmp_path):
    path = write_arrow(
        tmp_path / "x.arrow",
        small=pa.array([3, 1], pa.uint16()),
        large=pa.array([1, 2**63], pa.uint64()),
    )
    ids = load_ids(path, column="small")
    assert ids.dtype == np.int64
    assert ids.tolist() == [3, 1]
    with pytest.raises(
        InvalidInputError, match=r"'large' .* must be below 2\*\*63, got 9223372036"
    ):
        load_ids(path, column="large")


def test_labels_are_classes_or_lists_of_zero_and_one(tmp_path):
    path = write_arrow(
        tmp_path / "x.arrow",
        number=[4, 2],
        name=["dog", "cat"],
        many=pa.array([[0, 1, 1], [1, 0, 0]], pa.list_(pa.int8())),
    )
    assert load_labels(path, column="number").tolist() == [4, 2]
    assert load_labels(path, column="name").tolist() == [1, 0]
    assert load_labels(path, column="many").tolist() == [[0, 1, 1], [1, 0, 0]]
    with pytest.raises(InvalidInputError, match="say which column holds the labels"):
        load_labels(path)


def test_arrow_batches_in_between_are_not_read(tmp_path, monkeypatch):
    path = write_arrow(tmp_path / "x.arrow", v=pa.array([[float(i)] for i in range(9)]))
    rows = open_vectors(path)
    monkeypatch.setattr(rows, "_batch_rows", 1)
    assert [rows.read(row, row + 1).item() for row in (8, 0, 1, 7, 2)] == [8, 0, 1, 7, 2]


def test_an_old_feather_file_is_refused(tmp_path):
    (tmp_path / "x.feather").write_bytes(b"FEA1" + bytes(100))
    with pytest.raises(ArtifactError, match=r"Feather file of version 1\. Write it again"):
        open_vectors(tmp_path / "x.feather")


@pytest.mark.parametrize("suffix", [".arrow", ".parquet"])
def test_files_whose_names_are_not_utf8_are_read(tmp_path, suffix):
    path = tmp_path / os.fsdecode(b"caf\xe9" + suffix.encode())
    try:
        path.touch()
    except OSError:
        pytest.skip("this system takes names in UTF-8 only")
    vectors = pa.array([[1.0, 2.0], [3.0, 4.0]])
    if suffix == ".parquet":
        with path.open("wb") as stream:
            pq.write_table(pa.table({"v": vectors}), stream)
    else:
        write_arrow(tmp_path / "x.arrow", v=vectors).rename(path)
    assert open_vectors(path).read(0, 2).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("suffix", [".arrow", ".feather", ".parquet"])
def test_names_of_columns_that_are_not_utf8_are_refused(tmp_path, suffix):
    table = pa.table({"vwxyz": [[1.0, 2.0]], "other": [1]})
    path = tmp_path / f"x{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, path, store_schema=False)
    else:
        write_arrow(path, **{name: table[name].combine_chunks() for name in table.schema.names})
    path.write_bytes(path.read_bytes().replace(b"vwxyz", b"vwx\x88\xff"))
    with pytest.raises(ArtifactError, match=r"a column's name is not UTF-8\.|no readable"):
        open_vectors(path)


def test_names_of_columns_that_only_a_row_group_has_wrong_are_refused(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"vwxyz": [[1.0, 2.0]]}), path)
    whole = path.read_bytes()
    refused = set()
    for at in [i for i in range(len(whole)) if whole[i : i + 5] == b"vwxyz"]:
        path.write_bytes(whole[:at] + b"vwx\x88\xff" + whole[at + 5 :])
        try:
            open_vectors(path).read(0, 1)
        except ArtifactError as exc:
            refused.add(str(exc))
    assert any("a column's name is not UTF-8." in message for message in refused)


def test_a_damaged_arrow_file_is_refused_or_read(tmp_path):
    path = write_arrow(tmp_path / "x.arrow", v=pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    whole = path.read_bytes()
    rng, refused = np.random.default_rng(0), 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            rows = open_vectors(path)
            assert rows.read(0, rows.n).shape == (rows.n, rows.width)
        except (ArtifactError, InvalidInputError):
            refused += 1
    assert refused > 20
