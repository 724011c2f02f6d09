"""``mecoq-index bench``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..engines.registry import DEFAULT_ENGINE
from ..errors import InvalidInputError
from ._engine_options import check_engine_options, engine_options
from ._options import (
    EXISTING,
    PATH,
    codebooks_option,
    given_option,
    output_options,
    overwrite_option,
    positional,
    seed_option,
    vector_column_option,
)
from ._output import Output

if TYPE_CHECKING:
    from ..bench.runner import Record
    from ..codebooks import VectorKind

_PLOTS = ("precision_recall.png", "quality_over_speed.png")


@click.command()
@positional("data", old="--data")
@codebooks_option
@click.option("--queries", type=EXISTING, help="The queries, if DATA holds the database alone.")
@click.option("--labels", type=EXISTING, help="Labels of the database: .npy or .txt.")
@click.option("--query-labels", type=EXISTING, help="Labels of the queries.")
@vector_column_option
@click.option("--label-column", help="For tables: the column of labels.", metavar="NAME")
@click.option("--engine", default=DEFAULT_ENGINE, show_default=True, help="The engine to measure.")
@engine_options("bench", many=True)
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    help="Compare with these only: LSH, PCA-sign, PCA-RR, ITQ, PQ, OPQ; none for no baseline. May "
    "be repeated. [default: all; none beside an engine that keeps items elsewhere]",
)
@click.option(
    "--map-at",
    default=1000,
    show_default=True,
    type=click.IntRange(min=1),
    help="The k of mAP@k.",
)
@click.option(
    "--repeats",
    default=5,
    show_default=True,
    type=click.IntRange(min=1),
    help="Timed repeats of every search.",
)
@click.option("--max-database", type=click.IntRange(min=1), help="Use this many rows, at random.")
@click.option("--max-queries", type=click.IntRange(min=1), help="Use this many queries.")
@seed_option
@given_option
@click.option("--out", type=PATH, help="Write the result to this JSON file.")
@click.option("--plots", type=PATH, help="Write plots to this folder.")
@overwrite_option
@output_options
def bench(
    data: Path,
    codebooks: Path,
    queries: Path | None,
    labels: Path | None,
    query_labels: Path | None,
    vector_column: str | None,
    label_column: str | None,
    engine: str,
    options: list[dict[str, Any]],
    baselines: tuple[str, ...],
    map_at: int,
    repeats: int,
    max_database: int | None,
    max_queries: int | None,
    seed: int | None,
    given: VectorKind | None,
    out: Path | None,
    plots: Path | None,
    overwrite: bool,
    output: Output,
) -> None:
    """Measure learned codes against Hamming, PQ, OPQ and exact floats on one data set.

    DATA is an .npz with database, queries and, for mAP, database_labels and query_labels
    (mecoq-index embed --protocol makes one), or an ann-benchmarks .hdf5; or, with --queries, any
    vectors. An option of the engine may be repeated, which measures each value.

    \b
    Example:
        mecoq-index bench cifar10.npz --codebooks c.pt \\
            --factory MeCoQ16x4 --factory MeCoQ16x4fs
        mecoq-index bench cifar10.npz --codebooks c.pt --engine milvus \\
            --uri http://localhost:19530 --profiles exact,compact
    """
    from .._files import check_output
    from ..bench.report import make_table, to_json, write_json
    from ..bench.runner import BASELINES, BenchSettings, run_bench
    from ..codebooks import Codebooks
    from ..data.datasets import load_dataset
    from ..engines.registry import get_engine

    for some in options:
        check_engine_options(some, engine, "bench")
    if out is not None:
        check_output(out, overwrite=overwrite)
    if plots is not None:
        _check_plots(plots, overwrite)
    settings = BenchSettings(map_at=map_at, repeats=repeats, seed=seed or 0)
    dataset = load_dataset(
        data,
        queries=queries,
        labels=labels,
        query_labels=query_labels,
        vector_column=vector_column,
        label_column=label_column,
    )
    dataset = dataset.shuffled(settings.seed).first(max_database, max_queries)
    if not baselines:
        baselines = tuple(BASELINES) if get_engine(engine).holds_items else ()
    books = Codebooks.load(codebooks)
    with output.progress("measuring") as update:
        records = run_bench(
            dataset,
            books,
            engine=engine,
            options=options,
            baselines=() if baselines == ("none",) else baselines,
            given=given,
            settings=settings,
            on_progress=update,
        )
    content = to_json(records, settings, dataset=dataset.name, codebooks=books.fingerprint)
    if out is not None:
        write_json(out, content)
        output.say(f"wrote {out}")
    if plots is not None:
        _plot(records, plots, map_at, output)
    if output.as_json:
        output.print_json(content)
    else:
        output.print_table(make_table(records, settings))


def _check_plots(folder: Path, overwrite: bool) -> None:
    from .._files import check_output

    if not folder.exists() or folder.is_symlink():
        check_output(folder, overwrite=False, folder=True)
        return
    if not folder.is_dir():
        raise InvalidInputError(f"--plots must be a folder, but {folder} is not one.")
    for name in _PLOTS:
        check_output(folder / name, overwrite=overwrite)


def _plot(records: list[Record], folder: Path, map_at: int, output: Output) -> None:
    from ..bench.plots import plot_precision_recall, plot_quality_over_speed

    if records[0].mean_average_precision is None:
        output.say("no labels, so no plots")
        return
    folder.mkdir(exist_ok=True)
    plot_precision_recall(records, folder / _PLOTS[0])
    plot_quality_over_speed(records, folder / _PLOTS[1], map_at=map_at)
    output.say(f"wrote two plots to {folder}")
