"""``mecoq-index reencode``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._options import (
    EXISTING,
    PATH,
    all_images_options,
    codebooks_option,
    finding_options,
    given_option,
    output_options,
    overwrite_option,
    positional,
)
from ._output import Output

if TYPE_CHECKING:
    from ..codebooks import VectorKind


@click.command()
@click.argument("index", type=EXISTING)
@positional("source", old="--input")
@codebooks_option
@click.option("--out", type=PATH, required=True, help="The index folder to write.")
@finding_options
@given_option
@all_images_options
@overwrite_option
@output_options
def reencode(
    index: Path,
    source: Path,
    codebooks: Path,
    out: Path,
    reading: dict[str, Any],
    given: VectorKind | None,
    images: dict[str, Any],
    overwrite: bool,
    output: Output,
) -> None:
    """Encode the items of INDEX again, by codebooks that were trained anew.

    SOURCE holds the items' images or vectors. Ids, names, columns, layout and settings stay, so the
    new codebooks need as many codebooks and codewords. Items are found by their names or ids, and
    each must be there. A collection of Milvus is made anew instead: build --overwrite.

    \b
    Example:
        mecoq-index train photos/ --bits 64 --out new.pt
        mecoq-index reencode photos.mecoq photos/ --codebooks new.pt \\
            --out new.mecoq
    """
    from ..index.index import open_index

    with output.progress("encoding") as update:
        made = open_index(index).reencode(
            codebooks,
            source,
            out=out,
            given=given,
            overwrite=overwrite,
            progress=update,
            **reading,
            **images,
        )
    output.done(
        f"wrote {out}: {len(made)} items, encoded by {codebooks}",
        dict(made.describe()),
        next_command=("mecoq-index", "search", out, "QUERY"),
    )
