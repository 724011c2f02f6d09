"""``mecoq-index merge``"""

from __future__ import annotations

from pathlib import Path

import click

from ._shared import EXISTING, PATH, json_option, overwrite_option, progress, report_bundle


@click.command()
@click.argument("parts", nargs=-1, required=True, type=EXISTING)
@click.option("--out", type=PATH, required=True, help="The index folder to write.")
@overwrite_option
@json_option
def merge(parts: tuple[Path, ...], out: Path, overwrite: bool, as_json: bool) -> None:
    """Join PARTS, index folders, into one; the parts stay as they are.

    \b
    Example:
        mecoq-index build ... --shards 1/2 --out part1.mecoq
        mecoq-index build ... --shards 2/2 --out part2.mecoq
        mecoq-index merge part1.mecoq part2.mecoq --out photos.mecoq
    """
    from ..index.merge import merge_bundles

    with progress("merging") as update:
        merge_bundles(
            parts,
            out,
            overwrite=overwrite,
            on_progress=lambda text, done, total: update(done, total, text),
        )
    report_bundle(out, as_json)
