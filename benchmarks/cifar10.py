"""CIFAR-10 features, training on them, and mAP@1000: what benchmarks of quality share.

The features are a file made by `mecoq-index embed CIFAR --protocol cifar10 --backbone NAME
--views 3`, or the pair of files in the data folder beside the repository, where there is one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import DATA, add_output_options, settings_record, write_result
from mecoq_index._arrays import Ids, Vectors
from mecoq_index._devices import cpu_multiplies_bfloat16
from mecoq_index.bench.environment import describe_environment
from mecoq_index.bench.metrics import mean_average_precision
from mecoq_index.codebooks import Codebooks
from mecoq_index.data.datasets import Dataset, load_dataset
from mecoq_index.data.features import FeatureViews
from mecoq_index.engines.faiss.engine import FaissEngine
from mecoq_index.engines.faiss.inject import import_faiss
from mecoq_index.engines.hits import Hits
from mecoq_index.learn.checkpoint import RunPaths
from mecoq_index.learn.config import Precision, TrainConfig
from mecoq_index.learn.objective import contrast
from mecoq_index.learn.objective.neighbors import neighbor_graph
from mecoq_index.learn.trainer import fit
from mecoq_index.scoring import encode

MAP_AT = 1000
HELD_OUT = 2000
SEEDS = (0, 1, 2)
TERMS = ("loss", "contrastive", "regularizer", "entropy")
"""Terms of a loss, as the log of a run names them."""
MOST_NEIGHBORS = 20
"""Of an item, in any job whose neighbors are remembered."""
PRECISION: Precision = "bfloat16" if cpu_multiplies_bfloat16() else "float32"
"""bfloat16 saves time on CPUs that have its products, and takes many times as long on others."""


@dataclass(frozen=True, eq=False)
class Cifar10:
    """Database and queries in random order, and views of the database in the same order.

    Attributes:
        data: Vectors and labels.
        views: (V, n, P), as stored: features times ``scale``.
        features: (n, P), the database rows as stored.
        scale: What stored numbers are divided by.
    """

    data: Dataset
    views: np.ndarray
    features: np.ndarray
    scale: float

    def source(self) -> FeatureViews:
        """The training data."""
        return FeatureViews(self.views, scale=self.scale, features=self.features)


def find_features(features: Path | None) -> tuple[Path, Path]:
    """The files of features and of views; exits with a message where there are none."""
    if features is not None:
        return features, features
    pair = DATA / "cifar10-efflite0.npz", DATA / "cifar10-efflite0-views.npz"
    if not all(path.exists() for path in pair):
        print(
            "skipped: no CIFAR-10 features here. Make them from a CIFAR-10 folder with\n"
            "  mecoq-index embed CIFAR --protocol cifar10 --backbone NAME --views 3 --out f.npz\n"
            "and give --features f.npz"
        )
        raise SystemExit(0)
    return pair


def load(paths: tuple[Path, Path], *, held_out: bool, limit: int | None = None) -> Cifar10:
    """Load the features.

    Args:
        paths: From `find_features`.
        held_out: Use 2,000 random database rows as queries, and neither train on them nor search
            in them; the real queries are not touched. For everything that chooses settings.
        limit: Use this many database rows only.
    """
    data = load_dataset(paths[0])
    with np.load(paths[1]) as archive:
        views = np.stack([archive[f"view{v}"] for v in range(3)])
        scale = float(archive["scale"]) if "scale" in archive.files else 1.0
    with np.load(paths[0]) as archive:
        features = archive["database"]
    order = np.random.default_rng(0).permutation(len(data.database))[:limit]
    if held_out:
        queries, rows = order[:HELD_OUT], order[HELD_OUT:]
        data = Dataset(
            data.name,
            data.database[rows],
            data.database[queries],
            data.database_labels[rows],
            data.database_labels[queries],
        )
    else:
        rows = order
        # The file has them class by class: the first ones would be all of one class.
        asked = np.random.default_rng(1).permutation(len(data.queries))
        asked = asked[: None if limit is None else 1000]
        data = Dataset(
            data.name,
            data.database[rows],
            data.queries[asked],
            data.database_labels[rows],
            data.query_labels[asked],
        )
    return Cifar10(data, np.ascontiguousarray(views[:, rows]), features[rows], scale)


def mean_ap(data: Dataset, hits: Hits) -> float:
    """mAP@1000 in percent."""
    labels, queries = data.database_labels, data.query_labels
    return round(100 * mean_average_precision(hits.ids, labels, queries), 2)


def train_and_measure(cifar: Cifar10, config: TrainConfig) -> dict[str, Any]:
    """Train codebooks, put them into FAISS, and rank all queries by AQS."""
    return train_books(cifar, config)[1]


def train_books(cifar: Cifar10, config: TrainConfig) -> tuple[Codebooks, dict[str, Any]]:
    """Train codebooks; they, and the row of `train_and_measure`."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        paths = RunPaths(Path(folder) / "books.pt")
        books = fit(cifar.source(), config, device="cpu", out=paths.out)
        seconds = time.perf_counter() - started
        last = json.loads(paths.log.read_text(encoding="utf-8").splitlines()[-1])
    row = {
        "map": mean_ap(cifar.data, search_codes(cifar.data, books)),
        "bits": config.bits,
        "bytes_per_vector": config.bits / 8,
        "seed": config.seed,
        "training_seconds": round(seconds, 1),
        "terms": {name: last[name] for name in TERMS if name in last},
        "config": settings_record(config),
    }
    if "view_agreement" in books.provenance:
        row["view_agreement"] = books.provenance["view_agreement"]
    return books, row


def search_codes(data: Dataset, books: Codebooks) -> Hits:
    """The best 1,000 for every query: by AQS, or by Hamming distance where codes are binary."""
    z, zq = books.embed(data.database), books.embed(data.queries)
    k = min(MAP_AT, len(z))
    codes = encode(z, books)
    if (books.K, books.Ds) != (2, 1):
        return FaissEngine.build(books, codes).search(zq, k)
    index = import_faiss().IndexBinaryFlat(books.M)
    index.add(np.packbits(codes, axis=1))
    distances, ids = index.search(np.packbits(encode(zq, books), axis=1), k)
    return Hits((books.M - distances).astype(np.float32), ids)


_shared: dict[str, Cifar10] = {}
_graphs: dict[str, Ids] = {}


def _remembered_graph(x: Vectors, k: int) -> Ids:
    """`neighbor_graph`, a good part of a short job's time and the same for many of them."""
    if k > MOST_NEIGHBORS:
        raise ValueError(f"neighbors must be at most {MOST_NEIGHBORS} here, got {k}")
    key = hashlib.sha256(x).hexdigest()
    if key not in _graphs:
        _graphs[key] = neighbor_graph(x, MOST_NEIGHBORS)
    return _graphs[key][:, :k]


def _start_worker(
    paths: tuple[Path, Path], held_out: bool, limit: int | None, remember_neighbors: bool
) -> None:
    torch.set_num_threads(1)
    import_faiss().omp_set_num_threads(1)
    _shared["cifar"] = load(paths, held_out=held_out, limit=limit)
    if remember_neighbors:
        contrast.neighbor_graph = _remembered_graph


def _work(job: tuple[str, Any, Any]) -> dict[str, Any]:
    name, function, argument = job
    return {"method": name, **function(_shared["cifar"], argument)}


def run_jobs(
    jobs: Iterable[tuple[str, Any, Any]],
    *,
    processes: int,
    paths: tuple[Path, Path],
    held_out: bool,
    limit: int | None,
    remember_neighbors: bool,
) -> list[dict[str, Any]]:
    """Run (name, function, argument) jobs, each on one thread, and print each row when it is done.

    A function takes the data and its argument and returns a row.
    """
    rows = []
    with ProcessPoolExecutor(
        processes,
        mp_context=get_context("spawn"),
        initializer=_start_worker,
        initargs=(paths, held_out, limit, remember_neighbors),
    ) as pool:
        for row in pool.map(_work, jobs):
            print(
                f"{row['method']:<44} {row['bits']:5g} bits  mAP@{MAP_AT} {row['map']:5.2f}",
                flush=True,
            )
            if remember_neighbors:  # which one job in many had to find
                del row["training_seconds"]
            rows.append(row)
    return rows


def run_benchmark(
    doc: str,
    jobs: Callable[[bool, Sequence[int]], list[tuple[str, Any, Any]]],
    *,
    held_out: bool,
    seeds: Sequence[int] = SEEDS,
    remember_neighbors: bool = False,
    summarize: Callable[[list[dict[str, Any]]], dict[str, Any]] | None = None,
) -> None:
    """The command line of a benchmark: parse, measure, print, write.

    Args:
        doc: The script's docstring; its first line is the question.
        jobs: Name, function and argument of every measurement; takes whether it is a quick run,
            and the seeds.
        held_out: Whether held-out database rows take the place of the queries.
        seeds: Those of a run that names none.
        remember_neighbors: Find the neighbors once a process; rows then have no seconds.
        summarize: What else to keep of the rows.
    """
    question = doc.splitlines()[0]
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument("--features", type=Path, help="an .npz made by mecoq-index embed")
    parser.add_argument("--processes", type=int, default=2, help="models trained at a time")
    parser.add_argument("--seeds", type=int, nargs="+", default=seeds, help="of the training runs")
    add_output_options(parser)
    args = parser.parse_args()
    environment = describe_environment()
    rows = run_jobs(
        jobs(args.quick, args.seeds[:1] if args.quick else args.seeds),
        processes=args.processes,
        paths=find_features(args.features),
        held_out=held_out,
        limit=6000 if args.quick else None,
        remember_neighbors=remember_neighbors,
    )
    judged = "held-out database rows" if held_out else "all queries"
    result = {"metric": f"mAP@{MAP_AT} on {judged}, percent", "rows": rows}
    if summarize is not None:
        summary = summarize(rows)
        print(json.dumps(summary, indent=1))
        result |= summary
    write_result(args.json, result, question=question, seed=args.seeds[0], environment=environment)
