"""Files of milvus-lite: which are opened, on whose word, and that refusals leave nothing."""

import hashlib
import json
import os
import re
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")
faiss = pytest.importorskip("faiss")

from mecoq_index import Codebooks, Index, open_index
from mecoq_index.cli import main
from mecoq_index.engines.milvus import codebook_store
from mecoq_index.engines.milvus.connection import connect
from mecoq_index.engines.milvus.engine import MilvusEngine
from mecoq_index.engines.milvus.hamming import MilvusHamming
from mecoq_index.engines.milvus.lite_graph import is_plain_graph
from mecoq_index.errors import InvalidInputError
from mecoq_index.index.manifest import checksum

RNG = np.random.default_rng(0)
C = RNG.standard_normal((2, 16, 4))
BOOKS = Codebooks((C / np.linalg.norm(C, axis=-1, keepdims=True)).astype(np.float32))
X = RNG.standard_normal((9, 8), dtype=np.float32)
NAME_IT = "name it yourself, with --uri"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A folder with an index and, beside it, the milvus-lite file that it names."""
    folder = tmp_path_factory.mktemp("original")
    for profile in ("exact", "graph"):
        Index.build(
            X, BOOKS, engine="milvus", uri=folder / "photos.db", collection=profile,
            profile=profile, out=folder / f"{profile}.mecoq",
        )  # fmt: skip
    release(folder / "photos.db")
    return folder


@pytest.fixture
def moved(original, tmp_path, monkeypatch):
    """A copy at another place, as somebody received it; also the working folder."""
    monkeypatch.delenv("MILVUS_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(original, tmp_path / "in", symlinks=True)
    (tmp_path / "in" / "photos.db" / "LOCK").touch()
    yield tmp_path / "in"
    release(tmp_path / "in" / "photos.db")


def release(path):
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(str(path))


def rename_file(bundle, uri):
    """Let an index name another file, with a manifest that fits."""
    place = bundle / "milvus.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), "uri": uri}))
    manifest = json.loads((bundle / "manifest.json").read_text())
    content = place.read_bytes()
    manifest["files"]["milvus.json"] = {
        "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    manifest["checksum"] = checksum(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def tree(folder):
    """Every name below a folder, with the bytes of files and the targets of links."""
    return {
        str(path.relative_to(folder)): (
            os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
        )
        for path in folder.rglob("*")
    }


def test_an_index_and_the_file_beside_it_are_moved_together(original, moved):
    assert json.loads((original / "exact.mecoq/milvus.json").read_text())["uri"] == "../photos.db"
    for profile in ("exact", "graph"):
        index = open_index(moved / f"{profile}.mecoq")
        assert len(index) == 9
        assert index.address == f"{moved}/photos.db/{profile}"


def test_a_file_elsewhere_is_opened_if_the_person_names_it(original, moved):
    (moved / "deeper").mkdir()
    shutil.move(moved / "exact.mecoq", moved / "deeper" / "exact.mecoq")
    bundle = moved / "deeper" / "exact.mecoq"
    with pytest.raises(InvalidInputError, match="there is no Milvus at"):
        open_index(bundle)
    assert len(open_index(bundle, uri=moved / "photos.db")) == 9
    (moved / "other").mkdir()
    release(moved / "photos.db")
    shutil.move(moved / "photos.db", moved / "other" / "photos.db")
    np.save("x.npy", X)
    arguments = ["search", str(bundle), "x.npy", "--uri", "in/other/photos.db"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.stderr
    release(moved / "other" / "photos.db")


def test_an_index_whose_file_is_elsewhere_names_it_by_its_path(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    uri = tmp_path / "a" / "x.db"
    index = Index.build(X, BOOKS, engine="milvus", uri=uri, collection="p")
    index.save(tmp_path / "b" / "p.mecoq")
    assert json.loads((tmp_path / "b/p.mecoq/milvus.json").read_text())["uri"] == str(uri)
    with pytest.raises(InvalidInputError, match=f"neither inside nor beside its folder.*{NAME_IT}"):
        open_index(tmp_path / "b" / "p.mecoq")
    assert len(open_index(tmp_path / "b" / "p.mecoq", uri=uri)) == 9


@pytest.mark.parametrize(
    "uri",
    [
        "ABOVE/target.db",
        "../../target.db",
        "../exact.mecoq/../../target.db",
        "../link.db",
        "../folder/target.db",
        "../folder.db",
        "../file.db",
        "../new.db",
        "new.db",
        "../empty.db",
        "../../new.db",
        "ABOVE/new.db",
        "x" * 300 + ".db",
        "a\0.db",
        "..\\..\\target.db",
        "~/target.db",
    ],
)
def test_an_index_leads_to_no_other_file(moved, uri):
    above = moved.parent
    shutil.copytree(moved / "photos.db", above / "target.db")
    (moved / "link.db").symlink_to(above / "target.db")
    (moved / "folder").mkdir()
    shutil.copytree(above / "target.db", moved / "folder" / "target.db")
    (moved / "folder.db").mkdir()
    (moved / "folder.db" / "mine.txt").write_text("mine")
    (moved / "file.db").write_text("mine")
    (moved / "empty.db").mkdir()
    rename_file(moved / "exact.mecoq", uri.replace("ABOVE", str(above)))
    before = tree(above)
    for opens in (
        lambda: open_index(moved / "exact.mecoq"),
        lambda: MilvusEngine.open(moved / "exact.mecoq" / "milvus.json", BOOKS),
    ):
        with pytest.raises(InvalidInputError, match=r"neither inside|no Milvus at|no data of mil"):
            opens()
    assert tree(above) == before


def a_link(db):
    (db / "collections" / "more").symlink_to(db.parent)


def a_linked_file(db):
    file = db / "collections" / "exact" / "schema.json"
    file.rename(db.parent / "schema.json")
    file.symlink_to(db.parent / "schema.json")


def a_pipe(db):
    os.mkfifo(db / "collections" / "exact" / "wal" / "wal_1.arrow")


def a_path_upwards(db):
    edit(db, "manifest.json", '"data/data', '"../../../../data/data')


def an_absolute_path(db):
    edit(db, "manifest.json.prev", '"data/data', '"/data/data')


def an_alias(db):
    (db / "aliases.json").write_text('{"a": "../../x"}')


def a_function(db):
    edit(db, "schema.json", "{", '{"functions": [{"params": {"url": "http://evil.org"}}],')


def damaged_json(db):
    (db / "aliases.json").write_text("{")


def nested_json(db):
    (db / "aliases.json").write_text("[" * 100_000)


def lists_on_disk(db):
    quantizer = faiss.IndexFlatIP(8)
    index = faiss.IndexIVFFlat(quantizer, 8, 1, faiss.METRIC_INNER_PRODUCT)
    index.train(X)
    lists = faiss.OnDiskInvertedLists(1, index.code_size, str(db.parent / "lists"))
    index.replace_invlists(lists)
    index.add(X)
    [file] = db.rglob("*.hnsw.idx")
    faiss.write_index(index, str(file))


def another_index(db):
    [file] = db.rglob("*.hnsw.idx")
    file.rename(file.with_name(file.name.replace("hnsw", "autoindex")))


def edit(db, name, old, new):
    file = db / "collections" / "exact" / name
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    "plant",
    [
        *(a_link, a_linked_file, a_pipe, a_path_upwards, an_absolute_path, an_alias, a_function),
        *(damaged_json, nested_json, lists_on_disk, another_index),
    ],
)
def test_a_file_that_leads_elsewhere_is_not_opened(moved, plant):
    plant(moved / "photos.db")
    before = {name: text for name, text in tree(moved).items() if "wal_1" not in name}
    with pytest.raises(InvalidInputError, match=f"opening it may lead elsewhere.*{NAME_IT}"):
        open_index(moved / "exact.mecoq")
    assert {name: text for name, text in tree(moved).items() if "wal_1" not in name} == before


def graph_file(path, n, kind=faiss.METRIC_INNER_PRODUCT):
    index = faiss.IndexHNSWFlat(8, 4, kind)
    index.hnsw.efConstruction = 20
    index.add(np.random.default_rng(n).standard_normal((n, 8), dtype=np.float32))
    faiss.write_index(index, str(path))
    return path.read_bytes()


@pytest.mark.parametrize("n", [0, 1, 2, 300])
@pytest.mark.parametrize("metric", [faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2])
def test_graphs_of_milvus_lite_are_plain(tmp_path, n, metric):
    graph_file(tmp_path / "x.idx", n, metric)
    assert is_plain_graph(tmp_path / "x.idx")


def test_graphs_that_were_changed_are_not(tmp_path):
    """Neighbors that do not exist, wrong sizes, other kinds; FAISS would crash on some."""
    path = tmp_path / "x.idx"
    whole = graph_file(path, 60)
    vectors_at = len(whole) - 4 * 8 * 60
    for at in range(0, vectors_at, 13):
        for value in (0x7F, 0xFF):
            changed = bytearray(whole)
            changed[at] = value
            path.write_bytes(changed)
            if is_plain_graph(path):  # what FAISS does not rely on
                index = faiss.read_index(str(path))
                index.search(X, 5)
    for length in range(0, len(whole), 11):
        path.write_bytes(whole[:length])
        assert not is_plain_graph(path)
    path.write_bytes(whole + b"0")
    assert not is_plain_graph(path)
    sizes = (37, 37 + 8 + 8 * int.from_bytes(whole[37:45], "little"))
    for at in sizes:
        for size in (2**40, 2**63, 2**64 - 1):
            path.write_bytes(whole[:at] + size.to_bytes(8, "little") + whole[at + 8 :])
            assert not is_plain_graph(path)


REFUSED_BUILDS = {
    "a partition": {"partition": 'a"b'},
    "a long partition": {"partition": "a" * 300},
    "a level": {"consistency_level": "Weak"},
    "a profile": {"profile": "compact"},
    "float16": {"precision": "float16"},
    "an option": {"links": 7},
    "a collection": {"collection": "a'; drop"},
    "a line": {"collection": "a\nb"},
    "a long collection": {"collection": "a" * 10**6},
    "a reserved collection": {"collection": "mecoq_codebooks"},
    "ids": {"ids": [1] * 9},
    "negative ids": {"ids": range(-1, 8)},
    "a long text": {"columns": {"name": ["é" * 40_000] * 9}},
    "another number": {"columns": {"year": [1]}},
    "a column": {"columns": {'a"b': [1] * 9}},
    "a mixture": {"columns": {"year": [1, "a"] * 4 + [1]}},
}


@pytest.mark.parametrize("why", REFUSED_BUILDS)
@pytest.mark.parametrize("there", [None, "empty", "foreign", "file", "link", "dangling"])
def test_a_refused_build_leaves_everything_as_it_was(tmp_path, why, there):
    path = tmp_path / "x.db"
    (tmp_path / "target").mkdir()
    if there in ("empty", "foreign"):
        path.mkdir()
    if there == "foreign":
        (path / "mine.txt").write_text("mine")
    if there == "file":
        path.write_text("mine")
    if there in ("link", "dangling"):
        path.symlink_to(tmp_path / ("target" if there == "link" else "nowhere"))
    before = tree(tmp_path)
    codes = np.zeros((9, 2), np.uint8)
    given = {"collection": "a", **REFUSED_BUILDS[why]}
    with pytest.raises(InvalidInputError) as caught:
        MilvusEngine.build(BOOKS, codes, uri=path, **given)
    assert len(str(caught.value)) < 1000
    assert tree(tmp_path) == before


@pytest.mark.parametrize("there", ["empty", "foreign", "file", "link", "dangling"])
def test_nothing_else_becomes_a_file_of_milvus_lite(tmp_path, there):
    path = tmp_path / "x.db"
    if there in ("empty", "foreign"):
        path.mkdir()
        if there == "foreign":
            (path / "collections").mkdir()
            (path / "mine.txt").write_text("mine")
    elif there == "file":
        path.write_text("mine")
    else:
        (tmp_path / "target").mkdir()
        path.symlink_to(tmp_path / ("target" if there == "link" else "nowhere"))
    before = tree(tmp_path)
    for opens in (
        lambda: connect(path),
        lambda: MilvusEngine.build(BOOKS, np.zeros((9, 2), np.uint8), uri=f"{path}/a"),
        lambda: MilvusEngine.attach(BOOKS, f"{path}/a"),
    ):
        with pytest.raises(InvalidInputError, match="exists and is no data of milvus-lite"):
            opens()
    assert tree(tmp_path) == before


def test_what_milvus_lite_cannot_hold_leaves_no_file(tmp_path):
    bits = np.zeros((9, 2), np.uint8)
    with pytest.raises(InvalidInputError, match="profile 'hamming' needs BIN_FLAT"):
        MilvusHamming.build(bits, collection="a", uri=tmp_path / "x.db")
    with pytest.raises(InvalidInputError, match="profile 'compact' needs IVF_PQ"):
        MilvusEngine.bench_variants(BOOKS, uri=tmp_path / "x.db", profiles="exact,compact")
    assert list(tmp_path.iterdir()) == []


def test_codebooks_that_are_too_large_are_refused_before_there_is_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(codebook_store, "_MOST_ARRAY_BYTES", 100)
    with pytest.raises(InvalidInputError, match="stored in Milvus must take at most 100 bytes"):
        MilvusEngine.build(BOOKS, np.zeros((9, 2), np.uint8), uri=f"{tmp_path}/x.db/a")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_left_half_made_is_made(tmp_path):
    (tmp_path / "x.db" / "collections").mkdir(parents=True)
    assert connect(tmp_path / "x.db").call("list_collections") == []


def test_words_of_a_file_are_escaped_in_messages(moved):
    rename_file(moved / "exact.mecoq", "../\x1b[31m\n.db")
    with pytest.raises(InvalidInputError) as caught:
        open_index(moved / "exact.mecoq")
    assert not re.search("[\x1b\n]", str(caught.value))
