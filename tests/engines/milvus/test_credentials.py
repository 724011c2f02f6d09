"""Which credentials reach a server: what a loopback server really receives."""

import json
import os
import pickle
import re

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")

from recording_milvus import RecordingServer

from mecoq_index import Codebooks, Index, open_index
from mecoq_index.cli import main
from mecoq_index.engines.milvus.address import Place
from mecoq_index.engines.milvus.credentials import credentials_for, server_of
from mecoq_index.engines.milvus.opening import read_place
from mecoq_index.errors import ArtifactError, InvalidInputError, ServerError

TOKEN = "root:SECRET-of-the-environment"
NOT_SENT = (
    "refuses these credentials. The credentials in the environment were not sent, because only "
    "photos.mecoq/milvus.json names this server. If you trust it, name it yourself, with --uri "
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with RecordingServer(tmp_path_factory.mktemp("recording") / "data.db") as running:
        yield running


@pytest.fixture
def folder(server, tmp_path, monkeypatch):
    """A working folder with an index whose file names the server, and with MILVUS_TOKEN set."""
    monkeypatch.chdir(tmp_path)
    for variable in ("MILVUS_URI", "MILVUS_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    rng = np.random.default_rng(0)
    c = rng.standard_normal((2, 16, 4))
    books = Codebooks((c / np.linalg.norm(c, axis=-1, keepdims=True)).astype(np.float32))
    books.save("c.safetensors")
    x = rng.standard_normal((9, 8), dtype=np.float32)
    np.save("x.npy", x)
    Index.build(
        x, books, engine="milvus", uri=f"{server.uri}/photos", out="photos.mecoq", overwrite=True
    )
    server.required = None
    server.seen()
    monkeypatch.setenv("MILVUS_TOKEN", TOKEN)
    yield tmp_path
    server.required = None


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


COMMANDS = {
    "search": ("search", "photos.mecoq", "x.npy"),
    "inspect": ("inspect", "photos.mecoq"),
    "add": ("add", "photos.mecoq", "x.npy"),
    "remove": ("remove", "photos.mecoq", "1"),
    "export": ("export", "photos.mecoq", "--to", "milvus", "--out", "rows"),
    "export to faiss": ("export", "photos.mecoq", "--to", "faiss", "--out", "rows.faiss"),
    "export codebooks": ("export", "photos.mecoq", "--to", "npy", "--out", "c.npy"),
    "tune": ("tune", "photos.mecoq", "x.npy"),
    "reencode": (
        *("reencode", "photos.mecoq", "x.npy", "--codebooks", "c.safetensors"),
        *("--out", "new.mecoq"),
    ),
    "merge": ("merge", "photos.mecoq", "photos.mecoq", "--out", "all.mecoq"),
}
# What has no use for a server that only a folder names.
NEED_NO_SERVER = {"merge"}
# What is refused for an index of Milvus after it was opened.
REFUSED = {"tune", "reencode", "export to faiss"}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_server_that_a_folder_names_never_receives_the_token(server, folder, command):
    run(*COMMANDS[command])
    assert server.seen() == (set() if command in NEED_NO_SERVER else {None})


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - NEED_NO_SERVER))
def test_a_server_that_wants_one_is_explained(server, folder, command):
    server.required = TOKEN
    done = run(*COMMANDS[command])
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"{NOT_SENT}{server.uri} (in Python uri=...), or give a token." in done.stderr
    assert "SECRET" not in done.stderr
    assert server.seen() == {None}


def test_neither_does_it_in_python(server, folder):
    index = open_index("photos.mecoq")
    index.search(np.ones((1, 8)), 2)
    index.add(np.ones((1, 8)), ids=[100])
    index.remove([100])
    index.verify()
    len(index), index.describe(), repr(index)
    pickle.loads(pickle.dumps(index)).search(np.ones((1, 8)), 2)
    assert server.seen() == {None}
    server.required = TOKEN
    with pytest.raises(ServerError, match=re.escape(NOT_SENT)):
        open_index("photos.mecoq")


def test_the_person_names_the_server_or_gives_the_token(server, folder, monkeypatch):
    server.required = TOKEN
    for more in (("--uri", server.uri), ("--token", TOKEN)):
        for command in COMMANDS.keys() - NEED_NO_SERVER - REFUSED:
            done = run(*COMMANDS[command], *more, *["--overwrite"] * ("export" in command))
            assert done.exit_code == 0, done.stderr
            assert server.seen() == {TOKEN}, (command, more)
    assert open_index("photos.mecoq", uri=server.uri).codebooks
    assert open_index("photos.mecoq", token=TOKEN).codebooks
    assert open_index(f"{server.uri}/photos").codebooks
    assert server.seen() == {TOKEN}
    with pytest.raises(InvalidInputError, match="an address names the server itself"):
        open_index(f"{server.uri}/photos", uri=server.uri)


@pytest.mark.parametrize("own", ["", "own:SECRET@"])
def test_the_server_of_the_environment_receives_its_token(server, folder, monkeypatch, own):
    monkeypatch.setenv("MILVUS_URI", f"{server.uri.replace('//', f'//{own}')}/shop")
    server.required = own.rstrip("@") or TOKEN
    assert run("search", "photos.mecoq", "x.npy").exit_code == 0
    assert server.seen() == {server.required}


@pytest.mark.parametrize(
    "given,in_file,same",
    [
        ("http://host:19530", "http://host:19530", True),
        ("HTTP://HOST", "http://host:19530", True),
        ("http://host", "http://Host:19530", True),
        ("http://host/shop", "http://host", True),
        ("https://host", "https://host:443", True),
        ("https://host", "https://host:19530", False),
        ("https://host:19530", "http://host:19530", False),
        ("http://host:19530", "tcp://host:19530", False),
        ("http://host:19530", "http://host:19531", False),
        ("http://host", "http://host.", False),
        ("http://host", "http://host.evil.org", False),
        ("http://host", "http://evil.org", False),
        ("http://127.0.0.1", "http://localhost", False),
        ("http://host", "http://h\u043est", False),  # a Cyrillic o
        ("photos.db", "http://photos.db", False),
        ("root:SECRET@host", "http://host", False),
        ("", "http://host", False),
    ],
)
def test_two_addresses_are_one_server_or_the_token_stays(monkeypatch, given, in_file, same):
    monkeypatch.setenv("MILVUS_URI", given)
    monkeypatch.setenv("MILVUS_TOKEN", TOKEN)
    found = credentials_for(Place(in_file, named_by="milvus.json"))
    assert found.token == (TOKEN if same else "")
    assert credentials_for(Place(in_file)).token == TOKEN
    assert "SECRET" not in repr(found) + found.advice
    if "@" not in given and given.startswith("http"):
        assert (server_of(given) == server_of(in_file)) is same


def test_a_token_that_cannot_be_sent_is_one_sentence(monkeypatch):
    with pytest.raises(InvalidInputError, match="must be text that UTF-8 can encode") as caught:
        credentials_for(Place("http://host"), "root:SECRET\udcff")
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "uri,saying",
    [
        ("http://root:SECRET@host", "must name a server without credentials"),
        ("http://SECRET@host", "must name a server without credentials"),
        ("https://x.global-cluster.evil.org", "and no global cluster"),
        ("https://GLOBAL-CLUSTER.evil.org", "and no global cluster"),
        ("unix:/run/x.sock", "is damaged: uri must be like"),
        ("unix:///run/x.sock", "is damaged: uri must be like"),
        ("http://unix:19530", "is damaged: the address of a Milvus server must be like"),
        ("file:///etc/passwd", "is damaged: uri must be like"),
        ("http://host\n", "is damaged: the address of a Milvus server must be like"),
        ("http://ho st", "is damaged: the address of a Milvus server must be like"),
        ("http://host\\@evil.org", "is damaged: the address of a Milvus server must be like"),
        ("http://host/a/b/c", "may end in /collection"),
        ("host:19530", "is damaged: uri must be like"),
        (" ", "is damaged: the address of a Milvus server must be like"),
        ("", "is damaged: uri, database and collection must be texts"),
        (None, "is damaged: uri, database and collection must be texts"),
        (["http://host"], "is damaged: uri, database and collection must be texts"),
    ],
)
def test_a_file_names_a_server_and_nothing_else(tmp_path, monkeypatch, uri, saying):
    monkeypatch.setenv("MILVUS_URI", "http://environment")  # not a substitute for what is missing
    file = tmp_path / "milvus.json"
    file.write_text(json.dumps({"uri": uri, "database": "", "collection": "a"}))
    with pytest.raises(ArtifactError, match=re.escape(saying)) as caught:
        read_place(file)
    assert "SECRET" not in str(caught.value)
    assert os.environ["MILVUS_URI"] == "http://environment"
