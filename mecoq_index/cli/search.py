"""``mecoq-index search``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._engine_options import check_engine_options, engine_options
from ._index import INDEX, open_index
from ._options import EXISTING, given_option, image_options, output_options
from ._output import Output

if TYPE_CHECKING:
    from ..codebooks import VectorKind
    from ..index.results import Hit


@click.command()
@click.argument("index", type=INDEX)
@click.argument("query", type=EXISTING)
@click.option("-k", default=10, show_default=True, type=click.IntRange(min=1), help="Results.")
@engine_options("search", "open")
@click.option(
    "--codebooks",
    type=EXISTING,
    help="Refuse unless the index was built with these. [default: the index's own]",
)
@given_option
@image_options
@output_options
def search(
    index: str,
    query: Path,
    k: int,
    options: dict[str, Any],
    codebooks: Path | None,
    given: VectorKind | None,
    images: dict[str, Any],
    output: Output,
) -> None:
    """Search INDEX for the items nearest to QUERY: an image, a folder of images, or vectors.

    INDEX is an index folder, or an address: http://localhost:19530/photos, photos.db. Scores are
    AQS, larger is better. With --json, one object a query goes to standard output.

    \b
    Example:
        mecoq-index search photos.mecoq query.jpg -k 10
        mecoq-index search http://localhost:19530/photos query.jpg \\
            --filter "year > 2020"
    """
    opened, options = open_index(index, options, codebooks)
    check_engine_options(options, opened.engine.name, "search")
    with output.progress("searching") as update:
        results = opened.search(query, k, given=given, progress=update, **images, **options)
    for hits in results.rows():
        if output.as_json:
            output.print_json({"query": hits.query, "hits": [_plain(hit) for hit in hits]})
            continue
        output.print_line(f"query {hits.query}")
        for rank, hit in enumerate(hits, start=1):
            fields = "".join(f"  {name}={value}" for name, value in hit.fields.items())
            called_hit = hit.id if hit.name is None else hit.name
            output.print_line(f"{rank:5d}  {hit.score:9.4f}  {called_hit}{fields}")


def _plain(hit: Hit) -> dict[str, Any]:
    named = {} if hit.name is None else {"name": hit.name}
    fields = {"fields": dict(hit.fields)} if hit.fields else {}
    return {"id": hit.id, **named, "score": round(hit.score, 6), **fields}
