"""``mecoq-index add``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._engine_options import engine_options
from ._index import INDEX, open_index
from ._options import given_option, image_options, output_options, positional, reading_options
from ._output import Output, counted

if TYPE_CHECKING:
    from ..codebooks import VectorKind


@click.command()
@click.argument("index", type=INDEX)
@positional("source", old="--input")
@engine_options("open")
@reading_options
@given_option
@image_options
@output_options
def add(
    index: str,
    source: Path,
    options: dict[str, Any],
    reading: dict[str, Any],
    given: VectorKind | None,
    images: dict[str, Any],
    output: Output,
) -> None:
    """Add the items of SOURCE to INDEX: images, vectors or codes, as in build.

    The change to an index folder is on disk as a whole or not at all. Lists of an IVF index stay
    as they are.

    \b
    Example:
        mecoq-index add photos.mecoq more-photos/
        mecoq-index add vectors.mecoq more.npy --ids more-names.txt
    """
    opened, _ = open_index(index, options, changes=True)
    with output.progress("encoding") as update:
        added = opened.add(source, given=given, progress=update, **reading, **images)
        opened.save()
    place = opened.path or opened.address  # not INDEX, which may hold a password
    output.report_skipped(opened.skipped)
    output.done(
        f"added {counted(len(added))}: {place} holds {len(opened):,} now",
        {"added": len(added), **opened.describe()},
        next_command=("mecoq-index", "search", str(place), "QUERY"),
    )
