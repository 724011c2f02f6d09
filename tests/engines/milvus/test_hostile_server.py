"""A server that answers what no Milvus does: one sentence, whatever it is."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")

from mecoq_index import Codebooks
from mecoq_index.engines.milvus import opening
from mecoq_index.engines.milvus.connection import Connection, connect
from mecoq_index.engines.milvus.engine import MilvusEngine
from mecoq_index.errors import MecoqError

C = np.random.default_rng(0).standard_normal((2, 16, 4))
BOOKS = Codebooks((C / np.linalg.norm(C, axis=-1, keepdims=True)).astype(np.float32))
JUNK = [
    None,
    0,
    -1,
    2**70,
    float("nan"),
    "x",
    "x" * 10**6,
    [],
    [None],
    {},
    {"id": 1},
    [{}],
    b"",
]


class Client:
    """A client of a milvus-lite, one of whose methods answers something else."""

    def __init__(self, client, method, answer):
        self._client, self._method, self._answer = client, method, answer

    def __getattr__(self, name):
        return (
            (lambda *_, **__: self._answer) if name == self._method else getattr(self._client, name)
        )


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    uri = tmp_path_factory.mktemp("lite") / "x.db"
    codes = np.random.default_rng(0).integers(16, size=(9, 2)).astype(np.uint8)
    MilvusEngine.build(BOOKS, codes, uri=f"{uri}/a", columns={"name": list("abcdefghi")})
    return connect(uri).client


def use(monkeypatch, client):
    monkeypatch.setattr(
        opening, "connect", lambda *_, **__: Connection(client, "http://host:1", patience=0.0)
    )
    engine = MilvusEngine.attach(BOOKS, "http://host:1")
    engine.search(np.ones((2, 8)), 3, output_fields="name")
    len(engine), engine.describe(), list(engine.items())
    engine.verify()


@pytest.mark.parametrize("method", ["describe_index", "query", "search", "get_server_version"])
@pytest.mark.parametrize("answer", JUNK, ids=lambda answer: repr(answer)[:12])
def test_an_odd_answer_is_one_sentence(monkeypatch, client, method, answer):
    with pytest.raises(MecoqError) as caught:
        use(monkeypatch, Client(client, method, answer))
    assert len(str(caught.value)) < 2000
    assert "\n" not in str(caught.value)


class Pages:
    """What pymilvus's iterator returns, with one page of these rows."""

    def __init__(self, page):
        self._pages = [page]

    def next(self):
        return self._pages.pop() if self._pages else []

    def close(self):
        pass


@pytest.mark.parametrize("page", [[{}], [{"id": "a"}], [{"id": 2**70}], [{"id": None}]])
def test_an_odd_page_of_ids_is_one_sentence(monkeypatch, client, page):
    with pytest.raises(MecoqError, match="must return"):
        use(monkeypatch, Client(client, "query_iterator", Pages(page)))


@pytest.mark.parametrize("vector", [None, "x", [], [1.0], [1.0] * 9, ["x"] * 8])
def test_an_odd_vector_is_one_sentence(monkeypatch, client, vector):
    rows = [{"id": i, "name": "x", "vector": vector, "count(*)": 9} for i in range(9)]
    with pytest.raises(MecoqError, match="must return vectors of the width of the collection"):
        use(monkeypatch, Client(client, "query", rows))


def description(client, **changed):
    return {**client.describe_collection("a"), **changed}


@pytest.mark.parametrize(
    "changed",
    [
        {"properties": {}},
        {"properties": None},
        {"properties": {"mecoq.profile": 1}},
        {"properties": {"mecoq.profile": "x" * 10**6}},
        {"properties": {"mecoq.profile": "exact", "mecoq.profile_options": "[" * 10**5}},
        {"properties": {"mecoq.profile": "exact", "mecoq.profile_options": '{"a": 1}'}},
        {"properties": {"mecoq.profile": "graph", "mecoq.profile_options": '{"links": 1e999}'}},
        {"properties": {"mecoq.profile": "exact", "mecoq.codebooks": "../x"}},
        {"collection_name": None},
        {"fields": None},
        {"fields": [None]},
        {"fields": [{"name": "id"}]},
        {"fields": [{"name": "id", "type": "x", "params": {}}]},
        {
            "fields": [
                {"name": name, "type": SimpleNamespace(name="FLOAT_VECTOR"), "params": params}
                for name, params in (("id", {}), ("vector", {"dim": "wide"}))
            ]
        },
        {
            "fields": [
                {"name": name, "type": SimpleNamespace(name="FLOAT_VECTOR"), "params": {}}
                for name in ("id", "vector")
            ]
        },
    ],
    ids=str,
)
def test_an_odd_description_is_one_sentence(monkeypatch, client, changed):
    with pytest.raises(MecoqError) as caught:
        use(monkeypatch, Client(client, "describe_collection", description(client, **changed)))
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    "ids,scores",
    [
        ([1, 2, 3, 4], [1.0] * 4),  # more than were asked for
        (["a"], [1.0]),
        ([2**70], [1.0]),
        ([1], ["x"]),
        ([1, 2], [1.0]),
        (None, None),
    ],
)
def test_odd_results_are_one_sentence(monkeypatch, client, ids, scores):
    class Result(list):
        pass

    result = Result()
    result.ids, result.distances = ids, scores
    with pytest.raises(MecoqError, match=r"must return at most \d+ ids and scores for"):
        use(monkeypatch, Client(client, "search", [result, result]))
