"""Commands that are killed at any moment: old or new, never half, and what was said is there."""

import os
import shutil

import numpy as np
import pytest

pytest.importorskip("faiss")
if not hasattr(os, "fork"):
    pytest.skip("needs os.fork", allow_module_level=True)

from writers import WRITERS, Driver, fresh, hidden, in_progress, start, state

from mecoq_index.index.bundle import Bundle
from mecoq_index.index.stored import open_bundle

pytestmark = pytest.mark.slow

N, M, KILLS = 12_000, 8, 20
QUERIES = np.random.default_rng(3).standard_normal((5, 32)).astype(np.float32)
BUILD = ("--factory", "IVF16,MeCoQ", "--codebooks", "c.npy")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with codes, codebooks and two bundles, and a driver that works in it."""
    root = tmp_path_factory.mktemp("kill")
    rng = np.random.default_rng(0)
    c = rng.standard_normal((M, 256, 4))
    np.save(root / "c.npy", (c / np.linalg.norm(c, axis=-1, keepdims=True)).astype(np.float32))
    np.save(root / "codes.npy", rng.integers(256, size=(N, M), dtype=np.uint8))
    np.save(root / "more.npy", rng.integers(256, size=(N // 4, M), dtype=np.uint8))
    (root / "more.txt").write_text("".join(f"more-{i}\n" for i in range(N // 4)))
    (root / "names.txt").write_text("".join(f"{i}.jpg\n" for i in range(N)))
    builds = [
        ("--input", "codes.npy", "--ids", "names.txt", "--out", "named"),
        ("--input", "more.npy", "--out", "small"),
        ("--input", "codes.npy", "--shards", "1/2", "--out", "part1"),
        ("--input", "codes.npy", "--shards", "2/2", "--out", "part2"),
    ]
    merge = ("merge", "part2", "part1", "--out", "merged")
    driver = Driver(root, [*(("build", *BUILD, *build) for build in builds), merge])
    yield root, driver
    driver.close()


class Case:
    """One command, what is there before it, and what may be there after it was killed."""

    said: str
    """What the command prints when it is done."""

    def __init__(self, work):
        self.root, self.driver = work
        self.folders = self.root / type(self).__name__
        self.folders.mkdir()
        self.want = self.fresh("want")
        self.report = self.run(self.want)
        assert not self.report["failed"], self.report["output"]
        assert self.said in self.report["output"]
        self.want_files, self.want_hits = content(self.want), hits(self.want)

    def fresh(self, name):
        """The path of the output, in a folder of its own, as it is before the command."""
        (self.folders / name).mkdir()
        return self.folders / name / "x.mecoq"

    def run(self, out, **kill):
        return self.driver(*self.command(out), **kill)

    def again(self, out):
        """Run the command again after a kill; returns whether there was anything left to do."""
        report = self.run(out)
        if report["failed"]:
            assert self.refused in report["output"], report["output"]
        return not report["failed"]

    def check(self, out, report):
        """What must hold after a kill, and after the command was run again."""
        done = out.exists() and content(out) == self.want_files
        if not done:
            self.check_unchanged(out)
            assert self.said not in report["output"]
        else:
            same_hits(hits(out), self.want_hits)
        assert self.again(out) or done
        assert content(out) == self.want_files
        left = {path.name for path in out.iterdir()} - {".lock"} - set(self.want_files)
        # Killed before it removed the files of before, which the next change does.
        assert left <= (set(self.old_files) if done else set())
        assert [path.name for path in out.parent.iterdir()] == [out.name]
        shutil.rmtree(out.parent)
        return done

    old_files = ("codebooks.safetensors", "index.faiss", "names.npz")

    def check_unchanged(self, out):
        assert not out.exists()


class Build(Case):
    said, refused = "wrote ", "x.mecoq exists already"

    def command(self, out):
        return ("build", *BUILD, "--input", "codes.npy", "--ids", "names.txt", "--resume",
                *self.more, "--out", out)  # fmt: skip

    more = ()

    def again(self, out):
        folder = out.parent / ".x.mecoq.work"
        left = [path.name for path in folder.iterdir()] if folder.exists() else []
        gone_on = super().again(out)
        assert gone_on or left in ([], [".lock"])  # what is not tidied up is known as finished
        return gone_on


class BuildOver(Build):
    more = ("--overwrite",)

    def fresh(self, name):
        shutil.copytree(self.root / "small", super().fresh(name))
        return self.folders / name / "x.mecoq"

    def check_unchanged(self, out):
        assert content(out) == content(self.root / "small")

    def again(self, out):
        if content(out) != self.want_files or (out.parent / ".x.mecoq.work" / "job.json").exists():
            return super().again(out)
        # It was over, and would begin again; what it might not have tidied up is not to stay.
        report = self.driver("build", *BUILD, "--input", "codes.npy", "--resume", "--out", out)
        assert self.refused in report["output"]
        return False


class Add(Case):
    said, refused = "added 3,000 items", "names must be new"

    def fresh(self, name):
        shutil.copytree(self.root / "named", super().fresh(name))
        return self.folders / name / "x.mecoq"

    def command(self, out):
        return ("add", "--input", "more.npy", "--ids", "more.txt", out)

    def check_unchanged(self, out):
        named = self.root / "named"
        assert content(out) == content(named)
        same_hits(hits(out), hits(named))


class Merge(Case):
    said, refused = "wrote ", "x.mecoq exists already"

    def command(self, out):
        return ("merge", "part2", "part1", "--out", out)


class Save(Add):
    said = "saved"

    def command(self, out):
        return ("save", "small", out)

    def again(self, out):
        return content(out) != self.want_files and super().again(out)


def content(path):
    """The bytes of every file that a bundle's manifest names, and of the manifest."""
    manifest = Bundle.read_manifest(path)
    return {name: (path / name).read_bytes() for name in ("manifest.json", *manifest["files"])}


def hits(path):
    engine, bundle = open_bundle(path)
    found = engine.search(QUERIES, 10, nprobe=16)
    named = [bundle.names[int(id)] for id in found.ids.ravel()] if len(bundle.names) else []
    return found.ids, found.scores, named


def same_hits(found, wanted):
    for a, b in zip(found[:2], wanted[:2], strict=True):
        np.testing.assert_array_equal(a, b)
    assert found[2] == wanted[2]


CASES = (Build, BuildOver, Add, Merge, Save)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.__name__)
def case(request, work):
    return request.param(work)


def test_a_command_that_is_killed_at_a_random_moment_can_be_run_again(case):
    rng = np.random.default_rng(CASES.index(type(case)))
    seconds = []
    for number in range(3):
        out = case.fresh(f"measured{number}")
        seconds.append(case.run(out, sync=True)["seconds"])
        shutil.rmtree(out.parent)
    unfinished = 0
    for number in range(KILLS):
        out = case.fresh(f"random{number}")
        after = np.median(seconds) * (number + rng.random()) / KILLS
        report = case.run(out, after=after, sync=True)
        done = case.check(out, report)
        unfinished += report["killed"] and not done
    assert unfinished >= KILLS // 4  # of all but a few, where the machine is as fast as before


def test_a_command_that_is_killed_before_any_step_can_be_run_again(case):
    steps = case.report["steps"]
    assert steps > 10
    # Until it writes, a build that replaces something takes the steps of one that does not.
    first = steps - 25 if isinstance(case, BuildOver) else 1
    done = []
    for step in range(first, steps + 1):
        out = case.fresh(f"step{step}")
        report = case.run(out, at_step=step)
        assert report["killed"]
        done.append(case.check(out, report))
    assert done == sorted(done)  # once it is done it stays done
    assert not done[0]


# The other writers


OTHERS = sorted(set(WRITERS) - {"build", "build over", "add", "merge"})


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    for package in ("PIL.Image", "torchvision", "pyarrow"):
        pytest.importorskip(package)
    root = tmp_path_factory.mktemp("others")
    driver = start(root, OTHERS)
    yield root, driver
    driver.close()


def go_on(driver, name, folder, whole):
    """Run a writer again as its messages say; what is whole is not replaced."""
    writer = WRITERS[name]
    report = driver(*writer.command(folder, *["--resume"] * writer.resumes))
    if report["failed"] and not whole and "--overwrite" in report["output"]:
        report = driver(*writer.command(folder, "--overwrite", *["--resume"] * writer.resumes))
    return report


@pytest.mark.parametrize("name", OTHERS)
def test_a_writer_that_is_killed_at_any_step_leaves_old_or_new_and_goes_on(others, name):
    root, driver = others
    writer, whole = WRITERS[name], fresh(root, name, "whole")
    before = state(whole)
    report = driver(*writer.command(whole))
    assert not report["failed"], report["output"]
    after, steps, unfinished = state(whole), report["steps"], 0
    for number, step in enumerate(np.linspace(1, steps, KILLS).round().astype(int).tolist()):
        folder = fresh(root, name, number)
        assert driver(*writer.command(folder), at_step=step)["killed"]
        found = in_progress(state(folder)) if name == "train" else state(folder)
        if writer.steps_in_files:
            assert all(content in (before.get(n), after[n]) for n, content in found.items())
        elif name == "export over":
            assert found in (before, after, {})  # nothing has the name between two renamings
        else:
            assert found in (before, in_progress(after) if name == "train" else after)
        unfinished += found != after
        if found != after or name not in ("remove", "tune"):  # these do something else then
            again = go_on(driver, name, folder, whole=found == after)
            assert not again["failed"] or found == after, again["output"]
        assert state(folder) == after
        assert all(left.endswith(".partial") for left in hidden(folder))
        shutil.rmtree(folder)
    assert unfinished > KILLS // 4
