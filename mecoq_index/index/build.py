"""Build a bundle from vectors or codes of any number, in bounded memory, resumable at any moment.

What is finished is kept in a folder beside the output (see `_workspace`) until the bundle is there:

    codes.npy       uint8 (n, M)
    centroids.npy   float32 (nlist, D)       IVF only, as lists.npy
    lists.npy       int32 (n,)
    bundle/         the output before it is moved to its place

Rows are read and encoded in chunks whose bounds depend on the job alone, so a build that was killed
and resumed, and one that was not, give the same bytes. (Of HNSW graphs over the items that holds on
one thread only: FAISS's threads link items in the order in which they get to them.)
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from .._arrays import Codes, Ids, Vectors, check_ids
from .._files import atomic_file, load_npy, move_directory, sync
from .._progress import Progress
from .._workspace import Column, Workspace
from ..codebooks import Codebooks, VectorKind
from ..data.reader import RowReader, sample_digest, state_of_files
from ..embed.rows import RowEncoder
from ..engines.base import Engine
from ..engines.registry import get_engine
from ..errors import InvalidInputError
from ..scoring import decode
from .bundle import Bundle
from .names import Names
from .stored import check_place, save_bundle

_NOTE_SECONDS = 0.2
_ADDED_AT_A_TIME = 1 << 16


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

    def bounds(self, n: int, chunk: int = 1) -> tuple[int, int]:
        """Its first row, and the one after its last, of n rows that are encoded in chunks.

        Where there are many chunks, shards end where chunks do: then every product of matrices is
        of the same rows as in a build of the whole, and rounded alike.
        """
        step = chunk if n >= 8 * self.count * chunk else 1
        first, last = (i * (n // step) // self.count * step for i in (self.number - 1, self.number))
        return first, n if self.number == self.count else last


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
    rows: RowReader,
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
    out, options = Path(out), options or BuildOptions()
    job = _Job(rows, codebooks, out, options, ids, source or {}, on_progress or _silent)
    job.workspace.remove_empty()
    finished = resume and job.is_finished()
    check_output_bundle(out, options, codebooks, overwrite=overwrite or finished)
    job.prepare()
    with job.workspace.locked(resume):
        if not (resume and job.is_finished()):
            job.encode_rows()
            job.write(job.fill_engine(), overwrite)


def check_output_bundle(
    out: Path, options: BuildOptions, codebooks: Codebooks, *, overwrite: bool
) -> None:
    """Refuse what could not be built or written, before any work is done for it.

    Raises:
        InvalidInputError: If options do not fit the codebooks, or the output may not be written.
    """
    if options.engine == "faiss":
        from ..engines.faiss.engine import FaissEngine

        FaissEngine.empty(
            codebooks, options.factory or "MeCoQ", items=1 << 20, nprobe=options.nprobe
        )
    elif options.factory is not None or options.nprobe is not None:
        raise InvalidInputError(
            f"factory and nprobe are for the faiss engine, but this is {options.engine!r}."
        )
    get_engine(options.engine)
    check_place(out, overwrite=overwrite)


def _silent(text: str, done: int, total: int) -> None:
    pass


class _Job:
    """One build."""

    def __init__(
        self,
        rows: RowReader,
        codebooks: Codebooks,
        out: Path,
        options: BuildOptions,
        ids: Ids | Sequence[str] | None,
        source: Mapping[str, Any],
        on_progress: Progress,
    ) -> None:
        self._rows, self._codebooks, self._out = rows, codebooks, out
        self._options, self._tell = options, on_progress
        self._encoder = RowEncoder(rows, codebooks, options.given)
        self._sample = sample_digest(rows)
        self._start, self._stop = (options.shard or Shard(1, 1)).bounds(rows.n, self._encoder.chunk)
        self._n = self._stop - self._start
        self._ids = _split_ids(ids, rows.n, self._start, self._stop)
        self.workspace = Workspace(
            out.with_name(f".{out.name}.build"),
            {
                **source,
                "number of rows": rows.n,
                "width of rows": rows.width,
                "rows": [self._sample, state_of_files(rows)],
                "codebooks": codebooks.fingerprint,
                **_plain(options),
                "chunk": self._encoder.chunk,
            },
        )
        self._codes = self._column("codes", codebooks.M, dtype=np.uint8)

    def is_finished(self) -> bool:
        """Whether an earlier run of this job has done all but tidying up."""
        written = self.workspace.done().get("written")
        if written is None or not self._out.exists():
            return False
        return bool(Bundle.read_manifest(self._out).get("checksum") == written)

    def prepare(self) -> None:
        """Make what can be made, and refuse what can be refused, before the rows are read.

        Raises:
            InvalidInputError: If rows and ids do not fit the options.
        """
        engine: Any = None  # of engines other than FAISS, which are built as a whole
        self._called, keeps_ids = Names.from_strings([]), True
        if self._options.engine == "faiss":
            from ..engines.faiss.coarse import sample_runs
            from ..engines.faiss.engine import FaissEngine

            engine = FaissEngine.empty(
                self._codebooks,
                self._options.factory or "MeCoQ",
                items=self._rows.n,
                nprobe=self._options.nprobe,
            )
            keeps_ids = engine.keeps_ids
            if engine.spec.nlist:
                sample_runs(self._rows.n, engine.spec.nlist, self._options.seed)
        numbers = range(self._start, self._stop) if keeps_ids else range(self._n)
        if isinstance(self._ids, np.ndarray):
            if not keeps_ids and (self._ids != np.arange(self._start, self._stop)).any():
                raise InvalidInputError(
                    f"{engine.spec} numbers its items itself, so ids must be their row numbers. "
                    f"Use '{engine.spec},IDMap2' for ids of your own."
                )
        elif self._ids is not None:
            self._called = Names.from_strings(self._ids, _as_array(numbers))
        self._numbers = self._ids if keeps_ids and isinstance(self._ids, np.ndarray) else numbers
        self._engine = engine

    def _column(self, name: str, *width: int, dtype: Any) -> Column:
        return Column(self.workspace.path / f"{name}.npy", (self._n, *width), dtype)

    def _fill(
        self, column: Column, label: str, make: Callable[[int, int], npt.NDArray[Any]]
    ) -> None:
        """Write a column chunk by chunk, from the first one that is not noted as written."""
        name = column.path.stem
        at = int(self.workspace.done().get(name, 0))
        column.check(at)
        noted = time.monotonic()
        while at < self._n:
            chunk = self._encoder.chunk
            end = min((self._start + at) // chunk * chunk + chunk, self._stop) - self._start
            column.write(at, make(at, end))
            if end == self._n or time.monotonic() > noted + _NOTE_SECONDS:
                sync(column.path)
                self.workspace.note(**{name: end})
                noted = time.monotonic()
            self._tell(label, end, self._n)
            at = end

    def encode_rows(self) -> None:
        """Codes of all rows, on disk."""

        def encode(at: int, end: int) -> Codes:
            return self._encoder.encode(self._start + at, self._start + end)

        self._fill(self._codes, "encoding", encode)

    def fill_engine(self) -> Engine:
        """The engine with all items."""
        engine: Any = self._engine
        if engine is None:
            engine = get_engine(self._options.engine).build(
                self._codebooks, self._codes.read(0, self._n), _as_array(self._numbers)
            )
            return cast(Engine, engine)
        from ..engines.faiss.items import Adder

        lists = self._lists(engine) if engine.spec.nlist else None
        adder = Adder(engine.layers, self._codebooks)
        for at in range(0, self._n, _ADDED_AT_A_TIME):
            end = min(at + _ADDED_AT_A_TIME, self._n)
            adder.add(
                self._codes.read(at, end),
                self._numbers[at:end],
                lists=None if lists is None else lists.read(at, end),
            )
            self._tell("adding", end, self._n)
        adder.finish()
        return cast(Engine, engine)

    def _lists(self, engine: Any) -> Column:
        """The list of every code, on disk, after the lists were made for the engine."""
        from ..engines.faiss.coarse import assign_lists, set_centroids

        set_centroids(engine.index, self._centroids(engine.spec.nlist), seed=self._options.seed)

        def assign(at: int, end: int) -> Ids:
            return assign_lists(engine.layers.core, self._codes.read(at, end), self._codebooks)

        column = self._column("lists", dtype=np.int32)
        self._fill(column, "assigning lists", assign)
        return column

    def _centroids(self, nlist: int) -> Vectors:
        from ..engines.faiss.coarse import make_centroids

        file = self.workspace.path / "centroids.npy"
        if not file.exists():
            centroids = make_centroids(
                decode(self._codes_for_lists(nlist), self._codebooks),
                nlist,
                seed=self._options.seed,
                on_progress=lambda done, total: self._tell("making lists", done, total),
            )
            with atomic_file(file) as partial, partial.open("wb") as stream:
                np.save(stream, centroids)
        return load_npy(file)

    def _codes_for_lists(self, nlist: int) -> Codes:
        """The codes that lists are made from: of the whole, so that all shards make the same."""
        from ..engines.faiss.coarse import sample_runs

        whole = self._options.shard is None
        read = self._codes.read if whole else self._encoder.encode
        runs = sample_runs(self._rows.n, nlist, self._options.seed)
        return np.concatenate([read(first, last) for first, last in runs])

    def write(self, engine: Engine, overwrite: bool) -> None:
        """Write the bundle: whole beside its place, then into it."""
        shard, description = self._options.shard, dict[str, Any]()
        if shard is not None:
            description = {
                "shard": [shard.number, shard.count],
                "of_rows": self._rows.n,
                "sample": self._sample,
            }

        def save(path: Path) -> None:
            save_bundle(
                engine,
                path,
                names=self._called,
                overwrite=overwrite,
                description=description,
                on_written=lambda checksum: self.workspace.note(written=checksum),
            )

        self._tell("writing", 0, 1)
        if overwrite and self._out.exists():
            save(self._out)
        else:
            whole = self.workspace.path / "bundle"
            if whole.exists():
                shutil.rmtree(whole)
            save(whole)
            move_directory(whole, self._out)
        self._tell("writing", 1, 1)


def _as_array(ids: Ids | range) -> Ids:
    # np.array of a range makes an object of every number first.
    return np.arange(ids.start, ids.stop, dtype=np.int64) if isinstance(ids, range) else ids


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
