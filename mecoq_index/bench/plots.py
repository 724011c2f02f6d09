"""Pictures of a bench: precision over recall, and quality over bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .._files import atomic_file
from .._optional import require
from .runner import Record

_LEARNED, _OTHERS = "#c1272d", ["#4c72b0", "#55a868", "#8172b3", "#937860", "#64b5cd", "#8c8c8c"]


def plot_precision_recall(records: Sequence[Record], path: Path) -> None:
    """Precision over recall of every record that has a curve.

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


def plot_quality_over_bytes(records: Sequence[Record], path: Path, *, map_at: int) -> None:
    """MAP over bytes per vector, one point a method.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    figure, axes = _new_figure()
    for record, style in zip(records, _styles(records), strict=True):
        if record.mean_average_precision is not None:
            quality = 100 * record.mean_average_precision
            axes.plot(record.bytes_per_vector, quality, marker="o", linestyle="", **style)
    axes.set(xlabel="bytes per vector", ylabel=f"mAP@{map_at} (%)", xscale="log")
    axes.set_title("Quality over size", loc="left")
    axes.legend(frameon=False, fontsize=9)
    _save(figure, path)


def _styles(records: Sequence[Record]) -> list[dict[str, Any]]:
    styles, others = [], 0
    for record in records:
        learned = bool(record.recall_aqs)
        color = _LEARNED if learned else _OTHERS[others % len(_OTHERS)]
        others += not learned
        styles.append(
            {"label": record.method, "color": color, "linewidth": 2.2 if learned else 1.4}
        )
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
