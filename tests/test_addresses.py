"""Addresses with passwords at every door: no message, exception, log record or file repeats one."""

import contextlib
import io
import logging
import os
import traceback
import warnings

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")
pytest.importorskip("faiss")

from recording_milvus import RecordingServer

from mecoq_index import Codebooks, Index, open_index
from mecoq_index._addresses import check_no_address, is_like_address, shown
from mecoq_index.cli import main
from mecoq_index.engines import registry
from mecoq_index.engines.milvus import bench
from mecoq_index.engines.milvus.connection import connect
from mecoq_index.engines.milvus.engine import MilvusEngine
from mecoq_index.engines.milvus.opening import read_place
from mecoq_index.errors import InvalidInputError, MecoqError

FRONT, BACK = "sq7xv", "zk4wj"
PASSWORD = FRONT + BACK
# Each part of a password that a parser may split, and that messages may repeat in lower case.
INSIDE = "/?#[]@:%\\ \t\n\r&=;+'\"é\u2100"
FORMS = [
    "http://root:{}@SERVER/photos",
    "http://root:{}@SERVER",
    "root:{}@host",
    "root:{}@host:19530",
    "root:{}@host:19530/photos",
    "root:{}@host/",
    "{}@host:19530",
    "http://root:{}@",
    "http://root:{}@:19530",
    "http://root:{}@host:port",
    "http://root:{}@host:99999",
    "http://root:{}@host:-1",
    "http://root:{}@host:19530:19530",
    "http://root:{}@host/a/b/c",
    "http://root:{}@host/a b",
    "http://root:{}@host/?timeout=1",
    "http://root:{}@host/#photos",
    "http://root:{}@ho st",
    "http://root:{}@host\n",
    " http://root:{}@host:port",
    "http://root:{}\0@host",
    "http://root:{}@[::1]:19530",
    "http://root:{}@[::1",
    "http://root:{}@::1",
    "http://root:{}@host]",
    "http://root:{}@höst:port",
    "http://root:{}@ho\ufb06\u2100",
    "http://a@root:{}@host:port",
    "http://root:{}@host@other:port",
    "root:{}@host@other",
    "HTTP://ROOT:{}@HOST:PORT",
    "https://{}@host:port",
    "http:/root:{}@host",
    "http:root:{}@host",
    "http//root:{}@host",
    "//root:{}@host",
    "://root:{}@host",
    "ftp://root:{}@host",
    "unix://root:{}@host",
    "unix:/run/{}@host",
    "milvus+http://root:{}@host",
    "s3://root:{}@bucket/photos",
    "http://host?token={}",
    "http://host/photos?token=root:{}",
    "http://host/photos?a=b&token={}",
    "http://host/photos;token={}",
    "http://host/photos#token={}",
    "http://host#{}",
    "http://host/root:{}",
    "http://host/photos/root:{}",
    "http://host:{}",
    "host:19530?token={}",
    "photos?token={}",
    "photos.mecoq?token={}",
    "photos.db?token={}",
    "photos.db#token={}",
    "photos.db;api_key={}",
    "root%3A{}%40host",
    "root%253A{}%2540host",
    "http%3A%2F%2Froot%3A{}%40host",
    "root:{}@host.db",
    "http:/root:{}@host/photos.db",
    "root:{}@host/photos.db/photos",
    "token={}@host",
    "missing/root:{}@host",
    "root:{}@host" + "x" * 5000,
    "http://root:{}@host/" + "x" * 5000,
]
# Nothing says that what they hold is a password, so output may be called so.
NAMES = ["host:{}", "root:{}", "photos.db/root:{}"]
ADDRESSES = [form.format(PASSWORD) for form in FORMS] + [
    form.format(f"{FRONT}{inside}{BACK}")
    for form in ("root:{}@host", "http://root:{}@host:port", "http://root:{}@host/photos.db")
    for inside in INSIDE
]
INPUTS = ADDRESSES + [form.format(PASSWORD) for form in NAMES]
# What code that took it for a path would write in the working folder, and nowhere else.
OUTPUTS = [address for address in ADDRESSES if not address.startswith("/")]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that refuses everybody, so that well-formed addresses are errors as well."""
    with RecordingServer(tmp_path_factory.mktemp("recording") / "x.db", required="no") as running:
        yield running


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Plug-ins are looked for in every call, which takes longer than all the rest.
    plugins = registry.entry_points(group=registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: plugins)
    for variable in ("MILVUS_URI", "MILVUS_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    books().save("c.safetensors")
    np.save("x.npy", X)
    np.savez("pack.npz", database=X, queries=X)
    Index.build(X, books(), out="i.mecoq", engine="numpy")
    return tmp_path


RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 8), dtype=np.float32)


def books():
    c = np.random.default_rng(0).standard_normal((2, 16, 4))
    return Codebooks((c / np.linalg.norm(c, axis=-1, keepdims=True)).astype(np.float32))


def chain(exc):
    """All that can be read from an exception, with causes and contexts, suppressed or not."""
    found, waiting, seen = [], [exc], set()
    while waiting:
        exc = waiting.pop()
        if exc is None or id(exc) in seen:
            continue
        seen.add(id(exc))
        found += [str(exc), repr(exc), str(vars(exc)), *traceback.format_exception(exc)]
        waiting += [exc.__cause__, exc.__context__]
    return "\n".join(found)


class Records(logging.Handler):
    def __init__(self):
        super().__init__(logging.DEBUG)
        self.text = ""

    def emit(self, record):
        self.text += f"{record.getMessage()} {record.args} {record.exc_info}\n"


@contextlib.contextmanager
def recorded():
    """What is logged at any level, by this package, pymilvus and all others."""
    handler = Records()
    loggers = [logging.getLogger(name) for name in (None, "pymilvus", "mecoq_index", "grpc")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    try:
        yield handler
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


def everything_from(door, address, folder):
    """All that a call leaves behind: output, exceptions, logs, warnings, names and bytes of files.

    Also whether it failed with an error of this package.
    """
    printed, errors = io.StringIO(), io.StringIO()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    told, refused = "", False
    with (
        recorded() as records,
        warnings.catch_warnings(record=True) as warned,
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(errors),
    ):
        warnings.simplefilter("always")
        try:
            told = str(door(address))
        except MecoqError as exc:
            told, refused = chain(exc), True
    files = [str(path) for path in folder.rglob("*")]
    for path in folder.rglob("*"):
        if path.is_file() and before.get(path) != path.read_bytes():
            files.append(path.read_bytes().decode("latin-1"))
    parts = [told, printed.getvalue(), errors.getvalue(), records.text, *map(str, warned), *files]
    return "\n".join(parts), refused


def in_environment(address):
    if "\0" in address:
        raise InvalidInputError("no such variable")
    os.environ["MILVUS_URI"] = address
    try:
        connect(None)
    finally:
        del os.environ["MILVUS_URI"]


def in_file(address):
    with open("milvus.json", "w") as file:
        file.write(f'{{"uri": {address!r}, "database": "", "collection": ""}}'.replace("'", '"'))
    try:
        return read_place("milvus.json")
    finally:
        os.remove("milvus.json")


def milvus(**options):
    return Index.build(X, books(), engine="milvus", collection="photos", **options)


INPUT_DOORS = {
    "open_index": open_index,
    "connect": connect,
    "attach": lambda a: MilvusEngine.attach(None, a),
    "uri of build": lambda a: milvus(uri=a),
    "uri of a bench": lambda a: MilvusEngine.bench_variants(books(), uri=a),
    "MILVUS_URI": in_environment,
    "source": lambda a: Index.build(a, books()),
    "query": lambda a: open_index("i.mecoq").search(a),
    "codebooks": Codebooks.load,
    "ids": lambda a: Index.build(X, books(), ids=a),
    "merge": lambda a: open_index("i.mecoq").merge(a, out="all.mecoq"),
}
OUTPUT_DOORS = {
    "out of build": lambda a: Index.build(X, books(), engine="numpy", out=a),
    "out of build with milvus": lambda a: milvus(uri="lite.db", out=a),
    "save": lambda a: open_index("i.mecoq").save(a),
    "save codebooks": lambda a: books().save(f"{a}.safetensors"),
    "out of export": lambda a: MilvusEngine.export(a, books(), open_index("i.mecoq").engine, {}),
}


STEP = 6
# All addresses at all doors take minutes; a share of them, another one for each door, seconds.
parts = pytest.mark.parametrize(
    "part", [pytest.param(False, id=""), pytest.param(True, id="others", marks=pytest.mark.slow)]
)


def some(addresses, doors, door, others):
    """The addresses that are tried at a door: a share of them, or the others."""
    first = list(doors).index(door) % STEP
    return [a for i, a in enumerate(addresses) if (i % STEP == first) is not others]


def check(door, addresses, folder, server):
    leaks, taken = [], []
    for address in addresses:
        address = address.replace("SERVER", f"127.0.0.1:{server.port}")
        text, refused = everything_from(door, address, folder)
        if any(part in text.lower() for part in (FRONT, BACK)):
            at = max(text.lower().find(FRONT), text.lower().find(BACK))
            leaks.append((address[:80], text[max(0, at - 150) : at + 100]))
        if not refused:
            taken.append(address[:80])
    assert leaks == []
    assert taken == []


@parts
@pytest.mark.parametrize("door", INPUT_DOORS)
def test_python_repeats_no_password_of_an_address(door, part, folder, server):
    check(INPUT_DOORS[door], some(INPUTS, INPUT_DOORS, door, part), folder, server)


@parts
@pytest.mark.parametrize("door", OUTPUT_DOORS)
def test_python_calls_no_output_by_a_password(door, part, folder, server):
    check(OUTPUT_DOORS[door], some(OUTPUTS, OUTPUT_DOORS, door, part), folder, server)


COMMANDS = {
    "search": ("search", "ADDRESS", "x.npy"),
    "search for": ("search", "i.mecoq", "ADDRESS"),
    "search with": ("search", "i.mecoq", "x.npy", "--uri", "ADDRESS"),
    "add": ("add", "ADDRESS", "x.npy"),
    "add from": ("add", "i.mecoq", "ADDRESS"),
    "remove": ("remove", "ADDRESS", "1"),
    "inspect": ("inspect", "ADDRESS"),
    "inspect --json": ("inspect", "ADDRESS", "--json"),
    "inspect too many": ("inspect", "i.mecoq", "ADDRESS"),
    "export": ("export", "ADDRESS", "--to", "milvus", "--out", "rows"),
    "tune": ("tune", "ADDRESS", "x.npy"),
    "reencode": ("reencode", "ADDRESS", "x.npy", "--codebooks", "c.safetensors", "--out", "n"),
    "merge": ("merge", "i.mecoq", "ADDRESS", "--out", "n"),
    "build from": ("build", "ADDRESS", "--codebooks", "c.safetensors", "--out", "n"),
    "build with": ("build", "x.npy", "--codebooks", "ADDRESS", "--out", "n"),
    "build in": (
        *("build", "x.npy", "--codebooks", "c.safetensors", "--engine", "milvus"),
        *("--collection", "photos", "--uri", "ADDRESS"),
    ),
    "bench in": (
        *("bench", "pack.npz", "--codebooks", "c.safetensors", "--engine", "milvus"),
        *("--uri", "ADDRESS", "--json"),
    ),
    "train": ("train", "ADDRESS", "--bits", "8", "--out", "n.pt"),
    "embed": ("embed", "ADDRESS", "--codebooks", "c.safetensors", "--out", "n.npy"),
    "no command": ("ADDRESS",),
}
OUTPUT_COMMANDS = {
    "build": ("build", "x.npy", "--codebooks", "c.safetensors", "--out", "ADDRESS"),
    "build =": ("build", "x.npy", "--codebooks", "c.safetensors", "--out=ADDRESS"),
    "export": ("export", "i.mecoq", "--to", "milvus", "--out", "ADDRESS"),
    "merge": ("merge", "i.mecoq", "--out", "ADDRESS"),
    "reencode": (
        *("reencode", "i.mecoq", "x.npy", "--codebooks", "c.safetensors", "--out", "ADDRESS"),
    ),
    "train": ("train", "x.npy", "--bits", "8", "--out", "ADDRESS"),
    "embed": ("embed", "x.npy", "--codebooks", "c.safetensors", "--out", "ADDRESS"),
    "bench": ("bench", "pack.npz", "--codebooks", "c.safetensors", "--out", "ADDRESS"),
    "plots": ("bench", "pack.npz", "--codebooks", "c.safetensors", "--plots", "ADDRESS"),
}


def by_command(arguments):
    def door(address):
        done = CliRunner().invoke(main, [part.replace("ADDRESS", address) for part in arguments])
        told = f"{done.output}\n{done.stderr}\n{chain(done.exception)}"
        assert isinstance(done.exception, SystemExit), told
        raise MecoqError(told) from done.exception

    return door


@parts
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_repeat_no_password_of_an_address(command, part, folder, server):
    check(by_command(COMMANDS[command]), some(INPUTS, COMMANDS, command, part), folder, server)


@parts
@pytest.mark.parametrize("command", OUTPUT_COMMANDS)
def test_commands_call_no_output_by_a_password(command, part, folder, server):
    check(
        by_command(OUTPUT_COMMANDS[command]),
        some(OUTPUTS, OUTPUT_COMMANDS, command, part),
        folder,
        server,
    )
    assert {path.name for path in folder.iterdir()} == {
        *("c.safetensors", "x.npy", "pack.npz", "i.mecoq"),
    }


def test_there_are_many_of_them():
    assert len(INPUTS) == len(set(INPUTS)) >= 77
    assert all(PASSWORD in a or (FRONT in a and BACK in a) for a in INPUTS)


@pytest.mark.slow
def test_a_collection_opened_with_a_password_does_not_repeat_it(folder, monkeypatch):
    """Where all goes well: reprs, descriptions, manifests, results of commands as JSON."""
    monkeypatch.setattr(bench, "why_no_hamming", lambda *_: "it is milvus-lite behind an address")
    with RecordingServer(folder / "data", required=f"root:{PASSWORD}") as running:
        address = f"http://root:{PASSWORD}@127.0.0.1:{running.port}"

        def use(_):
            index = milvus(uri=address, out="photos.mecoq")
            opened = open_index(f"{address}/photos")
            told = [repr(i) + str(i.describe()) + str(i.address) for i in (index, opened)]
            told += [str(opened.__reduce__()), repr(opened.engine.collection.connection)]
            for arguments in (
                ("search", f"{address}/photos", "x.npy"),
                ("inspect", f"{address}/photos", "--json"),
                ("add", f"{address}/photos", "x.npy", "--json"),
                ("add", f"{address}/photos", "x.npy"),
                ("remove", f"{address}/photos", "1"),
                ("search", "photos.mecoq", "x.npy", "--uri", address),
                ("export", f"{address}/photos", "--to", "milvus", "--out", "rows"),
                *(
                    (
                        *("build", "x.npy", "--codebooks", "c.safetensors", "--engine", "milvus"),
                        *("--uri", address, "--collection", "more", "--out", out, *more),
                    )
                    for out, more in (("a.mecoq", ()), ("b.mecoq", ("--overwrite", "--json")))
                ),
                (
                    *("bench", "pack.npz", "--codebooks", "c.safetensors", "--engine", "milvus"),
                    *("--uri", address, "--repeats", "1", "--out", "bench.json", "--json"),
                ),
            ):
                done = CliRunner().invoke(main, arguments)
                assert done.exit_code == 0, (arguments[0], done.stderr)
                told.append(done.output + done.stderr)
            return told

        text, refused = everything_from(use, address, folder)
        assert not refused, text
        assert PASSWORD not in text


@pytest.mark.parametrize(
    "path,text",
    [
        ("photos.mecoq", "photos.mecoq"),
        ("no/photos 2.npy", "no/photos 2.npy"),
        ("C:\\photos\\x.npy", "C:\\photos\\x.npy"),
        ("root:pw@host:19530/photos", "...@host:19530/photos"),
        ("http://host:19530/photos", "http://host:19530/photos"),
        ("host:19530", "host:19530"),
        ("me@host", "...@host"),
        ("root:pw", "an address that may hold a password"),
    ],
)
def test_a_missing_path_is_shown_unless_it_may_hold_a_password(path, text):
    assert shown(path) == text


def test_names_that_exist_are_no_addresses(tmp_path):
    strange = tmp_path / "a:b@c"
    strange.mkdir()
    assert shown(strange / "x.npy") == str(strange / "x.npy")
    assert shown(strange / "me@x.npy") == str(strange / "...@x.npy")
    check_no_address(strange)
    check_no_address(strange / "x.npy")
    check_no_address("2026-01-01T10:00.mecoq")
    assert is_like_address(strange / "a:b@c" / "x")
    with pytest.raises(InvalidInputError, match=r"got \.\.\.@host\. Choose a name that is no addr"):
        check_no_address("root:pw@host")
