import errno
import os
import socket
import stat
from pathlib import Path

import numpy as np
import pytest

from mecoq_index._array_file import load_npy
from mecoq_index._files import (
    atomic_directory,
    atomic_file,
    atomic_files,
    beside,
    check_output,
    move_directory,
    remove,
    sync,
)
from mecoq_index._reading import check_readable, sha256_file
from mecoq_index.errors import ArtifactError, InvalidInputError


def test_a_file_appears_whole_with_the_users_permissions(tmp_path):
    with atomic_file(tmp_path / "x") as partial:
        partial.write_text("new")
        assert not (tmp_path / "x").exists()
    assert (tmp_path / "x").read_text() == "new"
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o666 & ~umask


def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "x").write_text("old")
    with pytest.raises(RuntimeError, match="stop"), atomic_file(tmp_path / "x") as partial:
        partial.write_text("half")
        raise RuntimeError("stop")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "old"


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with atomic_directory(tmp_path / "d") as partial:
        (partial / "a").write_text("1")
        assert not (tmp_path / "d").exists()
    with pytest.raises(RuntimeError, match="stop"), atomic_directory(tmp_path / "e") as partial:
        (partial / "a").write_text("2")
        raise RuntimeError("stop")
    assert (tmp_path / "d" / "a").read_text() == "1"
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_impossible_outputs_are_refused_before_writing(tmp_path):
    with pytest.raises(InvalidInputError, match=r"no does not exist. Create it before writing x"):
        with atomic_file(tmp_path / "no" / "x"):
            pass
    with pytest.raises(InvalidInputError, match="is a folder, but a file is to be written there"):
        with atomic_file(tmp_path):
            pass
    (tmp_path / "d").mkdir()
    with pytest.raises(InvalidInputError, match="d exists already"):
        with atomic_directory(tmp_path / "d"):
            pass


def test_a_file_has_the_digest_of_its_bytes(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_file(tmp_path / "x").startswith("ba7816bf")


def test_npy_files_are_read_and_others_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(5))
    np.testing.assert_array_equal(load_npy(tmp_path / "x.npy"), np.arange(5))
    assert isinstance(load_npy(tmp_path / "x.npy", mmap=True), np.memmap)
    np.savez(tmp_path / "y.npy", a=np.arange(5))
    (tmp_path / "y.npy.npz").rename(tmp_path / "y.npy")
    with pytest.raises(ArtifactError, match=r"y.npy is no readable .npy file: it is an .npz"):
        load_npy(tmp_path / "y.npy")
    (tmp_path / "z.npy").write_text("text")
    with pytest.raises(ArtifactError, match=r"z\.npy is no readable \.npy file"):
        load_npy(tmp_path / "z.npy")


# Links and other things at the names that we write


@pytest.fixture
def victim(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "victim").write_text("precious")
    yield tmp_path / "home" / "victim"
    assert (tmp_path / "home" / "victim").read_text() == "precious"
    assert os.listdir(tmp_path / "home") == ["victim"]


def test_a_file_is_never_written_through_a_link(tmp_path, victim):
    (tmp_path / "x").symlink_to(victim)
    with atomic_file(tmp_path / "x") as partial:
        partial.write_text("new")
    assert not (tmp_path / "x").is_symlink()
    assert (tmp_path / "x").read_text() == "new"


def test_a_folder_is_not_made_where_a_link_is_and_links_are_not_tidied_up(tmp_path, victim):
    (tmp_path / "d").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InvalidInputError, match="d exists already"):
        with atomic_directory(tmp_path / "d"):
            pass
    left = tmp_path / ".e.0123456789ab.partial"  # as those are called that a kill leaves
    left.symlink_to(victim.parent)
    with atomic_directory(tmp_path / "e") as partial:
        (partial / "a").touch()
    assert left.is_symlink()


def test_removing_follows_no_links(tmp_path, victim):
    (tmp_path / "link").symlink_to(victim.parent)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "link").symlink_to(victim.parent)
    for name in ("link", "d", "absent"):
        remove(tmp_path / name)
    assert os.listdir(tmp_path) == ["home"]


def make(path, kind):
    if kind == "link":
        path.symlink_to("elsewhere")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    elif kind == "folder":
        path.mkdir()


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_output_is_no_link_whether_it_leads_anywhere_or_not(tmp_path, victim, overwrite):
    for number, target in enumerate((victim, victim.parent, tmp_path / "nowhere")):
        (tmp_path / f"x{number}").symlink_to(target)
        with pytest.raises(InvalidInputError, match=r"must not be a link, but it leads to '"):
            check_output(tmp_path / f"x{number}", overwrite=overwrite)


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder"])
def test_what_is_no_file_is_not_replaced_by_one(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    make(Path("x"), kind)
    with pytest.raises(InvalidInputError, match=f"x is a {kind}, but a file is to be written"):
        check_output(Path("x"), overwrite=True)
    if kind != "folder":
        with pytest.raises(InvalidInputError, match=f"x is a {kind}, but a folder is to be"):
            check_output(Path("x"), overwrite=True, folder=True)
    with pytest.raises(InvalidInputError, match="is a device, but a file"):
        check_output(Path("/dev/null"), overwrite=True)


@pytest.mark.parametrize("name", ["", ".", "/", "..", "d/.."])
def test_an_output_has_a_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    for refuse in (lambda path: check_output(path, overwrite=True), lambda path: atomic(path)):
        with pytest.raises(InvalidInputError, match="an output must have a name of its own, got"):
            refuse(Path(name))


def atomic(path):
    with atomic_file(path):
        pass


def test_an_output_may_lie_in_a_folder_that_is_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    check_output(tmp_path / "link" / "x", overwrite=False)
    with atomic_file(tmp_path / "link" / "x") as partial:
        partial.write_text("new")
    assert (tmp_path / "real" / "x").read_text() == "new"


@pytest.mark.parametrize("character", ["n", "ü", "中"])
def test_the_longest_names_are_written_and_longer_ones_refused(tmp_path, character):
    name = (character * 255).encode()[:255].decode(errors="ignore")
    path = tmp_path / name
    with atomic_file(path) as partial:
        assert partial.name.startswith(f".{character}")
        partial.write_text("new")
    path.unlink()
    with atomic_directory(path) as partial:
        (partial / "a").touch()
    assert len(os.fsencode(beside(path, ".work").name)) <= 255
    assert beside(path, ".work") != beside(tmp_path / (name[:-1] + "x"), ".work")
    with pytest.raises(InvalidInputError, match=r"at most 255 bytes here, but .* has 2\d\d\. Ch"):
        check_output(tmp_path / f"{name}{character}", overwrite=False)
    assert beside(tmp_path / "short", ".work").name == ".short.work"


def test_what_a_killed_writer_of_a_long_name_has_left_is_removed(tmp_path):
    path = tmp_path / ("n" * 255)
    with pytest.raises(RuntimeError, match="stop"), atomic_directory(path) as partial:
        left = partial.name
        raise RuntimeError("stop")
    (tmp_path / left).mkdir()
    with atomic_directory(path):
        pass
    assert os.listdir(tmp_path) == [path.name]


# Several files at once


def test_several_files_appear_when_all_are_complete(tmp_path):
    seen = []

    def note(partials):
        seen.append([partial.read_text() for partial in partials])
        assert not (tmp_path / "a").exists()

    with atomic_files(tmp_path / "a", tmp_path / "b", on_complete=note) as (a, b):
        a.write_text("1")
        b.write_text("2")
    assert seen == [["1", "2"]]
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "1", "b": "2"}


def test_of_several_files_none_appears_when_one_fails(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(OSError, match=r"No space left on device: .*/b'"):
        with atomic_files(tmp_path / "a", tmp_path / "b") as (a, b):
            a.write_text("1")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(b))
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "old"}


# What the system says


def test_an_error_of_the_system_names_the_file_that_is_to_be(tmp_path):
    for filename in (None, "partial"):
        with pytest.raises(OSError, match=r"x") as refused, atomic_file(tmp_path / "x") as partial:
            named = () if filename is None else (str(partial),)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *named)
        assert refused.value.filename == str(tmp_path / "x")
    with pytest.raises(OSError, match="No space") as refused, atomic_directory(tmp_path / "d") as d:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(d / "in" / "it"))
    assert refused.value.filename == str(tmp_path / "d" / "in" / "it")


def test_the_reason_behind_an_error_of_a_library_is_found(tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match="a bug"), atomic_file(tmp_path / "x"):
        raise RuntimeError("a bug")
    with pytest.raises(OSError, match="No space left") as refused, atomic_file(tmp_path / "x"):
        try:
            raise OSError(errno.ENOSPC, "full")
        finally:
            raise RuntimeError("unexpected pos 64 vs 0")  # as torch does
    assert refused.value.filename == str(tmp_path / "x")

    def full(self, *args, **options):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(self))

    for error in (RuntimeError("write error"), OSError("5 requested and 3 written")):
        with pytest.raises(OSError, match="quota") as refused, atomic_file(tmp_path / "x"):
            monkeypatch.setattr(Path, "open", full)
            raise error
        monkeypatch.undo()
        assert (refused.value.errno, refused.value.filename) == (errno.EDQUOT, str(tmp_path / "x"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_cannot_sync_folders_will_do(tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.EINVAL, "no")

    (tmp_path / "x").touch()
    monkeypatch.setattr(os, "fsync", refuse)
    sync(tmp_path)
    with pytest.raises(OSError, match="no"):
        sync(tmp_path / "x")


def test_a_folder_is_not_moved_onto_a_link(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to("nowhere")
    with pytest.raises(InvalidInputError, match="b exists already"):
        move_directory(tmp_path / "a", tmp_path / "b")


# Reading


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder"])
def test_what_is_no_file_is_called_what_it_is(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    make(Path("x"), kind)
    for links in (True, False):
        with pytest.raises(ArtifactError, match=f"x must be a file, but it is a {kind}"):
            check_readable(Path("x"), links=links)


def test_links_are_followed_only_where_a_person_gave_the_name(tmp_path):
    (tmp_path / "x").write_text("1")
    (tmp_path / "link").symlink_to("x")
    (tmp_path / "dangling").symlink_to("nowhere")
    assert check_readable(tmp_path / "link").read_text() == "1"
    with pytest.raises(ArtifactError, match=r"is a link\. Put a copy of what it leads to in its"):
        check_readable(tmp_path / "link", links=False)
    with pytest.raises(ArtifactError, match="dangling does not exist"):
        check_readable(tmp_path / "dangling")
