"""``mecoq-index tune``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._engine_options import engine_options
from ._index import INDEX, open_index
from ._options import given_option, image_options, output_options, positional
from ._output import Output

if TYPE_CHECKING:
    from ..codebooks import VectorKind


@click.command()
@click.argument("index", type=INDEX)
@positional("queries", old="--queries")
@click.option(
    "--recall",
    default=0.95,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="The share of the nearest items to find.",
)
@click.option("-k", default=10, show_default=True, type=click.IntRange(min=1), help="Results.")
@click.option("--save", is_flag=True, help="Make the setting found the index's own.")
@engine_options("open")
@given_option
@image_options
@output_options
def tune(
    index: str,
    queries: Path,
    recall: float,
    k: int,
    save: bool,
    options: dict[str, Any],
    given: VectorKind | None,
    images: dict[str, Any],
    output: Output,
) -> None:
    """Find the setting of INDEX with which it reaches a recall fastest: the nprobe of IVF.

    QUERIES are vectors or images like those to be searched for, not the ones to report results on.
    Recall is measured against exact AQS over all items, with ties counted as found.

    \b
    Example:
        mecoq-index tune photos.mecoq some.npy --recall 0.95 --save
    """
    opened, _ = open_index(index, options, changes=save)
    with output.progress("tuning"):
        tuned = opened.tune(queries, recall=recall, k=k, save=save, given=given, **images)
    if output.as_json:
        output.print_json(
            {tuned.setting: tuned.value, "recall": tuned.recall, "curve": tuned.curve}
        )
        return
    for value, reached in tuned.curve:
        output.print_line(f"{tuned.setting} {value:6d}  recall@{k} {reached:.4f}")
    saved = " (saved)" * save
    output.print_line(f"{tuned.setting} {tuned.value} reaches {tuned.recall:.4f}{saved}")
    if not save:
        output.say("add --save to make it the index's own")
