"""Files for Milvus's bulk import: read back, compared with pymilvus's own, and imported."""

import json
import os
import shutil
import time
import warnings
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pytest

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

from mecoq_index import scoring
from mecoq_index.codebooks import Codebooks
from mecoq_index.engines.base import Batch
from mecoq_index.engines.milvus import batches, bulk, schema
from mecoq_index.engines.milvus.bulk import write_parquet, write_rows, write_with_bulk_writer
from mecoq_index.engines.milvus.engine import MilvusEngine
from mecoq_index.engines.milvus.profiles import Hamming, get_profile
from mecoq_index.engines.numpy import NumpyEngine
from mecoq_index.errors import InvalidInputError, MissingDependencyError

needs_pymilvus = pytest.mark.skipif(not find_spec("pymilvus"), reason="pymilvus is not installed")
# pymilvus itself looks for all of them before it lets its bulk writer be imported.
needs_bulk_writer = pytest.mark.skipif(
    not all(map(find_spec, ("pymilvus", "minio", "azure", "requests", "ml_dtypes"))),
    reason="pymilvus[bulk_writer] is not installed",
)


def make_codebooks(M=4, K=16, Ds=3):
    c = np.random.default_rng(0).standard_normal((M, K, Ds))
    return Codebooks((c / np.linalg.norm(c, axis=-1, keepdims=True)).astype(np.float32))


BOOKS = make_codebooks()
N = 250
CODES = np.random.default_rng(1).integers(16, size=(N, 4)).astype(np.uint8)
IDS = np.random.default_rng(2).permutation(10 * N)[:N].astype(np.int64)
COLUMNS = {
    "name": [f"фото {i}.jpg" for i in range(N)],
    "price": np.arange(N) / 8,
    "year": np.arange(N, dtype=np.int32),
    "new": np.arange(N) % 3 == 0,
}
PROFILES = {
    "exact": get_profile("exact", BOOKS),
    "float16": get_profile("exact", BOOKS, precision="float16"),
    "compact": get_profile("compact", BOOKS),
    "sparse": get_profile("sparse", BOOKS),
    "hamming": Hamming(32),
}


CUTS = [(None, 1), (N, 1), (5, N // 5)]


def read(folder, note):
    return pyarrow.concat_tables([parquet.read_table(folder / name) for name in note["files"]])


def vectors(profile, column):
    """A column's values as `Profile.codes` takes them."""
    values = column.to_pylist()
    if profile.field_type == "SPARSE_FLOAT_VECTOR":
        return [{int(key): value for key, value in json.loads(row).items()} for row in values]
    if profile.field_type == "FLOAT_VECTOR":
        return np.array(values, np.float32)
    return [bytes(row) for row in values]


@pytest.mark.parametrize(
    "name,rows_per_file,files",
    [*((name, 100, 3) for name in PROFILES), *(("exact", n, f) for n, f in CUTS)],
)
def test_rows_come_back(name, rows_per_file, files, tmp_path, monkeypatch):
    monkeypatch.setattr(bulk, "_GROUP_ROWS", (1, 64))
    profile, out = PROFILES[name], tmp_path / "rows"
    note = write_parquet(out, profile, CODES, IDS, COLUMNS, rows_per_file=rows_per_file)
    assert len(note["files"]) == files
    assert json.loads((out / "schema.json").read_text()) == note
    assert sorted(file.name for file in out.iterdir()) == [*note["files"], "schema.json"]
    table = read(out, note)
    assert table.column_names == ["id", "vector", *COLUMNS]
    np.testing.assert_array_equal(table["id"], IDS)
    values = vectors(profile, table["vector"])
    np.testing.assert_array_equal(profile.codes(values), CODES)
    assert profile.are_codes(values).all()
    for column, want in COLUMNS.items():
        assert table[column].to_pylist() == list(want)
    groups = parquet.ParquetFile(out / note["files"][0]).metadata
    assert max(groups.row_group(i).num_rows for i in range(groups.num_row_groups)) <= 64


# What internal/util/importutilv2/parquet/util.go of Milvus expects for each type of field.
EXPECTED = {
    "FLOAT_VECTOR": pyarrow.list_(pyarrow.float32()),
    "FLOAT16_VECTOR": pyarrow.list_(pyarrow.uint8()),
    "BINARY_VECTOR": pyarrow.list_(pyarrow.uint8()),
    "SPARSE_FLOAT_VECTOR": pyarrow.string(),
}


@pytest.mark.parametrize("name", PROFILES)
def test_columns_have_the_types_that_milvus_reads(name, tmp_path):
    profile = PROFILES[name]
    note = write_parquet(tmp_path / "rows", profile, CODES, IDS, COLUMNS)
    types = dict(zip(*((s := read(tmp_path / "rows", note).schema).names, s.types), strict=True))
    assert types == {
        "id": pyarrow.int64(),
        "vector": EXPECTED[profile.field_type],
        "name": pyarrow.string(),
        "price": pyarrow.float64(),
        "year": pyarrow.int64(),
        "new": pyarrow.bool_(),
    }
    width = {} if profile.width is None else {"dim": profile.width}
    assert note["fields"][:3] == [
        {"name": "id", "type": "INT64", "is_primary": True},
        {"name": "vector", "type": profile.field_type, **width},
        {"name": "name", "type": "VARCHAR", "max_length": 65535},
    ]


@needs_bulk_writer
@pytest.mark.parametrize("name", PROFILES)
def test_files_are_those_of_the_bulk_writer_of_pymilvus(name, tmp_path):
    profile = PROFILES[name]
    ours = write_parquet(tmp_path / "a", profile, CODES, IDS, COLUMNS, rows_per_file=100)
    theirs = write_with_bulk_writer(tmp_path / "b", profile, CODES, IDS, COLUMNS, rows_per_file=100)
    assert ours == theirs
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == [*theirs["files"], "schema.json"]
    for file in ours["files"]:
        a, b = (parquet.read_table(tmp_path / folder / file) for folder in "ab")
        assert a.schema.remove_metadata().equals(b.schema.remove_metadata())
        assert a.equals(b)
        # Levels of nesting and the names on them, too.
        a, b = (parquet.ParquetFile(tmp_path / folder / file).schema for folder in "ab")
        assert a.equals(b)


@needs_pymilvus
@pytest.mark.parametrize("name", PROFILES)
def test_the_note_describes_the_schema_that_collections_are_made_with(name, tmp_path):
    profile = PROFILES[name]
    note = write_parquet(tmp_path / "rows", profile, CODES, IDS, COLUMNS)
    checked = schema.check_columns(COLUMNS, N)
    fields = schema.build_schema(profile, checked).to_dict()["fields"]
    assert [field["name"] for field in fields] == [field["name"] for field in note["fields"]]
    for field, noted in zip(fields, note["fields"], strict=True):
        assert field["type"].name == noted["type"]
        limits = {k: v for k, v in noted.items() if k in ("dim", "max_length")}
        assert field.get("params", {}) == limits
        assert field.get("is_primary", False) == noted.get("is_primary", False)
    assert note["index"]["metric_type"] == profile.metric_type
    assert note["properties"] == schema.properties(profile)


def test_repeated_codewords_are_stored_once(tmp_path):
    rng = np.random.default_rng(3)
    books = make_codebooks(8, 256, 16)
    codes = rng.integers(256, size=(20_000, 8)).astype(np.uint8)
    note = write_parquet(tmp_path / "rows", get_profile("exact", books), codes, np.arange(20_000))
    size = sum((tmp_path / "rows" / name).stat().st_size for name in note["files"])
    assert size < 100 * 20_000  # uncompressed vectors take 512 bytes each


def test_no_rows_are_no_files(tmp_path):
    profile = PROFILES["exact"]
    for write, out in ((write_parquet, "a"), (write_with_bulk_writer, "b")):
        if write is write_with_bulk_writer and not find_spec("minio"):
            continue
        note = write(tmp_path / out, profile, CODES[:0], IDS[:0])
        assert (note["items"], note["files"]) == (0, [])
        assert [file.name for file in (tmp_path / out).iterdir()] == ["schema.json"]


def test_batches_are_put_together_and_counted(tmp_path):
    cuts = [0, 10, 10, 130, N]
    batches = [
        Batch(CODES[a:b], IDS[a:b], None, {"price": COLUMNS["price"][a:b]})
        for a, b in pairwise(cuts)
    ]
    reported = []
    note = write_rows(
        tmp_path / "rows", PROFILES["exact"], batches, rows_per_file=100, on_written=reported.append
    )
    assert [parquet.read_metadata(tmp_path / "rows" / f).num_rows for f in note["files"]] == [
        100,
        100,
        50,
    ]
    assert reported == [10, 130, N]
    whole = write_parquet(
        tmp_path / "whole", PROFILES["exact"], CODES, IDS, {"price": COLUMNS["price"]}
    )
    assert read(tmp_path / "rows", note).equals(read(tmp_path / "whole", whole))


def refused(message, *args, write=write_parquet, **kwargs):
    with pytest.raises(InvalidInputError, match=message):
        write(*args, **kwargs)


def test_bad_rows_are_refused_and_leave_nothing(tmp_path):
    out, profile = tmp_path / "rows", PROFILES["exact"]
    refused("must be below K=16", out, profile, CODES + 16, IDS)
    refused("ids must be distinct", out, profile, CODES, np.zeros(N, np.int64))
    refused("'a' must have one value an item", out, profile, CODES, IDS, {"a": [1]})
    refused("other than 'id' and 'vector'", out, profile, CODES, IDS, {"vector": COLUMNS["price"]})
    names = [*COLUMNS["name"][:-1], "broken \udc80"]
    refused(
        "'name' must hold text that UTF-8 can encode", out, profile, CODES, IDS, {"name": names}
    )
    names[-1] = "ö" * 32768
    refused("at most 65535 bytes .* got one of 65536", out, profile, CODES, IDS, {"name": names})
    refused("rows_per_file must be at least 1, got 0", out, profile, CODES, IDS, rows_per_file=0)
    columns = {"a": ["x", "y"]}
    batches = [
        Batch(CODES[:9], IDS[:9], None, {"a": [1] * 9}),
        Batch(CODES[9:11], IDS[9:11], None, columns),
    ]
    refused("must have the columns of the first, .'a'.", out, profile, batches, write=write_rows)
    columns.clear()
    refused(
        r"the first, \['a'\], and values of the same types, got \[\]",
        out,
        profile,
        batches,
        write=write_rows,
    )
    refused("the folder .* does not exist", tmp_path / "no" / "rows", profile, CODES, IDS)
    assert list(tmp_path.iterdir()) == []


def test_only_an_older_export_is_overwritten_and_only_by_a_whole_one(tmp_path):
    out, profile = tmp_path / "rows", PROFILES["exact"]
    write_parquet(out, profile, CODES, IDS, rows_per_file=100)
    refused("exists already", out, profile, CODES, IDS)
    refused("must be below K=16", out, profile, CODES + 16, IDS, overwrite=True)
    assert len(list(out.iterdir())) == 4
    note = write_parquet(out, PROFILES["sparse"], CODES[:9], IDS[:9], overwrite=True)
    assert read(out, note).num_rows == 9
    assert sorted(file.name for file in out.iterdir()) == ["part-00000.parquet", "schema.json"]
    (out / "mine.txt").write_text("keep")
    refused(
        "must hold only the files of an earlier export", out, profile, CODES, IDS, overwrite=True
    )
    assert (out / "mine.txt").read_text() == "keep"
    other = tmp_path / "other"
    other.mkdir()
    for text in (None, "{", "[]", "{}", '{"format": "x", "files": []}'):
        if text is not None:
            (other / "schema.json").write_text(text)
        refused(
            "must hold only the files of an earlier", other, profile, CODES, IDS, overwrite=True
        )
    assert sorted(file.name for file in tmp_path.iterdir()) == ["other", "rows"]


def test_what_a_stopped_writing_left_is_removed(tmp_path, monkeypatch):
    out, profile = tmp_path / "rows", PROFILES["exact"]
    write_parquet(out, profile, CODES, IDS)
    shutil.copytree(out, tmp_path / ".rows.new")

    def stop():
        yield Batch(CODES, IDS)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rows(out, profile, stop(), overwrite=True)
    assert parquet.read_table(out / "part-00000.parquet").num_rows == N
    assert [file.name for file in tmp_path.iterdir()] == ["rows"]


def test_links_and_folders_of_others_are_not_replaced(tmp_path):
    """Not even those that an export of somebody else names as its own."""
    out, profile = tmp_path / "rows", PROFILES["exact"]
    write_parquet(out, profile, CODES, IDS)
    for link, target in (("link", out), ("dangling", tmp_path / "nowhere")):
        (tmp_path / link).symlink_to(target)
        for overwrite in (False, True):
            refused(
                "must not be a link",
                *(tmp_path / link, profile, CODES, IDS),
                overwrite=overwrite,
            )
    note = json.loads((out / "schema.json").read_text())
    (out / "schema.json").write_text(json.dumps({**note, "files": ["mine.txt", "mine"]}))
    mine = tmp_path / "mine"
    mine.write_text("keep")
    plants = {
        "mine.txt": lambda path: path.write_text("keep"),
        "mine": lambda path: path.mkdir(),
        "part-00001.parquet": lambda path: path.symlink_to(mine),
        "part-00002.parquet": lambda path: path.mkdir(),
    }
    for name, plant in plants.items():
        plant(out / name)
        refused("must hold only the files of an earlier", out, profile, CODES, IDS, overwrite=True)
        assert (out / name).exists()
        (out / name).rmdir() if (out / name).is_dir() else (out / name).unlink()
    beside = tmp_path / ".rows.new"
    beside.mkdir()
    (beside / "mine.txt").write_text("keep")
    refused("must hold only the files of an earlier", out, profile, CODES, IDS, overwrite=True)
    assert (beside / "mine.txt").read_text() == mine.read_text() == "keep"
    shutil.rmtree(beside)
    write_parquet(out, profile, CODES[:9], IDS[:9], overwrite=True)
    assert parquet.read_table(out / "part-00000.parquet").num_rows == 9


def test_an_older_export_that_lists_other_files_does_not_make_them_its_own(tmp_path):
    out, profile = tmp_path / "rows", PROFILES["exact"]
    write_parquet(out, profile, CODES, IDS)
    (out / "diary.txt").write_text("dear")
    note = json.loads((out / "schema.json").read_text())
    (out / "schema.json").write_text(json.dumps(note | {"files": [*note["files"], "diary.txt"]}))
    refused("must hold only the files of an earlier", out, profile, CODES, IDS, overwrite=True)
    assert (out / "diary.txt").read_text() == "dear"


def test_an_export_may_have_a_name_that_is_not_utf8(tmp_path):
    out = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        out.mkdir()
    except OSError:
        pytest.skip("this system takes names in UTF-8 only")
    out.rmdir()
    write_parquet(out, PROFILES["exact"], CODES, IDS)
    with (out / "part-00000.parquet").open("rb") as stream:
        assert parquet.read_table(stream).num_rows == N


@pytest.mark.parametrize("name", ["rows", ".rows.new", ".rows.old"])
def test_an_export_follows_no_link(tmp_path, name):
    out, profile = tmp_path / "rows", PROFILES["exact"]
    write_parquet(tmp_path / "victim", profile, CODES, IDS)
    before = sorted(file.name for file in (tmp_path / "victim").iterdir())
    if name != "rows":
        write_parquet(out, profile, CODES[:9], IDS[:9])
    (tmp_path / name).symlink_to(tmp_path / "victim")
    if name == "rows":
        refused("must not be a link", out, profile, CODES, IDS, overwrite=True)
    else:
        write_parquet(out, profile, CODES, IDS, overwrite=True)
        assert sorted(file.name for file in tmp_path.iterdir()) == ["rows", "victim"]
    assert sorted(file.name for file in (tmp_path / "victim").iterdir()) == before


def test_an_export_that_was_killed_between_its_last_steps_loses_nothing(tmp_path):
    out, profile = tmp_path / "rows", PROFILES["exact"]
    write_parquet(out, profile, CODES[:9], IDS[:9])
    out.rename(tmp_path / ".rows.old")
    refused("exists already", out, profile, CODES, IDS)  # the older one is back
    assert parquet.read_table(out / "part-00000.parquet").num_rows == 9
    out.rename(tmp_path / ".rows.old")
    write_parquet(out, profile, CODES, IDS, overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["rows"]
    assert parquet.read_table(out / "part-00000.parquet").num_rows == N


def test_missing_packages_are_named(tmp_path, monkeypatch):
    import builtins

    real = builtins.__import__

    def without(*missing):
        def find(name, *args, **kwargs):
            # What pymilvus raises has no name.
            if name == "pymilvus" and "bulk_writer" in (args[2] or ()) and "minio" in missing:
                raise ModuleNotFoundError("Missing packages: ['minio']. Please install them")
            return real(name, *args, **kwargs)

        return find

    if find_spec("pymilvus"):
        monkeypatch.setattr(builtins, "__import__", without("minio"))
        with pytest.raises(
            MissingDependencyError, match=r"pip install 'pymilvus\[bulk_writer\]' .Missing packages"
        ):
            write_with_bulk_writer(tmp_path / "rows", PROFILES["exact"], CODES, IDS)
        monkeypatch.undo()
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"writing .parquet files needs 'pyarrow'"):
        write_parquet(tmp_path / "rows", PROFILES["exact"], CODES, IDS)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_in_the_thread_of_the_bulk_writer_is_noticed(tmp_path, monkeypatch):
    pytest.importorskip("minio")
    bulk_writer = pytest.importorskip("pymilvus.bulk_writer")

    monkeypatch.setattr(bulk_writer.LocalBulkWriter, "_flush", lambda self, _: (
        self._working_thread.clear()))  # fmt: skip
    refused(
        "did not write those from 0 on", tmp_path / "rows", PROFILES["exact"], CODES, IDS,
        write=write_with_bulk_writer,
    )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_the_bulk_writer_refuses_rows_in_one_sentence(tmp_path, monkeypatch):
    pytest.importorskip("minio")
    pytest.importorskip("pymilvus.bulk_writer")
    monkeypatch.setattr(schema, "LONGEST_TEXT", 4)
    for module in (schema, batches):  # what we refuse ourselves
        monkeypatch.setattr(module, "check_columns", lambda columns, n: columns)
    refused(
        "pymilvus refuses a row: Illegal varchar value for field 'name'",
        tmp_path / "rows", PROFILES["exact"], CODES, IDS,
        {"name": np.array(COLUMNS["name"], object)}, write=write_with_bulk_writer,
    )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_an_engine_is_exported_with_its_names_in_the_order_of_ids(tmp_path, monkeypatch):
    monkeypatch.setattr(bulk, "_GROUP_ROWS", (1, 100))
    engine = NumpyEngine.build(BOOKS, CODES, IDS)
    order = np.argsort(IDS)
    names = {"name": [COLUMNS["name"][i] for i in order], "year": COLUMNS["year"][order]}
    reported = []
    note = export(
        tmp_path / "rows",
        engine,
        names,
        profile="sparse",
        on_progress=lambda *a: reported.append(a),
    )
    table = read(tmp_path / "rows", note)
    np.testing.assert_array_equal(table["id"], IDS[order])
    assert table["name"].to_pylist() == [COLUMNS["name"][i] for i in order]
    codes = PROFILES["sparse"].codes(vectors(PROFILES["sparse"], table["vector"]))
    np.testing.assert_array_equal(codes, CODES[order])
    assert table["year"].to_pylist() == COLUMNS["year"][order].tolist()
    assert reported == [("writing", 100, N), ("writing", 200, N), ("writing", N, N)]
    note = export(tmp_path / "bare", engine, {}, precision="float16")
    assert read(tmp_path / "bare", note).column_names == ["id", "vector"]
    assert note["fields"][1]["type"] == "FLOAT16_VECTOR"
    for source, columns, options, saying in [
        (engine, {}, {"profile": "hamming"}, "profile must be one of"),
        (engine, {}, {"presicion": "float16"}, "did you mean 'precision'"),
        (engine, {"name": ["a"]}, {}, f"'name' must have one value per item, {N} in all, got 1"),
        (None, {}, {}, "source must be an index whose items are exported, got none"),
    ]:
        refused(saying, tmp_path / "x", source, columns, write=export, **options)


def test_items_in_milvus_keep_their_columns(tmp_path, lite_uri):
    engine = MilvusEngine.build(BOOKS, CODES, IDS, uri=f"{lite_uri}/a", columns=COLUMNS)
    table, order = read(tmp_path / "rows", export(tmp_path / "rows", engine, {})), np.argsort(IDS)
    for name, values in COLUMNS.items():
        assert table[name].to_pylist() == [values[i] for i in order]


def export(out, source, columns, **options):
    return MilvusEngine.export(out, BOOKS, source, columns, **options)


def import_file(client, name, path):
    """Import one file, and wait until its rows are there."""
    from pymilvus import connections, utility

    with warnings.catch_warnings():
        # pymilvus 3 would have its users go by REST, which Milvus 2.3 has no import in.
        warnings.simplefilter("ignore")
        alias = "test_bulk"
        connections.connect(alias, uri=client[0], token=client[1])
        try:
            task = utility.do_bulk_insert(name, [str(path)], using=alias)
            deadline = time.monotonic() + 120
            while True:
                state = utility.get_bulk_insert_state(task, using=alias)
                assert state.state_name != "Failed", state.failed_reason
                if state.state_name == "Completed":
                    return state.row_count
                assert time.monotonic() < deadline, state
                time.sleep(0.2)
        finally:
            connections.disconnect(alias)


@needs_pymilvus
@pytest.mark.parametrize("name", ["exact", "hamming"])
def test_a_server_imports_the_files_and_ranks_by_aqs(name, milvus_server, tmp_path, monkeypatch):
    """By nothing but what the note says."""
    from pymilvus import DataType, MilvusClient

    monkeypatch.setattr(bulk, "_GROUP_ROWS", (1, 64))
    profile, out, collection = PROFILES[name], tmp_path / "rows", f"bulk_{name}"
    note = write_parquet(out, profile, CODES, IDS, COLUMNS, rows_per_file=150)
    client = MilvusClient(uri=milvus_server.uri, token=milvus_server.token)
    if client.has_collection(collection):
        client.drop_collection(collection)
    fields = client.create_schema(auto_id=False, enable_dynamic_field=False)
    for field in note["fields"]:
        limits = {key: value for key, value in field.items() if key not in ("name", "type")}
        fields.add_field(field["name"], DataType[field["type"]], **limits)
    index = client.prepare_index_params()
    index.add_index(**note["index"])
    try:
        client.create_collection(collection, schema=fields, properties=note["properties"])
        server = milvus_server.uri, milvus_server.token
        assert [import_file(server, collection, out / f) for f in note["files"]] == [150, 100]
        schema.check(client.describe_collection(collection), profile)
        client.create_index(collection, index)
        client.load_collection(collection)
        rows = client.query(
            collection, filter="id >= 0", output_fields=["*"], limit=N, consistency_level="Strong"
        )
        rows = sorted(rows, key=lambda row: list(IDS).index(row["id"]))
        assert [row["id"] for row in rows] == IDS.tolist()
        np.testing.assert_array_equal(profile.codes([row["vector"] for row in rows]), CODES)
        for column, want in COLUMNS.items():
            assert [row[column] for row in rows] == list(want)
        if name == "exact":
            q = np.random.default_rng(4).standard_normal((5, 12), dtype=np.float32)
            hits = client.search(collection, profile.queries(q).values, limit=20)
            scores = scoring.aqs(q, CODES, BOOKS)
            row_of = {int(i): row for row, i in enumerate(IDS)}
            for query, found in enumerate(hits):
                np.testing.assert_allclose(
                    [hit["distance"] for hit in found], -np.sort(-scores[query])[:20], atol=1e-5
                )
                mine = [scores[query, row_of[hit["id"]]] for hit in found]
                np.testing.assert_allclose(mine, [hit["distance"] for hit in found], atol=1e-5)
    finally:
        client.drop_collection(collection)
        client.close()
