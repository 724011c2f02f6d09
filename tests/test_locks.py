import errno
import os
import subprocess
import sys
import threading

import pytest

from mecoq_index._locks import MARK, locked
from mecoq_index.errors import ArtifactError

fcntl = pytest.importorskip("fcntl")


def no_locks(number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    return flock


def test_a_lock_has_one_holder_and_is_free_afterwards(tmp_path):
    lock = tmp_path / ".lock"
    for _ in range(2):
        with locked(lock, what=tmp_path):
            with pytest.raises(ArtifactError, match=r"another program is at work in .* Try again"):
                with locked(lock, what=tmp_path):
                    pass
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_lock_is_waited_for(tmp_path):
    lock, held, release = tmp_path / ".lock", threading.Event(), threading.Event()

    def hold():
        with locked(lock, what=tmp_path):
            held.set()
            release.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    threading.Timer(0.2, release.set).start()
    with locked(lock, what=tmp_path, seconds=10):
        assert release.is_set()
    thread.join(10)


def test_a_lock_is_free_when_its_holder_is_killed(tmp_path):
    program = (
        "import os, sys; from pathlib import Path; from mecoq_index._locks import locked\n"
        "with locked(Path(sys.argv[1]), what=Path('x')): print('held', flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / ".lock")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "held\n"
    with pytest.raises(ArtifactError, match="another program is at work"):
        with locked(tmp_path / ".lock", what=tmp_path):
            pass
    process.kill()
    process.communicate()
    with locked(tmp_path / ".lock", what=tmp_path):
        pass


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    lock, real = tmp_path / ".lock", fcntl.flock
    opened = []

    def overtaken(descriptor, operation):
        if not opened:
            opened.append(1)
            lock.unlink()  # as its last holder does
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", overtaken)
    with locked(lock, what=tmp_path):
        assert lock.exists()
        with pytest.raises(ArtifactError, match="another program is at work"):
            with locked(lock, what=tmp_path):
                pass


@pytest.mark.parametrize("name", ["ENOSYS", "ENOLCK", "EOPNOTSUPP", "ENOTSUP", "EINVAL"])
def test_where_there_are_no_locks_a_mark_takes_their_place(tmp_path, monkeypatch, caplog, name):
    monkeypatch.setattr(fcntl, "flock", no_locks(getattr(errno, name)))
    lock = tmp_path / ".lock"
    with locked(lock, what=tmp_path):
        with pytest.raises(ArtifactError, match=rf"It left .*{MARK} \('process {os.getpid()} on "):
            with locked(lock, what=tmp_path):
                pass
    assert "the file system has no locks here" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_lock_does_not_ignore_the_mark_of_a_machine_without_locks(tmp_path):
    (tmp_path / (".lock" + MARK)).write_text("process 7 on elsewhere\n")
    with pytest.raises(ArtifactError, match="if it no longer runs, remove that file"):
        with locked(tmp_path / ".lock", what=tmp_path):
            pass
    assert (tmp_path / (".lock" + MARK)).exists()


def test_a_mark_that_the_disk_has_no_room_for_does_not_stay(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(fcntl, "flock", no_locks(errno.ENOLCK))
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        with locked(tmp_path / ".lock", what=tmp_path):
            pass
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_other_errors_of_locking_name_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", no_locks(errno.EIO))
    with pytest.raises(OSError, match=r"\.lock") as refused:
        with locked(tmp_path / ".lock", what=tmp_path):
            pass
    assert refused.value.errno == errno.EIO


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder"])
def test_a_lock_is_no_link_and_nothing_special(tmp_path, kind):
    lock, victim = tmp_path / ".lock", tmp_path / "victim"
    if kind == "link":
        victim.touch()
    {
        "link": lambda: lock.symlink_to(victim),
        "dangling": lambda: lock.symlink_to(victim),
        "pipe": lambda: os.mkfifo(lock),
        "folder": lambda: lock.mkdir(),
    }[kind]()
    with pytest.raises(ArtifactError, match="must be a file of its own, but it is linked"):
        with locked(lock, what=tmp_path):
            pass
    assert victim.exists() == (kind == "link")


def test_a_lock_may_have_another_name_as_copies_by_hard_links_give_it(tmp_path):
    with locked(tmp_path / ".lock", what=tmp_path):
        pass
    (tmp_path / "copy").hardlink_to(tmp_path / ".lock")
    with locked(tmp_path / ".lock", what=tmp_path):
        pass
