"""Codebooks beside collections: found again by address alone, and never trusted."""

import base64
import pickle
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("pymilvus")

from mecoq_index.codebooks import Backbone, Codebooks, Layer
from mecoq_index.engines.milvus import codebook_store, schema
from mecoq_index.engines.milvus.codebook_store import fetch, store
from mecoq_index.engines.milvus.connection import connect
from mecoq_index.engines.milvus.engine import MilvusEngine
from mecoq_index.errors import InvalidInputError

CODES = np.random.default_rng(0).integers(16, size=(60, 4)).astype(np.uint8)


def make_codebooks(seed=0, P=20, **more):
    rng = np.random.default_rng(seed)
    c = rng.standard_normal((4, 16, 3))
    layer = Layer(rng.standard_normal((12, P), dtype=np.float32), np.zeros(12, np.float32))
    return Codebooks(c / np.linalg.norm(c, axis=-1, keepdims=True), [layer], **more)


BOOKS = make_codebooks(provenance={"seed": 0})


@pytest.fixture
def connection(lite_uri):
    return connect(lite_uri)


def change(connection, row, **values):
    """Change fields of one of the rows that hold `BOOKS`, as its owner may do."""
    key = f"{BOOKS.fingerprint}/{row}"
    [found] = connection.call("query", schema.CODEBOOKS, ids=[key], output_fields=["*"])
    connection.call("upsert", schema.CODEBOOKS, [{**found, **values}])


def assert_equal(found, books):
    assert found.fingerprint == books.fingerprint
    np.testing.assert_array_equal(found.codewords, books.codewords)
    np.testing.assert_array_equal(found.projection[0].weight, books.projection[0].weight)
    assert found.provenance == books.provenance


def check_addresses(uri, token, names):
    """Two collections of two codebooks, each found with its own."""
    other = make_codebooks(seed=1)
    for name, books in zip(names, (BOOKS, other), strict=True):
        MilvusEngine.build(books, CODES, uri=f"{uri}/{name}", token=token)
        engine = MilvusEngine.attach(None, f"{uri}/{name}", token=token)
        assert_equal(engine.codebooks, books)
        z = np.random.default_rng(2).standard_normal((3, 12))
        np.testing.assert_allclose(
            engine.search(z, 5).scores,
            MilvusEngine.attach(books, f"{uri}/{name}", token=token).search(z, 5).scores,
        )
        assert engine.verify(expected_rows=60).ok
    with pytest.raises(InvalidInputError, match="was made with other codebooks"):
        MilvusEngine.attach(other, f"{uri}/{names[0]}", token=token)


def test_an_address_is_enough(lite_uri):
    check_addresses(lite_uri, None, ["a", "b"])
    with pytest.raises(
        InvalidInputError, match=r"one of the collections .* \['a', 'b'\], for inst"
    ):
        MilvusEngine.attach(None, lite_uri)
    connect(lite_uri).call("drop_collection", "a")
    assert MilvusEngine.attach(None, lite_uri).collection.name == "b"
    connect(lite_uri).call("drop_collection", "b")
    with pytest.raises(InvalidInputError, match="there is no collection of this package at"):
        MilvusEngine.attach(None, lite_uri)
    assert_equal(fetch(connect(lite_uri), BOOKS.fingerprint), BOOKS)  # others may need them


def test_an_address_of_a_server_is_enough(milvus_server, collection_name):
    names = [collection_name, collection_name + "_b"]
    try:
        check_addresses(milvus_server.uri, milvus_server.token, names)
    finally:
        client = connect(milvus_server.uri, token=milvus_server.token)
        for name in names:
            client.call("drop_collection", name)


def test_codebooks_of_any_size_are_split_and_put_together(connection, monkeypatch):
    monkeypatch.setattr(codebook_store, "_PAGE", 2)
    books = make_codebooks(P=3000)
    store(connection, books)
    [count] = connection.call("query", schema.CODEBOOKS, filter="", output_fields=["count(*)"])
    assert count["count(*)"] >= 4
    assert_equal(fetch(connection, books.fingerprint), books)
    monkeypatch.setattr(codebook_store, "_MOST_ARRAY_BYTES", 1000)
    with pytest.raises(InvalidInputError, match="must take at most 1000 bytes, got 1"):
        store(connection, make_codebooks(seed=1, P=3000))


def test_only_codebooks_that_know_more_replace_others(connection):
    store(connection, BOOKS)
    store(connection, replace(BOOKS, provenance={"seed": 7}))
    assert fetch(connection, BOOKS.fingerprint).provenance == {"seed": 0}
    backbone = Backbone("torchvision:vgg16", "0" * 64, {"size": 224})
    store(connection, replace(BOOKS, backbone=backbone))
    store(connection, BOOKS)
    assert fetch(connection, BOOKS.fingerprint).backbone.name == "torchvision:vgg16"


def test_programs_that_store_codebooks_at_once_do_not_fail(connection):
    codebook_store._create(connection)
    codebook_store._create(connection)  # as one that had not seen the other's
    store(connection, BOOKS)
    assert_equal(fetch(connection, BOOKS.fingerprint), BOOKS)


@pytest.mark.parametrize("limit,kept", [(400, True), (399, False)])
def test_only_small_weights_of_a_backbone_are_stored(connection, monkeypatch, limit, kept):
    monkeypatch.setattr(codebook_store, "_MOST_WEIGHT_BYTES", limit)
    weights = {"conv": np.ones(100, np.float32)}
    store(connection, replace(BOOKS, backbone=Backbone("timm:x", "0" * 64, {}, weights)))
    found = fetch(connection, BOOKS.fingerprint).backbone
    assert (found.name, found.weights_sha256) == ("timm:x", "0" * 64)
    assert (found.state is not None) is kept


def test_codebooks_that_are_not_there_are_needed(lite_uri, connection):
    with pytest.raises(InvalidInputError, match=f"codebooks {BOOKS.fingerprint[:12]} are not in"):
        fetch(connection, BOOKS.fingerprint)
    store(connection, make_codebooks(seed=1))
    with pytest.raises(InvalidInputError, match="are not in collection 'mecoq_codebooks' at"):
        fetch(connection, BOOKS.fingerprint)
    MilvusEngine.build(BOOKS, CODES, uri=f"{lite_uri}/a")
    connection.call("drop_collection", schema.CODEBOOKS)
    with pytest.raises(InvalidInputError, match="Pass the codebooks that the collection was made"):
        MilvusEngine.attach(None, lite_uri)
    report = MilvusEngine.attach(BOOKS, lite_uri).verify()
    assert not report.ok
    assert "are not in collection 'mecoq_codebooks'" in str(report)
    plain = MilvusEngine.attach(BOOKS, lite_uri).collection.renamed("plain")
    plain.create()
    with pytest.raises(InvalidInputError, match=r"'plain' are not stored beside it\. Pass the"):
        MilvusEngine.attach(None, f"{lite_uri}/plain")


class Exploit:
    def __reduce__(self):
        return (print, ("code of the file has run",))


@pytest.mark.parametrize(
    "values,saying",
    [
        ({"row_count": 0}, "they take 0 rows"),
        ({"row_count": 2**40}, f"they take {2**40} rows"),
        ({"row_count": 2}, "rows are missing or too long"),
        ({"content": "?" * 8}, "its rows are no codebook file"),
        ({"content": "QUJD"}, "its rows are no codebook file"),
        (
            {"content": base64.b64encode(pickle.dumps(Exploit())).decode()},
            "its rows are no codeboo",
        ),
    ],
)
def test_rows_that_somebody_changed_are_refused(lite_uri, connection, capsys, values, saying):
    store(connection, BOOKS)
    change(connection, 0, **values)
    with pytest.raises(InvalidInputError, match=f"are damaged: .*{saying}"):
        fetch(connection, BOOKS.fingerprint)
    assert capsys.readouterr().out == ""
    store(connection, BOOKS)
    assert_equal(fetch(connection, BOOKS.fingerprint), BOOKS)


def test_other_codebooks_under_the_fingerprint_are_refused(connection):
    other = make_codebooks(seed=1)
    store(connection, BOOKS)
    text = base64.b64encode(codebook_store._to_bytes(other)).decode()
    change(connection, 0, content=text)
    with pytest.raises(InvalidInputError, match=f"their own is {other.fingerprint[:12]}"):
        fetch(connection, BOOKS.fingerprint)


def test_answers_of_a_server_are_limited_before_they_are_decoded(connection, monkeypatch):
    store(connection, BOOKS)
    monkeypatch.setattr(codebook_store, "_CHUNK", 100)
    with pytest.raises(InvalidInputError, match="rows are missing or too long"):
        fetch(connection, BOOKS.fingerprint)
    for fingerprint in ('x" or id != "', "", "A" * 64, "0" * 65):
        with pytest.raises(InvalidInputError, match="must be 64 hexadecimal digits, got"):
            fetch(connection, fingerprint)
