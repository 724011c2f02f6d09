"""How criteria that need no labels follow mAP, over the runs of ``selection_cifar10.py``."""

from __future__ import annotations

from typing import Any

from scipy.stats import pearsonr, spearmanr

IN_THE_LOSS = ("loss", "temperature", "positive_prior", "memory_size", "batch_size")
"""Settings that must be equal for values of the loss to compare."""


def correlate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Correlation of mAP with the agreement; with the loss too, over runs that share `IN_THE_LOSS`.

    Args:
        rows: As written by ``selection_cifar10.py``; the first has the recommended settings.
    """
    base = rows[0]["config"]
    comparable = [
        row for row in rows if all(row["config"][name] == base[name] for name in IN_THE_LOSS)
    ]
    return {
        "correlation": {
            "runs": len(rows),
            "view_agreement": _with_map(rows, [row["view_agreement"] for row in rows]),
            "where_losses_compare": {
                "runs": len(comparable),
                "view_agreement": _with_map(
                    comparable, [row["view_agreement"] for row in comparable]
                ),
                "contrastive_loss": _with_map(
                    comparable, [-row["terms"]["contrastive"] for row in comparable]
                ),
            },
        }
    }


def _with_map(rows: list[dict[str, Any]], criterion: list[float]) -> dict[str, float]:
    quality = [row["map"] for row in rows]
    return {
        "pearson": round(float(pearsonr(criterion, quality).statistic), 3),
        "spearman": round(float(spearmanr(criterion, quality).statistic), 3),
    }
