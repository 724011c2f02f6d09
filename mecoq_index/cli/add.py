"""``mecoq-index add``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._shared import (
    EXISTING,
    column_option,
    device_option,
    given_option,
    ids_option,
    is_images,
    json_option,
    load_ids_option,
    load_inputs,
    progress,
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
    from ..aqs import encode
    from ..bundle import Bundle
    from ..engines.encoding import encode_all
    from ..engines.updating import add_items
    from ..vector_files import open_vectors

    codebooks = Bundle.open(index).codebooks
    if is_images(source):
        if ids is not None or column is not None:
            raise click.UsageError("--ids and --column are for vectors, but these are images.")
        inputs = load_inputs(source, codebooks, device=device, workers=workers, strict=strict)
        added = add_items(index, encode(inputs.z, codebooks), inputs.names)
    else:
        with progress("encoding") as update:
            codes = encode_all(
                open_vectors(source, column=column),
                codebooks,
                given=given,
                on_progress=lambda text, done, total: update(done, total, text),
            )
        added = add_items(index, codes, load_ids_option(ids))
    say(f"added {len(added)} items")
    report_bundle(index, as_json)
