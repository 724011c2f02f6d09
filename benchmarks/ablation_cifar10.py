"""What does each part of the method, and each setting, contribute?

    python benchmarks/ablation_cifar10.py --json benchmarks/results/ablation_cifar10.json

The recommended settings for features at 32 bits, changed in one point at a time. Judged by mAP@1000
on 2,000 held-out *database* rows of CIFAR-10, against the other 48,000; the real queries are not
touched. One seed: differences of a few tenths are noise.

The settings themselves come from an exploratory search before this script existed, on 2,000 other
held-out database rows and one seed; results/settings_search.jsonl is its log, every run in it.
"""

from __future__ import annotations

from typing import Any

from cifar10 import run_benchmark, train_and_measure

from mecoq_index.learn.presets import for_features

BITS = 32

PARTS: dict[str, dict[str, Any]] = {
    "recommended": {},
    "without debiasing": {"positive_prior": 0.0},
    "without the codeword regulariser": {"regularizer_weight": 0.0},
    "codebooks frozen at random": {"codebooks": "frozen"},
    "with a memory of 384 codes": {"memory_size": 384},
    "with an entropy term of 0.05": {"entropy_weight": 0.05},
    "official loss": {"loss": "official"},
    "linear projection": {"projection": "linear"},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "temperature 0.3": {"temperature": 0.3},
    "temperature 0.5": {"temperature": 0.5},
    "alpha 20": {"alpha": 20.0},
    "codebooks at the network's learning rate": {"codebook_lr_scale": 1.0},
    "learning rate 0.05": {"lr": 0.05},
    "memory of 4,096 codes": {"memory_size": 4096},
}


def jobs(quick: bool) -> list[tuple[str, Any, Any]]:
    """Every change for codebooks of 16 codewords; the parts for 256 too."""
    listed: list[tuple[str, Any, Any]] = []
    for K, changes in ((16, PARTS | SETTINGS), (256, PARTS)):
        for name, change in changes.items():
            config = for_features(BITS, K).replace(**change)
            if quick:
                config = config.replace(epochs=1)
            listed.append((f"K={K}, {name}", train_and_measure, config))
    return listed[:4] if quick else listed


if __name__ == "__main__":
    run_benchmark(__doc__, jobs, held_out=True)
