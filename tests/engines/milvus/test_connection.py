"""Connections, credentials, and the words of failures, with a stand-in for the server."""

import logging
import os
import subprocess
import sys

import grpc
import pytest

pymilvus = pytest.importorskip("pymilvus")

from pymilvus.exceptions import DataNotMatchException, MilvusException

from mecoq_index.engines.milvus import connection as module
from mecoq_index.engines.milvus import libraries
from mecoq_index.engines.milvus.connection import Connection, TransientError, connect
from mecoq_index.errors import InvalidInputError, ServerError

TOKEN = "root:very-secret"


class RpcFailure(grpc.RpcError):
    def __init__(self, code):
        self._code = code

    def code(self):
        return self._code


def caused(error, cause):
    error.__cause__ = cause
    cause.__context__ = error  # a ring, as pymilvus makes it
    return error


class FailingClient:
    """Raises what it is given, one after another, then answers."""

    def __init__(self, *failures):
        self.failures, self.calls = list(failures), []

    def ask(self, *args, **kwargs):
        self.calls.append(kwargs)
        if self.failures:
            raise self.failures.pop(0)
        return "answer"

    def get_server_version(self, **kwargs):
        return self.failures.pop(0)


def connected(*failures, uri="http://host:19530", patience=60.0):
    return Connection(FailingClient(*failures), uri, patience=patience)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    waits = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    return waits


UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    "failure",
    [
        RpcFailure(UNAVAILABLE),
        caused(MilvusException(UNAVAILABLE, "gone"), RpcFailure(UNAVAILABLE)),
        MilvusException(8, "rate limit exceeded"),
        MilvusException(103, "collection not fully loaded"),
        MilvusException(503, "channel not available"),
        MilvusException(1, "service not ready[standalone=8]: Initializing"),
        MilvusException(65535, "node offline", retriable=True),
    ],
    ids=lambda failure: str(getattr(failure, "code", "rpc")),
)
def test_transient_failures_are_tried_again_with_growing_pauses(failure, no_waiting):
    milvus = connected(failure, failure, failure)
    assert milvus.call("ask") == "answer"
    assert len(milvus.client.calls) == 4
    assert no_waiting == [0.2, 0.4, 0.8]


@pytest.mark.parametrize(
    "failure",
    [
        MilvusException(65535, "cannot parse expression: yaer == 3, error: field yaer not exist"),
        MilvusException(1, "Insert missed an field `name`"),
        DataNotMatchException(message="wrong type"),
        MilvusException(100, "collection not found"),
    ],
    ids=lambda failure: failure.message[:12],
)
def test_other_failures_are_not(failure, no_waiting):
    milvus = connected(failure)
    with pytest.raises(ServerError, match=r"^Milvus at http://host:19530 failed: ") as caught:
        milvus.call("ask")
    assert not isinstance(caught.value, TransientError)
    assert failure.message in str(caught.value)
    assert no_waiting == []


def test_patience_ends(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(module.time, "sleep", lambda s: clock.__setitem__(0, clock[0] + s))
    milvus = connected(*[RpcFailure(UNAVAILABLE)] * 99, patience=20.0)
    with pytest.raises(ServerError, match=r"at http://host:19530 is out of reach\. Check the addr"):
        milvus.call("ask")
    assert 15 < clock[0] <= 20


def test_a_call_that_must_not_be_repeated_is_made_once():
    milvus = connected(RpcFailure(UNAVAILABLE))
    with pytest.raises(TransientError):
        milvus.call_once("ask")
    assert milvus.client.calls == [{"retry_times": 0}]


def test_errors_of_the_program_are_left_as_they_are():
    with pytest.raises(ZeroDivisionError):
        connected(ZeroDivisionError()).call("ask")


def test_a_file_has_no_transient_failures():
    milvus = connected(MilvusException(8, "full"), uri="/x/y.db")
    with pytest.raises(ServerError) as caught:
        milvus.call("ask")
    assert not isinstance(caught.value, TransientError)
    assert milvus.client.calls == [{}]


def test_what_pymilvus_says_of_its_own_retries_is_left_out():
    milvus = connected(
        MilvusException(5, "[insert_rows] Retry run out of 0 retry times, message=no")
    )
    with pytest.raises(ServerError, match=r"failed: no$"):
        milvus.call_once("ask")


def test_messages_are_one_line():
    milvus = connected(MilvusException(5, "one\ntwo"))
    with pytest.raises(ServerError, match=r"failed: one$"):
        milvus.call("ask")


@pytest.mark.parametrize(
    "text,version",
    [
        ("v2.3.5-lite", (2, 3, 5)),
        ("2.6.0-rc1", (2, 6, 0)),
        ("Vector Database (compatible with Milvus 2.5)", (2, 5)),
    ],
)
def test_versions_are_read(text, version):
    server = connected(text).server
    assert server.version == version
    assert not server.is_lite


def test_a_version_that_is_none_is_an_error():
    with pytest.raises(ServerError, match="must tell its version in numbers, got 'master'"):
        connected("master").server  # noqa: B018


class Recorded:
    def __init__(self, **kwargs):
        self.given = kwargs


def recorded(monkeypatch, *args, **kwargs):
    monkeypatch.setattr(pymilvus, "MilvusClient", Recorded)
    return connect(*args, **kwargs)


def test_credentials_come_from_the_uri_the_argument_or_the_environment(monkeypatch):
    monkeypatch.delenv("MILVUS_TOKEN", raising=False)
    address = "http://host:19530"
    in_uri = "http://us%40er:pass%3Aword@host:19530"
    assert recorded(monkeypatch, address).client.given["token"] == ""
    assert recorded(monkeypatch, in_uri).client.given["token"] == "us@er:pass:word"
    assert recorded(monkeypatch, in_uri, token=TOKEN).client.given["token"] == TOKEN
    monkeypatch.setenv("MILVUS_TOKEN", "from:env")
    assert recorded(monkeypatch, address).client.given["token"] == "from:env"
    monkeypatch.setenv("MILVUS_URI", address)
    found = recorded(monkeypatch, database="mine")
    assert (found.uri, found.database) == (address, "mine")
    assert found.client.given["db_name"] == "mine"


def test_credentials_are_in_no_text(monkeypatch):
    found = recorded(monkeypatch, f"http://{TOKEN}@host:19530")
    assert found.uri == "http://host:19530"
    assert "secret" not in repr(found)

    def refuse(**kwargs):
        raise caused(MilvusException(2, "Fail"), RpcFailure(grpc.StatusCode.UNAUTHENTICATED))

    monkeypatch.setattr(pymilvus, "MilvusClient", refuse)
    with pytest.raises(ServerError, match="http://host:19530 refuses these credentials") as caught:
        connect("http://host:19530", token=TOKEN)
    assert "secret" not in str(caught.value)


def test_addresses_that_are_none_are_named(monkeypatch, tmp_path):
    monkeypatch.delenv("MILVUS_URI", raising=False)
    for uri, message in [
        ("root:se-cret@host", "percent-encode all"),
        ("host:19530?token=secret", r"uri must be like .* got 'host:19530'"),
        ("host:sécret", "got an address that may hold a password"),
        ("http://host/?token=secret", "nothing else, such as .token=. Pass credentials as"),
        ("http://host/a/b/secret", "may end in /collection or /database/collection and nothing"),
        (None, r"uri must be .* got none\. Pass it, or set MILVUS_URI"),
        ("localhost:19530", "uri must be like http://host:19530, .* got 'localhost:19530'"),
        ("ftp://user:secret@host", r"uri must be like .* got 'host'"),
        ("http://", "uri must be like"),
        (
            "http://root:se/cret@host",
            "percent-encode all .* better, pass the password as the token",
        ),
        ("http://root:se#cret@host:1", "percent-encode all"),
        ("http://root:se?cret@host:1", "percent-encode all"),
        ("http://root:se[cret@host:1", "percent-encode all"),
        ("http://host:secret", "percent-encode all"),
        (tmp_path / "missing" / "x.db", r"the folder .*missing does not exist\. Create it first"),
    ]:
        with pytest.raises(InvalidInputError, match=message) as caught:
            connect(uri)
        assert "cret" not in str(caught.value)


@pytest.mark.parametrize(
    "variable,text",
    [
        ("MILVUS_URI", "root:SECRET@host"),
        ("MILVUS_URI", "http://host:SECRET"),
        ("MILVUS_URI", "photos.db"),
        ("MILVUS_DEFAULT_CONNECTION", "root:SECRET@host"),
        ("MILVUS_CONN_TIMEOUT", "SECRET"),
    ],
)
def test_an_environment_that_pymilvus_cannot_read_is_one_sentence(tmp_path, variable, text):
    """In a process of its own, because pymilvus reads the variables when it is imported."""
    program = """
import traceback
from mecoq_index.engines.milvus.libraries import import_pymilvus
from mecoq_index.errors import InvalidInputError
try:
    import_pymilvus()
except InvalidInputError as exc:
    assert exc.__cause__ is exc.__context__ is None, exc.__context__
    print(exc)
"""
    done = python(program, tmp_path, **{variable: text})
    assert variable in done.stdout, done
    assert "SECRET" not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_file_with_settings_is_not_read(tmp_path):
    """Of the working folder, where pymilvus looks for it in a session without a program's file."""
    text = "MILVUS_URI=http://127.0.0.1:1\nMILVUS_TOKEN=root:SECRET\nMILVUS_CONN_TIMEOUT=SECRET\n"
    (tmp_path / ".env").write_text(text)
    program = """
import os
before = dict(os.environ)
from mecoq_index.engines.milvus.libraries import import_pymilvus
print(import_pymilvus().settings.Config.MILVUS_URI == "", dict(os.environ) == before)
"""
    done = python(program, tmp_path)
    assert done.stdout == "True True\n", done
    # An older python-dotenv, which reads the file nevertheless, changes nothing that stays.
    older = "import dotenv.main as m; m._load_dotenv_disabled = lambda: False\n"
    (tmp_path / ".env").write_text(text.rpartition("MILVUS_CONN")[0])
    done = python(older + program, tmp_path)
    assert done.stdout == "False True\n", done


def python(program, folder, **variables):
    """Run a program in a folder, without variables for Milvus but these."""
    environment = {name: t for name, t in os.environ.items() if not name.startswith("MILVUS")}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment | variables, text=True,
        capture_output=True,
    )  # fmt: skip


def test_pymilvus_logs_only_what_this_package_does_not_raise():
    import_pymilvus = libraries.import_pymilvus
    import_pymilvus()
    seen = []

    class Handler(logging.Handler):
        def emit(self, record):
            seen.append(record.getMessage())

    logger, handler = logging.getLogger("pymilvus"), Handler()
    logger.addHandler(handler)
    try:
        import_pymilvus()

        def fail():
            logging.getLogger("pymilvus.decorators").error("inside")
            raise MilvusException(100, "collection not found")

        with pytest.raises(ServerError, match="collection not found"):
            connected().persist(fail)
        logging.getLogger("pymilvus.decorators").error("outside")
    finally:
        logger.removeHandler(handler)
    assert seen == ["outside"]
