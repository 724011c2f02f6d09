"""README's plots of retrieval quality, drawn from the committed results."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from readme_quality import ablation_scores
from readme_results import RESULTS, read

from mecoq_index._files import atomic_file

HIGHLIGHT, OTHERS = "#c1272d", "#595959"


def draw_ablation() -> None:
    """Every seed of every part as a dot, and their mean as a line."""
    found = ablation_scores()
    names = sorted(found, key=lambda name: np.mean(list(found[name].values())))
    figure = Figure(figsize=(7, 0.28 * len(names) + 1), layout="constrained")
    axes = figure.add_subplot()
    for y, name in enumerate(names):
        color = HIGHLIGHT if name == "recommended" else OTHERS
        values = list(found[name].values())
        axes.plot(values, [y] * len(values), "o", color=color, markersize=4, alpha=0.7)
        axes.plot([np.mean(values)] * 2, [y - 0.35, y + 0.35], color=color, linewidth=1.5)
    recommended = list(found["recommended"].values())
    axes.axvline(float(np.mean(recommended)), color=HIGHLIGHT, linewidth=0.6, zorder=0)
    axes.set_yticks(range(len(names)), [name.replace("*", "") for name in names], fontsize=8)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("mAP@1000 on held-out rows, percent; dots: seeds, lines: means", fontsize=9)
    axes.set_title("32 bits, changed in one point at a time", loc="left")
    _save(figure, "ablation")


def draw_selection() -> None:
    """MAP of every setting over the agreement of views; the settings are numbered by mAP."""
    rows = sorted(read("selection_cifar10")["result"]["rows"], key=lambda row: -row["map"])
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    axes, beside = figure.subplots(1, 2, width_ratios=(2.6, 1))
    x: Sequence[float] = [row["view_agreement"] for row in rows]
    axes.scatter(x, [row["map"] for row in rows], s=14, color=HIGHLIGHT)
    for number, row in enumerate(rows, start=1):
        at = row["view_agreement"], row["map"]
        axes.annotate(str(number), at, fontsize=7, xytext=(3, 2), textcoords="offset points")
    axes.set_xlabel("agreement of two views of held-out items, no labels")
    axes.set_ylabel("mAP@1000 on held-out database rows, percent, by labels")
    axes.grid(alpha=0.3)
    axes.set_title("One run a setting, 32 bits, CIFAR-10 features", loc="left")
    listed = "\n".join(f"{n:2}  {row['method']}" for n, row in enumerate(rows, start=1))
    beside.text(0, 1, listed, fontsize=7, va="top", linespacing=1.35, transform=beside.transAxes)
    beside.axis("off")
    _save(figure, "selection_cifar10")


def _save(figure: Figure, name: str) -> None:
    with atomic_file(RESULTS / f"{name}.png") as partial:
        # no version of matplotlib in it, so that the same results make the same file
        figure.savefig(partial, format="png", dpi=120, metadata={"Software": None})
