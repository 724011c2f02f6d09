"""How are the lists of an IVF index found best: by vectors, a graph, or codes of the centroids?

    python benchmarks/list_finders.py --json benchmarks/results/list_finders.json

Codes of 64 bits with K = 16 over items grown from real embeddings (growth.py), in as many lists
each. "own" is recall@10 of the exact ranking of the same codes, by score with a tolerance, since
codes tie. The finders are timed in turns within a round, on one thread, a hundred queries a call.
Building is learning the lists and filling them from codes, on all threads.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass, replace
from typing import Any

from contenders import SEED, learned_method
from growth import GrownSpace
from threadpoolctl import threadpool_limits
from timing import ratio_of, time_in_turns
from trained import trained

from common import add_output_options, write_result
from mecoq_index.bench.environment import describe_environment
from mecoq_index.engines.faiss.inject import import_faiss

FINDERS = ("(Flat)", "_HNSW32", "")
BATCH, K = 100, 10


@dataclass(frozen=True)
class Settings:
    """How much to measure."""

    items: int = 1_000_000
    nlist: int = 4096
    nprobe: tuple[int, ...] = (1, 4, 16, 64)
    queries: int = 2000
    rounds: int = 5
    sample_seconds: float = 0.5
    quick: bool = False


QUICK = Settings(
    items=20_000, nlist=256, nprobe=(1, 8), queries=200, rounds=2, sample_seconds=0.01, quick=True
)


def measure(settings: Settings) -> dict[str, Any]:
    """Recall and speed of every finder and number of lists."""
    space = GrownSpace(
        trained(16, quick=settings.quick), queries=settings.queries, seed=SEED, recall_at=K
    )
    space.fill(settings.items)
    leaf = f"MeCoQ{space.books.M}x4"
    exact, _ = learned_method(space, leaf)
    found = {}
    for finder in FINDERS:
        found[finder], engine = learned_method(
            space, f"IVF{settings.nlist}{finder},{leaf}fs", exact
        )
        print(engine.spec, f"{found[finder].build_seconds:.1f} s", flush=True)
    rows = []
    batches = [
        space.queries[at : at + BATCH] for at in range(0, settings.queries - BATCH + 1, BATCH)
    ]
    for nprobe in settings.nprobe:
        methods = {finder: replace(m, knobs={"nprobe": nprobe}) for finder, m in found.items()}
        with threadpool_limits(1):
            import_faiss().omp_set_num_threads(1)
            calls = {
                finder: lambda i, method=method: method.search(batches[i % len(batches)], K)
                for finder, method in methods.items()
            }
            taken = time_in_turns(calls, settings.rounds, settings.sample_seconds)
        for finder, method in methods.items():
            rows.append(
                {
                    "method": method.name,
                    "nprobe": nprobe,
                    "own_recall_at_10": method.own_recall(held=False),
                    "queries_per_second": BATCH / statistics.median(taken[finder]),
                    "against_flat": ratio_of(taken[FINDERS[0]], taken[finder]),
                }
            )
            print(rows[-1]["method"], nprobe, rows[-1]["own_recall_at_10"], flush=True)
            print(f"    {rows[-1]['queries_per_second']:,.0f} queries/s", flush=True)
    return {
        "items": settings.items,
        "batch": BATCH,
        "k": K,
        "threads": 1,
        "build_seconds": {m.name: round(m.build_seconds, 1) for m in found.values()},
        "rows": rows,
    }


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=lambda text: int(float(text)), help="like 1e6")
    add_output_options(parser)
    options = parser.parse_args()
    settings = QUICK if options.quick else Settings()
    if options.items:
        settings = replace(settings, items=options.items)
    environment = describe_environment()
    write_result(
        options.json,
        measure(settings),
        question="How are the lists of an IVF index found best?",
        seed=SEED,
        environment=environment,
    )


if __name__ == "__main__":
    main()
