"""Does the label-free criterion follow retrieval quality from one setting to the next?

    python benchmarks/selection_cifar10.py --json benchmarks/results/selection_cifar10.json

Codes of 32 bits are trained with many settings, good and bad ones. For each: mAP@1000 on 2,000
held-out database rows of CIFAR-10, for which labels are used, and beside it what a user without
labels has: the agreement of views on 2,000 other rows that were kept out of training
(mecoq_index/learn/selection.py), and the contrastive term of the loss in the last epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cifar10 import PRECISION, run_benchmark, train_and_measure
from correlation import correlate

from mecoq_index.learn.presets import recommended

BITS = 32
HELD_OUT = 2000

CHANGES: dict[str, dict[str, Any]] = {
    "recommended": {},
    "without neighbours": {"neighbors": 0},
    "1 neighbour": {"neighbors": 1},
    "10 neighbours": {"neighbors": 10},
    "20 neighbours": {"neighbors": 20},
    "neighbours always": {"neighbor_share": 1.0},
    "neighbours in 1 of 5": {"neighbor_share": 0.2},
    "without batch normalisation": {"projection": "mlp"},
    "linear projection": {"projection": "linear"},
    "without debiasing": {"positive_prior": 0.0},
    "positive prior 0.05": {"positive_prior": 0.05},
    "positive prior 0.2": {"positive_prior": 0.2},
    "temperature 0.2": {"temperature": 0.2},
    "temperature 0.3": {"temperature": 0.3},
    "temperature 0.5": {"temperature": 0.5},
    "temperature 0.7": {"temperature": 0.7},
    "alpha 5": {"alpha": 5.0},
    "alpha 20": {"alpha": 20.0},
    "codebooks frozen at random": {"codebooks": "frozen"},
    "without the codeword regulariser": {"regularizer_weight": 0.0},
    "official loss": {"loss": "official"},
    "memory of 384 codes": {"memory_size": 384},
    "learning rate 0.02": {"lr": 0.02},
    "learning rate 0.3": {"lr": 0.3},
    "batches of 64": {"batch_size": 64},
    "5 epochs": {"epochs": 5},
    "dropout of 0.3": {"view_dropout": 0.3},
}


def jobs(quick: bool, seeds: Sequence[int]) -> list[tuple[str, Any, Any]]:
    """One run a setting, for 10 epochs where the setting is not their number."""
    common: dict[str, Any] = {"precision": PRECISION, "epochs": 10, "held_out": HELD_OUT}
    if quick:
        common |= {"epochs": 1, "held_out": 200}
    base = recommended("views", BITS)
    configs = [(name, base.replace(**common | change)) for name, change in CHANGES.items()]
    configs.append(("K = 256", recommended("views", BITS, 256).replace(**common)))
    configs.append(
        ("binary codes", recommended("views", BITS, objective="signs").replace(**common))
    )
    return [
        (name, train_and_measure, config.replace(seed=seed))
        for seed in seeds
        for name, config in configs[: 3 if quick else None]
    ]


if __name__ == "__main__":
    run_benchmark(
        __doc__, jobs, held_out=True, seeds=(0,), remember_neighbors=True, summarize=correlate
    )
