"""What do learned codes keep of embeddings that come as a matrix, without views?

    python benchmarks/quality_vectors.py --json benchmarks/results/quality_vectors.json
    python benchmarks/quality_vectors.py --data texts \\
        --json benchmarks/results/quality_vectors_texts.json

Two sets: the image features of the CIFAR-10 pack (queries: all 10,000 test images), and sentence
embeddings of WordNet definitions (texts.py; queries: 2,000 texts that are neither trained on nor
searched in). From each only the matrix of the database is used. Two ways to learn:

- *contrast*: neighbors as positives and dropout; learns a similarity of its own.
- *distillation*: reproduces the ranking by cosine.

Beside them OPQ, PQ, ITQ and RaBitQ, on the same unit vectors. RaBitQ keeps 8 bytes a vector beside
its bits, so at 16, 32 and 64 bits nothing of it fits: it is given as many bits as the others, and
its 8 bytes on top. Reported: recall@10 and recall@100 against the exact ranking by cosine, and
mAP@1000 by labels. Nothing is trained by labels; the settings of *contrast* were chosen by those of
held-out database rows of CIFAR-10, and nothing was tuned on the texts. Three seeds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import torch
from cifar10 import MAP_AT, PRECISION, SEEDS, find_features, load, search_codes
from texts import load_texts

from common import add_output_options, write_result
from mecoq_index._arrays import Ids
from mecoq_index.baselines.base import unit_rows
from mecoq_index.baselines.hashing import ITQ
from mecoq_index.baselines.quantization import OPQ, PQ, ExactCosine
from mecoq_index.bench.environment import describe_environment
from mecoq_index.bench.metrics import mean_average_precision
from mecoq_index.data.datasets import Dataset
from mecoq_index.data.features import FeatureViews
from mecoq_index.learn.objective.settings import ObjectiveName
from mecoq_index.learn.presets import recommended
from mecoq_index.learn.trainer import fit

BITS = (16, 32, 64)
TEXT_QUERIES = 2000
QUICK_ROWS = 3000


@dataclass(frozen=True, eq=False)
class Codes:
    """What a method makes of a data set: results, and what it took."""

    ids: Ids
    bytes_per_vector: float
    seconds: float


def learned(objective: ObjectiveName) -> Callable[[Dataset, int, int, bool], Codes]:
    """A method that trains with the settings recommended for an objective."""

    def run(data: Dataset, bits: int, seed: int, quick: bool) -> Codes:
        config = recommended("vectors", bits, objective=objective).replace(
            seed=seed, precision=PRECISION
        )
        if quick:
            config = config.replace(epochs=2)
        started = time.perf_counter()
        books = fit(FeatureViews(data.database[None]), config, device="cpu")
        seconds = time.perf_counter() - started
        return Codes(search_codes(data, books).ids, config.bits / 8, seconds)

    return run


def fitted(method: Any) -> Callable[[Dataset, int, int, bool], Codes]:
    """A method that needs no gradient."""

    def run(data: Dataset, bits: int, seed: int, quick: bool) -> Codes:
        started = time.perf_counter()
        baseline = method.fit(data.database, bits, seed=seed)
        seconds = time.perf_counter() - started
        baseline.add(data.database)
        ids = baseline.search(data.queries, MAP_AT).ids
        return Codes(ids, baseline.bytes_per_vector, seconds)

    return run


def rabitq(data: Dataset, bits: int, seed: int, quick: bool) -> Codes:
    """FAISS's RaBitQ on as many principal components as there are bits, turned at random."""
    started = time.perf_counter()
    components = faiss.PCAMatrix(data.database.shape[1], bits, 0, True)
    components.train(data.database)
    index = faiss.IndexRaBitQ(bits, faiss.METRIC_L2)
    index.train(components.apply(data.database))
    seconds = time.perf_counter() - started
    index.add(components.apply(data.database))
    _, ids = index.search(components.apply(data.queries), MAP_AT)
    return Codes(ids, index.code_size, seconds)


METHODS: dict[str, Callable[[Dataset, int, int, bool], Codes]] = {
    "MeCoQ, contrast": learned("contrast"),
    "MeCoQ, distillation": learned("distillation"),
    "OPQ": fitted(OPQ),
    "PQ": fitted(PQ),
    "RaBitQ": rabitq,
    "ITQ": fitted(ITQ),
}


def _images(quick: bool) -> Dataset:
    cifar = load(find_features(None), held_out=False, limit=QUICK_ROWS if quick else None).data
    return Dataset(
        "CIFAR-10 features",
        unit_rows(cifar.database),
        unit_rows(cifar.queries),
        cifar.database_labels,
        cifar.query_labels,
    )


def _texts(quick: bool) -> Dataset:
    texts = load_texts(QUICK_ROWS + 200 if quick else None)
    held = 200 if quick else TEXT_QUERIES
    x, labels = texts.vectors, texts.labels
    return Dataset(texts.name, x[held:], x[:held], labels[held:], labels[:held])


def measure(data: Dataset, exact: Ids, codes: Codes) -> dict[str, Any]:
    """Recall against the exact ranking and mAP by labels, in percent."""
    row = {
        f"recall_at_{k}": round(
            100
            * float(
                np.mean(
                    [
                        len(np.intersect1d(a, b)) / k
                        for a, b in zip(codes.ids[:, :k], exact[:, :k], strict=True)
                    ]
                )
            ),
            2,
        )
        for k in (10, 100)
    }
    precision = mean_average_precision(codes.ids, data.database_labels, data.query_labels)
    return {
        **row,
        "map": round(100 * precision, 2),
        "bytes_per_vector": codes.bytes_per_vector,
        "training_seconds": round(codes.seconds, 1),
    }


def main() -> None:
    question = __doc__.splitlines()[0]
    parser = argparse.ArgumentParser(description=question)
    add_output_options(parser)
    parser.add_argument("--data", choices=["images", "texts"], default="images")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    faiss.omp_set_num_threads(args.threads)
    environment = describe_environment()
    data = _images(args.quick) if args.data == "images" else _texts(args.quick)
    cosine = ExactCosine.fit(data.database)
    cosine.add(data.database)
    exact = cosine.search(data.queries, MAP_AT).ids
    found = measure(data, exact, Codes(exact, cosine.bytes_per_vector, 0.0))
    rows = [{"data": data.name, "method": cosine.name, "bits": None, "seed": 0, **found}]
    for seed in SEEDS[:1] if args.quick else SEEDS:
        for bits in BITS[:1] if args.quick else BITS:
            for name, method in METHODS.items():
                found = measure(data, exact, method(data, bits, seed, args.quick))
                rows.append(
                    {"data": data.name, "method": name, "bits": bits, "seed": seed, **found}
                )
                print(
                    f"{data.name[:20]:<20} {name:<20} {bits:3} bits  "
                    f"recall@10 {found['recall_at_10']:5.2f}  "
                    f"recall@100 {found['recall_at_100']:5.2f}  mAP {found['map']:5.2f}",
                    flush=True,
                )
    result = {"metric": f"recall against the exact cosine, and mAP@{MAP_AT}, percent", "rows": rows}
    write_result(args.json, result, question=question, seed=0, environment=environment)


if __name__ == "__main__":
    main()
