"""The folder in which long work keeps what it has finished, to go on from there.

    .photos.mecoq.work/
        job.json    what is done from what, and how far it has come; only the same job goes on
        *.npy       columns: arrays that grow by rows
        .lock       held by the program at work

All commands that work for long have one, beside what they write, and hold its lock to the end: two
programs never work for one output at the same time. The order of steps is such that a kill between
any two of them leaves a folder that says less than is there, never more. The folder is removed with
``job.json`` last, so that a job that was finished, but not tidied up, is known as such.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from ._files import atomic_file, atomic_files, beside, check_output, check_place, remove, sync
from ._json import read_json
from ._locks import MARK, locked
from ._reading import open_own, sha256_file
from ._system_errors import named
from .errors import ArtifactError, InvalidInputError

_AGAIN = "Leave out --resume to start again."
_JOBS, _LOCK = "job.json", ".lock"
_LONGEST_JOBS = 1 << 28  # every image that was skipped is named there


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

    def _open(self, flags: int, mode: Literal["rb", "r+b"]) -> BinaryIO:
        """Open the file, but no link, nor a file that has another name as well."""
        return os.fdopen(open_own(self.path, flags, remedy=_AGAIN), mode)

    def write(self, start: int, rows: npt.NDArray[Any]) -> None:
        """Put rows after the first ``start`` ones; whatever came after those is gone.

        Raises:
            ArtifactError: If the file is a link, or has another name as well.
            OSError: If the system refuses.
        """
        with named(self.path):
            if not start:
                remove(self.path)
            flags = os.O_RDWR | (0 if start else os.O_CREAT | os.O_EXCL)
            with self._open(flags, "r+b") as stream:
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
        if not rows:
            return
        with suppress(FileNotFoundError), self._open(os.O_RDONLY, "rb") as stream:
            if os.fstat(stream.fileno()).st_size >= self._place(rows):
                return
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
        with self._open(os.O_RDONLY, "rb") as stream:
            rows = np.fromfile(stream, self._dtype, prod(shape), offset=self._place(start))
        return rows.reshape(shape)


class Workspace:
    """A folder beside an output, for one program at a time.

    Args:
        path: The folder.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path / _JOBS
        self._jobs: dict[str, dict[str, Any]] = {}
        self._written: dict[str, str] = {}
        self._was_left = False

    @classmethod
    def beside(cls, out: Path) -> Workspace:
        """The workspace of an output.

        Raises:
            InvalidInputError: If the output has no name, or its folder does not exist.
        """
        check_place(out)
        return cls(beside(out, ".work"))

    def has_jobs(self) -> bool:
        """Whether there is something to go on from."""
        return self._file.exists()

    @contextmanager
    def locked(self, resume: bool) -> Iterator[Workspace]:
        """Work in the folder; it is removed at the end, and kept when the work is interrupted.

        Of work that was refused, or interrupted before there was a job, nothing is kept but what
        was there before.

        Args:
            resume: Whether to go on from what an interrupted run has left; otherwise it is removed.

        Raises:
            InvalidInputError: By the work.
            ArtifactError: If another program is working in the folder, or it is none of ours.
            OSError: If the system refuses.
        """
        with self._held():
            self._was_left = resume and self.has_jobs()
            self._take_over(resume)
            try:
                yield self
            except BaseException as exc:
                refused = isinstance(exc, InvalidInputError) and not self._was_left
                if refused or not self.has_jobs():
                    with suppress(OSError):
                        self._remove()
                raise
            self._remove()

    @contextmanager
    def _held(self) -> Iterator[None]:
        with ExitStack() as stack:
            while True:
                self._check_folder()
                try:
                    self.path.mkdir(exist_ok=True)
                except PermissionError as exc:
                    exc.filename = str(self.path.parent)
                    raise
                # It may be removed meanwhile, by another program that has just finished.
                with suppress(FileNotFoundError):
                    stack.enter_context(locked(self.path / _LOCK, what=self.path))
                    break
            try:
                yield
            finally:
                stack.close()
                # Of work that was refused nothing is left. A mark in the place of the lock is gone
                # only now; a folder that holds something stays.
                with suppress(OSError):
                    self.path.rmdir()

    def _check_folder(self) -> None:
        try:
            mode = self.path.lstat().st_mode
        except FileNotFoundError:
            return
        known = stat.S_ISDIR(mode)
        if known:
            names = {path.name for path in self.path.iterdir()}
            known = not names or bool(names & {_LOCK, _LOCK + MARK, _JOBS})
        if not known:
            raise ArtifactError(
                f"{self.path} must be a folder of unfinished work, but it is something else. Move "
                "it away."
            )

    def _take_over(self, resume: bool) -> None:
        if resume and os.path.lexists(self._file):
            self._read()
        else:
            self.discard()

    def discard(self) -> None:
        """Remove what an earlier run has left."""
        self._jobs, self._written, self._was_left = {}, {}, False
        self._file.unlink(missing_ok=True)  # first: the rest means nothing without it
        sync(self.path)
        self._remove_content()

    def _remove_content(self) -> None:
        for path in self.path.iterdir():
            if path.name not in (_LOCK, _LOCK + MARK, _JOBS):
                remove(path)

    def _remove(self) -> None:
        self._remove_content()
        self._file.unlink(missing_ok=True)
        # Another program may have come in already, with a lock of its own.
        with suppress(OSError):
            (self.path / _LOCK).unlink()
            self.path.rmdir()

    def job(self, name: str, about: Mapping[str, Any]) -> Job:
        """A piece of work, which goes on where it was interrupted if it is about the same.

        Args:
            name: What tells it from other work in the same folder.
            about: Plain values that decide its result.

        Raises:
            InvalidInputError: If what is there is left from work about something else.
        """
        about = json.loads(json.dumps(about))
        old = self._jobs.get(name)
        if old is not None and old["about"] != about:
            was = old["about"]
            changed = [key for key in was | about if was.get(key) != about.get(key)]
            raise InvalidInputError(
                f"{self.path} is left from another run, which differs in: {', '.join(changed)}. "
                f"{_AGAIN}"
            )
        if old is None:
            self._jobs[name] = {"about": about, "done": {}}
            self._write()
        return Job(self, name)

    def check_outputs(self, *paths: Path, overwrite: bool) -> None:
        """Refuse files that could not be written.

        Some of them may be there if the interrupted run wrote them. Once all were, it was over, and
        what is left of it is discarded.

        Raises:
            InvalidInputError: As `mecoq_index._files.check_output` does.
        """
        ours = {path for path in paths if self._has_written(path)}
        if ours and len(ours) == len(self._written):
            self.discard()
            ours = set()
        for path in paths:
            check_output(path, overwrite=overwrite or path in ours)

    def _has_written(self, path: Path) -> bool:
        known = path.name in self._written and path.is_file() and not path.is_symlink()
        return known and sha256_file(path) == self._written[path.name]

    @contextmanager
    def outputs(self, *paths: Path) -> Iterator[tuple[Path, ...]]:
        """Yield a temporary path for each output, as `mecoq_index._files.atomic_files` does.

        What they are is noted before the first one gets its name, so that a run that was killed
        between two of them goes on, but replaces no file of somebody else.
        """

        def note(partials: tuple[Path, ...]) -> None:
            digests = map(sha256_file, partials)
            self._written = dict(zip([path.name for path in paths], digests, strict=True))
            self._write()

        with atomic_files(*paths, on_complete=note) as partials:
            yield partials

    @contextmanager
    def output(self, path: Path) -> Iterator[Path]:
        """Yield a temporary path for one output; see `outputs`."""
        with self.outputs(path) as (partial,):
            yield partial

    def done_of(self, name: str) -> dict[str, Any]:
        """The values that a job has noted; empty for a job that has not begun."""
        return dict(self._jobs[name]["done"]) if name in self._jobs else {}

    def note_of(self, name: str, values: Mapping[str, Any]) -> None:
        """Keep some plain values of a job, which `done_of` gives back after a kill."""
        self._jobs[name]["done"] |= values
        self._write()

    def damaged(self) -> ArtifactError:
        """The error that says that ``job.json`` holds something impossible."""
        return ArtifactError(f"{self._file} is damaged. {_AGAIN}")

    def _read(self) -> None:
        try:
            found = read_json(self._file, links=False, longest=_LONGEST_JOBS)
            self._jobs = {
                str(name): {"about": dict(job["about"]), "done": dict(job["done"])}
                for name, job in dict(found["jobs"]).items()
            }
            self._written = {str(name): str(sha) for name, sha in dict(found["written"]).items()}
        except (ArtifactError, ValueError, TypeError, LookupError) as exc:
            raise self.damaged() from exc

    def _write(self) -> None:
        with atomic_file(self._file) as partial:
            content = json.dumps({"jobs": self._jobs, "written": self._written})
            partial.write_text(content + "\n", encoding="utf-8")


class Job:
    """A piece of work in a workspace that this program has locked."""

    def __init__(self, workspace: Workspace, name: str) -> None:
        self._workspace, self._name = workspace, name

    @property
    def path(self) -> Path:
        """The folder for its files."""
        return self._workspace.path

    def done(self) -> dict[str, Any]:
        """The values that have been noted so far, also by the run that was interrupted."""
        return self._workspace.done_of(self._name)

    def count(self, name: str, most: int) -> int:
        """Return a value that is a number of things done, 0 if there is none.

        Raises:
            ArtifactError: If it is none, or above ``most``.
        """
        found = self.done().get(name, 0)
        if type(found) is not int or not 0 <= found <= most:
            raise self._workspace.damaged()
        return found

    def pairs(self, name: str, below: int) -> list[tuple[int, str]]:
        """Return a value that is a list of numbers, ascending, each with a text; empty if none.

        Raises:
            ArtifactError: If it is another one, or a number is not below ``below``.
        """
        found = self.done().get(name, [])
        try:
            pairs = [(number, text) for number, text in found]
        except (TypeError, ValueError) as exc:
            raise self._workspace.damaged() from exc
        before = -1
        for number, text in pairs:
            if type(number) is not int or not before < number < below or type(text) is not str:
                raise self._workspace.damaged()
            before = number
        return pairs

    def note(self, **values: Any) -> None:
        """Keep some plain values, which `done` gives back after a kill."""
        self._workspace.note_of(self._name, values)
