"""Draw the plots of docs/results.md from the committed results."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ablation_tables import ablation_scores
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from records import RESULTS, american, read

from mecoq_index._files import atomic_file

HIGHLIGHT, OTHERS = "#c1272d", "#595959"
LABEL_PLACES = ((7.0, 5.0), (7.0, -5.0), (-7.0, 5.0), (-7.0, -5.0), (0.0, 8.0), (0.0, -8.0))
"""Where the number of a point may stand, in points (1/72 inch) from it."""
LABEL_WIDTH, LABEL_HEIGHT = 9.0, 7.0


def draw_ablation() -> None:
    """Draw every seed of every part as a dot, and their mean as a line."""
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
    axes.set_title("32 bits, one setting changed at a time", loc="left")
    _save(figure, "ablation")


def draw_selection() -> None:
    """Draw mAP of every setting over the agreement of views; settings are numbered by mAP."""
    rows = sorted(read("selection_cifar10")["result"]["rows"], key=lambda row: -row["map"])
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    axes, beside = figure.subplots(1, 2, width_ratios=(2.6, 1))
    x: Sequence[float] = [row["view_agreement"] for row in rows]
    axes.scatter(x, [row["map"] for row in rows], s=14, color=HIGHLIGHT)
    axes.set_xlabel("agreement of two views of held-out items, no labels")
    axes.set_ylabel("mAP@1000 on held-out database rows, percent, by labels")
    axes.grid(alpha=0.3)
    axes.set_title("One run per setting, 32 bits, CIFAR-10 features", loc="left")
    for number, row in enumerate(rows, start=1):
        y = 1 - (number - 1) / len(rows)
        beside.text(0.08, y, f"{number}", fontsize=7, ha="right", transform=beside.transAxes)
        beside.text(0.12, y, american(row["method"]), fontsize=7, transform=beside.transAxes)
    beside.axis("off")
    _number_points(figure, axes, [(row["view_agreement"], row["map"]) for row in rows])
    _save(figure, "selection_cifar10")


def _number_points(figure: Figure, axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    """Number points from 1; each number stands where no other point or number is, if possible."""
    figure.draw_without_rendering()  # so that the layout, and with it the distances, are final
    taken = [tuple(at) for at in axes.transData.transform(points) * 72 / figure.dpi]
    for number, (x, y) in enumerate(list(taken), start=1):
        free = [
            (right, up)
            for right, up in LABEL_PLACES
            if not any(
                abs(x + right - a) < LABEL_WIDTH and abs(y + up - b) < LABEL_HEIGHT
                for a, b in taken
                if (a, b) != (x, y)
            )
        ]
        right, up = (free or LABEL_PLACES)[0]
        taken.append((x + right, y + up))
        axes.annotate(
            f"{number}",
            points[number - 1],
            xytext=(right, up),
            textcoords="offset points",
            fontsize=7,
            ha="center",
            va="center",
        )


def _save(figure: Figure, name: str) -> None:
    with atomic_file(RESULTS / f"{name}.png") as partial:
        # without the version of matplotlib, the same results make the same file
        figure.savefig(partial, format="png", dpi=120, metadata={"Software": None})
