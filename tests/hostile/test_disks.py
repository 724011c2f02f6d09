"""Disks that are full, folders that may not be written, file systems without locks, other programs.

Whatever the system refuses costs a sentence: what was there is whole, nothing else has changed, and
doing as the sentence says ends as if nothing had happened.
"""

import errno
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("faiss")
pytest.importorskip("torch")
if sys.platform != "linux":
    pytest.skip("limits of processes are Linux's", allow_module_level=True)

from writers import WRITERS, fresh, hidden, in_progress, start, state

SLOW, SOME = 20, 3
# Without images and tables, which take long to load.
FEW = ("train", "build", "add", "export to faiss")


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    pytest.importorskip("PIL.Image")
    root = tmp_path_factory.mktemp("few")
    driver = start(root, FEW)
    yield root, driver, {}
    driver.close()


@pytest.fixture(scope="module")
def every(tmp_path_factory):
    for package in ("PIL.Image", "torchvision", "pyarrow"):
        pytest.importorskip(package)
    root = tmp_path_factory.mktemp("every")
    driver = start(root)
    yield root, driver, {}
    driver.close()


def undisturbed(scene, name):
    """What is there before and after a run, how many steps it took, and its largest file."""
    root, driver, known = scene
    if name not in known:
        folder = fresh(root, name, "whole")
        before = state(folder)
        report = driver(*WRITERS[name].command(folder))
        assert not report["failed"], report["output"]
        sizes = [os.path.getsize(p) for p in folder.rglob("*") if p.is_file()]
        known[name] = before, state(folder), report["steps"], max(sizes)
        shutil.rmtree(folder)
    return known[name]


def surroundings(root):
    return {path: path.lstat() for path in root.iterdir()}


def check_disturbed(scene, name, number, saying, **how):
    """Run a writer that something refuses; returns whether it was refused."""
    root, driver, _ = scene
    before, after, *_ = undisturbed(scene, name)
    folder, around = fresh(root, name, number), None
    around = surroundings(root)
    del around[folder]
    report = driver(*WRITERS[name].command(folder), **how)
    found = state(folder)
    if report["failed"]:
        last = report["output"].strip().splitlines()[-1]
        assert last.startswith("Error: the system refuses "), report["output"]
        assert saying in last
        assert (in_progress(found) if name == "train" else found) == before
        left = [entry for entry in hidden(folder) if not entry.endswith(".work")]
        assert left == []
        assert WRITERS[name].resumes or hidden(folder) == []
        # As the sentence says:
        again = ["--resume"] * ("Add --resume" in last)
        assert again or "run the command again" in last
        report_again = driver(*WRITERS[name].command(folder, *again))
        assert not report_again["failed"], report_again["output"]
        found = state(folder)
    assert found == after
    assert hidden(folder) == []
    now = surroundings(root)
    assert {path: now[path] for path in around} == around
    shutil.rmtree(folder)
    return report["failed"]


def fill(scene, name, times):
    """Let the disk be full at random bytes of files, a chance for small ones, too."""
    largest = undisturbed(scene, name)[3]
    rng = np.random.default_rng(sorted(WRITERS).index(name))
    limits = np.concatenate([
        rng.integers(largest, size=times // 2 + 1),
        np.exp(rng.uniform(0, np.log(largest), times // 2 + 1)).astype(int),
    ])  # fmt: skip
    return [
        check_disturbed(scene, name, number, "File too large", limit=int(limit))
        for number, limit in enumerate(limits[-times:])
    ]


@pytest.mark.parametrize("name", ["build", "add"])
def test_a_disk_that_is_full_at_some_byte_costs_a_sentence(few, name):
    assert any(fill(few, name, SOME))


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_is_full_at_any_byte_costs_a_sentence(every, name):
    assert sum(fill(every, name, SLOW)) > SLOW // 2


def test_a_disk_that_takes_no_more_files_costs_a_sentence(few):
    for name in FEW:
        steps = undisturbed(few, name)[2]
        for number in (1, steps // 2):
            check_disturbed(few, name, number, "No space left on device", full_at=number)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_takes_no_more_files_at_any_step_costs_a_sentence(every, name):
    steps = undisturbed(every, name)[2]
    refused = [
        check_disturbed(every, name, number, "No space left on device", full_at=step)
        for number, step in enumerate(np.linspace(1, steps, SLOW).round().astype(int).tolist())
    ]
    assert refused[0]


# Permissions


@pytest.mark.parametrize("name", FEW)
def test_a_folder_that_may_not_be_written_costs_a_sentence(few, name):
    check_read_only(few, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_no_command_writes_where_it_may_not(every, name):
    check_read_only(every, name)


def check_read_only(scene, name):
    root, driver, _ = scene
    folder = fresh(root, name, "closed")
    before = state(folder)
    closed = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for path in closed:
        path.chmod(0o555)
    report = driver(*WRITERS[name].command(folder), humble=True)
    for path in closed:
        path.chmod(0o755)
    last = report["output"].strip().splitlines()[-1]
    assert report["failed"]
    assert last.startswith("Error: the system refuses ")
    assert "Permission denied. Change the permissions" in last
    assert state(folder) == before
    assert hidden(folder) == []
    shutil.rmtree(folder)


# Locks


@pytest.mark.parametrize("reason", ["ENOSYS", "ENOLCK", "EOPNOTSUPP"])
def test_without_locks_a_mark_takes_their_place(few, reason):
    root, driver, _ = few
    for name in ("train", "build", "add"):
        after = undisturbed(few, name)[1]
        folder = fresh(root, name, reason)
        report = driver(*WRITERS[name].command(folder), flock=getattr(errno, reason))
        assert not report["failed"], report["output"]
        assert "warning: the file system has no locks here" in report["output"]
        assert state(folder) == after
        assert hidden(folder) == []
        assert not list(folder.rglob("*.held"))
        shutil.rmtree(folder)


def test_a_mark_that_was_left_is_named_with_what_to_do(few, monkeypatch):
    root, driver, _ = few
    folder = fresh(root, "add", "marked")
    mark = folder / "o.mecoq" / ".lock.held"
    mark.write_text("process 7 on a-machine\n")
    before = state(folder)
    for more in ({"flock": errno.ENOLCK}, {}):  # with locks too: others may have none
        report = driver(*WRITERS["add"].command(folder), **more, lock_seconds=0.1)
        assert "another program is at work in" in report["output"]
        assert f"It left {mark} ('process 7 on a-machine')" in report["output"]
        assert state(folder) == before
    mark.unlink()
    assert not driver(*WRITERS["add"].command(folder))["failed"]
    shutil.rmtree(folder)


# Two programs


EMBED = """
import sys, time
from mecoq_index import _files
from mecoq_index.embed import encoder
from mecoq_index.cli import main

encoder._CHUNK = 2
wait, folder, *command = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
time.sleep(float(wait))
main(["embed", folder, *command])
"""


def embed(root, folder, wait, *more):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = ("--backbone", "mecoq:small", "--device", "cpu", "--out", "o.npz", *more)
    return subprocess.Popen(
        [sys.executable, "-c", EMBED, str(wait), folder, *command], cwd=root, text=True,
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.slow
def test_two_programs_never_mix_what_they_embed(tmp_path):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("torchvision")
    rng = np.random.default_rng(0)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for i in range(40):
            pixels = rng.integers(256, size=(24, 24, 3), dtype=np.uint8)
            image.fromarray(pixels).save(tmp_path / folder / f"{i:02d}.png")

    def outcome():
        with np.load(tmp_path / "o.npz") as archive:
            found = archive["features"].tobytes()
        (tmp_path / "o.npz").unlink()
        return found

    want = {}
    for folder in ("a", "b"):
        alone = embed(tmp_path, folder, 0)
        assert alone.communicate("\n")[0].startswith("ready")
        want[folder] = outcome()
    assert want["a"] != want["b"]
    ends = []
    for number in range(12):
        programs = {"a": embed(tmp_path, "a", 0), "b": embed(tmp_path, "b", 0.02 * number)}
        for program in programs.values():
            assert program.stdout.readline() == "ready\n"
        for program in programs.values():
            program.stdin.write("\n")
            program.stdin.flush()
        said = {name: program.communicate()[1] for name, program in programs.items()}
        good = [name for name, program in programs.items() if program.returncode == 0]
        assert len(good) == 1, said
        (other,) = programs.keys() - set(good)
        assert "another program is at work in" in said[other] or "exists already" in said[other]
        assert "Traceback" not in said[other]
        assert outcome() == want[good[0]]
        assert [path.name for path in sorted(tmp_path.iterdir())] == ["a", "b"]
        ends.append(said[other])
    assert any("another program is at work" in text for text in ends)


def test_two_trainings_never_write_one_file(tmp_path, monkeypatch):
    import mecoq_index as mi
    from mecoq_index.errors import ArtifactError

    x = np.random.default_rng(0).standard_normal((300, 16))
    options = {"bits": 8, "epochs": 2, "progress": False, "device": "cpu"}

    def train_too(text, done, total):
        mi.train(x[:200], out=tmp_path / "o.pt", overwrite=True, **options)

    with pytest.raises(ArtifactError, match=r"another program is at work in .*\.o\.pt\.work"):
        mi.train(x, out=tmp_path / "o.pt", **{**options, "progress": train_too})
    # What the first one had is its checkpoint, from which it goes on.
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.checkpoint.pt", "o.log.jsonl"]
    mi.train(x, out=tmp_path / "o.pt", resume=True, **options)
    lines = (tmp_path / "o.log.jsonl").read_text().splitlines()
    assert [json.loads(line).get("epoch") for line in lines] == [None, 0, 1]
