"""What holds for every command: help, shared options, old spellings, Ctrl-C, quiet imports."""

import json
import subprocess
import sys

import click
import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("faiss")
pytest.importorskip("torch")

from mecoq_index import Codebooks
from mecoq_index.cli import main

NAMES = sorted(main.commands)
COMMANDS = [pytest.param(name, main.commands[name], id=name) for name in NAMES]


def run(*args, code=0):
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    c = rng.standard_normal((4, 16, 4))
    Codebooks(c / np.linalg.norm(c, axis=-1, keepdims=True)).save("c.pt")
    x = rng.standard_normal((40, 16))
    np.save("x.npy", x / np.linalg.norm(x, axis=1, keepdims=True))
    np.save("few.npy", x[:8])
    (tmp_path / "names.txt").write_text("".join(f"item {i}\n" for i in range(40)))
    return tmp_path


@pytest.mark.parametrize("name,command", COMMANDS)
def test_every_command_prints_json_and_can_be_quiet(name, command):
    spelled = {spelling for p in command.params for spelling in p.opts}
    assert spelled >= {"--json", "--quiet"}


@pytest.mark.parametrize("name,command", COMMANDS)
def test_every_option_has_a_help_line(name, command):
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    assert [o.opts[0] for o in options if not (o.help or "").strip()] == []


@pytest.mark.parametrize("name", NAMES)
def test_help_fits_a_terminal_of_80_columns(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = CliRunner().invoke(main, [name, "--help"], terminal_width=80)
    assert result.exit_code == 0
    wide = [line for line in result.stdout.splitlines() if len(line) > 80]
    assert wide == []


# One process for all: every start of Python takes its time.
LIGHT = """
import sys
from mecoq_index.cli import main
for name in {names!r}:
    try:
        main([name, "--help"])
    except SystemExit:
        pass
    heavy = [m for m in ("torch", "faiss", "pymilvus") if m in sys.modules]
    print("LOADED", name, heavy)
"""


def loaded_by_help(names, before=""):
    program = before + LIGHT.format(names=names)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("LOADED")]
    assert len(lines) == len(names)
    return [line for line in lines if not line.endswith("[]")]


def test_help_of_no_command_loads_a_heavy_library():
    assert loaded_by_help(NAMES) == []


def test_the_test_of_heavy_libraries_can_fail():
    assert loaded_by_help(["add"], "import faiss\n") == ["LOADED add ['faiss']"]


FAST = ("--epochs", 1, "--set", "batch_size=16", "--bits", 16)
# The command in today's spelling and in an old one, and the file that both write.
OLD_SPELLINGS = {
    "train --input": (("train", "x.npy", *FAST), ("train", "--input", "x.npy", *FAST)),
    "train --neighbours": (
        ("train", "x.npy", "--neighbors", 2, *FAST),
        ("train", "x.npy", "--neighbours", 2, *FAST),
    ),
    "train --distill": (
        ("train", "x.npy", "--objective", "distillation", "--codewords", 16, *FAST),
        ("train", "x.npy", "--distill", "--codewords", 16, *FAST),
    ),
    "train --binary": (
        ("train", "x.npy", "--objective", "signs", *FAST),
        ("train", "x.npy", "--binary", *FAST),
    ),
}


@pytest.mark.parametrize("new,old", OLD_SPELLINGS.values(), ids=OLD_SPELLINGS)
def test_old_spellings_of_training_mean_the_same(work, new, old):
    run(*new, "--out", "new.pt")
    run(*old, "--out", "old.pt")
    new_books, old_books = Codebooks.load("new.pt"), Codebooks.load("old.pt")
    assert new_books.fingerprint == old_books.fingerprint
    assert new_books.provenance["config"] == old_books.provenance["config"]


def test_old_spellings_of_the_other_commands_mean_the_same(work):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    vectors = np.load("x.npy").astype(np.float32)
    parquet.write_table(pyarrow.table({"v": list(vectors), "w": list(-vectors)}), "t.parquet")
    build = ("build", "--codebooks", "c.pt", "--factory", "IVF2,MeCoQ")
    run(*build, "x.npy", "--out", "new.mecoq")
    run(*build, "--input", "x.npy", "--out", "old.mecoq")
    run(*build, "--input", "t.parquet", "--column", "v", "--out", "column.mecoq")
    run(*build, "t.parquet", "--vector-column", "v", "--out", "vector-column.mecoq")
    for name in ("old", "column", "vector-column"):
        built = (work / f"{name}.mecoq" / "index.faiss").read_bytes()
        assert built == (work / "new.mecoq" / "index.faiss").read_bytes(), name
    tuned = [
        run("tune", "new.mecoq", *queries, "--json").stdout
        for queries in (("few.npy",), ("--queries", "few.npy"))
    ]
    assert tuned[0] == tuned[1]
    added = run("add", "old.mecoq", "--input", "few.npy", "--json").stdout
    assert json.loads(added)["added"] == 8
    run("reencode", "new.mecoq", "--input", "x.npy", "--codebooks", "c.pt", "--out", "r.mecoq")
    np.savez("pack.npz", database=vectors, queries=vectors[:4])
    bench = ("bench", "--codebooks", "c.pt", "--baseline", "none", "--repeats", 1, "--json")
    methods = [
        [record["method"] for record in json.loads(run(*bench, *data).stdout)["records"]]
        for data in (("pack.npz",), ("--data", "pack.npz"))
    ]
    assert methods[0] == methods[1]


@pytest.mark.parametrize("spelling", ["--input", "--distill", "--binary", "--neighbours"])
def test_help_shows_no_old_spelling_of_training(spelling):
    assert spelling not in run("train", "--help").stdout


@pytest.mark.parametrize(
    "name,spelling",
    [("build", "--input"), ("build", "--column"), ("bench", "--data"), ("tune", "--queries")],
)
def test_help_shows_no_old_spelling(name, spelling):
    words = run(name, "--help").stdout.replace(",", " ").split()
    assert spelling not in words


def test_one_argument_in_two_spellings_is_refused(work):
    twice = ("build", "x.npy", "--input", "x.npy", "--codebooks", "c.pt", "--out", "i.mecoq")
    assert "SOURCE and --input are the same: give one." in run(*twice, code=2).stderr
    neither = ("build", "--codebooks", "c.pt", "--out", "i.mecoq")
    assert "SOURCE is missing." in run(*neither, code=2).stderr
    both = ("train", "x.npy", "--distill", "--objective", "signs", "--out", "o.pt")
    assert "give --objective alone" in run(*both, code=2).stderr


def test_few_items_are_searched_with_the_usual_k(work):
    run("build", "few.npy", "--codebooks", "c.pt", "--out", "i.mecoq")
    lines = run("search", "i.mecoq", "few.npy", "--json").stdout.splitlines()
    assert [len(json.loads(line)["hits"]) for line in lines] == [8] * 8


def test_a_value_of_zero_is_given(work):
    run("train", "x.npy", "--neighbors", 0, "--set", "view_dropout=0.2", *FAST, "--out", "o.pt")
    assert Codebooks.load("o.pt").provenance["config"]["objective"]["neighbors"] == 0


def test_of_a_setting_that_is_repeated_the_last_counts(work):
    run("train", "x.npy", *FAST, "--set", "batch_size=8", "--out", "o.pt")
    assert Codebooks.load("o.pt").provenance["config"]["batch_size"] == 8


@pytest.mark.parametrize("setting", ["out=y.pt", "device=cpu", "source=x.npy"])
def test_an_argument_is_no_setting(work, setting):
    refused = run("train", "x.npy", "--out", "o.pt", "--set", setting, code=2)
    name = setting.partition("=")[0]
    assert f"--set is for settings of training, but {name} is not one." in refused.stderr


def test_quiet_commands_print_results_and_errors_only(work):
    build = ("build", "x.npy", "--codebooks", "c.pt", "--out", "i.mecoq")
    done = run(*build, "--quiet")
    assert (done.stdout, done.stderr) == ("", "")
    assert "i.mecoq exists already" in run(*build, "--quiet", code=1).stderr
    assert json.loads(run(*build, "--quiet", "--overwrite", "--json").stdout)["items"] == 40


def test_a_warning_is_printed_once(work):
    shown = run("train", "x.npy", *FAST, "--out", "o.pt").stderr
    warnings = [line for line in shown.splitlines() if line.startswith("warning: ")]
    assert any("only 40 items" in line for line in warnings)
    assert len(set(warnings)) == len(warnings)


def interrupted(*command):
    result = run(*command, code=1)
    assert "Traceback" not in result.output
    assert result.stdout == ""
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("Error: interrupted. ")
    return line


def raise_interrupt(*_, **__):
    raise KeyboardInterrupt


def test_ctrl_c_says_how_to_go_on_with_training(work, monkeypatch):
    from mecoq_index.learn.run import TrainingRun

    real = TrainingRun.train_epoch

    def second(self, on_progress):
        return raise_interrupt() if self.epoch else real(self, on_progress)

    train = ("train", "x.npy", *FAST[2:], "--epochs", 3, "--out", "o.pt")
    monkeypatch.setattr(TrainingRun, "train_epoch", second)
    assert "holds the last whole epoch. Add --resume to go on." in interrupted(*train)
    monkeypatch.setattr(TrainingRun, "train_epoch", real)
    run(*train, "--resume")


def test_ctrl_c_says_how_to_go_on_with_building(work, monkeypatch):
    from mecoq_index.index import build

    command = ("build", "x.npy", "--codebooks", "c.pt", "--out", "i.mecoq")
    real = build._Job.fill_engine
    monkeypatch.setattr(build._Job, "fill_engine", raise_interrupt)
    assert "Add --resume to go on" in interrupted(*command)
    monkeypatch.setattr(build._Job, "fill_engine", real)
    run(*command, "--resume")


def test_ctrl_c_says_how_to_go_on_with_embedding(work, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("torchvision")
    from mecoq_index.embed import encoder

    (work / "photos").mkdir()
    image.new("RGB", (20, 20)).save("photos/a.png")
    real = encoder._Network.features
    monkeypatch.setattr(encoder._Network, "features", raise_interrupt)
    command = ("embed", "photos", "--backbone", "mecoq:small", "--out", "f.npz")
    assert "Add --resume to go on" in interrupted(*command)
    monkeypatch.setattr(encoder._Network, "features", real)
    run(*command, "--resume")


def test_ctrl_c_elsewhere_says_that_nothing_was_changed(work, monkeypatch):
    from mecoq_index.index.index import Index

    run("build", "x.npy", "--codebooks", "c.pt", "--out", "i.mecoq")
    monkeypatch.setattr(Index, "add", raise_interrupt)
    assert "Nothing was changed" in interrupted("add", "i.mecoq", "few.npy")


def test_without_a_terminal_progress_is_plain_lines(monkeypatch, capsys):
    from mecoq_index import _progress
    from mecoq_index.cli._output import Output

    now = [0.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    with Output().progress("encoding") as update:
        for done in range(1, 5):
            now[0] += 3
            update("rows", done, 4)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "encoding:  50% after 6 s, about 6 s left  rows",
        "encoding: 100% after 12 s  rows",
    ]


def test_items_that_are_encoded_anew_are_found_by_their_names(work):
    run("build", "x.npy", "--codebooks", "c.pt", "--ids", "names.txt", "--factory", "IVF2,MeCoQ",
        "--out", "i.mecoq")  # fmt: skip
    run("remove", "i.mecoq", "item 3")
    again = ("reencode", "i.mecoq", "x.npy", "--codebooks", "c.pt", "--out", "r.mecoq")
    assert "must say the names of its rows too" in run(*again, code=1).stderr
    run(*again, "--ids", "names.txt")
    found = [
        run("search", index, "few.npy", "-k", 3, "--nprobe", 2, "--json").stdout
        for index in ("i.mecoq", "r.mecoq")
    ]
    assert found[0] == found[1]
    assert "item 3" not in {
        hit["name"] for line in found[0].splitlines() for hit in json.loads(line)["hits"]
    }


def test_a_collection_without_a_folder_is_called_by_its_address(work):
    pytest.importorskip("milvus_lite")
    built = run("build", "x.npy", "--codebooks", "c.pt", "--engine", "milvus", "--uri", "x.db",
                "--collection", "items")  # fmt: skip
    address = work / "x.db" / "items"
    assert f"wrote {address}: 40 items" in built.stderr.replace("wrote x.db", f"wrote {work}/x.db")
    command = built.stderr.rpartition("now try: mecoq-index ")[2].split()
    assert command[0] == "search"
    lines = run("search", command[1], "few.npy", "-k", 3, "--json").stdout.splitlines()
    assert len(lines) == 8
