"""What is refused before anything is made: text, files, collections of others."""

import numpy as np
import pytest

pytest.importorskip("pymilvus")

from mecoq_index.codebooks import Codebooks
from mecoq_index.engines.milvus import schema
from mecoq_index.engines.milvus.connection import connect
from mecoq_index.engines.milvus.engine import MilvusEngine
from mecoq_index.engines.milvus.schema import CODEBOOKS
from mecoq_index.errors import InvalidInputError


@pytest.fixture
def books():
    c = np.random.default_rng(0).standard_normal((2, 16, 4))
    return Codebooks((c / np.linalg.norm(c, axis=-1, keepdims=True)).astype(np.float32))


CODES = np.zeros((3, 2), np.uint8)


@pytest.mark.parametrize(
    "text,saying",
    [
        (
            "bad\udcff",
            r"must hold text that UTF-8 can encode, as Milvus stores it, got 'bad\\udcff'",
        ),
        ("é" * 32768, r"at most 65535 bytes a value, Milvus's limit, got one of 65536"),
    ],
)
def test_text_that_milvus_does_not_take_leaves_no_collection(books, lite_uri, text, saying):
    columns = {"name": ["a", text, "c"]}
    with pytest.raises(InvalidInputError, match=saying):
        MilvusEngine.build(books, CODES, collection="a", uri=lite_uri, columns=columns)
    assert connect(lite_uri).call("list_collections") == []
    columns = {"name": ["a", text[:-1][:32767], "c"]}
    MilvusEngine.build(books, CODES, collection="a", uri=lite_uri, columns=columns)


def test_a_file_that_is_not_there_is_not_made_by_looking_for_it(books, lite_uri, tmp_path):
    with pytest.raises(InvalidInputError, match=r"there is no Milvus at .*lite\.db\. Check"):
        MilvusEngine.attach(books, f"{lite_uri}/a")
    MilvusEngine.builder(books, 3, collection="a", uri=lite_uri)
    with pytest.raises(InvalidInputError, match="profile 'compact' needs IVF_PQ"):
        MilvusEngine.builder(books, 3, collection="a", uri=lite_uri, profile="compact")
    with pytest.raises(InvalidInputError, match=r"no does not exist\. Create it first"):
        MilvusEngine.builder(books, 3, collection="a", uri=tmp_path / "no" / "x.db")
    assert list(tmp_path.iterdir()) == []


def test_a_collection_has_a_name(books, lite_uri, tmp_path):
    for build, items in ((MilvusEngine.builder, 3), (MilvusEngine.build, CODES)):
        with pytest.raises(InvalidInputError, match="must be the name of the collection to make"):
            build(books, items, uri=lite_uri)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_collection_is_refused_before_there_are_codes(books, lite_uri):
    MilvusEngine.build(books, CODES, collection="a", uri=lite_uri)
    check = {"collection": "a", "uri": lite_uri}
    with pytest.raises(InvalidInputError, match="'a' exists already at"):
        MilvusEngine.builder(books, 3, **check)
    with pytest.raises(InvalidInputError, match="is of profile 'exact', not 'graph'"):
        MilvusEngine.builder(books, 3, **check, profile="graph", resume=True)
    MilvusEngine.builder(books, 3, **check, resume=True)
    MilvusEngine.builder(books, 3, **check, overwrite=True)


@pytest.mark.parametrize("name", ["a", "a_unfinished"])
def test_collections_of_others_are_not_replaced(books, lite_uri, name):
    connection = connect(lite_uri)
    if name != "a":
        MilvusEngine.build(books, CODES, collection="a", uri=lite_uri)
    connection.client.create_collection(name, dimension=3)
    with pytest.raises(InvalidInputError, match=f"'{name}' was not made by this package"):
        MilvusEngine.build(books, CODES, collection="a", uri=lite_uri, overwrite=True)
    assert {"a", name} <= set(connection.call("list_collections")) <= {"a", name, CODEBOOKS}


def test_a_collection_knows_the_options_of_its_profile(books, lite_uri):
    given = {"links": 8, "ef_construction": 64}
    MilvusEngine.build(books, CODES, uri=f"{lite_uri}/a", profile="graph", **given)
    found = MilvusEngine.attach(books, f"{lite_uri}/a").collection.profile
    assert found.options == given
    assert found.bytes_per_vector == 4 * books.D + 8 * 8
    damaged = {"collection_name": "a", "properties": {"mecoq.profile_options": "{"}}
    with pytest.raises(InvalidInputError, match=r"properties of collection 'a' are damaged"):
        schema.profile_options(damaged)
