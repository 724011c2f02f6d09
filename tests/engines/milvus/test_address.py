"""Addresses: their parts, their forms, and passwords that must not be repeated."""

from pathlib import Path

import pytest

from mecoq_index.engines.milvus.address import Place, locate, locate_database
from mecoq_index.engines.milvus.engine import MilvusEngine
from mecoq_index.errors import InvalidInputError

HOST = "http://host:19530"


@pytest.mark.parametrize(
    "address,named,place",
    [
        (HOST, {}, Place(HOST)),
        (f"{HOST}/", {}, Place(HOST)),
        (f"{HOST}/photos", {}, Place(HOST, collection="photos")),
        (f"{HOST}/shop/photos", {}, Place(HOST, database="shop", collection="photos")),
        (f"{HOST}/shop", {"collection": "photos"}, Place(HOST, "", "shop", "photos")),
        (f"{HOST}/photos", {"database": "shop"}, Place(HOST, "", "shop", "photos")),
        (HOST, {"collection": "a", "database": "b"}, Place(HOST, "", "b", "a")),
        (f"{HOST}/b/a", {"collection": "a", "database": "b"}, Place(HOST, "", "b", "a")),
        ("https://us%40er:p%2Fw@host/a", {}, Place("https://host", "us@er:p/w", "", "a")),
        ("photos.db", {}, Place("photos.db")),
        ("x/photos.db/photos", {}, Place("x/photos.db", collection="photos")),
        ("photos.db/", {"collection": "a"}, Place("photos.db", collection="a")),
        (Path("x", "a.db"), {"collection": "a"}, Place(str(Path("x", "a.db")), "", "", "a")),
    ],
)
def test_an_address_has_parts(address, named, place):
    found = locate(address, **named)
    assert found == place
    assert found.token == place.token


@pytest.mark.parametrize(
    "address,named,saying",
    [
        (f"{HOST}/a", {"collection": "b", "database": "c"}, "names the database 'a', but database"),
        (f"{HOST}/a/b", {"collection": "c"}, "names the collection 'b', but collection is 'c'"),
        ("x.db/a", {"collection": "c"}, "names the collection 'a', but collection is 'c'"),
        ("x.db", {"database": "c"}, "a Milvus in a file has no databases, got 'c'"),
        (f"{HOST}/a/b/c", {}, "may end in /collection or /database/collection and nothing else"),
        (f"{HOST}/a#b", {}, "may end in /collection or /database/collection and nothing else"),
        ("photos", {}, r"uri must be like http://host:19530, .* got 'photos'"),
        ("s3://bucket/photos", {}, "uri must be like http://host:19530"),
    ],
)
def test_an_address_that_contradicts_itself_is_refused(address, named, saying):
    with pytest.raises(InvalidInputError, match=saying):
        locate(address, **named)


def test_an_address_of_a_database_names_no_collection():
    assert locate_database(f"{HOST}/shop") == Place(HOST, database="shop")
    assert locate_database("x.db") == Place("x.db")
    for address in (f"{HOST}/shop/photos", "x.db/photos"):
        with pytest.raises(
            InvalidInputError, match="must not name a collection here, got 'photos'"
        ):
            locate_database(address)


@pytest.mark.parametrize(
    "text,accepted",
    [
        (HOST, True),
        ("HTTPS://host/photos", True),
        ("http://root:pass@host/a/b", True),
        ("tcp://host", True),
        ("photos.db", True),
        ("a/photos.db/photos", True),
        ("photos.mecoq", False),
        ("photos.lance", False),
        ("s3://bucket/photos.db", False),
        ("root:pass@host", False),
        ("photos.db/a/b", False),
        ("", False),
    ],
)
def test_an_address_is_recognized_by_its_form(text, accepted):
    assert MilvusEngine.accepts(text) is accepted


@pytest.mark.parametrize(
    "address",
    [
        "root:SECRET@host",
        "root:SECRET@host:19530/photos",
        "http://root:SEC/RET@host",
        "http://root:SEC#RET@host",
        "http://root:SEC[RET@host",
        "http://host:SECRET",
        "http://host/?token=root:SECRET",
        "http://host/a/b/SECRET",
        "host:19530?token=SECRET",
        "user:SÉCRET",
        "ftp://root:SECRET@host",
        "http://root:SECRET@/photos",
    ],
)
def test_no_error_repeats_a_password(address):
    with pytest.raises(InvalidInputError) as caught:
        locate(address)
    chain, exc = "", caught.value
    while exc is not None:
        chain += str(exc)
        exc = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)
    assert "SEC" not in chain
    assert "RET" not in chain


def test_credentials_are_in_no_text_of_a_place():
    place = locate("http://root:SECRET@host:1/photos")
    assert place.token == "root:SECRET"
    assert "SECRET" not in repr(place) + str(place)
    assert str(place) == "http://host:1/photos"


def test_the_environment_is_the_default(monkeypatch):
    monkeypatch.setenv("MILVUS_URI", f"{HOST}/shop")
    assert locate(None, collection="a") == Place(HOST, "", "shop", "a")
    monkeypatch.delenv("MILVUS_URI")
    with pytest.raises(InvalidInputError, match=r"got none\. Pass it, or set MILVUS_URI"):
        locate(None)
