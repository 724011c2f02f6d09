"""Build a bundle from vectors or codes of any number, in bounded memory, resumable at any moment.

What is finished is kept in a folder beside the output until the bundle is there:

    .photos.mecoq.build/
        job.json        what is built from what; only the same job goes on
        progress.json   how many rows of codes.npy and lists.npy are on disk
        codes.npy       uint8 (n, M)
        centroids.npy   float32 (nlist, D)       IVF only, as lists.npy
        lists.npy       int32 (n,)

Rows are read and encoded in chunks whose bounds depend on the job alone, so a build that was killed
and resumed, and one that was not, give the same bytes. (Of HNSW graphs over the items that holds on
one thread only: FAISS's threads link items in the order in which they get to them.)
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import Codes, Ids, Vectors, check_ids
from .._files import atomic_file, load_npy, sync
from ..aqs import decode
from ..bundle import check_replaceable
from ..codebooks import Codebooks, VectorKind
from ..errors import ArtifactError, InvalidInputError
from ..names import Names
from .base import Engine, get_engine
from .encoding import Progress, RowEncoder, Rows
from .stored import save_bundle


@dataclass(frozen=True)
class Shard:
    """Part ``number`` of ``count``, counted from 1, of a build that several machines share."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise InvalidInputError(
                f"a shard i/n must have 1 <= i <= n, got {self.number}/{self.count}."
            )

    def bounds(self, n: int) -> tuple[int, int]:
        """Its first row, and the one after its last, of n rows."""
        return (self.number - 1) * n // self.count, self.number * n // self.count


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What decides the content of the bundle, beside rows and codebooks."""

    engine: str = "faiss"
    """Name of the engine."""
    factory: str | None = None
    """For FAISS: the factory string; ``MeCoQ`` if None."""
    nprobe: int | None = None
    """For IVF: lists that a search looks into unless told otherwise."""
    seed: int = 0
    """Seed of the lists' k-means."""
    shard: Shard | None = None
    """Which part to build; None for all."""
    given: VectorKind | None = None
    """Whether vectors are features or embeddings; told apart by their width if None."""


def build_bundle(
    rows: Rows,
    codebooks: Codebooks,
    out: str | Path,
    options: BuildOptions | None = None,
    *,
    ids: Ids | Sequence[str] | None = None,
    source: Mapping[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> None:
    """Encode rows and write a bundle.

    Args:
        rows: float32 vectors, features (n, P) or embeddings (n, D), or uint8 codes (n, M).
        codebooks: The codebooks.
        out: The folder to make.
        options: Engine, layout, shard.
        ids: What the rows of the whole, not of the shard, are called: int64 (n,), or n strings;
            None for their numbers.
        source: Plain values that tell the rows' source from another one, for `resume`.
        resume: Whether to go on from what an interrupted build of the same job has left.
        overwrite: Whether an existing bundle may be replaced.
        on_progress: Told how far the work has come.

    Raises:
        InvalidInputError: If rows, ids or options do not fit, or the output may not be written, or
            a job that is resumed was another one.
        ArtifactError: If the rows on disk are damaged, or another program builds this output.
    """
    options = options or BuildOptions()
    job = _Job(rows, codebooks, Path(out), options, source or {}, on_progress or _silent)
    names = _split_ids(ids, rows.n, job.start, job.stop)
    with job.workspace(resume, overwrite) as finished:
        if finished:
            return
        job.encode_rows()
        engine = job.make_engine(names)
        job.write(engine, names, overwrite)


def check_output_bundle(
    out: Path, options: BuildOptions, codebooks: Codebooks, *, overwrite: bool
) -> None:
    """Refuse what could not be built or written, before any work is done for it.

    Raises:
        InvalidInputError: If options do not fit the codebooks, or the output may not be written.
    """
    if options.engine == "faiss":
        from .faiss.engine import FaissEngine

        FaissEngine.empty(
            codebooks, options.factory or "MeCoQ", items=1 << 20, nprobe=options.nprobe
        )
    elif options.factory is not None or options.nprobe is not None:
        raise InvalidInputError(
            f"factory and nprobe are for the faiss engine, but this is {options.engine!r}."
        )
    get_engine(options.engine)
    if not out.parent.is_dir():
        raise InvalidInputError(f"the folder {out.parent} does not exist. Create it first.")
    if out.exists():
        if not overwrite:
            raise InvalidInputError(
                f"{out} exists already. Choose another name, or allow replacing it with "
                "--overwrite."
            )
        check_replaceable(out)


def _silent(text: str, done: int, total: int) -> None:
    pass


def _split_ids(
    ids: Ids | Sequence[str] | None, n: int, start: int, stop: int
) -> Ids | Sequence[str] | None:
    """The ids of one shard.

    Raises:
        InvalidInputError: If there is not one for each row of the whole.
    """
    if ids is None:
        return None
    if len(ids) != n:
        raise InvalidInputError(f"ids must be one a row, {n} in all, got {len(ids)}.")
    return check_ids(ids, n)[start:stop] if isinstance(ids, np.ndarray) else ids[start:stop]


class _Job:
    """One build, and the folder that it keeps its work in."""

    def __init__(
        self,
        rows: Rows,
        codebooks: Codebooks,
        out: Path,
        options: BuildOptions,
        source: Mapping[str, Any],
        on_progress: Progress,
    ) -> None:
        self._rows, self._codebooks, self._out = rows, codebooks, out
        self._options, self._tell = options, on_progress
        self._encoder = RowEncoder(rows, codebooks, options.given)
        whole = Shard(1, 1)
        self.start, self.stop = (options.shard or whole).bounds(rows.n)
        self._folder = out.with_name(f".{out.name}.build")
        self._identity = {
            **source,
            "rows": rows.n,
            "width": rows.width,
            "codebooks": codebooks.fingerprint,
            "options": _plain(options),
            "chunk": self._encoder.chunk,
        }

    @property
    def _n(self) -> int:
        return self.stop - self.start

    @contextmanager
    def workspace(self, resume: bool, overwrite: bool) -> Iterator[bool]:
        """Hold the folder; yields whether an earlier run had finished all but tidying up."""
        from filelock import FileLock, Timeout

        found = self._folder.exists()
        done = resume and found and self._progress().get("saved")
        check_output_bundle(
            self._out, self._options, self._codebooks, overwrite=overwrite or bool(done)
        )
        self._folder.mkdir(exist_ok=True)
        try:
            with FileLock(self._folder / ".lock", timeout=0):
                yield self._take_over(resume)
                shutil.rmtree(self._folder)
        except Timeout as exc:
            raise ArtifactError(f"{self._out} is being built by another program.") from exc
        except InvalidInputError:
            if not found:
                shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def _take_over(self, resume: bool) -> bool:
        """Check what is in the folder, or empty it; returns whether the work is done."""
        file = self._folder / "job.json"
        if resume and file.exists():
            if (old := _read_json(file)) != json.loads(json.dumps(self._identity)):
                changed = [key for key in self._identity if old.get(key) != self._identity[key]]
                raise InvalidInputError(
                    f"{self._folder} is left from another build: {', '.join(changed) or 'its job'} "
                    "differs. Build without --resume to start again."
                )
            return bool(self._progress().get("saved")) and self._out.exists()
        for path in self._folder.iterdir():
            if path.name != ".lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        _write_json(file, self._identity)
        return False

    def _progress(self) -> dict[str, Any]:
        file = self._folder / "progress.json"
        return _read_json(file) if file.exists() else {}

    def _note(self, **values: Any) -> None:
        _write_json(self._folder / "progress.json", self._progress() | values)

    def _stage(
        self, name: str, shape: tuple[int, ...], dtype: Any, label: str, fill: Callable[..., Any]
    ) -> npt.NDArray[Any]:
        """An array on disk, filled chunk by chunk from the first one that is not there yet."""
        file = self._folder / f"{name}.npy"
        done = int(self._progress().get(name, 0))
        if not done:
            array = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)
        else:
            array = np.lib.format.open_memmap(file, mode="r+")
        for at in range(done, self._n, self._encoder.chunk):
            end = min(at + self._encoder.chunk, self._n)
            array[at:end] = fill(at, end)
            array.flush()
            self._note(**{name: end})
            self._tell(label, end, self._n)
        return array

    def encode_rows(self) -> None:
        """Codes of all rows, on disk."""
        shape = (self._n, self._codebooks.M)

        def encode(at: int, end: int) -> Codes:
            return self._encoder.encode(self.start + at, self.start + end)

        self._codes = self._stage("codes", shape, np.uint8, "encoding", encode)

    def make_engine(self, names: Ids | Sequence[str] | None) -> Engine:
        """The engine with all items."""
        ids: Ids | range | None = names if isinstance(names, np.ndarray) else None
        if self._options.engine != "faiss":
            made: Engine = get_engine(self._options.engine).build(
                self._codebooks,
                self._codes,
                np.asarray(self._numbers(True) if ids is None else ids),
            )
            return made
        from .faiss.engine import FaissEngine

        engine = FaissEngine.empty(
            self._codebooks,
            self._options.factory or "MeCoQ",
            items=self._rows.n,
            nprobe=self._options.nprobe,
        )
        lists = self._lists(engine) if engine.spec.nlist else None
        if ids is None and engine.keeps_ids:
            ids = range(self.start, self.stop)
        engine.add(
            self._codes,
            ids,
            lists=lists,
            on_progress=lambda done, total: self._tell("adding", done, total),
        )
        return engine

    def _numbers(self, keeps_ids: bool) -> Ids:
        first = self.start if keeps_ids else 0
        return np.arange(first, first + self._n, dtype=np.int64)

    def _lists(self, engine: Any) -> npt.NDArray[np.int32]:
        """The list of every code, on disk, after the lists were made for the engine."""
        from .faiss.coarse import assign_lists, set_centroids

        set_centroids(engine.index, self._centroids(engine.spec.nlist), seed=self._options.seed)

        def assign(at: int, end: int) -> Ids:
            return assign_lists(engine.layers.core, self._codes[at:end], self._codebooks)

        return self._stage("lists", (self._n,), np.int32, "assigning lists", assign)

    def _centroids(self, nlist: int) -> Vectors:
        from .faiss.coarse import make_centroids

        file = self._folder / "centroids.npy"
        if not file.exists():
            sample = decode(self._sample(nlist), self._codebooks)
            centroids = make_centroids(
                sample,
                nlist,
                seed=self._options.seed,
                on_progress=lambda done, total: self._tell("making lists", done, total),
            )
            with atomic_file(file) as partial, partial.open("wb") as stream:
                np.save(stream, centroids)
        return load_npy(file)

    def _sample(self, nlist: int) -> Codes:
        """The codes that lists are made from: of the whole, so that all shards make the same."""
        from .faiss.coarse import sample_runs

        parts = []
        for first, last in sample_runs(self._rows.n, nlist, self._options.seed):
            if self._options.shard is None:
                parts.append(self._codes[first:last])
            else:
                parts.append(self._encoder.encode(first, last))
        return np.concatenate(parts)

    def write(self, engine: Engine, names: Ids | Sequence[str] | None, overwrite: bool) -> None:
        """Write the bundle: whole beside its place, then into it."""
        called = Names.from_strings([])
        if names is not None and not isinstance(names, np.ndarray):
            called = Names.from_strings(names, self._numbers(getattr(engine, "keeps_ids", True)))
        shard, description = self._options.shard, dict[str, Any]()
        if shard is not None:
            description = {"shard": [shard.number, shard.count], "of_rows": self._rows.n}
        self._tell("writing", 0, 1)
        if overwrite and self._out.exists():
            save_bundle(engine, self._out, names=called, overwrite=True, description=description)
            self._note(saved=True)
        else:
            whole = self._folder / "bundle"
            if whole.exists():
                shutil.rmtree(whole)
            save_bundle(engine, whole, names=called, description=description)
            self._note(saved=True)
            os.replace(whole, self._out)
            sync(self._out.parent)
        self._tell("writing", 1, 1)


def _plain(options: BuildOptions) -> dict[str, Any]:
    shard = options.shard
    return {
        "engine": options.engine,
        "factory": options.factory,
        "nprobe": options.nprobe,
        "seed": options.seed,
        "shard": None if shard is None else [shard.number, shard.count],
        "given": options.given,
    }


def _read_json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ArtifactError(f"{file} is damaged. Build without --resume to start again.") from exc
    return found if isinstance(found, dict) else {}


def _write_json(file: Path, value: Mapping[str, Any]) -> None:
    with atomic_file(file) as partial:
        partial.write_text(json.dumps(value) + "\n", encoding="utf-8")
