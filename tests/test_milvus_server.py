"""The server that other tests rely on: its version, its authorization, and its kills."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import milvus_server as module
import pytest
from milvus_server import VERSION, MilvusServer, MilvusServerError

pymilvus = pytest.importorskip("pymilvus")
VECTORS = [[float(i), 1.0, 2.0, 3.0] for i in range(100)]


@pytest.fixture
def own_server(installed_milvus, tmp_path):
    with MilvusServer(tmp_path / "milvus") as server:
        yield server


def connect(server, **options):
    return pymilvus.MilvusClient(server.uri, **{"token": server.token, "timeout": 20, **options})


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def fill(client, name):
    client.create_collection(name, dimension=4, metric_type="IP", consistency_level="Strong")
    client.insert(name, [{"id": i, "vector": vector} for i, vector in enumerate(VECTORS)])
    client.flush(name)


def largest(client, name):
    """The item with the largest first coordinate, by inner product."""
    (hits,) = client.search(name, [[1.0, 0, 0, 0]], limit=1, consistency_level="Strong")
    return hits[0]["id"], hits[0]["distance"]


def test_it_answers(milvus_server):
    client = connect(milvus_server)
    assert client.get_server_version().startswith(f"v{VERSION}")
    client.close()


def test_it_refuses_a_wrong_token(milvus_server):
    # pymilvus 3 gives no more details.
    with pytest.raises(pymilvus.MilvusException, match=r"auth check failure|illegal connection"):
        connect(milvus_server, token="root:wrong").list_collections()


def test_a_collection_is_searched(milvus_server, collection_name):
    client = connect(milvus_server)
    fill(client, collection_name)
    assert largest(client, collection_name) == (99, 99.0)
    client.drop_collection(collection_name)
    client.close()


def test_lite_searches_too(lite_uri, collection_name):
    client = pymilvus.MilvusClient(lite_uri)
    fill(client, collection_name)
    assert largest(client, collection_name) == (99, 99.0)
    client.close()


def test_flushed_data_survive_a_kill_beside_another_server(
    milvus_server, own_server, collection_name
):
    client = connect(own_server)
    fill(client, collection_name)
    client.close()
    uri, killed = own_server.uri, own_server.pid
    own_server.kill()
    assert own_server.pid is None
    assert not is_running(killed)
    own_server.start()
    assert own_server.uri == uri
    client = connect(own_server)
    client.load_collection(collection_name)
    assert largest(client, collection_name) == (99, 99.0)
    client.close()
    stopped = own_server.pid
    own_server.stop()
    own_server.stop()
    assert not is_running(stopped)
    assert is_running(milvus_server.pid)


def test_it_dies_with_the_tests_that_started_it(installed_milvus, tmp_path):
    script = f"""
        from pathlib import Path
        from milvus_server import MilvusServer
        server = MilvusServer(Path({str(tmp_path)!r}))
        server.start()
        print(server.pid, flush=True)
        input()
    """
    with subprocess.Popen(
        [sys.executable, "-c", "if True:" + script], cwd=Path(module.__file__).parent,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as tests:  # fmt: skip
        pid = int(tests.stdout.readline())
        assert is_running(pid)
        tests.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(pid)


def test_a_start_that_fails_shows_the_log(installed_milvus, tmp_path):
    server = MilvusServer(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "etcd").write_text("not a folder")
    with pytest.raises(
        MilvusServerError, match=r"(?s)ended with exit code .*server\.log:\n.*data/etcd"
    ):
        server.start()
    assert server.pid is None


@pytest.mark.slow
def test_the_output_of_pip_is_repeated(tmp_path, monkeypatch):
    monkeypatch.setenv(module.FOLDER_VARIABLE, str(tmp_path / "cache" / "milvus"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(MilvusServerError, match=r"(?s)no Milvus .* from PyPI: .*No matching dist"):
        module.install()
    assert [path.name for path in (tmp_path / "cache").iterdir()] in ([], ["milvus.lock"])


def test_the_folder_is_in_the_users_cache_or_where_a_variable_says(tmp_path, monkeypatch):
    monkeypatch.delenv(module.FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert module._folder() == tmp_path / "mecoq-index-tests" / f"milvus-{VERSION}"
    monkeypatch.setenv(module.FOLDER_VARIABLE, str(tmp_path / "here"))
    assert module._folder() == tmp_path / "here"
