"""Build a bundle from vectors or codes of any number, in bounded memory, resumable at any moment.

Finished parts are kept in the workspace of the output (see `_workspace`) until the bundle is there:

    codes.npy       uint8 (n, M)
    trained.npz     what the engine's builder learned first, such as the centroids of lists
    places.npy      int32 (n,), where each item goes, if the builder decides that
    bundle/         the output before it is moved to its place

Rows are read and encoded in chunks whose bounds depend on the job alone, so a build that was killed
and resumed gives the same bytes as one that was not. (HNSW graphs over the items are an exception
on more than one thread: FAISS's threads link items in the order in which they get to them.)
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arguments import check_known
from .._array_file import open_archive
from .._arrays import Codes, Ids, check_ids
from .._files import atomic_file, move_directory, remove, sync
from .._progress import Progress, silent
from .._reading import check_readable
from .._workspace import Column, Job, Workspace
from ..codebooks import Codebooks, VectorKind
from ..data.reader import RowReader, sample_digest, state_of_files
from ..embed.rows import RowEncoder
from ..engines.base import Batch, Builder, Engine
from ..engines.registry import DEFAULT_ENGINE, get_engine
from ..errors import ArtifactError, InvalidInputError
from .columns import Columns, ItemColumns
from .manifest import read_manifest
from .names import Names
from .shard import Shard
from .stored import check_place, save_bundle

_BUILD = "build"  # what the workspace calls this work
_NOTE_SECONDS = 0.2
_ADDED_AT_A_TIME = 1 << 16
_SUPPOSED_ITEMS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What decides the content of the bundle, beside rows and codebooks."""

    engine: str = DEFAULT_ENGINE
    """Name of the engine."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What the engine is told, by the names of its options of the stage ``build``."""
    shard: Shard | None = None
    """Which part to build; None for all."""
    given: VectorKind | None = None
    """Whether vectors are features or embeddings; told apart by their width if None."""

    def builder(self, codebooks: Codebooks, items: int, **more: Any) -> Builder:
        """The engine's builder for so many items; ``more`` are arguments that are no options.

        Raises:
            InvalidInputError: If the engine does not know an option, or cannot represent it or the
                codebooks.
        """
        engine = get_engine(self.engine)
        known = [option.name for option in engine.options if "build" in option.stages]
        check_known(self.options, known, what=f"option of the {self.engine} engine")
        built: Builder = engine.builder(codebooks, items, **self.options, **more)
        return built

    def plain(self) -> dict[str, Any]:
        """Plain values that tell a job from another one; secrets are left out."""
        secret = {o.name for o in get_engine(self.engine).options if o.is_secret}
        return {
            "engine": self.engine,
            **{name: value for name, value in self.options.items() if name not in secret},
            "shard": None if self.shard is None else [self.shard.number, self.shard.count],
            "given": self.given,
        }


def build_bundle(
    rows: RowReader,
    codebooks: Codebooks,
    out: str | Path,
    options: BuildOptions | None = None,
    *,
    ids: Ids | None = None,
    names: Sequence[str] | None = None,
    columns: Columns | None = None,
    source: Mapping[str, Any] | None = None,
    workspace: Workspace | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: Progress = silent,
) -> Engine | None:
    """Encode rows and write a bundle.

    Args:
        rows: float32 vectors, features (n, P) or embeddings (n, D), or uint8 codes (n, M).
        codebooks: The codebooks.
        out: The folder to make.
        options: Engine, layout, shard.
        ids: The ids of the rows of the whole, not of the shard, int64 (n,); their numbers if None.
        names: The names of the rows of the whole, n strings; None without.
        columns: Values that the rows of the whole carry, in their order.
        source: Plain values that tell the rows' source from another one, for `resume`.
        workspace: The workspace of the output if it is locked already.
        resume: Whether to go on from what an interrupted build of the same job has left.
        overwrite: Whether an existing bundle may be replaced.
        on_progress: Called with (text, items done, items in all).

    Returns:
        The engine with all items; None if an earlier run had finished the job already.

    Raises:
        InvalidInputError: If rows, ids or options do not fit, or the output may not be written, or
            a job that is resumed was another one.
        ArtifactError: If the rows on disk are damaged, or another program builds this output.
    """
    out, options = Path(out), options or BuildOptions()
    job = _Job(rows, codebooks, out, options, ids, names, columns, source or {}, on_progress)
    check_output_bundle(out, options, codebooks, overwrite=overwrite or resume)
    with nullcontext(workspace) if workspace else Workspace.beside(out).locked(resume) as work:
        job.begin(work)
        finished = is_written(work, out)
        check_place(out, overwrite=overwrite or finished)
        if finished:
            return None
        job.prepare()
        job.encode_rows()
        engine = job.fill_engine()
        job.write(engine, overwrite)
        return engine


def is_written(workspace: Workspace, out: Path) -> bool:
    """Whether the build whose workspace this is has written the output, but was not tidied up.

    Raises:
        ArtifactError: If the output is no bundle, or damaged.
    """
    written = workspace.done_of(_BUILD).get("written")
    return bool(written and out.exists() and read_manifest(out).get("checksum") == written)


def check_output_bundle(
    out: Path, options: BuildOptions, codebooks: Codebooks, *, overwrite: bool
) -> None:
    """Refuse what could not be built or written, before any work is done for it.

    Raises:
        InvalidInputError: If options do not fit the codebooks, or the output may not be written.
    """
    options.builder(codebooks, _SUPPOSED_ITEMS)
    check_place(out, overwrite=overwrite)


class _Job:
    """One build."""

    def __init__(
        self,
        rows: RowReader,
        codebooks: Codebooks,
        out: Path,
        options: BuildOptions,
        ids: Ids | None,
        names: Sequence[str] | None,
        columns: Columns | None,
        source: Mapping[str, Any],
        on_progress: Progress,
    ) -> None:
        self._rows, self._codebooks, self._out = rows, codebooks, out
        self._options, self._tell = options, on_progress
        self._encoder = RowEncoder(rows, codebooks, options.given)
        self._sample = sample_digest(rows)
        self._start, self._stop = (options.shard or Shard(1, 1)).bounds(rows.n, self._encoder.chunk)
        self._n = self._stop - self._start
        part = slice(self._start, self._stop)
        self._ids = None if ids is None else check_ids(ids, rows.n)[part]
        self._names = None if names is None else _one_a_row("names", names, rows.n)[part]
        self._columns = {
            name: _one_a_row(f"column {name!r}", values, rows.n)[part]
            for name, values in (columns or {}).items()
        }
        self._about = {
            **source,
            "number of rows": rows.n,
            "width of rows": rows.width,
            "rows": [self._sample, state_of_files(rows)],
            "codebooks": codebooks.fingerprint,
            **options.plain(),
            "chunk": self._encoder.chunk,
        }

    def begin(self, workspace: Workspace) -> None:
        """Take up the work where an earlier run has left it.

        Raises:
            InvalidInputError: If what the workspace holds is left from another job.
            ArtifactError: If it is damaged.
        """
        self._job: Job = workspace.job(_BUILD, self._about)
        self._codes = self._column("codes", self._codebooks.M, dtype=np.uint8)

    def prepare(self) -> None:
        """Make what can be made, and refuse what can be refused, before the rows are read.

        Raises:
            InvalidInputError: If rows and ids do not fit the options.
        """
        self._builder = self._options.builder(self._codebooks, self._rows.n)
        keeps_ids = self._builder.keeps_ids
        self._runs = self._builder.rows_to_train_on(self._rows.n)
        self._numbers: Ids | range = range(self._start, self._stop) if keeps_ids else range(self._n)
        if self._ids is not None:
            self._builder.check_ids(self._ids if keeps_ids else self._ids - self._start)
            if keeps_ids:
                self._numbers = self._ids
        self._called = Names.from_strings([])
        if self._names is not None:
            self._called = Names.from_strings(self._names, _as_array(self._numbers))

    def _column(self, name: str, *width: int, dtype: Any) -> Column:
        return Column(self._job.path / f"{name}.npy", (self._n, *width), dtype)

    def _fill(
        self, column: Column, label: str, make: Callable[[int, int], npt.NDArray[Any]]
    ) -> None:
        """Write a column chunk by chunk, from the first one that is not noted as written."""
        name = column.path.stem
        at = self._job.count(name, self._n)
        column.check(at)
        noted = time.monotonic()
        while at < self._n:
            chunk = self._encoder.chunk
            end = min((self._start + at) // chunk * chunk + chunk, self._stop) - self._start
            column.write(at, make(at, end))
            if end == self._n or time.monotonic() > noted + _NOTE_SECONDS:
                sync(column.path)
                self._job.note(**{name: end})
                noted = time.monotonic()
            self._tell(label, end, self._n)
            at = end

    def encode_rows(self) -> None:
        """Write the codes of all rows to disk."""

        def encode(at: int, end: int) -> Codes:
            return self._encoder.encode(self._start + at, self._start + end)

        self._fill(self._codes, "encoding", encode)

    def fill_engine(self) -> Engine:
        """The engine with all items."""
        if self._runs:
            self._train()
        places = self._places()
        stored = dict(self._columns) if get_engine(self._options.engine).stores_columns else {}
        if stored and len(self._called):
            stored["name"] = list(self._called)
        for at in range(0, self._n, _ADDED_AT_A_TIME):
            end = min(at + _ADDED_AT_A_TIME, self._n)
            self._builder.add(
                Batch(
                    self._codes.read(at, end),
                    self._numbers[at:end],
                    None if places is None else places.read(at, end),
                    {name: values[at:end] for name, values in stored.items()},
                )
            )
            self._tell("adding", end, self._n)
        return self._builder.finish(self._tell)

    def _train(self) -> None:
        """Let the builder learn, or take up what it learned before an interruption."""
        file = self._job.path / "trained.npz"
        if os.path.lexists(file):
            self._builder.restore(_read_arrays(file))
            return
        trained = self._builder.train(self._codes_to_train_on(), self._tell)
        with atomic_file(file) as partial, partial.open("wb") as stream:
            np.savez(stream, **dict(trained))  # type: ignore[arg-type]

    def _codes_to_train_on(self) -> Codes:
        """Codes of rows of the whole, so that all shards learn the same."""
        whole = self._options.shard is None
        read = self._codes.read if whole else self._encoder.encode
        return np.concatenate([read(first, last) for first, last in self._runs])

    def _places(self) -> Column | None:
        """The place of every item, on disk; None if the builder decides nothing."""
        if not self._n or self._builder.place(self._codes.read(0, 1)) is None:
            return None
        column = self._column("places", dtype=np.int32)

        def place(at: int, end: int) -> npt.NDArray[np.int32]:
            found = self._builder.place(self._codes.read(at, end))
            if found is None:
                raise InvalidInputError(
                    f"the {self._options.engine} engine must give a place to all items or to none."
                )
            return found

        self._fill(column, "placing", place)
        return column

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
                columns=ItemColumns.from_values(self._columns, _as_array(self._numbers)),
                overwrite=overwrite,
                description=description,
                on_written=lambda checksum: self._job.note(written=checksum),
            )

        self._tell("writing", 0, 1)
        if overwrite and self._out.exists():
            save(self._out)
        else:
            whole = self._job.path / "bundle"
            remove(whole)
            save(whole)
            move_directory(whole, self._out)
        self._tell("writing", 1, 1)


def _read_arrays(file: Path) -> dict[str, npt.NDArray[Any]]:
    check_readable(file, links=False)
    try:
        with open_archive(file, what="file of arrays") as archive:
            return {name: archive[name] for name in archive.headers}
    except ArtifactError as exc:
        raise ArtifactError(f"{exc} Build without --resume to start again.") from exc


def _as_array(ids: Ids | range) -> Ids:
    # np.array of a range makes an object of every number first.
    return np.arange(ids.start, ids.stop, dtype=np.int64) if isinstance(ids, range) else ids


def _one_a_row(what: str, values: Any, n: int) -> Any:
    """Values, if there is one for each of n rows.

    Raises:
        InvalidInputError: If there is not.
    """
    if len(values) != n:
        raise InvalidInputError(f"{what} must be one a row, {n} in all, got {len(values)}.")
    return values
