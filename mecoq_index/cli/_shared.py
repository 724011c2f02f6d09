"""What several commands share: parameter types, progress on standard error, inputs."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InvalidInputError, MecoqError, ServerError

if TYPE_CHECKING:
    from rich.table import Table

    from .._arrays import Codes, Ids, Vectors
    from ..codebooks import Codebooks, VectorKind

PATH = click.Path(path_type=Path)
EXISTING = click.Path(exists=True, path_type=Path)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace an existing output.")
device_option = click.option("--device", help="cpu, cuda, ... [default: CUDA where there is one]")
strict_option = click.option(
    "--strict", is_flag=True, help="Refuse unreadable images instead of skipping them."
)
workers_option = click.option(
    "--workers",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Processes that load images.",
)
given_option = click.option(
    "--given",
    type=click.Choice(["features", "embeddings"]),
    help="What the vectors are; needed only where the two have one width.",
)
ids_option = click.option(
    "--ids",
    type=EXISTING,
    help="What the rows are called: .npy of int64, .txt of one name a line, or a .parquet column. "
    "[default: their numbers]",
)
column_option = click.option("--column", help="For .parquet: the column of vectors.")


def check_output(path: Path, overwrite: bool) -> None:
    """Refuse an output that could not be written, before any work is done for it.

    Raises:
        InvalidInputError: If its folder is missing, or it exists and may not be replaced.
    """
    if not path.parent.is_dir():
        raise InvalidInputError(f"the folder {path.parent} does not exist. Create it first.")
    if path.exists() and not overwrite:
        raise InvalidInputError(
            f"{path} exists already. Choose another name, or allow replacing it with --overwrite."
        )


@contextmanager
def progress(label: str) -> Iterator[Callable[..., None]]:
    """A bar with an ETA on standard error; silent when nobody is watching.

    Yields a function that takes steps done, steps in all and, optionally, a text.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(file=sys.stderr)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=None, text="")

        def update(done: int, total: int, text: str = "") -> None:
            bar.update(task, completed=done, total=total, text=text)

        yield update


def say(text: str) -> None:
    """One line for people, on standard error."""
    click.echo(text, err=True)


def print_json(value: Any) -> None:
    """One JSON object on standard output."""
    click.echo(json.dumps(value, ensure_ascii=False))


def report_skipped(skipped: Sequence[tuple[Any, str]]) -> None:
    """Count and list the images that could not be read."""
    if skipped:
        say(f"skipped {len(skipped)} unreadable images:")
        for _, reason in skipped:
            say(f"  {reason}")


@contextmanager
def chunk_store(out: Path, resume: bool) -> Iterator[Path]:
    """A folder beside ``out`` for finished chunks; kept on interruption, removed when done.

    A run that is refused leaves nothing behind either, but what an earlier run kept stays, and
    so does everything when it is a server that failed.
    """
    store = out.with_name(f".{out.name}.chunks")
    if store.exists() and not resume:
        shutil.rmtree(store)
    found = store.exists()
    try:
        yield store
    except MecoqError as exc:
        if not found and not isinstance(exc, ServerError):
            shutil.rmtree(store, ignore_errors=True)
        raise
    shutil.rmtree(store, ignore_errors=True)


def print_table(table: Table) -> None:
    """A table on standard output, wide enough for all columns where nobody is watching."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=180)
    console.print(table)


def report_bundle(path: Path, as_json: bool) -> None:
    """Say what a bundle that was just written holds."""
    from ..index.bundle import Bundle

    description = Bundle.read_manifest(path)["description"]
    if as_json:
        print_json(description)
    else:
        say(f"wrote {path}: " + ", ".join(f"{k} {v}" for k, v in description.items()))


def is_images(source: Path) -> bool:
    """Whether a source is an image or a folder of images, not of vectors."""
    from ..data.source import holds_images

    return holds_images(source)


def load_ids_option(path: Path | None) -> Ids | list[str] | None:
    """What ``--ids`` names; None without."""
    from ..data.metadata import load_ids

    return None if path is None else load_ids(path)


@dataclass(frozen=True, eq=False)
class Inputs:
    """Embeddings and what each is called."""

    z: Vectors
    names: list[str]


def load_inputs(
    source: Path,
    codebooks: Codebooks,
    *,
    given: VectorKind | None = None,
    device: str | None = None,
    workers: int = 0,
    strict: bool = False,
    store: Path | None = None,
) -> Inputs:
    """Embeddings from a file of vectors, an image, or a folder of images.

    Raises:
        MecoqError: If the source cannot be read or does not fit the codebooks.
    """
    from ..embed.embedder import Embedder

    embedder = Embedder(codebooks, given=given, device=device, workers=workers, strict=strict)
    with progress("embedding") as update:
        embedded = embedder.embed(
            source, store=store, on_progress=lambda text, done, total: update(done, total)
        )
    report_skipped(embedded.skipped)
    return Inputs(embedded.z, embedded.names or [])


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where codes come from: images, or files of vectors or codes, and how to read them."""

    path: Path
    ids: Path | None = None
    column: str | None = None
    given: VectorKind | None = None
    device: str | None = None
    workers: int = 0
    strict: bool = False

    def load(
        self, codebooks: Codebooks, store: Path | None = None
    ) -> tuple[Codes, Ids | list[str] | None]:
        """All codes, in memory, and what they are called; None: their numbers.

        Raises:
            MecoqError: If the source cannot be read or does not fit the codebooks.
        """
        from ..data.vectors import open_vectors
        from ..embed.rows import RowEncoder
        from ..scoring import encode

        if is_images(self.path):
            if self.ids is not None or self.column is not None:
                raise click.UsageError("--ids and --column are for vectors, but these are images.")
            inputs = load_inputs(
                self.path,
                codebooks,
                device=self.device,
                workers=self.workers,
                strict=self.strict,
                store=store,
            )
            return encode(inputs.z, codebooks), inputs.names
        rows = open_vectors(self.path, column=self.column)
        ids = load_ids_option(self.ids)
        if ids is not None and len(ids) != rows.n:
            raise InvalidInputError(f"ids must be one an item, {rows.n}, got {len(ids)}.")
        with progress("encoding") as update:
            codes = RowEncoder(rows, codebooks, self.given).encode_all(
                lambda text, done, total: update(done, total, text)
            )
        return codes, ids
