"""``mecoq-index merge``"""

from __future__ import annotations

from pathlib import Path

import click

from ._options import EXISTING, PATH, output_options, overwrite_option
from ._output import Output


@click.command()
@click.argument("parts", nargs=-1, required=True, type=EXISTING)
@click.option("--out", type=PATH, required=True, help="The index folder to write.")
@overwrite_option
@output_options
def merge(parts: tuple[Path, ...], out: Path, overwrite: bool, output: Output) -> None:
    """Join PARTS, index folders, into one; the parts stay as they are.

    \b
    Example:
        mecoq-index build vectors/ --codebooks c.pt --shards 1/2 --out part1.mecoq
        mecoq-index build vectors/ --codebooks c.pt --shards 2/2 --out part2.mecoq
        mecoq-index merge part1.mecoq part2.mecoq --out all.mecoq
    """
    from ..index.index import Index
    from ..index.merge import merge_bundles

    with output.progress("merging") as update:
        merged = Index(merge_bundles(parts, out, overwrite=overwrite, on_progress=update))
    output.done(
        f"wrote {out}: {merged.summary()}",
        merged.describe(),
        next_command=("mecoq-index", "search", out, "QUERY"),
    )
