"""What every command that writes does with odd, taken and forbidden names of outputs."""

import errno
import os
import shutil
import sys

import click
import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("faiss")
pytest.importorskip("torch")
if sys.platform == "win32":
    pytest.skip("Windows has other names", allow_module_level=True)

from mecoq_index import Codebooks, Index
from mecoq_index.cli import main

# Commands that take --out, and what their output ends in.
OUTPUTS = {
    "train": (("train", "x.npy", "--epochs", 1, "--bits", 16, "--set", "batch_size=16"), ".pt"),
    "embed": (("embed", "x.npy", "--codebooks", "c.pt"), ".npy"),
    "build": (("build", "x.npy", "--codebooks", "c.pt"), ""),
    "merge": (("merge", "part1", "part2"), ""),
    "reencode": (("reencode", "i.mecoq", "x.npy", "--codebooks", "c.pt"), ""),
    "export to faiss": (("export", "i.mecoq", "--to", "faiss"), ""),
    "export to milvus": (("export", "i.mecoq", "--to", "milvus"), ""),
    "export codebooks": (("export", "i.mecoq", "--to", "npy"), ".npy"),
    "bench": (
        ("bench", "pack.npz", "--codebooks", "c.pt", "--baseline", "none", "--repeats", 1,
         "--engine", "numpy"), ".json"),
}  # fmt: skip
FOLDERS = ("build", "merge", "reencode", "export to milvus")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    rng = np.random.default_rng(0)
    c = rng.standard_normal((4, 16, 4))
    books = Codebooks(c / np.linalg.norm(c, axis=-1, keepdims=True))
    books.save(folder / "c.pt")
    x = rng.standard_normal((40, 16)).astype(np.float32)
    np.save(folder / "x.npy", x)
    np.savez(folder / "pack.npz", database=x, queries=x[:5])
    Index.build(x, books, out=folder / "i.mecoq")
    for number in (1, 2):
        Index.build(x, books, out=folder / f"part{number}", shard=(number, 2))
    return folder


@pytest.fixture
def work(good, tmp_path, monkeypatch):
    shutil.copytree(good, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def run(*words, code=0):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, (result.output, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.stderr.strip().splitlines()[-1] if result.stderr.strip() else ""


def tree(folder):
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[path] = os.readlink(path)
        else:
            found[path] = path.read_bytes() if path.is_file() else None
    return found


def test_every_command_with_an_output_is_here():
    with_out = {
        name for name, command in main.commands.items()
        if any(isinstance(p, click.Option) and "--out" in p.opts for p in command.params)
    }  # fmt: skip
    assert with_out - {"demo"} == {words[0] for words, _ in OUTPUTS.values()}


@pytest.mark.parametrize("name", OUTPUTS)
def test_what_cannot_be_an_output_is_refused(work, name):
    words, suffix = OUTPUTS[name]
    (work / "d").mkdir()
    before = tree(work.parent)
    for out in ("", ".", "/", "..", "d/..", f"no/o{suffix}", "n" * 260 + suffix):
        for more in ((), ("--overwrite",)):
            said = run(*words, "--out", out, *more, code=1)
            assert said.startswith("Error: ")
            reasons = ("name of its own", "must end in", "does not exist", "at most 255 bytes")
            assert any(reason in said for reason in reasons), said
    assert tree(work.parent) == before


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "the other kind"])
@pytest.mark.parametrize("name", OUTPUTS)
def test_a_link_or_something_else_at_an_output_is_refused(work, name, kind):
    words, suffix = OUTPUTS[name]
    out = work / f"o{suffix}"
    if kind == "pipe":
        os.mkfifo(out)
    elif kind == "the other kind":
        out.write_text("mine") if name in FOLDERS else out.mkdir()
    else:
        source = shutil.copytree(work / "i.mecoq", work.parent / "victim")
        out.symlink_to(source if kind == "link" else work.parent / "nowhere")
    before = tree(work.parent)
    for more in ((), ("--overwrite",)):
        said = run(*words, "--out", out, *more, code=1)
        reasons = ("must not be a link", "exists already", "is to be written there")
        assert any(f"{out} {reason}" in said or reason in said for reason in reasons), said
    assert tree(work.parent) == before


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_with_a_long_name_or_behind_a_link_is_written(work, name):
    words, suffix = OUTPUTS[name]
    (work / "real").mkdir()
    (work / "link").symlink_to("real")
    # Other files lie beside some outputs, and have their name with something more.
    room = {"train": 11, "embed": 6, "export to faiss": 16}.get(name, 0)
    out = work / "link" / ("n" * (255 - len(suffix) - room) + suffix)
    run(*words, "--out", out)
    assert (work / "real" / out.name).exists()
    assert [entry for entry in os.listdir(work / "real") if entry.startswith(".")] == []
    assert "exists already" in run(*words, "--out", out, code=1)
    run(*words, "--out", out, "--overwrite")


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_slash_after_a_name_changes_nothing(work, name):
    words, suffix = OUTPUTS[name]
    run(*words, "--out", f"o{suffix}/")
    assert (work / f"o{suffix}").is_dir() == (name in FOLDERS)


BESIDE = {
    "train": ("o.checkpoint.pt", "o.log.jsonl"),
    "export to faiss": ("o.json", "o.names.json", "o.projection.npz"),
    "embed": ("o.names.txt",),
}


@pytest.mark.parametrize("name,file", [(name, file) for name in BESIDE for file in BESIDE[name]])
def test_no_file_beside_an_output_is_replaced_without_being_asked_for(work, name, file):
    words, suffix = OUTPUTS[name]
    (work / file).write_text("mine")
    before = tree(work)
    said = run(*words, "--out", f"o{suffix}", code=1)
    assert f"{file} exists already" in said or f"{file} is left from an interrupted run" in said
    assert tree(work) == before
    run(*words, "--out", f"o{suffix}", "--overwrite")
    (work / "link").write_text("mine")
    (work / file).unlink(missing_ok=True)
    (work / file).symlink_to("link")
    assert "must not be a link" in run(*words, "--out", f"o{suffix}", "--overwrite", code=1)
    assert (work / "link").read_text() == "mine"


def test_plots_are_not_replaced_without_being_asked_for(work):
    words, _ = OUTPUTS["bench"]
    (work / "plots").mkdir()
    (work / "plots" / "quality_over_speed.png").write_text("mine")
    before = tree(work)
    assert "quality_over_speed.png exists already" in run(*words, "--plots", "plots", code=1)
    assert "--plots must be a folder, but x.npy is not one" in run(
        *words, "--plots", "x.npy", code=1
    )
    assert tree(work) == before


def test_a_pipe_is_called_a_pipe(work):
    os.mkfifo("pipe.npy")
    for words in (
        ("train", "pipe.npy", "--out", "o.pt"),
        ("build", "pipe.npy", "--codebooks", "c.pt", "--out", "o"),
        ("search", "i.mecoq", "pipe.npy"),
        ("build", "x.npy", "--codebooks", "pipe.npy", "--out", "o"),
        ("build", "x.npy", "--codebooks", "c.pt", "--ids", "pipe.npy", "--out", "o"),
    ):
        assert "pipe.npy must be a file" in (said := run(*words, code=1))
        assert said.endswith(("but it is a pipe.", "a pipe, a socket or a device."))


# What the system says


@pytest.mark.parametrize(
    "raised,said",
    [
        (OSError(errno.ENOSPC, "x", "f.npy"), "f.npy: No space left on device. Free some space."),
        (OSError(errno.EACCES, "x", b"f"), "the system refuses f: Permission denied. Change the"),
        (OSError(errno.EFBIG, "x"), "the system refuses: File too large. Raise the limit on the"),
        (OSError("5 requested and 3 written"), "refuses: 5 requested and 3 written. Nothing was"),
        (OSError(), "Error: the system refuses: OSError. Nothing was changed"),
        (TimeoutError(errno.ETIMEDOUT, "x"), "Error: the system refuses: Connection timed out."),
        (MemoryError("Unable to allocate 8 GB"), "not enough memory (Unable to allocate 8 GB)"),
        (MemoryError(), "Error: not enough memory. Close other programs, or use a machine"),
        (OSError(errno.ENOMEM, "no memory"), "not enough memory ([Errno 12] no memory). Close"),
        (
            RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory: 9"),
            "not enough memory",
        ),
    ],
)
def test_what_the_system_refuses_is_a_sentence_with_what_to_do(work, monkeypatch, raised, said):
    def fail(*_, **__):
        raise raised

    monkeypatch.setattr(Index, "add", fail)
    line = run("add", "i.mecoq", "x.npy", code=1)
    assert said in line
    assert line.endswith("Nothing was changed; run the command again.")


def test_bugs_keep_their_traceback(work, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("a bug")

    monkeypatch.setattr(Index, "add", fail)
    result = CliRunner().invoke(main, ["add", "i.mecoq", "x.npy"])
    assert isinstance(result.exception, RuntimeError)


def test_nobody_is_told_of_a_broken_pipe(work, monkeypatch):
    def fail(*_, **__):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(Index, "search", fail)
    result = CliRunner().invoke(main, ["search", "i.mecoq", "x.npy"])
    assert (result.exit_code, result.output.strip()) == (1, "")


def test_a_folder_for_plots_is_made_when_there_are_some(work):
    words, _ = OUTPUTS["bench"]
    (work / "c.pt").write_text("damaged")
    run(*words, "--plots", "plots", code=1)
    assert not (work / "plots").exists()
    (work / "plots").symlink_to(work)
    assert "must not be a link" in run(*words, "--plots", "plots", code=1)


def test_training_says_how_to_go_on_where_the_name_is_too_long(work):
    said = run("train", "x.npy", "--out", f"{'x' * 252}.pt", code=1)
    assert "Choose a shorter name. No epoch was complete" in said
