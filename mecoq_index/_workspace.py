"""The folder in which long work keeps what it has finished, to go on from there.

    .photos.mecoq.build/
        job.json    what is done from what, and how far it has come; only the same job goes on
        *.npy       columns: arrays that grow by rows
        .lock       held by the program at work

The order of steps is such that a kill between any two of them leaves a folder that says less than
is there, never more. The folder is removed with ``job.json`` last, so that a job that was finished,
but not tidied up, is known as such.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ._files import atomic_file, sync
from .errors import ArtifactError, InvalidInputError

_AGAIN = "Leave out --resume to start again."


class Column:
    """An array on disk that grows by rows.

    It is written and read as a file, not mapped: then a full disk is an error instead of a signal,
    and rows that were read do not count as memory of this program.

    Attributes:
        path: A ``.npy`` file; of its final size when the last row is written.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self.path, self._shape, self._dtype = path, shape, np.dtype(dtype)
        head = BytesIO()
        np.lib.format.write_array_header_1_0(
            head, {"descr": self._dtype.str, "fortran_order": False, "shape": shape}
        )
        self._head = head.getvalue()

    def _place(self, row: int) -> int:
        return len(self._head) + row * prod(self._shape[1:]) * self._dtype.itemsize

    def write(self, start: int, rows: npt.NDArray[Any]) -> None:
        """Put rows after the first ``start`` ones; whatever came after those is gone."""
        with self.path.open("r+b" if start else "wb") as stream:
            if not start:
                stream.write(self._head)
            stream.seek(self._place(start))
            stream.write(np.ascontiguousarray(rows, self._dtype).tobytes())
            stream.truncate()

    def check(self, rows: int) -> None:
        """Make sure that the first ``rows`` are there.

        Raises:
            ArtifactError: If they are not.
        """
        if rows and not (self.path.is_file() and self.path.stat().st_size >= self._place(rows)):
            raise ArtifactError(f"{self.path} lacks rows that were written. {_AGAIN}")

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows start..stop-1 as a new array.

        Raises:
            ArtifactError: If the file has lost rows.
        """
        self.check(stop)
        shape = (stop - start, *self._shape[1:])
        if not prod(shape):
            return np.empty(shape, self._dtype)
        rows = np.fromfile(self.path, self._dtype, prod(shape), offset=self._place(start))
        return rows.reshape(shape)


class Workspace:
    """A folder beside an output, for one job at a time.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: Path, job: Mapping[str, Any]) -> None:
        self.path = path
        self._job = json.loads(json.dumps(job))
        self._file = path / "job.json"

    @contextmanager
    def locked(self, resume: bool, *, keep: bool = False) -> Iterator[None]:
        """Work in the folder; it is removed at the end, and kept when the work is interrupted.

        With ``keep`` it is kept at the end too: remove it when its content is no longer needed.

        Raises:
            InvalidInputError: If ``resume`` is set, and what is there is left from another job; or
                by the work: then a folder that it has begun is removed too.
            ArtifactError: If another program is working in the folder, or it is damaged.
        """
        from filelock import FileLock, Timeout

        self.path.mkdir(exist_ok=True)
        try:
            with FileLock(self.path / ".lock", timeout=0):
                found = self._file.exists()
                try:
                    self._take_over(resume)
                    yield
                except InvalidInputError:
                    if not found:
                        self._remove()
                    raise
                if not keep:
                    self._remove()
        except Timeout as exc:
            raise ArtifactError(f"another program is at work in {self.path}.") from exc

    def remove_empty(self) -> None:
        """Remove a folder without a job: its removal was interrupted."""
        from filelock import FileLock, Timeout

        if self.path.exists() and not self._file.exists():
            with suppress(Timeout, FileNotFoundError), FileLock(self.path / ".lock", timeout=0):
                if not self._file.exists():
                    self._remove()

    def _take_over(self, resume: bool) -> None:
        if resume and self._file.exists():
            self._check_same(self._read()["job"])
            return
        self._file.unlink(missing_ok=True)  # first: the rest means nothing without it
        sync(self.path)
        for path in self.path.iterdir():
            if path.name != ".lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._write({})

    def _check_same(self, old: Mapping[str, Any]) -> None:
        if old != self._job:
            changed = [key for key in old | self._job if old.get(key) != self._job.get(key)]
            raise InvalidInputError(
                f"{self.path} is left from another run, which differs in: {', '.join(changed)}. "
                f"{_AGAIN}"
            )

    def _remove(self) -> None:
        for path in self.path.iterdir():
            if path not in (self._file, self.path / ".lock"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._file.unlink(missing_ok=True)
        shutil.rmtree(self.path)

    def done(self) -> dict[str, Any]:
        """The values that the same job has noted so far; empty for another job, or for none."""
        if not self._file.exists() or (found := self._read())["job"] != self._job:
            return {}
        return dict(found["done"])

    def note(self, **values: Any) -> None:
        """Keep some plain values, which `done` gives back after a kill."""
        self._write(self.done() | values)

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
            return {"job": dict(found["job"]), "done": dict(found["done"])}
        except (OSError, ValueError, TypeError, KeyError) as exc:
            raise ArtifactError(f"{self._file} is damaged. {_AGAIN}") from exc

    def _write(self, done: Mapping[str, Any]) -> None:
        with atomic_file(self._file) as partial:
            partial.write_text(
                json.dumps({"job": self._job, "done": done}) + "\n", encoding="utf-8"
            )
