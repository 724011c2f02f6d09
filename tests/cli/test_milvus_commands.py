"""Milvus by commands: built, searched, measured, and one sentence for every mistake."""

import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("faiss")
pymilvus = pytest.importorskip("pymilvus")

from mecoq_index import Codebooks, scoring
from mecoq_index.bench import runner
from mecoq_index.cli import main
from mecoq_index.codebooks import Layer
from mecoq_index.engines.milvus import batches, builder
from mecoq_index.engines.milvus.bench import PREFIX
from mecoq_index.engines.milvus.collection import MilvusCollection
from mecoq_index.engines.milvus.connection import connect
from mecoq_index.engines.milvus.engine import MilvusEngine
from mecoq_index.engines.milvus.schema import CODEBOOKS
from mecoq_index.engines.milvus.verification import Verification
from mecoq_index.errors import ServerError

N, NQ = 1500, 12  # Milvus builds no index for fewer than 1,024 rows


def run(*args, code=0):
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def refused(*args, saying, code=1):
    """One sentence on standard error, nothing on standard output."""
    result = run(*args, code=code)
    lines = result.stderr.strip().splitlines()
    assert lines[-1].startswith("Error: ")
    assert saying in lines[-1], lines[-1]
    assert code == 2 or len(lines) == 1, lines
    assert result.stdout == ""


def make_codebooks(Ds=4, seed=0):
    rng = np.random.default_rng(seed)
    c = rng.standard_normal((4, 16, Ds))
    c /= np.linalg.norm(c, axis=-1, keepdims=True)
    layer = Layer(rng.standard_normal((4 * Ds, 20), dtype=np.float32), rng.standard_normal(4 * Ds))
    return Codebooks(c.astype(np.float32), [layer])


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MILVUS_TOKEN", raising=False)
    monkeypatch.delenv("MILVUS_URI", raising=False)
    make_codebooks().save("c.pt")
    make_codebooks(seed=1).save("other.pt")
    make_codebooks(Ds=5).save("wide.pt")
    rng = np.random.default_rng(1)
    label = np.arange(N) % 7
    spread = 0.5 * rng.standard_normal((N, 20))
    x = (rng.standard_normal((7, 20))[label] + spread).astype(np.float32)
    np.save("x.npy", x)
    np.save("q.npy", x[:NQ] + np.float32(0.1))
    (tmp_path / "names.txt").write_text("".join(f"item {i}\n" for i in range(N)))
    held = np.arange(N) % 20 == 0
    np.savez(
        "pack.npz",
        database=x[~held],
        queries=x[held],
        database_labels=label[~held],
        query_labels=label[held],
    )
    return tmp_path


BUILD = ("build", "--codebooks", "c.pt", "--input", "x.npy", "--engine", "milvus")


def in_lite(lite_uri, *options):
    return (*BUILD, "--uri", lite_uri, "--collection", "photos", *options)


def collections(uri, token=None):
    return sorted(set(connect(uri, token=token).call("list_collections")) - {CODEBOOKS})


def check_hits(lines, named=True, missed=0, atol=1e-4):
    """JSON hits are the best by exact AQS, but for some, and called what they are called."""
    books = Codebooks.load("c.pt")
    z, q = (books.project(np.load(name)) for name in ("x.npy", "q.npy"))
    scores = scoring.aqs(q, scoring.encode(z, books), books)
    found = [json.loads(line) for line in lines.splitlines()]
    assert [entry["query"] for entry in found] == [str(i) for i in range(NQ)]
    far = 0
    for entry, row in zip(found, scores, strict=True):
        hits = entry["hits"]
        best = -np.sort(-row)[: len(hits)]
        far += (best - [hit["score"] for hit in hits] > atol).sum()
        np.testing.assert_allclose(
            [row[hit["id"]] for hit in hits], [hit["score"] for hit in hits], atol=atol
        )
        for hit in hits:
            assert hit.keys() == ({"id", "name", "score"} if named else {"id", "score"})
            assert hit.get("name", f"item {hit['id']}") == f"item {hit['id']}"
    assert far <= missed


# Built and searched.


@pytest.mark.parametrize("profile", ["exact", "graph", "sparse"])
def test_a_collection_in_a_file_is_built_and_searched(work, lite_uri, profile):
    built = run(*in_lite(lite_uri, "--profile", profile, "--ids", "names.txt", "--out", "p.mecoq"))
    assert f"wrote p.mecoq: {N:,} items of " in built.stderr
    assert f"milvus {profile}" in built.stderr
    assert built.stdout == ""
    of_bundle = run("search", "p.mecoq", "q.npy", "-k", 5, "--json").stdout
    check_hits(of_bundle, missed=NQ if profile == "graph" else 0)
    where = ("--collection", "photos", "--codebooks", "c.pt")
    assert run("search", lite_uri, "q.npy", "-k", 5, "--json", *where).stdout == of_bundle
    assert run("search", lite_uri, "q.npy", "-k", 5, *where).stdout.splitlines()[:2] == [
        "query 0",
        "    1  {score:9.4f}  {name}".format(**json.loads(of_bundle.splitlines()[0])["hits"][0]),
    ]


def test_results_are_filtered_by_name_and_id(work, lite_uri):
    run(*in_lite(lite_uri, "--ids", "names.txt", "--out", "p.mecoq"))
    search = ("search", "p.mecoq", "q.npy", "--json", "-k", 4, "--filter")
    for line in run(*search, 'name like "item 12%"').stdout.splitlines():
        hits = json.loads(line)["hits"]
        assert len(hits) == 4
        assert all(hit["name"].startswith("item 12") for hit in hits)
    for line in run(*search, "id in [3, 5]").stdout.splitlines():
        assert sorted(hit["id"] for hit in json.loads(line)["hits"]) == [3, 5]


def test_without_out_nothing_but_the_collection_is_written(work, lite_uri):
    before = {path.name for path in work.iterdir()}
    built = run(*in_lite(lite_uri, "--json"))
    assert f"wrote {lite_uri}/photos: {N:,} items" in built.stderr
    assert f"mecoq-index search {lite_uri}/photos QUERY" in built.stderr
    assert {path.name for path in work.iterdir()} == before | {"lite.db"}
    facts = json.loads(built.stdout)
    assert facts["items"] == N
    assert facts["profile"] == "exact"
    found = run("search", lite_uri, "q.npy", "-k", 3, "--json", "--collection", "photos",
                "--codebooks", "c.pt").stdout  # fmt: skip
    check_hits(found, named=False)


def test_ids_that_are_numbers_are_the_ids(work, lite_uri):
    np.save("ids.npy", np.arange(N) * 10 + 7)
    run(*in_lite(lite_uri, "--ids", "ids.npy", "--out", "p.mecoq"))
    lines = run("search", "p.mecoq", "q.npy", "-k", 3, "--json").stdout.splitlines()
    hits = [hit for line in lines for hit in json.loads(line)["hits"]]
    assert {hit["id"] % 10 for hit in hits} == {7}
    assert {tuple(hit) for hit in hits} == {("id", "score")}


def test_codes_are_loaded_as_they_are(work, lite_uri):
    codes = np.random.default_rng(3).integers(16, size=(50, 4)).astype(np.uint8)
    np.save("codes.npy", codes)
    run(*BUILD[:3], "--input", "codes.npy", *BUILD[5:], "--uri", lite_uri, "--collection", "a")
    engine = MilvusEngine.attach(None, f"{lite_uri}/a")
    np.testing.assert_array_equal(engine.codes(np.arange(50)), codes)


def test_images_are_called_by_their_paths(work, lite_uri, monkeypatch):
    pytest.importorskip("torchvision")
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for i in range(8):
        (work / "photos" / f"class{i % 2}").mkdir(parents=True, exist_ok=True)
        pixels = 180 * (i % 2) + rng.integers(60, size=(20, 20, 3))
        path = work / "photos" / f"class{i % 2}" / f"{i}.png"
        image.fromarray(pixels.astype(np.uint8)).save(path)
    (work / "photos" / "class0" / "bad.png").write_bytes(b"broken")
    run("train", "photos", "--out", "i.pt", "--epochs", 1, "--set", "num_codebooks=2",
        "--set", "num_codewords=16", "--set", "dim=8", "--set", "batch_size=4",
        "--backbone", "mecoq:small")  # fmt: skip
    build = ("build", "--codebooks", "i.pt", "--input", "photos", "--engine", "milvus",
             "--uri", lite_uri, "--collection", "photos", "--out", "i.mecoq")  # fmt: skip
    refused(*build, "--ids", "names.txt", saying="names must be one an item, 9 in all")

    def fail(*_):
        raise ServerError("the server is gone.")

    monkeypatch.setattr(MilvusCollection, "_insert_once", fail)
    assert "the server is gone." in run(*build, code=1).stderr
    assert (work / ".i.mecoq.work").is_dir()  # what was embedded, for the next attempt
    monkeypatch.undo()
    monkeypatch.chdir(work)
    assert "bad.png" in run(*build, "--resume").stderr
    assert not (work / ".i.mecoq.work").exists()
    out = run("search", "i.mecoq", "photos/class1/1.png", "-k", 7, "--json").stdout
    hits = json.loads(out)["hits"]
    found = {hit["name"]: hit["score"] for hit in hits}
    assert found["class1/1.png"] == pytest.approx(hits[0]["score"], abs=1e-5)
    assert not any("bad" in name for name in found)


def test_an_interrupted_build_goes_on(work, lite_uri, monkeypatch):
    sent = []
    whole = MilvusCollection._insert_once

    def stop_after_two(self, rows, partition):
        if len(sent) == 2:
            raise KeyboardInterrupt
        sent.append(len(rows))
        whole(self, rows, partition)

    monkeypatch.setattr(batches, "_ROWS", 400)
    monkeypatch.setattr(MilvusCollection, "_insert_once", stop_after_two)
    build = in_lite(lite_uri, "--ids", "names.txt", "--out", "p.mecoq")
    run(*build, code=1)
    assert not (work / "p.mecoq").exists()
    monkeypatch.setattr(MilvusCollection, "_insert_once", whole)
    refused(*build, saying="a load of collection 'photos' was left unfinished at")
    refused(*build, "--resume", "--profile", "graph", saying="is of profile 'exact', not 'graph'")
    run(*build, "--resume")
    check_hits(run("search", "p.mecoq", "q.npy", "-k", 5, "--json").stdout)


def test_a_collection_is_replaced_when_that_is_asked_for(work, lite_uri):
    run(*in_lite(lite_uri, "--profile", "graph", "--out", "p.mecoq"))
    refused(*in_lite(lite_uri, "--out", "q.mecoq"), saying="exists already at")
    refused(*in_lite(lite_uri, "--out", "p.mecoq", "--resume"), saying="p.mecoq exists already")
    run(*in_lite(lite_uri, "--ids", "names.txt", "--out", "p.mecoq", "--overwrite"))
    assert collections(lite_uri) == ["photos"]
    check_hits(run("search", "p.mecoq", "q.npy", "-k", 5, "--json").stdout)


def test_problems_that_verifying_finds_are_an_error(work, lite_uri, monkeypatch):
    bad = Verification("photos", 3, 3, 0.5, 1.0, ("it holds 3 rows, not 1500.",))
    monkeypatch.setattr(builder, "verify", lambda *_, **__: bad)
    refused(
        *in_lite(lite_uri, "--out", "p.mecoq"),
        saying="collection 'photos': it holds 3 rows, not 1500. Start again with --overwrite.",
    )
    assert not (work / "p.mecoq").exists()


# Refused.


def test_what_cannot_be_built_is_refused_and_leaves_nothing(work, lite_uri):
    (work / "twice.txt").write_text("same\n" * N)
    (work / "few.txt").write_text("one\n")
    before = sorted(path.name for path in work.iterdir())
    for options, saying in [
        (("--profile", "compact"), "needs IVF_PQ, which milvus-lite does not have"),
        (("--profile", "nice"), "profile must be one of ['exact', 'graph', 'compact', 'sparse'"),
        (("--precision", "float16"), "float16 needs a Milvus server of 2.4 or later"),
        (("--nbits", "6"), "unknown exact option 'nbits'"),
        (("--ids", "few.txt"), f"names must be one an item, {N} in all, got 1"),
        (("--ids", "twice.txt"), "names must be distinct, but 'same'"),
        (("--out", "no/p.mecoq"), "the folder no does not exist"),
        (("--out", "x.npy"), "x.npy exists already"),
    ]:
        refused(*in_lite(lite_uri, *options), saying=saying)
    refused(*BUILD, "--uri", work / "no" / "x.db", "--collection", "a", saying="no does not exist")
    assert sorted(path.name for path in work.iterdir()) == before


def test_options_of_one_engine_are_no_options_of_another(work, lite_uri):
    for option in (("--factory", "MeCoQ"), ("--nprobe", 3)):
        saying = f"{option[0]} is for faiss, but this index is of milvus"
        refused(*in_lite(lite_uri, *option), saying=saying, code=2)
    build = BUILD[:5]
    for name, value in [("uri", "x.db"), ("token", "t"), ("collection", "c"), ("profile", "exact"),
                        ("precision", "float16"), ("nbits", 5)]:  # fmt: skip
        refused(*build, "--out", "x.mecoq", f"--{name}", value,
                saying=f"--{name} is for milvus", code=2)  # fmt: skip
    run(*build, "--out", "x.mecoq")
    search = ("search", "x.mecoq", "q.npy")
    for option in (("--filter", "id > 3"), ("--ef", 3), ("--collection", "c"), ("--token", "t")):
        refused(*search, *option, saying=f"{option[0]} is for milvus", code=2)
    refused("bench", "pack.npz", "--codebooks", "c.pt", "--profiles", "exact",
            saying="--profiles is for milvus", code=2)  # fmt: skip
    assert collections(lite_uri) == []


def test_what_cannot_be_searched_is_refused(work, lite_uri):
    run(*in_lite(lite_uri, "--out", "p.mecoq"))
    address = f"{lite_uri}/photos"
    refused("search", address, "q.npy", "--codebooks", "other.pt", saying="other codebooks")
    refused("search", address, "q.npy", "--codebooks", "wide.pt", saying="of width 20 is needed")
    refused("search", f"{lite_uri}/cats", "q.npy", saying="no collection 'cats'")
    for index in ("p.mecoq", address):
        search = ("search", index, "q.npy")
        refused(*search, "--filter", "nmae == 3", saying="unknown field 'nmae'")
        refused(*search, "--ef", 9, saying="takes the search options [], got ['ef']")
        refused(*search, "--nprobe", 9, saying="--nprobe is for faiss", code=2)
    refused("search", "p.mecoq", "q.npy", "--codebooks", "other.pt", saying="other codebooks")
    refused("search", "typo.db/photos", "q.npy", saying="there is no Milvus at")
    assert not (work / "typo.db").exists()


def test_a_bundle_whose_collection_is_gone_says_so(work, lite_uri):
    run(*in_lite(lite_uri, "--out", "p.mecoq"))
    connect(lite_uri).call("drop_collection", "photos")
    refused("search", "p.mecoq", "q.npy", saying="there is no collection 'photos' at")
    refused("inspect", "p.mecoq", saying="there is no collection 'photos' at")


def test_a_server_that_is_not_there_is_one_sentence(work):
    away = ("--uri", "http://127.0.0.1:1")
    saying = "the Milvus server at http://127.0.0.1:1 is out of reach"
    refused(*BUILD, *away, "--collection", "photos", saying=saying)
    refused("bench", "--codebooks", "c.pt", "--data", "pack.npz", "--engine", "milvus", *away,
            saying=saying)  # fmt: skip
    refused("search", away[1], "q.npy", "--collection", "a", "--codebooks", "c.pt", saying=saying)


@pytest.mark.slow
def test_pymilvus_is_not_heard(work, lite_uri):
    """In a process of its own: what it logs goes past click's runner."""
    run(*in_lite(lite_uri, "--out", "p.mecoq"))
    for arguments in (
        (*BUILD, "--uri", "http://127.0.0.1:1", "--collection", "photos"),
        ("search", "p.mecoq", "q.npy", "--filter", "nmae == 3"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "mecoq_index", *arguments], capture_output=True, text=True
        )
        assert done.returncode == 1
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert done.stderr.startswith("Error: ")


def test_a_bundle_that_points_to_a_collection_is_not_changed(work, lite_uri):
    run(*in_lite(lite_uri, "--ids", "names.txt", "--out", "p.mecoq"))
    refused("merge", "p.mecoq", "p.mecoq", "--out", "m.mecoq", saying="keeps elsewhere")
    refused("tune", "p.mecoq", "q.npy", saying="an index of milvus has no setting to tune")
    assert collections(lite_uri) == ["photos"]
    check_hits(run("search", "p.mecoq", "q.npy", "-k", 5, "--json").stdout)


def test_inspect_tells_where_the_items_are(work, lite_uri):
    run(*in_lite(lite_uri, "--ids", "names.txt", "--out", "p.mecoq"))
    facts = json.loads(run("inspect", "p.mecoq", "--json").stdout)
    wanted = {"engine": "milvus", "uri": lite_uri, "collection": "photos", "profile": "exact"}
    assert wanted.items() <= facts.items()
    assert "collection: photos" in run("inspect", "p.mecoq").stdout


def test_rows_of_a_collection_are_exported_with_their_names(work, lite_uri):
    parquet = pytest.importorskip("pyarrow.parquet")
    run(*in_lite(lite_uri, "--ids", "names.txt", "--out", "p.mecoq"))
    run("export", "p.mecoq", "--to", "milvus", "--out", "rows")
    table = parquet.read_table(work / "rows" / "part-00000.parquet")
    assert table["id"].to_pylist() == list(range(N))
    assert table["name"].to_pylist() == [f"item {i}" for i in range(N)]
    refused("export", "p.mecoq", "--to", "faiss", "--out", "x.faiss", saying="is of milvus")


# Measured.

BENCH = ("bench", "--codebooks", "c.pt", "--data", "pack.npz", "--engine", "milvus")
QUICK = ("--repeats", 1, "--map-at", 100, "--max-queries", 20)


@pytest.mark.slow
def test_profiles_in_a_file_are_measured_without_hamming(work, lite_uri, caplog):
    run(*in_lite(lite_uri))
    done = run(*BENCH, "--uri", lite_uri, "--profiles", "exact,sparse", *QUICK, "--json")
    assert "Hamming codes are not measured: milvus-lite has no binary vectors." in caplog.text
    records = json.loads(done.stdout)["records"]
    assert [record["method"] for record in records] == [
        "MeCoQ (milvus, exact)",
        "MeCoQ (milvus, sparse)",
        "exact cosine",
    ]
    assert [record["recall_aqs"].get("10") for record in records] == [1, 1, None]
    assert records[0]["mean_average_precision"] > 0.5
    assert [record["bytes_per_vector"] for record in records] == [72, 72, 80]
    assert collections(lite_uri) == ["photos"]
    refused(*BENCH, "--uri", lite_uri, "--profiles", "exact,compact", saying="needs IVF_PQ")
    refused(*BENCH, "--uri", lite_uri, "--profiles", "hamming", saying="must be one of ['exact'")


@pytest.mark.parametrize("where", ["measuring", "loading"])
def test_collections_of_a_bench_are_dropped_when_it_fails(work, lite_uri, monkeypatch, where):
    seen = []

    def fail(*_, **__):
        seen.extend(collections(lite_uri))
        raise ServerError("the server is gone.")

    if where == "measuring":
        monkeypatch.setattr(runner._Bench, "_measure", fail)
    else:
        monkeypatch.setattr(MilvusCollection, "_insert_once", fail)
    assert "the server is gone." in run(*BENCH, "--uri", lite_uri, *QUICK, code=1).stderr
    assert [name.startswith(PREFIX) for name in seen] == [True]
    assert collections(lite_uri) == []


# On a server.


# With 5 bits, Milvus's k-means may miss one of the 16 codewords.
@pytest.mark.parametrize("profile", ["exact", "compact"])
def test_a_server_is_filled_searched_and_not_told_of(
    work, milvus_server, collection_name, profile, monkeypatch
):
    uri, token = milvus_server.uri, milvus_server.token
    build = (*BUILD, "--uri", uri, "--collection", collection_name, "--token", token)
    nbits = ("--nbits", 8) if profile == "compact" else ()
    options = ("--profile", profile, *nbits, "--ids", "names.txt", "--out", "p.mecoq")
    built = run(*build, *options)
    try:
        assert f"wrote p.mecoq: {N:,} items of " in built.stderr
        search = ("search", "p.mecoq", "q.npy", "-k", 5, "--json")
        atol = 1e-4 if profile == "exact" else 8e-3  # k-means moves codewords a little
        check_hits(run(*search, "--token", token).stdout, atol=atol)
        monkeypatch.setenv("MILVUS_TOKEN", token)
        refused(*search, saying="were not sent, because only p.mecoq/milvus.json names this server")
        check_hits(run(*search, "--uri", uri).stdout, atol=atol)
        monkeypatch.setenv("MILVUS_URI", uri)
        check_hits(run(*search).stdout, atol=atol)
        direct = ("search", uri, "q.npy", "-k", 5, "--json", "--collection", collection_name)
        check_hits(run(*direct, "--codebooks", "c.pt").stdout, atol=atol)
        refused(*direct, "--codebooks", "other.pt", saying="was made with other codebooks")
        refused(*direct, "--codebooks", "wide.pt", saying="of width 20 is needed")
        refused(*search, "--token", "root:wrong", saying="refuses these credentials")
        if profile == "exact":
            refused(*search, "--filter", "nmae == 3", saying="field nmae not exist")
        before = collections(uri, token)
        refused(*build, *options[:-1], "q.mecoq", saying="exists already")
        refused(*build[:-1], "root:wrong", saying="refuses these credentials")
        assert collections(uri, token) == before
    finally:
        connect(uri, token=token).call("drop_collection", collection_name)
    written = b"".join(path.read_bytes() for path in work.rglob("*") if path.is_file())
    assert token.encode() not in written
    assert token not in built.output


def test_profiles_and_hamming_are_measured_on_one_server(work, milvus_server):
    uri, token = milvus_server.uri, milvus_server.token
    before = collections(uri, token)
    done = run(*BENCH, "--uri", uri, "--token", token, "--profiles", "exact,compact",
               "--baseline", "ITQ", *QUICK, "--json")  # fmt: skip
    assert collections(uri, token) == before
    assert token not in done.output
    exact, compact, hamming, itq, cosine = json.loads(done.stdout)["records"]
    assert [exact["method"], compact["method"]] == [
        "MeCoQ (milvus, exact)",
        "MeCoQ (milvus, compact)",
    ]
    assert [hamming["method"], itq["method"]] == ["ITQ (milvus, hamming)", "ITQ"]
    assert cosine["method"] == "exact cosine"
    assert exact["recall_aqs"]["10"] == 1
    assert compact["recall_aqs"]["10"] > 0.9
    assert [record["bytes_per_vector"] for record in (exact, compact, hamming)] == [72, 11, 10]
    # The same bits; only ties may come in another order.
    assert hamming["mean_average_precision"] == pytest.approx(
        itq["mean_average_precision"], abs=0.05
    )


def test_a_collection_of_others_is_not_replaced(work, lite_uri):
    client = connect(lite_uri).client
    client.create_collection("photos", dimension=3)
    refused(*in_lite(lite_uri, "--overwrite"), saying="was not made by this package")
    refused(*in_lite(lite_uri, "--resume"), saying="was not made by this package")
    assert collections(lite_uri) == ["photos"]
