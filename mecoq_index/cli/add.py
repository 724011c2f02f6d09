"""``mecoq-index add``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._shared import (
    EXISTING,
    Source,
    column_option,
    device_option,
    given_option,
    ids_option,
    json_option,
    report_bundle,
    say,
    strict_option,
    workers_option,
)

if TYPE_CHECKING:
    from ..codebooks import VectorKind


@click.command()
@click.argument("index", type=EXISTING)
@click.option(
    "--input",
    "source",
    type=EXISTING,
    required=True,
    help="Images, vectors or codes, as in build.",
)
@ids_option
@column_option
@given_option
@device_option
@workers_option
@strict_option
@json_option
def add(
    index: Path,
    source: Path,
    ids: Path | None,
    column: str | None,
    given: VectorKind | None,
    device: str | None,
    workers: int,
    strict: bool,
    as_json: bool,
) -> None:
    """Add images, vectors or codes to INDEX, an index folder.

    The change is on disk as a whole or not at all. Lists of an IVF index stay as they are.

    \b
    Example:
        mecoq-index add photos.mecoq --input more-photos/
    """
    from ..index.bundle import Bundle
    from ..index.stored import check_holds_items
    from ..index.update import add_items

    check_holds_items(index)
    wanted = Source(
        path=source,
        ids=ids,
        column=column,
        given=given,
        device=device,
        workers=workers,
        strict=strict,
    )
    added = add_items(index, *wanted.load(Bundle.open(index).codebooks))
    say(f"added {len(added)} items")
    report_bundle(index, as_json)
