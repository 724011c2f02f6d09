"""``mecoq-index tune``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from ..errors import InvalidInputError
from ._shared import EXISTING, device_option, given_option, json_option, load_inputs, print_json

if TYPE_CHECKING:
    from ..codebooks import VectorKind


@click.command()
@click.argument("index", type=EXISTING)
@click.option(
    "--queries",
    type=EXISTING,
    required=True,
    help="Vectors or images like those to be searched for; not the ones to report results on.",
)
@click.option("--recall", default=0.95, show_default=True, type=click.FloatRange(0, 1))
@click.option("-k", default=10, show_default=True, type=click.IntRange(min=1), help="Results.")
@click.option("--save", is_flag=True, help="Make the nprobe found the index's own.")
@given_option
@device_option
@json_option
def tune(
    index: Path,
    queries: Path,
    recall: float,
    k: int,
    save: bool,
    given: VectorKind | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Find the smallest nprobe with which INDEX, an IVF index folder, reaches a recall.

    Recall is measured against exact AQS over all items, ties counted as found.

    \b
    Example:
        mecoq-index tune photos.mecoq --queries some.npy --recall 0.95 --save
    """
    from ..index.bundle import Bundle
    from ..index.stored import open_bundle, save_changes

    if (name := Bundle.read_manifest(index)["engine"]) != "faiss":
        raise InvalidInputError(
            f"only IVF indexes of faiss have an nprobe, but {index} is of {name}."
        )
    opened, bundle = open_bundle(index)
    from ..engines.faiss.engine import FaissEngine

    engine = cast(FaissEngine, opened)
    inputs = load_inputs(queries, bundle.codebooks, given=given, device=device)
    tuned = engine.tune(inputs.z, recall=recall, k=k)
    if save:
        engine.set_default(tuned.setting, tuned.value)
        save_changes(engine, bundle, bundle.names, bundle.columns)
    if as_json:
        print_json({"nprobe": tuned.value, "recall": tuned.recall, "curve": tuned.curve})
        return
    for nprobe, reached in tuned.curve:
        click.echo(f"nprobe {nprobe:6d}  recall@{k} {reached:.4f}")
    click.echo(f"nprobe {tuned.value} reaches {tuned.recall:.4f}" + " (saved)" * save)
