"""The life of an index by its commands: build in parts, merge, add, remove, tune, export."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

faiss = pytest.importorskip("faiss")

from mecoq_index import Codebooks, scoring
from mecoq_index.cli import main
from mecoq_index.codebooks import Layer
from mecoq_index.index.stored import open_bundle


def run(*args, code=0):
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def refused(*args, saying, code=1):
    message = run(*args, code=code).stderr.strip().splitlines()[-1]
    assert message.startswith("Error: ")
    assert saying in message, message


def make_codebooks(K=16, layers=1):
    rng = np.random.default_rng(0)
    c = rng.standard_normal((4, K, 4))
    c /= np.linalg.norm(c, axis=-1, keepdims=True)
    widths = [(16, 10)] if layers == 1 else [(12, 10), (16, 12)]
    projection = [
        Layer(rng.standard_normal(shape, dtype=np.float32), rng.standard_normal(shape[0]))
        for shape in widths
    ]
    return Codebooks(c.astype(np.float32), projection)


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_codebooks().save("c.pt")
    x = np.random.default_rng(1).standard_normal((300, 10), dtype=np.float32)
    np.save("x.npy", x)
    np.save("more.npy", x[:5] + 1)
    np.save("q.npy", x[:40] + 0.1)
    (tmp_path / "names.txt").write_text("".join(f"item {i}\n" for i in range(300)))
    (tmp_path / "new.txt").write_text("".join(f"new {i}\n" for i in range(5)))
    return tmp_path


def build(out, *options):
    return run("build", "--codebooks", "c.pt", "--input", "x.npy", "--out", out, *options)


def found(index, *options):
    lines = run("search", index, "q.npy", "-k", 3, "--json", *options).stdout.splitlines()
    return [json.loads(line)["hits"] for line in lines]


@pytest.mark.parametrize("factory", ["MeCoQ", "IVF8,MeCoQ", "IVF8,MeCoQ4x4fs", "MeCoQ,IDMap2"])
def test_parts_merged_are_the_whole(work, factory):
    build("whole.mecoq", "--factory", factory, "--ids", "names.txt")
    for i in (1, 2, 3):
        build(f"{i}.mecoq", "--factory", factory, "--ids", "names.txt", "--shards", f"{i}/3")
    run("merge", "3.mecoq", "1.mecoq", "2.mecoq", "--out", "merged.mecoq")
    assert found("merged.mecoq") == found("whole.mecoq")
    names = [p.name for p in (work / "whole.mecoq").iterdir()]
    for name in names:
        merged = (work / "merged.mecoq" / name).read_bytes()
        assert merged == (work / "whole.mecoq" / name).read_bytes(), name
    refused("merge", "1.mecoq", "2.mecoq", "--out", "m.mecoq", saying="must be 1 to 3 of one build")


def test_items_are_added_and_removed_by_name(work):
    build("x.mecoq", "--factory", "IVF8,MeCoQ", "--nprobe", 8, "--ids", "names.txt")
    added = run("add", "x.mecoq", "--input", "more.npy", "--ids", "new.txt", "--json")
    assert json.loads(added.stdout)["items"] == 305
    np.save("q.npy", np.load("more.npy"))
    assert {hits[0]["name"] for hits in found("x.mecoq")} >= {"new 0", "new 4"}
    run("remove", "x.mecoq", "new 0", "new 4", "item 7")
    engine, bundle = open_bundle("x.mecoq")
    assert len(engine) == len(bundle.names) == 302
    assert not {"new 0", "new 4", "item 7"} & set(bundle.names)
    refused("remove", "x.mecoq", "new 0", saying="the first of them 'new 0'")
    refused(
        "add",
        "x.mecoq",
        "--input",
        "more.npy",
        saying="the items of this index have names, so new items need names too",
    )
    refused(
        "add", "x.mecoq", "--input", "more.npy", "--ids", "new.txt",
        saying="names must be new, but 3 are taken already",
    )  # fmt: skip
    assert len(open_bundle("x.mecoq")[0]) == 302


def test_items_are_removed_by_id_where_they_have_no_names(work):
    build("x.mecoq", "--factory", "MeCoQ,IDMap2")
    np.save("gone.npy", np.arange(10, 20))
    run("remove", "x.mecoq", "--ids", "gone.npy")
    run("remove", "x.mecoq", "3", "4")
    assert sorted(open_bundle("x.mecoq")[0].ids()) == [0, 1, 2, *range(5, 10), *range(20, 300)]
    refused(
        "remove",
        "x.mecoq",
        "cat.jpg",
        saying="which are integers of at most 18 digits, got 'cat.jpg'",
    )
    refused("remove", "x.mecoq", saying="name the items to remove", code=2)
    build("flat.mecoq")
    refused("remove", "flat.mecoq", "3", saying="cannot remove items. Build with 'MeCoQ4x4,IDMap2'")


def test_tuning_reaches_a_recall_and_keeps_it(work):
    build("x.mecoq", "--factory", "IVF16,MeCoQ", "--nprobe", 1)
    tuned = json.loads(
        run("tune", "x.mecoq", "--queries", "q.npy", "--recall", 0.9, "--json").stdout
    )
    assert tuned["recall"] >= 0.9
    assert open_bundle("x.mecoq")[0].describe()["nprobe"] == 1
    run("tune", "x.mecoq", "--queries", "q.npy", "--recall", 0.9, "--save")
    assert open_bundle("x.mecoq")[0].describe()["nprobe"] == tuned["nprobe"]
    build("flat.mecoq")
    refused("tune", "flat.mecoq", "--queries", "q.npy", saying="only IVF has lists to tune")
    build("numpy.mecoq", "--engine", "numpy")
    refused(
        "tune",
        "numpy.mecoq",
        "--queries",
        "q.npy",
        saying="an index of numpy has no setting to tune",
    )


def test_an_exported_index_takes_features_without_this_package(work):
    build("x.mecoq", "--factory", "IVF8,MeCoQ", "--nprobe", 8)
    run("export", "x.mecoq", "--to", "faiss", "--out", "x.faiss")
    note = json.loads((work / "x.faiss.json").read_text())
    assert note["metric"].startswith("raw AQS")
    assert note["takes"] == "features, float32 (n, 10)"
    books, q = Codebooks.load("c.pt"), np.load("q.npy")
    scores, ids = faiss.read_index("x.faiss").search(q, 5)
    codes = scoring.encode(books.project(np.load("x.npy")), books)
    true = books.project(q) @ scoring.decode(codes, books).T
    np.testing.assert_allclose(scores, -np.sort(-true, axis=1)[:, :5], atol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(true, ids, axis=1), scores, atol=1e-4)


def test_an_index_is_exported_with_a_projection_that_is_not_linear_and_with_names(work):
    make_codebooks(layers=2).save("c.pt")
    build("x.mecoq", "--ids", "names.txt")
    said = run("export", "x.mecoq", "--to", "faiss", "--out", "x.faiss").stderr
    assert "items 300, trained True, takes embeddings, float32 (n, 16)" in said
    assert "x.faiss.names.json" in said
    assert (work / "x.faiss.projection.npz").exists()
    assert json.loads((work / "x.faiss.names.json").read_text())["299"] == "item 299"
    refused("export", "x.mecoq", "--to", "faiss", "--out", "x.faiss", saying="x.faiss exists alrea")
    run("export", "x.mecoq", "--to", "faiss", "--out", "x.faiss", "--overwrite")


def test_codebooks_are_exported_as_an_empty_index_and_as_files(work):
    books = Codebooks.load("c.pt")
    run("export", "--codebooks", "c.pt", "--to", "npy", "--out", "c.npy")
    np.testing.assert_array_equal(np.load("c.npy"), books.codewords)
    build("x.mecoq", "--engine", "numpy")
    for source, target in ((("--codebooks", "c.pt"), "safetensors"), (("x.mecoq",), "pt")):
        said = run("export", *source, "--to", target, "--out", f"d.{target}").stderr
        assert f"wrote d.{target}: Codebooks(M=4, K=16, Ds=4, P=10, " in said
        assert Codebooks.load(f"d.{target}").fingerprint == books.fingerprint
    run("export", "--codebooks", "c.pt", "--to", "faiss", "--factory", "MeCoQ4x4fs", "--takes",
        "embeddings", "--out", "e.faiss")  # fmt: skip
    assert faiss.read_index("e.faiss").d == 16
    refused("export", "--to", "npy", "--out", "d.npy", saying="one of the two", code=2)
    refused("export", "--codebooks", "c.pt", "--to", "npy", "--out", "c.npy", saying="exists")
    refused(
        "export", "--codebooks", "c.pt", "--to", "npy", "--out", "c.txt",
        saying="--out must end in .npy for --to npy, got c.txt",
    )  # fmt: skip


@pytest.mark.parametrize("engine", ["faiss", "numpy"])
def test_items_of_any_engine_are_exported_as_rows_for_milvus(work, engine):
    parquet = pytest.importorskip("pyarrow.parquet")

    from mecoq_index.engines.milvus.profiles import get_profile

    build("x.mecoq", "--engine", engine, "--ids", "names.txt")
    said = run("export", "x.mecoq", "--to", "milvus", "--out", "rows").stderr
    assert "wrote rows: " in said
    note = json.loads((work / "rows" / "schema.json").read_text())
    books = Codebooks.load("c.pt")
    assert note["profile"] == "exact"
    assert note["properties"]["mecoq.belongs_to"] == books.fingerprint
    table = parquet.read_table(work / "rows" / note["files"][0])
    codes = scoring.encode(books.project(np.load("x.npy")), books)
    np.testing.assert_array_equal(table["vector"].to_pylist(), scoring.decode(codes, books))
    assert table["id"].to_pylist() == list(range(300))
    assert table["name"].to_pylist() == [f"item {i}" for i in range(300)]

    refused("export", "x.mecoq", "--to", "milvus", "--out", "rows", saying="exists already")
    again = ("export", "x.mecoq", "--to", "milvus", "--overwrite", "--out", "rows")
    run(*again, "--profile", "sparse")
    table = parquet.read_table(work / "rows" / "part-00000.parquet")
    stored = [
        {int(k): v for k, v in json.loads(row).items()} for row in table["vector"].to_pylist()
    ]
    assert stored == get_profile("sparse", books).documents(codes)
    refused(*again, "--profile", "x", saying="profile must be one of ['exact'")
    assert sorted(path.name for path in (work / "rows").iterdir()) == [
        "part-00000.parquet",
        "schema.json",
    ]


def test_rows_for_milvus_have_no_names_where_items_have_none(work):
    parquet = pytest.importorskip("pyarrow.parquet")
    build("x.mecoq", "--engine", "numpy")
    run("export", "x.mecoq", "--to", "milvus", "--out", "rows")
    assert parquet.read_schema(work / "rows" / "part-00000.parquet").names == ["id", "vector"]


def test_options_of_one_target_are_no_options_of_another(work):
    export = ("export", "--to", "milvus", "--out", "rows")
    refused(
        *export, "--codebooks", "c.pt", saying="source must be an index whose items are exported"
    )
    build("x.mecoq", "--engine", "numpy")
    refused(*export, "x.mecoq", "--takes", "features", saying="--takes is for faiss", code=2)
    refused(*export, "x.mecoq", "--factory", "MeCoQ", saying="--factory is for", code=2)
    refused(
        "export", "x.mecoq", "--to", "npy", "--out", "c.npy", "--profile", "exact",
        saying="--to npy takes no options of engines", code=2,
    )  # fmt: skip


def test_building_goes_on_after_an_interruption(work, monkeypatch):
    from mecoq_index.index import build as building

    build("whole.mecoq", "--factory", "IVF8,MeCoQ4x4fs")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(building._Job, "_train", stop)
    build_again = ("build", "--codebooks", "c.pt", "--input", "x.npy", "--out", "x.mecoq")
    run(*build_again, "--factory", "IVF8,MeCoQ4x4fs", code=1)
    assert (work / ".x.mecoq.work").is_dir()
    monkeypatch.undo()
    monkeypatch.chdir(work)
    refused(*build_again, "--factory", "MeCoQ", "--resume", saying="left from another run")
    run(*build_again, "--factory", "IVF8,MeCoQ4x4fs", "--resume")
    assert not (work / ".x.mecoq.work").exists()
    for file in (work / "whole.mecoq").iterdir():
        assert file.read_bytes() == (work / "x.mecoq" / file.name).read_bytes()


def test_codes_are_built_from_as_they_are(work):
    codes = np.random.default_rng(3).integers(16, size=(50, 4)).astype(np.uint8)
    np.save("codes.npy", codes)
    run("build", "--codebooks", "c.pt", "--input", "codes.npy", "--out", "x.mecoq")
    np.testing.assert_array_equal(open_bundle("x.mecoq")[0].codes(np.arange(50)), codes)
    np.save("wrong.npy", codes + 9)
    refused(
        "build", "--codebooks", "c.pt", "--input", "wrong.npy", "--out", "y.mecoq",
        saying="codes must be below K=16",
    )  # fmt: skip
    assert not [p for p in work.iterdir() if "y.mecoq" in p.name]


def test_fast_scan_is_ranked_again_exactly(work):
    build("exact.mecoq", "--factory", "MeCoQ")
    build("fast.mecoq", "--factory", "MeCoQ4x4fs")
    exact = [[hit["score"] for hit in hits] for hits in found("exact.mecoq")]
    again = [[hit["score"] for hit in hits] for hits in found("fast.mecoq", "--k-factor", 20)]
    np.testing.assert_allclose(again, exact, atol=2e-6)
    refused("search", "exact.mecoq", "q.npy", "--k-factor", 4, saying="which is exact")
    build("numpy.mecoq", "--engine", "numpy")
    refused(
        "search", "numpy.mecoq", "q.npy", "--k-factor", 4, saying="--k-factor is for faiss", code=2
    )


def test_a_part_that_is_no_part_is_a_usage_error(work):
    for part in ("3", "a/b"):
        refused("build", "--codebooks", "c.pt", "--input", "x.npy", "--out", "y.mecoq",
                "--shards", part, saying="is no part of a whole", code=2)  # fmt: skip
    refused("build", "--codebooks", "c.pt", "--input", "x.npy", "--out", "y.mecoq",
            "--shards", "4/3", saying="must have 1 <= i <= n, got 4/3")  # fmt: skip
