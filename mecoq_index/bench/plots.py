"""Plots of a bench: precision over recall, quality over speed, queries with their results."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .._arrays import Ids
from .._files import atomic_file
from .._optional import require
from ..baselines.quantization import ExactCosine
from .runner import Record

_RIGHT, _WRONG = "#b8d8b8", "#d62728"
_LEARNED, _OTHERS = "#c1272d", ["#4c72b0", "#55a868", "#8172b3", "#937860", "#64b5cd", "#8c8c8c"]


def plot_precision_recall(records: Sequence[Record], path: Path) -> None:
    """Plot precision over recall of every record that has a curve.

    Args:
        records: The records.
        path: The PNG file to write.


    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    figure, axes = _new_figure()
    for record, style in zip(records, _styles(records), strict=True):
        if record.curve:
            axes.plot(record.curve["recall"], record.curve["precision"], **style)
    axes.set(xlabel="recall", ylabel="precision", xscale="log")
    axes.set_title("Precision over recall", loc="left")
    axes.legend(frameon=False, fontsize=9)
    _save(figure, path)


def plot_quality_over_speed(records: Sequence[Record], path: Path, *, map_at: int) -> None:
    """Plot mAP over queries per second, one point per method.

    Args:
        records: The records.
        path: The PNG file to write.
        map_at: The k of mAP@k, for the label of the axis.


    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    figure, axes = _new_figure()
    for record, style in zip(records, _styles(records), strict=True):
        if record.mean_average_precision is not None:
            quality = 100 * record.mean_average_precision
            axes.plot(
                record.batch_queries_per_second, quality, marker="o", **{**style, "linestyle": ""}
            )
    axes.set(xlabel="queries per second, in a batch", ylabel=f"mAP@{map_at} (%)", xscale="log")
    axes.set_title("Quality over speed", loc="left")
    axes.legend(frameon=False, fontsize=9)
    _save(figure, path)


def plot_neighbors(
    queries: Sequence[Path],
    results: Mapping[str, Ids],
    database: Sequence[Path],
    *,
    correct: Callable[[int, int], bool],
    path: Path,
) -> None:
    """Plot query images with their best items, one block of columns per method.

    Items of another class have a red frame.

    Args:
        queries: Images of the queries, one for each row of the plot.
        results: For each method, by name, the rows of ``database``, int64 (queries, k), best first.
        database: Images of the items.
        correct: Whether an item is correct, given the number of the query and of the item.
        path: The PNG file to write.

    Raises:
        MissingDependencyError: If matplotlib or Pillow is not installed.
    """
    figures = require("matplotlib.figure", extra="bench", purpose="drawing plots")
    image_module = require("PIL.Image", extra="images", purpose="drawing images")
    k = next(iter(results.values())).shape[1]
    widths = [1.0] + ([0.4] + [1.0] * k) * len(results)
    figure = figures.Figure(figsize=(0.42 * sum(widths), 0.46 * len(queries) + 0.3), dpi=150)
    grid = figure.subplots(
        len(queries),
        len(widths),
        squeeze=False,
        gridspec_kw={
            "width_ratios": widths,
            "wspace": 0.12,
            "hspace": 0.12,
            "left": 0.01,
            "right": 0.99,
            "bottom": 0.02,
            "top": 1 - 0.3 / (0.46 * len(queries) + 0.3),
        },
    )
    for axes in grid.ravel():
        axes.set_axis_off()

    def show(axes: Any, image: Path, color: str | None) -> None:
        axes.imshow(image_module.open(image).convert("RGB"))
        if color is not None:
            axes.set_axis_on()
            axes.set(xticks=[], yticks=[])
            for spine in axes.spines.values():
                spine.set(color=color, linewidth=2)

    for row, query in enumerate(queries):
        show(grid[row, 0], query, None)
        for block, ids in enumerate(results.values()):
            for rank, i in enumerate(ids[row].tolist()):
                color = _RIGHT if correct(row, i) else _WRONG
                show(grid[row, 2 + block * (k + 1) + rank], database[i], color)
    grid[0, 0].set_title("query", fontsize=8)
    for block, name in enumerate(results):
        grid[0, 2 + block * (k + 1)].set_title(name, fontsize=8, loc="left")
    _save(figure, path)


def _styles(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Learned codes in red with different lines, exact floats in black, others in other colors."""
    colors, lines = itertools.cycle(_OTHERS), itertools.cycle(["-", "--", ":", "-."])
    styles: list[dict[str, Any]] = []
    for record in records:
        style = {"label": record.method, "linewidth": 1.4, "linestyle": "-"}
        if record.recall_aqs:
            style |= {"color": _LEARNED, "linewidth": 2.2, "linestyle": next(lines)}
        elif record.method == ExactCosine.name:
            style |= {"color": "black", "linestyle": "--"}
        else:
            style |= {"color": next(colors)}
        styles.append(style)
    return styles


def _new_figure() -> tuple[Any, Any]:
    figures = require("matplotlib.figure", extra="bench", purpose="drawing plots")
    figure = figures.Figure(figsize=(6.4, 4.2), layout="constrained", dpi=150)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    with atomic_file(path) as partial:
        figure.savefig(partial, format="png")
