"""``mecoq-index search``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InvalidInputError
from ._shared import EXISTING, device_option, given_option, json_option, load_inputs, print_json

if TYPE_CHECKING:
    from ..codebooks import VectorKind


@click.command()
@click.argument("index", type=EXISTING)
@click.argument("query", type=EXISTING)
@click.option("-k", default=10, show_default=True, type=click.IntRange(min=1), help="Results.")
@click.option("--nprobe", type=click.IntRange(min=1), help="For IVF: lists to visit.")
@click.option(
    "--k-factor",
    type=click.IntRange(min=1),
    help="For FastScan: fetch so many times k items, and rank them again exactly.",
)
@click.option("--codebooks", type=EXISTING, help="Refuse unless the index was built with these.")
@given_option
@device_option
@json_option
def search(
    index: Path,
    query: Path,
    k: int,
    nprobe: int | None,
    k_factor: int | None,
    codebooks: Path | None,
    given: VectorKind | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Search INDEX for the items nearest to QUERY: an image, a folder of images, or vectors.

    Scores are AQS, larger is better. With --json, one object a query goes to standard output.

    \b
    Example:
        mecoq-index search photos.mecoq query.jpg -k 10
    """
    from ..codebooks import Codebooks
    from ..engines.stored import open_bundle

    engine, bundle = open_bundle(index)
    if codebooks is not None:
        bundle.check_codebooks(Codebooks.load(codebooks))
    if k > len(engine):
        raise InvalidInputError(f"k must be at most the index's {len(engine)} items, got {k}.")
    given_options = {"nprobe": nprobe, "k_factor": k_factor}
    options: dict[str, Any] = {name: v for name, v in given_options.items() if v is not None}
    if options and bundle.engine != "faiss":
        raise click.UsageError("--nprobe and --k-factor are for the faiss engine.")
    inputs = load_inputs(query, bundle.codebooks, given=given, device=device)
    hits = engine.search(inputs.z, k, **options)
    names = inputs.names or [str(row) for row in range(len(inputs.z))]
    for name, ids, scores in zip(names, hits.ids, hits.scores, strict=True):
        found = [
            {
                "id": int(i),
                **({"name": bundle.names[i]} if bundle.names else {}),
                "score": round(float(s), 6),
            }
            for i, s in zip(ids, scores, strict=True)
            if i >= 0
        ]
        if as_json:
            print_json({"query": name, "hits": found})
            continue
        click.echo(f"query {name}")
        for rank, hit in enumerate(found, start=1):
            click.echo(f"{rank:5d}  {hit['score']:9.4f}  {hit.get('name', hit['id'])}")
