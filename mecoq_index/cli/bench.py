"""``mecoq-index bench``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._milvus import quiet_pymilvus, token_option, uri_option
from ._shared import (
    EXISTING,
    PATH,
    check_output,
    given_option,
    overwrite_option,
    print_table,
    progress,
    say,
)
from ._shared import json_option as json_flag

if TYPE_CHECKING:
    from ..bench.milvus import MilvusPlace
    from ..bench.runner import Record
    from ..codebooks import VectorKind
    from ..data.datasets import Dataset


@click.command()
@click.option("--codebooks", "codebooks_path", type=EXISTING, required=True)
@click.option("--data", type=EXISTING, required=True, help="A data set: .npz or .hdf5.")
@click.option("--engine", default="faiss", show_default=True, help="faiss, milvus, torch or numpy.")
@click.option(
    "--factory",
    "factories",
    multiple=True,
    help="For faiss: a factory string. May be repeated. [default: MeCoQ]",
)
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    help="Compare with these only: LSH, PCA-sign, PCA-RR, ITQ, PQ, OPQ; all run in this process. "
    "[default: all; beside milvus none]",
)
@uri_option
@token_option
@click.option(
    "--profiles",
    help="For milvus: profiles to measure, side by side with Hamming codes on the same server: "
    "exact,graph,compact,sparse. [default: exact]",
)
@click.option("--map-at", default=1000, show_default=True, type=click.IntRange(min=1))
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(min=1))
@click.option("--max-database", type=click.IntRange(min=1), help="Use this many rows, at random.")
@click.option("--max-queries", type=click.IntRange(min=1), help="Use this many queries.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@given_option
@click.option("--out", type=PATH, help="Write the result to this JSON file.")
@click.option("--plots", type=PATH, help="Write plots to this folder.")
@overwrite_option
@json_flag
def bench(
    codebooks_path: Path,
    data: Path,
    engine: str,
    factories: tuple[str, ...],
    baselines: tuple[str, ...],
    uri: str | None,
    token: str | None,
    profiles: str | None,
    map_at: int,
    repeats: int,
    max_database: int | None,
    max_queries: int | None,
    seed: int,
    given: VectorKind | None,
    out: Path | None,
    plots: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Measure learned codes against Hamming, PQ, OPQ and exact floats on one data set.

    The data set is an .npz with database, queries and, for mAP, database_labels and query_labels
    (mecoq-index embed --protocol makes one), or an ann-benchmarks .hdf5.

    \b
    Example:
        mecoq-index bench --codebooks c.pt --data cifar10.npz --factory MeCoQ8x8
        mecoq-index bench --codebooks c.pt --data cifar10.npz --engine milvus \\
            --uri http://localhost:19530 --profiles exact,compact
    """
    import json

    from ..bench.report import make_table, to_json, write_json
    from ..bench.runner import BASELINES, BenchSettings, measure, run_bench
    from ..codebooks import Codebooks
    from ..data.datasets import load_dataset

    if factories and engine != "faiss":
        raise click.UsageError("--factory is for the faiss engine.")
    place = _place(engine, uri, token, profiles)
    if out is not None:
        check_output(out, overwrite)
    if plots is not None:
        plots.mkdir(parents=True, exist_ok=True)
    codebooks = Codebooks.load(codebooks_path)
    if place is not None:
        place.check(codebooks)
    dataset: Dataset = load_dataset(data).shuffled(seed).first(max_database, max_queries)
    settings = BenchSettings(map_at=map_at, repeats=repeats, seed=seed)
    if engine == "faiss":
        factories = factories or ("MeCoQ",)
    if place is None:
        baselines = baselines or tuple(BASELINES)
    elif reason := place.why_no_hamming(codebooks.bits, dataset.database.shape[1]):
        say(f"Hamming is not measured: {reason}.")
    with progress("measuring") as update:

        def show(name: str, done: int, total: int) -> None:
            update(done, total, name)

        if place is None:
            records = run_bench(
                dataset,
                codebooks,
                engine=engine,
                options=[{"factory": factory} for factory in factories] or [{}],
                baselines=baselines,
                given=given,
                settings=settings,
                on_progress=show,
            )
        else:
            records = measure(
                dataset,
                codebooks,
                place.variants(codebooks, dataset.database.shape[1]),
                baselines=baselines,
                given=given,
                settings=settings,
                on_progress=show,
            )
    content = to_json(records, settings, dataset=dataset.name, codebooks=codebooks.fingerprint)
    if out is not None:
        write_json(out, content)
        say(f"wrote {out}")
    if plots is not None:
        _plot(records, plots, map_at)
    if as_json:
        click.echo(json.dumps(content))
    else:
        print_table(make_table(records, settings))


def _place(
    engine: str, uri: str | None, token: str | None, profiles: str | None
) -> MilvusPlace | None:
    if engine != "milvus":
        if uri is not None or token is not None or profiles is not None:
            raise click.UsageError("--uri, --token and --profiles are for the milvus engine.")
        return None
    from ..bench.milvus import MilvusPlace

    quiet_pymilvus()
    return MilvusPlace(uri=uri, token=token, profiles=(profiles or "exact").split(","))


def _plot(records: list[Record], folder: Path, map_at: int) -> None:
    from ..bench.plots import plot_precision_recall, plot_quality_over_speed

    if records[0].mean_average_precision is None:
        say("no labels, so no plots")
        return
    plot_precision_recall(records, folder / "precision_recall.png")
    plot_quality_over_speed(records, folder / "quality_over_speed.png", map_at=map_at)
    say(f"wrote two plots to {folder}")
