"""How accurate is retrieval by learned codes, against hashing and PQ at the same bits?

    python benchmarks/quality_cifar10.py --json benchmarks/results/quality_cifar10.json

CIFAR-10, 50,000 database images, all 10,000 test images as queries, mAP@1000 (AP@k divides by the
relevant items found within the top k). Every method sees the same frozen features. Learned codes
rank by AQS inside FAISS. Training sees no labels. Our settings were chosen with the labels of
held-out *database* rows (results/settings_search.jsonl), so the queries serve for these numbers
only. Binary codes are learned by the same trainer from the same views, neighbours and epochs, with
signs in the place of codewords, and searched by Hamming distance. The official quantizer and loss
run as released, with a linear projection and for 10 epochs, and the baselines with FAISS's
defaults: neither was tuned on these features as ours was. Three seeds, one thread a model, network
products in bfloat16 where the CPU has them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from cifar10 import MAP_AT, PRECISION, Cifar10, mean_ap, run_benchmark, train_and_measure

from mecoq_index.baselines.quantization import ExactCosine
from mecoq_index.bench.runner import BASELINES
from mecoq_index.learn.config import TrainConfig
from mecoq_index.learn.presets import preset, recommended

BITS = (16, 32, 64)
LONG = 128
OFFICIAL_EPOCHS = 10


def measure_baseline(cifar: Cifar10, argument: tuple[str, int, int]) -> dict[str, Any]:
    """Fit a baseline on the database, fill it, rank all queries."""
    name, bits, seed = argument
    method = ExactCosine if name == ExactCosine.name else BASELINES[name]
    started = time.perf_counter()
    fitted = method.fit(cifar.data.database, bits, seed=seed)
    seconds = time.perf_counter() - started
    fitted.add(cifar.data.database)
    hits = fitted.search(cifar.data.queries, min(MAP_AT, len(cifar.data.database)))
    return {
        "map": mean_ap(cifar.data, hits),
        "bits": 8 * fitted.bytes_per_vector,
        "bytes_per_vector": fitted.bytes_per_vector,
        "seed": seed,
        "training_seconds": round(seconds, 1),
    }


def jobs(quick: bool, seeds: Sequence[int]) -> list[tuple[str, Any, Any]]:
    """Name, function and argument of every measurement."""
    changes: dict[str, Any] = {"precision": PRECISION}
    if quick:
        changes["epochs"] = 2
    exact = (ExactCosine.name, measure_baseline, (ExactCosine.name, 0, 0))
    listed: list[tuple[str, Any, Any]] = [exact]

    def learn(name: str, config: TrainConfig) -> None:
        listed.append((name, train_and_measure, config.replace(**changes, seed=seed)))

    for seed in seeds:
        for bits in BITS[:1] if quick else (*BITS, LONG):
            learn("MeCoQ, K=16", recommended("views", bits, 16))
            learn("learned binary codes, Hamming", recommended("views", bits, objective="signs"))
            if bits == LONG:
                continue
            learn("MeCoQ, K=256", recommended("views", bits, 256))
            released = preset(f"cifar10-i-{bits}", loss="official")
            learn("official quantizer and loss", released.replace(epochs=OFFICIAL_EPOCHS))
            for name in BASELINES:
                if not (quick and name == "OPQ"):
                    listed.append((name, measure_baseline, (name, bits, seed)))
    return listed


if __name__ == "__main__":
    run_benchmark(__doc__, jobs, held_out=False)
