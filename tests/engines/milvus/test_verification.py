"""`verify` says what is wrong: each mistake is made on purpose, by the raw client."""

import numpy as np
import pytest

pymilvus = pytest.importorskip("pymilvus")

from mecoq_index import scoring
from mecoq_index.codebooks import Codebooks
from mecoq_index.engines.milvus.connection import connect
from mecoq_index.engines.milvus.engine import MilvusEngine
from mecoq_index.errors import InvalidInputError

N = 400
CODES = np.random.default_rng(0).integers(16, size=(N, 6)).astype(np.uint8)


@pytest.fixture
def books():
    c = np.random.default_rng(0).standard_normal((6, 16, 4))
    return Codebooks(c / np.linalg.norm(c, axis=-1, keepdims=True))


def build(uri, books, name, **options):
    return MilvusEngine.build(books, CODES, uri=uri, collection=name, **options)


@pytest.mark.parametrize("profile", ["exact", "graph", "sparse"])
def test_a_good_collection_is_good_in_one_line(lite_uri, collection_name, books, profile):
    engine = build(lite_uri, books, collection_name, profile=profile)
    report = engine.verify(expected_rows=N, rows=300)
    assert report.ok
    assert report.rows == N
    assert report.checked == 300
    assert report.recall > 0.9
    assert report.score_error < 1e-5
    assert str(report).startswith(f"collection '{collection_name}': {N} rows indexed; 300 compar")
    assert "\n" not in str(report)


def test_missing_rows_are_counted(lite_uri, collection_name, books):
    engine = build(lite_uri, books, collection_name)
    engine.remove(np.arange(7))
    report = engine.verify(expected_rows=N)
    assert report.problems == (f"it holds {N - 7} rows, not {N}.",)
    assert str(report) == f"collection '{collection_name}': it holds {N - 7} rows, not {N}."


def test_embeddings_that_were_not_decoded_are_found(lite_uri, collection_name, books):
    engine = build(lite_uri, books, collection_name)
    x = scoring.decode(CODES[:100], books) + np.float32(0.1)
    rows = [{"id": i, "vector": v} for i, v in enumerate(x)]
    engine.collection.connection.call("upsert", collection_name, rows)
    report = engine.verify(rows=N)
    assert not report.ok
    assert (
        "100 of 400 rows are not made of these codebooks' codewords, for instance id 0: insert"
        in (str(report))
    )


def test_an_index_of_another_kind_is_found(lite_uri, collection_name, books):
    engine = build(lite_uri, books, collection_name, profile="graph")
    connection = connect(lite_uri)
    connection.call("release_collection", collection_name)
    connection.call("drop_index", collection_name, "vector")
    index = connection.client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="IP", params={"params": {}})
    connection.call("create_index", collection_name, index)
    report = engine.verify()
    assert "its index on 'vector' is FLAT, but profile 'graph' needs HNSW." in report.problems


def test_ids_that_are_there_twice_are_counted(milvus_server, collection_name, books):
    engine = build(milvus_server.uri, books, collection_name, token=milvus_server.token)
    try:
        engine.collection.insert(CODES[:3], np.arange(3))
        report = engine.verify(expected_rows=N + 3)
        assert report.problems == ("3 rows have an id that another row has as well.",)
    finally:
        engine.collection.drop()


def test_a_sparse_row_of_another_kind_is_found(lite_uri, collection_name, books):
    engine = build(lite_uri, books, collection_name, profile="sparse")
    rows = [{"id": 7, "vector": {0: 1.0}}]
    engine.collection.connection.call("upsert", collection_name, rows)
    assert "1 of 400 rows are not made of these codebooks' codewords, for instance id 7" in str(
        engine.verify(rows=N)
    )


def test_what_is_sampled_is_something(lite_uri, collection_name, books):
    engine = build(lite_uri, books, collection_name)
    for name in ("rows", "queries", "k"):
        with pytest.raises(InvalidInputError, match=f"{name} must be at least 1, got 0"):
            engine.verify(**{name: 0})


class Wrong:
    """A client whose searches are a little wrong."""

    def __init__(self, client, spoil):
        self._client, self._spoil = client, spoil

    def __getattr__(self, name):
        return getattr(self._client, name)

    def search(self, *args, **kwargs):
        results = self._client.search(*args, **kwargs)
        for result in results:
            self._spoil(result)
        return results


def lower(result):
    result.distances = [score - 0.5 for score in result.distances]


def lose_the_best(result):
    result.ids, result.distances = result.ids[3:], result.distances[3:]


@pytest.mark.parametrize(
    "spoil,message",
    [
        (lower, "320 of 320 scores of a search differ from AQS, by up to 0.5."),
        (lose_the_best, "a search missed "),
    ],
)
def test_wrong_scores_and_missed_rows_are_found(lite_uri, collection_name, books, spoil, message):
    engine = build(lite_uri, books, collection_name)
    connection = engine.collection.connection
    object.__setattr__(connection, "client", Wrong(connection.client, spoil))
    report = engine.verify(rows=N)
    assert not report.ok
    assert message in str(report)


def test_an_empty_collection_is_no_problem(lite_uri, collection_name, books):
    engine = MilvusEngine.build(books, CODES[:0], uri=lite_uri, collection=collection_name)
    report = engine.verify(expected_rows=0)
    assert report.ok
    assert report.checked == 0


def test_a_server_whose_index_is_not_built_yet_is_reported(milvus_server, collection_name, books):
    engine = build(
        milvus_server.uri, books, collection_name, token=milvus_server.token, profile="exact"
    )
    try:
        assert engine.verify(expected_rows=N).ok
        state = engine.collection.index_state()
        behind = {**state, "indexed_rows": 100}
        engine.collection.index_state = lambda: behind
        assert f"the index covers 100 of {N} rows: wait, or call collection.finish()." in str(
            engine.verify()
        )
    finally:
        engine.collection.drop()
