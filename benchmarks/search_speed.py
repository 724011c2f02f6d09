"""How fast does each index answer, and how well?

    python benchmarks/search_speed.py --json benchmarks/results/search_speed.json

Learned codes in FAISS against FAISS's own quantizers and binary hashing, all of 64 bits unless the
name says otherwise, over items grown from real embeddings (growth.py). Queries are grown from
held-out rows. All methods are timed in turns within a round, after an untimed call; ratios are
taken within a round. Three kinds of quality stand beside the speed:

own     recall@10 of the exact ranking of the same codes, by score with a tolerance: codes tie.
float   recall@10 of the exact ranking of the float vectors in the same embedding space, by id.
        K = 256 and K = 16 have a space each, so this compares methods within a space. Baselines
        are trained on, and live in, that of K = 256.
class   share of the first ten results that are of the query's class: this compares across spaces.

Knobs (lists to look into, width of a graph search) are set, on other queries than the timed ones,
to reach 95 % of the own recall that a full scan reaches. Binary methods are handed the bits of the
queries; learned codes start from raw queries. RaBitQ keeps 8 bytes beside its bits, so it cannot be
had in 8 bytes: it comes with 8 dimensions (9 bytes) and with 64 (16 bytes), both by PCA, and in its
FastScan form, which is the faster one. "memory read" is one pass over as many bytes as the codes
take, by as many threads.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from contenders import (
    K_FACTOR,
    RECALL_AT,
    SEED,
    Method,
    binary_methods,
    learned_methods,
    make_natives,
    native_methods,
)
from growth import CHUNK, GrownSpace
from threadpoolctl import threadpool_limits
from timing import Call, ratio_of, time_in_turns
from trained import BITS, trained

from common import add_output_options, write_result
from mecoq_index.bench.environment import describe_environment
from mecoq_index.engines.faiss.coarse import assign_lists
from mecoq_index.engines.faiss.engine import FaissEngine
from mecoq_index.engines.faiss.grammar import lists_for
from mecoq_index.engines.faiss.inject import import_faiss
from mecoq_index.scoring import encode

faiss = import_faiss()

# With more items than this, three rounds must do.
MANY_ITEMS = 2_000_000
FEW_ROUNDS = 3
FEWEST_PAIRS, MOST_PAIRS = 20, 2000


@dataclass(frozen=True)
class Settings:
    """How much to measure.

    Attributes:
        items: Sizes of the database.
        threads: Numbers of threads.
        batches: Queries in one call.
        k: Results per query.
        queries: Timed queries, and as many others to set knobs with.
        rounds: Rounds in which every method is timed in turn.
        most_lists: Inverted lists, where 4 sqrt(items) would be more and take long to build.
        sample_seconds: Calls are repeated until they take about this long.
        pair_seconds: How long to compare our layer with FAISS alone, per index.
        add_rows: Rows of one addition.
        quick: Train briefly, too.
    """

    items: tuple[int, ...] = (1_000_000, 10_000_000)
    threads: tuple[int, ...] = (1, 2)
    batches: tuple[int, ...] = (1, 100)
    k: tuple[int, ...] = (10, 100)
    queries: int = 500
    rounds: int = 5
    most_lists: int = 4096
    sample_seconds: float = 0.2
    pair_seconds: float = 10.0
    add_rows: int = 200_000
    quick: bool = False


QUICK = Settings(
    items=(20_000,),
    queries=100,
    rounds=2,
    sample_seconds=0.002,
    pair_seconds=0.1,
    add_rows=5_000,
    quick=True,
)


def count_lists(n: int, settings: Settings) -> int:
    """Inverted lists for n items."""
    return min(lists_for(n), settings.most_lists)


def memory_read(n: int, threads: int) -> Call:
    """One pass over as many bytes as the codes of n items take."""
    parts = np.array_split(np.arange(n * BITS // 64, dtype=np.uint64), threads)
    pool = ThreadPoolExecutor(threads)
    return lambda _: list(pool.map(np.max, parts))


def search_call(method: Method, batch: int, k: int) -> Call:
    """A search for one batch of the timed queries after another."""
    starts = range(0, len(method.queries) - batch + 1, batch)
    parts = [method.queries[start : start + batch] for start in starts]
    return lambda i: method.search(parts[i % len(parts)], k)


def measure_speed(
    methods: list[Method], n: int, settings: Settings
) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """Speed of every method, and ratios of some, for each number of threads, batch and k."""
    rounds = min(settings.rounds, FEW_ROUNDS) if n > MANY_ITEMS else settings.rounds
    for threads, batch, k in settings_grid(settings):
        calls = {method.name: search_call(method, batch, k) for method in methods}
        if batch == 1:
            calls["memory read"] = memory_read(n, threads)
        with threadpool_limits(threads):
            taken = time_in_turns(calls, rounds, settings.sample_seconds)
        setting = {"threads": threads, "batch": batch, "k": k}
        rows = [
            {
                "method": name,
                **setting,
                "seconds_per_query": statistics.median(seconds) / batch,
                "seconds_per_query_min": min(seconds) / batch,
                "rounds": [one / batch for one in seconds],
            }
            for name, seconds in taken.items()
        ]
        ratios = [
            {"times_faster": fast, "than": slow, **setting, **ratio_of(taken[slow], taken[fast])}
            for fast, slow in compared(count_lists(n, settings))
            if fast in taken and slow in taken
        ]
        yield rows, ratios


def settings_grid(settings: Settings) -> Iterator[tuple[int, int, int]]:
    """Threads, batch and k in all combinations."""
    for threads in settings.threads:
        for batch in settings.batches:
            for k in settings.k:
                yield threads, batch, k


def compared(nlist: int) -> list[tuple[str, str]]:
    """Pairs of methods whose ratio answers a question: the faster one, as we think, first."""
    return [
        ("MeCoQ16x4fs", "ITQ64, IndexBinaryFlat"),
        (f"MeCoQ16x4fs, k_factor {K_FACTOR}", "ITQ64, IndexBinaryFlat"),
        ("MeCoQ16x4fs", "PQ16x4fs"),
        ("MeCoQ16x4fs", "MeCoQ8x8"),
        (f"IVF{nlist},MeCoQ8x8", "MeCoQ8x8"),
        (f"IVF{nlist},MeCoQ16x4fs", "MeCoQ16x4fs"),
        ("memory read", "MeCoQ16x4fs"),
        ("memory read", "MeCoQ8x8"),
    ]


def measure_layer(engine: FaissEngine, method: Method, k: int, seconds: float) -> dict[str, Any]:
    """What engine.search takes above index.search alone, one query at a time, in turns."""
    if "nprobe" in method.knobs:
        faiss.extract_index_ivf(engine.index).nprobe = method.knobs["nprobe"]
    unit = method.space.unit(method.queries)
    ours, plain = [], []
    ends = time.perf_counter() + seconds
    while len(ours) < FEWEST_PAIRS or (len(ours) < MOST_PAIRS and time.perf_counter() < ends):
        row = slice(at := len(ours) % len(unit), at + 1)
        searches = [
            (ours, partial(engine.search, method.queries[row], k)),
            (plain, partial(engine.index.search, unit[row], k)),
        ]
        for taken, search in searches if len(ours) % 2 else reversed(searches):
            started = time.perf_counter()
            search()
            taken.append(time.perf_counter() - started)
    return {
        "method": method.name,
        "k": k,
        "pairs": len(ours),
        "engine_seconds": statistics.median(ours),
        "index_seconds": statistics.median(plain),
        "overhead": statistics.median(a / b for a, b in zip(ours, plain, strict=True)) - 1,
    }


def measure_adding(
    engine: FaissEngine, method: Method, settings: Settings, threads: int
) -> dict[str, Any]:
    """Adding rows to a filled index: vectors to FAISS, codes to the engine.

    Lists of "codes, lists known" come with the codes, as from the shards of a build; otherwise they
    are looked for, which is most of the work of an IVF index for codes and vectors alike.
    """
    vectors = method.space.sample(settings.add_rows)
    codes = encode(vectors, method.space.books)
    given_vectors = faiss.clone_index(engine.index)
    calls: dict[str, Call] = {
        "vectors": lambda _: given_vectors.add(vectors),
        "codes": lambda _: engine.add(codes),
    }
    if engine.spec.nlist:
        lists = assign_lists(engine.layers.core, codes, method.space.books)
        calls["codes, lists known"] = lambda _: engine.add(codes, lists=lists)
    with threadpool_limits(threads):
        taken = time_in_turns(calls, min(settings.rounds, FEW_ROUNDS), 0.0)
    return {
        "method": method.name,
        "rows": len(codes),
        "threads": threads,
        "seconds": {name: statistics.median(seconds) for name, seconds in taken.items()},
        "faster_than_vectors": {
            name: ratio_of(taken["vectors"], seconds)
            for name, seconds in taken.items()
            if name != "vectors"
        },
    }


def fill(
    spaces: dict[int, GrownSpace], n: int, settings: Settings
) -> Iterator[tuple[Method | dict[str, str], FaissEngine | None]]:
    """Every method with n items in it, and the engine behind it if it is ours."""
    wide, nlist = spaces[256], count_lists(n, settings)
    natives = make_natives(wide, wide.sample(min(CHUNK, n)), quick=settings.quick)
    wide.fill(n, [native.add for native in natives.values()])
    spaces[16].fill(n)
    yield from learned_methods(spaces, nlist)
    binary = binary_methods(natives["ITQ64, IndexBinaryFlat"], wide, nlist)
    for method in chain(native_methods(natives, wide), binary):
        yield method, None


def measure(
    spaces: dict[int, GrownSpace], n: int, settings: Settings, run: dict[str, Any]
) -> Iterator[None]:
    """Fill ``run`` with the results at n items; yields where they are worth keeping."""
    run |= {"items": n, "methods": [], "not_built": [], "speed": [], "ratios": []}
    run |= {"layer": [], "adding": []}
    methods, plain_engines = [], []
    for method, engine in fill(spaces, n, settings):
        if isinstance(method, dict):
            run["not_built"].append(method)
            continue
        methods.append(method)
        if engine is not None and "k_factor" not in method.knobs:
            plain_engines.append((engine, method))
        run["methods"].append(method.describe())
        yield
    for speed, ratios in measure_speed(methods, n, settings):
        run["speed"] += speed
        run["ratios"] += ratios
        yield
    for engine, method in plain_engines:
        with threadpool_limits(1):
            layer = measure_layer(engine, method, RECALL_AT, settings.pair_seconds)
        run["layer"].append(layer)
        yield
    for engine, method in plain_engines if n == min(settings.items) else ():
        for threads in settings.threads:
            run["adding"].append(measure_adding(engine, method, settings, threads))
            yield


def show(run: dict[str, Any], settings: Settings) -> None:
    """Print the results at one size."""
    columns = [(t, b, settings.k[0]) for t in settings.threads for b in settings.batches]
    speed = {(r["method"], r["threads"], r["batch"], r["k"]): r for r in run["speed"]}
    print(f"\n{run['items']:,} items; queries per second at k={settings.k[0]}")
    heads = "".join(f"{f'{t} thr, batch {b}':>17}" for t, b, _ in columns)
    print(f"{'':<34}{'bytes':>6}{'own':>7}{'float':>7}{'class':>7}{heads}")
    for row in run["methods"]:
        figures = [row[f"{what}_at_10"] for what in ("own_recall", "float_recall")]
        figures.append(row["class_precision_at_10"])
        print(
            f"{row['method']:<34}{row['bytes_per_vector']:>6g}"
            + "".join(f"{figure:>7.3f}" for figure in figures)
            + "".join(
                f"{1 / speed[(row['method'], *column)]['seconds_per_query']:>17,.0f}"
                for column in columns
            )
        )
    for row in run["not_built"]:
        print(f"{row['method']:<34}{row['reason']}")
    print("\nhow many times faster, in the same round")
    for row in run["ratios"]:
        if row["k"] == settings.k[0]:
            at = f"{row['threads']} threads, batch {row['batch']}"
            print(f"{row['times_faster']} than {row['than']}, {at}: {row['ratio']:.2f}")
    for row in run["layer"]:
        print(f"{row['method']}: the engine takes {row['overhead']:+.1%} above the index alone")
    for row in run["adding"]:
        ratios = {name: r["ratio"] for name, r in row["faster_than_vectors"].items()}
        told = ", ".join(f"{name} {ratio:.1f} times faster" for name, ratio in ratios.items())
        print(f"adding to {row['method']}, {row['threads']} threads: {told} than vectors")


def parse_arguments() -> tuple[Settings, Path | None, Path | None]:
    """Settings, the file of features, and the file to write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=float, nargs="+", help="sizes, for instance 1e6 1e7")
    parser.add_argument("--threads", type=int, nargs="+")
    parser.add_argument("--batches", type=int, nargs="+")
    parser.add_argument("-k", type=int, nargs="+")
    parser.add_argument("--queries", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--most-lists", type=int)
    parser.add_argument("--features", type=Path, help="an .npz made by mecoq-index embed")
    add_output_options(parser)
    args = parser.parse_args()
    if args.items:
        args.items = [int(items) for items in args.items]
    given = {
        name: tuple(value) if isinstance(value, list) else value
        for name in ("items", "threads", "batches", "k", "queries", "rounds", "most_lists")
        if (value := getattr(args, name)) is not None
    }
    return replace(QUICK if args.quick else Settings(), **given), args.features, args.json


def main() -> None:
    """Parse, measure, print; the results so far are written whenever there are more of them."""
    settings, features, path = parse_arguments()
    environment = describe_environment()
    spaces = {
        K: GrownSpace(
            trained(K, features=features, quick=settings.quick),
            queries=settings.queries,
            seed=SEED,
            recall_at=RECALL_AT,
        )
        for K in (256, 16)
    }
    runs: list[dict[str, Any]] = []
    result = {
        "settings": asdict(settings),
        "codebooks": {f"K={K}": space.books.fingerprint for K, space in spaces.items()},
        "runs": runs,
    }
    for n in settings.items:
        runs.append({})
        started = time.perf_counter()
        for _ in measure(spaces, n, settings, runs[-1]):
            runs[-1]["seconds"] = round(time.perf_counter() - started)
            write_result(
                path, result, question=__doc__.splitlines()[0], seed=SEED, environment=environment
            )
        show(runs[-1], settings)


if __name__ == "__main__":
    main()
