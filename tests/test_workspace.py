import json
import os

import numpy as np
import pytest

from mecoq_index._workspace import Column, Workspace
from mecoq_index.errors import ArtifactError, InvalidInputError


class StoppedError(Exception):
    pass


def interrupt(out, **about):
    """Leave a workspace with one job, some rows and a note."""
    with pytest.raises(StoppedError), Workspace.beside(out).locked(resume=False) as work:
        job = work.job("job", about)
        Column(job.path / "rows.npy", (9, 2), np.int64).write(0, np.ones((4, 2)))
        job.note(rows=4)
        raise StoppedError
    return Workspace.beside(out).path


@pytest.fixture
def home(tmp_path):
    """A folder of somebody else, which stays as it is."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "photo").write_text("precious")
    (tmp_path / "home" / ".lock").write_text("mine")
    yield tmp_path / "home"
    assert {p.name: p.read_text() for p in (tmp_path / "home").iterdir()} == {
        "photo": "precious",
        ".lock": "mine",
    }


def test_work_goes_on_where_it_was_interrupted_and_leaves_nothing_at_the_end(tmp_path):
    interrupt(tmp_path / "x", of="a")
    with Workspace.beside(tmp_path / "x").locked(resume=True) as work:
        job = work.job("job", {"of": "a"})
        assert job.count("rows", 9) == 4
        column = Column(job.path / "rows.npy", (9, 2), np.int64)
        column.write(4, np.full((5, 2), 2))
        assert column.read(3, 6).tolist() == [[1, 1], [2, 2], [2, 2]]
    assert list(tmp_path.iterdir()) == []


def test_other_work_is_refused_and_what_was_left_is_kept(tmp_path):
    path = interrupt(tmp_path / "x", of="a")
    with pytest.raises(InvalidInputError, match=r"left from another run, which differs in: of\."):
        with Workspace.beside(tmp_path / "x").locked(resume=True) as work:
            work.job("job", {"of": "b"})
    assert (path / "rows.npy").exists()
    with Workspace.beside(tmp_path / "x").locked(resume=False) as work:
        assert work.job("job", {"of": "b"}).done() == {}
        assert not (path / "rows.npy").exists()


def test_of_work_without_a_job_nothing_is_left(tmp_path):
    with pytest.raises(StoppedError), Workspace.beside(tmp_path / "x").locked(resume=False):
        raise StoppedError
    assert list(tmp_path.iterdir()) == []


def test_a_workspace_has_one_user_from_the_beginning_to_the_end(tmp_path):
    with Workspace.beside(tmp_path / "x").locked(resume=False) as work:
        work.job("job", {})
        for resume in (False, True):
            with pytest.raises(ArtifactError, match=r"another program is at work in .*\.x\.work"):
                with Workspace.beside(tmp_path / "x").locked(resume=resume):
                    pass
        assert work.done_of("job") == {}
    assert list(tmp_path.iterdir()) == []


def test_a_workspace_that_is_removed_while_it_is_waited_for_is_made_anew(tmp_path, monkeypatch):
    workspace, real, calls = Workspace.beside(tmp_path / "x"), Workspace._check_folder, []

    def overtaken(self):
        real(self)
        if len(calls) == 1:
            self.path.rmdir()  # by another program, between two of our steps
        calls.append(1)
        if len(calls) == 1:
            self.path.mkdir()

    monkeypatch.setattr(Workspace, "_check_folder", overtaken)
    with workspace.locked(resume=False):
        assert (workspace.path / ".lock").exists()


# What somebody planted


@pytest.mark.parametrize("resume", [False, True])
def test_a_workspace_that_is_a_link_is_refused(tmp_path, home, resume):
    Workspace.beside(tmp_path / "x").path.symlink_to(home)
    with pytest.raises(ArtifactError, match="must be a folder of unfinished work, but"):
        with Workspace.beside(tmp_path / "x").locked(resume=resume):
            pass


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_is_no_workspace_is_refused_and_stays(tmp_path, resume):
    path = Workspace.beside(tmp_path / "x").path
    path.mkdir()
    (path / "thesis.txt").write_text("dear")
    with pytest.raises(ArtifactError, match="must be a folder of unfinished work, but"):
        with Workspace.beside(tmp_path / "x").locked(resume=resume):
            pass
    assert (path / "thesis.txt").read_text() == "dear"


@pytest.mark.parametrize("name", ["job.json", "rows.npy", "bundle", ".lock"])
@pytest.mark.parametrize("target", ["photo", ".", "absent"])
@pytest.mark.parametrize("resume", [False, True])
def test_links_in_a_workspace_are_not_followed(tmp_path, home, name, target, resume):
    path = interrupt(tmp_path / "x", of="a")
    (path / name).unlink(missing_ok=True)
    (path / name).symlink_to(home / target)

    def work_on():
        with Workspace.beside(tmp_path / "x").locked(resume=resume) as work:
            job = work.job("job", {"of": "a"})
            column = Column(job.path / "rows.npy", (9, 2), np.int64)
            at = job.count("rows", 9)
            column.read(0, at)
            column.write(at, np.zeros((9 - at, 2)))

    refused = name == ".lock" or (resume and name in ("job.json", "rows.npy"))
    if refused:
        with pytest.raises(ArtifactError, match=r"is damaged|is linked|it is a link"):
            work_on()
    else:
        work_on()
        assert os.listdir(tmp_path) == ["home"]


def test_a_column_that_has_another_name_as_well_is_not_written(tmp_path):
    (tmp_path / "mine").write_bytes(bytes(1000))
    os.link(tmp_path / "mine", tmp_path / "rows.npy")
    column = Column(tmp_path / "rows.npy", (9, 2), np.int64)
    with pytest.raises(ArtifactError, match="must be a file of its own, but it is linked"):
        column.write(3, np.ones((1, 2)))
    column.write(0, np.ones((1, 2)))  # made anew
    assert (tmp_path / "mine").read_bytes() == bytes(1000)


NOTES = [
    "{", "", "[]", "[" * 100_000, '{"jobs": [3], "written": {}}', '{"jobs": {"job": 1}}',
    '{"jobs": {"job": {"about": {}, "done": 3}}, "written": {}}',
]  # fmt: skip


@pytest.mark.parametrize("text", NOTES)
def test_notes_that_cannot_be_are_refused(tmp_path, text):
    path = interrupt(tmp_path / "x")
    (path / "job.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"job.json is damaged. Leave out --resume to start"):
        with Workspace.beside(tmp_path / "x").locked(resume=True):
            pass


@pytest.mark.parametrize(
    "skipped",
    [3, [3], [[3]], [["3", ""]], [[3, 3]], [[9, ""]], [[-1, ""]], [[3, ""], [3, ""]], {"3": ""}],
)
def test_numbers_that_cannot_be_are_refused(tmp_path, skipped):
    path = interrupt(tmp_path / "x")
    found = json.loads((path / "job.json").read_text())
    found["jobs"]["job"]["done"] = {"skipped": skipped}
    (path / "job.json").write_text(json.dumps(found))
    with pytest.raises(ArtifactError, match=r"job.json is damaged"):
        with Workspace.beside(tmp_path / "x").locked(resume=True) as work:
            work.job("job", {}).pairs("skipped", 9)


# Outputs


def stop_between(tmp_path, monkeypatch):
    """Write two files, and be killed after the first has its name."""
    replace = os.replace

    def second(source, target):
        if os.path.basename(target) == "b":
            raise StoppedError
        replace(source, target)

    with pytest.raises(StoppedError), Workspace.beside(tmp_path / "b").locked(False) as work:
        work.job("job", {})
        monkeypatch.setattr(os, "replace", second)
        with work.outputs(tmp_path / "a", tmp_path / "b") as (a, b):
            a.write_text("1")
            b.write_text("2")
    monkeypatch.undo()
    assert (tmp_path / "a").read_text() == "1"
    assert not (tmp_path / "b").exists()


def test_a_run_that_was_killed_between_two_outputs_goes_on(tmp_path, monkeypatch):
    stop_between(tmp_path, monkeypatch)
    both = (tmp_path / "a", tmp_path / "b")
    with Workspace.beside(tmp_path / "b").locked(resume=True) as work:
        work.check_outputs(*both, overwrite=False)
        with work.outputs(*both) as (a, b):
            a.write_text("1")
            b.write_text("2")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "1", "b": "2"}


def test_a_file_of_somebody_else_is_not_taken_for_an_output(tmp_path, monkeypatch):
    stop_between(tmp_path, monkeypatch)
    (tmp_path / "a").write_text("another")
    with pytest.raises(InvalidInputError, match="a exists already"):
        with Workspace.beside(tmp_path / "b").locked(resume=True) as work:
            work.check_outputs(tmp_path / "a", tmp_path / "b", overwrite=False)
    assert (tmp_path / "a").read_text() == "another"


def test_a_run_that_had_written_all_is_over(tmp_path):
    with pytest.raises(StoppedError), Workspace.beside(tmp_path / "a").locked(False) as work:
        work.job("job", {})
        with work.output(tmp_path / "a") as a:
            a.write_text("1")
        raise StoppedError
    with pytest.raises(InvalidInputError, match="a exists already"):
        with Workspace.beside(tmp_path / "a").locked(resume=True) as work:
            work.check_outputs(tmp_path / "a", overwrite=False)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
