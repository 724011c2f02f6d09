"""A server that is killed in the middle of a load, and started again."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("pymilvus")

from milvus_server import MilvusServer

from mecoq_index.codebooks import Codebooks
from mecoq_index.engines.milvus.engine import MilvusEngine
from mecoq_index.errors import ServerError

N, BATCH = 20_000, 1000
CODES = np.random.default_rng(0).integers(16, size=(N, 6)).astype(np.uint8)
COLUMNS = {"name": [f"photo {i}" for i in range(N)]}


@pytest.fixture
def own_server(installed_milvus, tmp_path):
    with MilvusServer(tmp_path / "own") as server:
        yield server


@pytest.fixture
def books():
    c = np.random.default_rng(0).standard_normal((6, 16, 4))
    return Codebooks(c / np.linalg.norm(c, axis=-1, keepdims=True))


def build(server, books, **options):
    return MilvusEngine.build(
        books,
        CODES,
        uri=server.uri,
        token=server.token,
        collection="photos",
        columns=COLUMNS,
        **options,
    )


def assert_whole(engine):
    report = engine.verify(expected_rows=N)
    assert report.ok, report
    assert engine.ids().tolist() == list(range(N))
    # Milvus keeps a row that is inserted twice twice, and lists it so.
    rows = [row["id"] for at in range(0, N, 5000) for row in page(engine, at)]
    assert len(rows) == N
    some = np.arange(0, N, 97)
    np.testing.assert_array_equal(engine.codes(some), CODES[some])


def page(engine, at):
    return engine.collection._query(f"id >= {at} and id < {at + 5000}", ["id"])


def test_a_load_survives_a_server_that_dies_and_comes_back(own_server, books, monkeypatch):
    monkeypatch.setattr("mecoq_index.engines.milvus.batches._ROWS", BATCH)
    reached = threading.Event()

    def on_progress(text, done, total):
        if text == "inserting" and done == 8 * BATCH:
            reached.set()

    # The server is started in this thread: it ends with the one that has started it.
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(build, own_server, books, patience=90, on_progress=on_progress)
        assert reached.wait(60)
        own_server.kill()
        time.sleep(1)
        own_server.start()
        engine = loading.result(120)
    assert_whole(engine)


def test_a_load_that_has_given_up_is_resumed(own_server, books, monkeypatch):
    monkeypatch.setattr("mecoq_index.engines.milvus.batches._ROWS", BATCH)

    def kill_in_the_next_insertion(text, done, total):
        if text == "inserting" and done == 5 * BATCH:
            threading.Timer(0.02, own_server.kill).start()

    with pytest.raises(ServerError, match=r"is out of reach|failed: "):
        build(own_server, books, patience=2, on_progress=kill_in_the_next_insertion)
    own_server.start()
    assert_whole(build(own_server, books, resume=True))
