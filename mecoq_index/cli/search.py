"""``mecoq-index search``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InvalidInputError
from ._milvus import INDEX, collection_option, open_index, token_option
from ._shared import EXISTING, device_option, given_option, json_option, load_inputs, print_json

if TYPE_CHECKING:
    from ..codebooks import VectorKind
    from ..engines.base import Engine
    from ..engines.hits import Hits
    from ..index.names import Names

_OPTIONS = {"nprobe": "faiss", "k_factor": "faiss", "filter": "milvus", "ef": "milvus"}


@click.command()
@click.argument("index", type=INDEX)
@click.argument("query", type=EXISTING)
@click.option("-k", default=10, show_default=True, type=click.IntRange(min=1), help="Results.")
@click.option("--nprobe", type=click.IntRange(min=1), help="For IVF: lists to visit.")
@click.option(
    "--k-factor",
    type=click.IntRange(min=1),
    help="For FastScan: fetch so many times k items, and rank them again exactly.",
)
@collection_option
@token_option
@click.option("--filter", help="For milvus: what must hold of an item, as 'name like \"cats/%\"'.")
@click.option("--ef", type=click.IntRange(min=1), help="For graph: items to look at, k or more.")
@click.option(
    "--codebooks",
    type=EXISTING,
    help="Refuse unless the index was built with these. Needed for a collection.",
)
@given_option
@device_option
@json_option
def search(
    index: Path | str,
    query: Path,
    k: int,
    collection: str | None,
    token: str | None,
    codebooks: Path | None,
    given: VectorKind | None,
    device: str | None,
    as_json: bool,
    **engine_options: Any,
) -> None:
    """Search INDEX for the items nearest to QUERY: an image, a folder of images, or vectors.

    INDEX is an index folder, or the address of a Milvus. Scores are AQS, larger is better. With
    --json, one object a query goes to standard output.

    \b
    Example:
        mecoq-index search photos.mecoq query.jpg -k 10
        mecoq-index search http://localhost:19530 query.jpg --collection photos --codebooks c.pt
    """
    engine, names = _open(index, collection, codebooks, token)
    options = {name: value for name, value in engine_options.items() if value is not None}
    _check_options(options, engine)
    if k > len(engine):
        raise InvalidInputError(f"k must be at most the index's {len(engine)} items, got {k}.")
    inputs = load_inputs(query, engine.codebooks, given=given, device=device)
    hits = engine.search(inputs.z, k, **options, **_name_field(engine))
    queries = inputs.names or [str(row) for row in range(len(inputs.z))]
    for row, called in enumerate(queries):
        found = _found(hits, row, names)
        if as_json:
            print_json({"query": called, "hits": found})
            continue
        click.echo(f"query {called}")
        for rank, hit in enumerate(found, start=1):
            click.echo(f"{rank:5d}  {hit['score']:9.4f}  {hit.get('name', hit['id'])}")


def _open(
    index: Path | str, collection: str | None, codebooks: Path | None, token: str | None
) -> tuple[Engine, Names]:
    """An engine, and names that are not in it."""
    from ..codebooks import Codebooks
    from ..index.names import Names

    books = None if codebooks is None else Codebooks.load(codebooks)
    if isinstance(index, Path):
        if collection is not None:
            raise click.UsageError(f"--collection is for the address of a Milvus, not for {index}.")
        engine, bundle = open_index(index, token)
        if books is not None:
            bundle.check_codebooks(books)
        return engine, bundle.names
    if collection is None or books is None:
        raise click.UsageError(
            "to search in a Milvus, name the --collection and the --codebooks that it was made "
            "with."
        )
    from ..engines.milvus.engine import MilvusEngine

    attached = MilvusEngine.attach(books, index, collection=collection, token=token)
    return attached, Names.from_strings([])


def _check_options(options: dict[str, Any], engine: Engine) -> None:
    for name in options:
        if _OPTIONS[name] != engine.name:
            alike = [option for option, owner in _OPTIONS.items() if owner == _OPTIONS[name]]
            listed = " and ".join("--" + option.replace("_", "-") for option in alike)
            raise click.UsageError(f"{listed} are for the {_OPTIONS[name]} engine.")


def _name_field(engine: Engine) -> dict[str, Any]:
    """What makes results carry their names, where names are in the engine."""
    if engine.name != "milvus":
        return {}
    from ..engines.milvus.engine import MilvusEngine
    from ..engines.milvus.schema import NAME

    has_names = isinstance(engine, MilvusEngine) and NAME in engine.columns()
    return {"output_fields": [NAME]} if has_names else {}


def _found(hits: Hits, row: int, names: Names) -> list[dict[str, Any]]:
    fields = getattr(hits, "fields", ())
    found = []
    for rank, (i, score) in enumerate(zip(hits.ids[row], hits.scores[row], strict=True)):
        if i < 0:
            continue
        called = {}
        if names:
            called = {"name": names[i]}
        elif fields:
            called = {"name": fields[row][rank]["name"]}
        found.append({"id": int(i), **called, "score": round(float(score), 6)})
    return found
