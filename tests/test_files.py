import os
import stat

import numpy as np
import pytest

from mecoq_index._array_file import load_npy
from mecoq_index._files import atomic_directory, atomic_file, sha256_file
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
