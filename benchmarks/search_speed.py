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
import math
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from growth import CHUNK, GrownSpace
from threadpoolctl import threadpool_limits
from trained import BITS, trained

from common import add_output_options, write_result
from mecoq_index._arrays import Codes, Ids, Scores, Vectors
from mecoq_index.aqs import decode, encode
from mecoq_index.baselines.hashing import ITQ
from mecoq_index.bench.environment import describe_environment
from mecoq_index.engines.faiss.engine import FaissEngine
from mecoq_index.engines.faiss.grammar import lists_for
from mecoq_index.engines.faiss.inject import import_faiss

faiss = import_faiss()

SEED = 0
RECALL_AT = 10
DEEP = 100
TARGET = 0.95
TOLERANCE = 1e-4
K_FACTOR = 4
# With more items than this, three rounds must do.
MANY_ITEMS = 2_000_000
FEW_ROUNDS = 3
HNSW_LINKS = 16
HNSW_WIDEST = 2048
HNSW_SECONDS = 120.0
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


@dataclass(eq=False)
class Method:
    """Something that answers queries.

    Attributes:
        name: What the tables call it.
        space: Where its items come from.
        run: Scores (or distances) and ids, from queries, k and the knobs.
        queries: The timed queries, in the form that ``run`` takes.
        held: The other queries, in that form.
        bytes_per_vector: As stored.
        build_seconds: Training and filling.
        exact: The exact scan of the same codes; None where the method is that itself.
        rescore: Exact scores of returned ids; None where the returned ones are exact.
        sign: -1 where ``run`` returns distances.
        knobs: What ``run`` takes beside queries and k.
    """

    name: str
    space: GrownSpace
    run: Callable[..., tuple[Any, Ids]]
    queries: Any
    held: Any
    bytes_per_vector: float
    build_seconds: float
    exact: Method | None = None
    rescore: Callable[[Any, Ids], Scores] | None = None
    sign: int = 1
    knobs: dict[str, int] = field(default_factory=dict)

    def search(self, queries: Any, k: int) -> tuple[Any, Ids]:
        """Search with the knobs as they are set."""
        return self.run(queries, k, **self.knobs)

    @cached_property
    def threshold(self) -> Scores:
        """The score of rank 10 for each timed query; of an exact scan."""
        return self.sign * self.search(self.queries, RECALL_AT)[0][:, -1:]

    @cached_property
    def held_threshold(self) -> Scores:
        """The score of rank 10 for each held query; of an exact scan."""
        return self.sign * self.search(self.held, RECALL_AT)[0][:, -1:]

    def own_recall(self, *, held: bool) -> float:
        """Recall@10 of the exact scan of the same codes, by score."""
        if self.exact is None:
            return 1.0
        queries = self.held if held else self.queries
        scores, ids = self.search(queries, RECALL_AT)
        reached = self.sign * scores if self.rescore is None else self.rescore(queries, ids)
        threshold = self.exact.held_threshold if held else self.exact.threshold
        enough = reached >= threshold - TOLERANCE
        return float((enough & (ids >= 0)).mean())

    def tune(self, knob: str, largest: int, ceiling: float = 1.0) -> None:
        """Set a knob to the least value that reaches 95 % of ``ceiling`` on the held queries."""

        def reaches(value: int) -> bool:
            self.knobs = {knob: value}
            return self.own_recall(held=True) >= TARGET * ceiling

        low, high = 0, 1
        while not reaches(high) and high < largest:
            low, high = high, min(2 * high, largest)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if reaches(middle) else (middle, high)
        self.knobs = {knob: high}

    def describe(self) -> dict[str, Any]:
        """Name, size, knobs and quality, as plain values."""
        deep = self.search(self.queries, DEEP)[1]
        exact = self.exact is None
        first = deep[:, :RECALL_AT] if exact else self.search(self.queries, RECALL_AT)[1]
        space = self.space
        of_class = (space.labels[first] == space.query_labels[:, None]) & (first >= 0)
        return {
            "method": self.name,
            "space": f"K={space.books.K}",
            "bytes_per_vector": self.bytes_per_vector,
            "build_seconds": round(self.build_seconds, 2),
            "knobs": self.knobs,
            "own_recall_at_10": self.own_recall(held=False),
            "float_recall_at_10": _overlap(first, space.truth),
            "float_10_within_100": _overlap(deep, space.truth),
            "class_precision_at_10": float(of_class.mean()),
        }


def _overlap(found: Ids, truth: Ids) -> float:
    """The share of the true ids that were found."""
    return float((truth[:, :, None] == found[:, None, :]).any(axis=2).mean())


def count_lists(n: int, settings: Settings) -> int:
    """Inverted lists for n items."""
    return min(lists_for(n), settings.most_lists)


def learned_method(
    space: GrownSpace, factory: str, exact: Method | None = None, **knobs: int
) -> tuple[Method, FaissEngine]:
    """An engine filled with the codes of the space, and how it is asked."""
    started = time.perf_counter()
    engine = FaissEngine.build(space.books, space.codes, factory=factory, seed=SEED)
    seconds = time.perf_counter() - started

    def run(z: Vectors, k: int, **knobs: int) -> tuple[Scores, Ids]:
        hits = engine.search(z, k, **knobs)
        return hits.scores, hits.ids

    def rescore(z: Vectors, ids: Ids) -> Scores:
        decoded = decode(space.codes[ids.ravel()], space.books).reshape(*ids.shape, -1)
        scores: Scores = np.einsum("qd,qkd->qk", space.unit(z), decoded)
        return scores

    size = engine.bytes_per_vector
    asked = space.queries, space.held
    method = Method(factory, space, run, *asked, size, seconds, exact, rescore, knobs=knobs)
    return method, engine


def learned_methods(
    spaces: dict[int, GrownSpace], nlist: int
) -> Iterator[tuple[Method, FaissEngine]]:
    """Every index over learned codes, exact scans first."""
    full = {}
    for K, space in spaces.items():
        full[K], engine = learned_method(space, f"MeCoQ{space.books.M}x{K.bit_length() - 1}")
        yield full[K], engine
    narrow, name = spaces[16], full[16].name
    fast, engine = learned_method(narrow, f"{name}fs", full[16])
    yield fast, engine
    title = f"{name}fs, k_factor {K_FACTOR}"
    yield replace(fast, name=title, knobs={"k_factor": K_FACTOR}), engine
    yield learned_method(narrow, f"{name}fs,Refine({name})", full[16], k_factor=K_FACTOR)
    for K, scan in ((256, full[256]), (16, fast)):
        method, engine = learned_method(spaces[K], f"IVF{nlist},{scan.name}", full[K])
        method.tune("nprobe", nlist, scan.own_recall(held=True))
        yield method, engine


@dataclass(eq=False)
class Native:
    """A FAISS index that is filled with vectors.

    Attributes:
        name: What the tables call it.
        index: The index, trained.
        bytes_per_vector: As stored.
        seconds: What training and filling have taken so far.
        prepare: Makes of block-normalised vectors what the index takes; None for themselves.
    """

    name: str
    index: Any
    bytes_per_vector: float
    seconds: float
    prepare: Callable[[Vectors], Any] | None = None

    def add(self, rows: Vectors) -> None:
        """Add block-normalised rows."""
        started = time.perf_counter()
        self.index.add(rows if self.prepare is None else self.prepare(rows))
        self.seconds += time.perf_counter() - started

    def method(self, space: GrownSpace, **others: Any) -> Method:
        """How it is asked."""
        asked = [space.unit(space.queries), space.unit(space.held)]
        if self.prepare is not None:
            asked = [self.prepare(queries) for queries in asked]
        by_distance = self.index.metric_type == faiss.METRIC_L2
        others = {"run": self.index.search, "sign": -1 if by_distance else 1} | others
        return Method(
            name=self.name,
            space=space,
            queries=asked[0],
            held=asked[1],
            bytes_per_vector=self.bytes_per_vector,
            build_seconds=self.seconds,
            **others,
        )


def make_natives(space: GrownSpace, rows: Vectors, *, quick: bool) -> dict[str, Native]:
    """FAISS's own quantizers and a flat binary index, trained on rows of the space."""
    D, M = space.books.D, BITS // 8
    natives = [
        _factory_made("PQ8x8", f"PQ{M}x8np", rows),
        _factory_made("PQ16x4", f"PQ{2 * M}x4np", rows),
        _factory_made("OPQ8", f"OPQ{M}_{D},PQ{M}x8np", rows, iterations=2 if quick else None),
        _rabitq("RaBitQ 8d fs", 8, rows),
        _rabitq("RaBitQ 64d fs", BITS, rows),
        _itq("ITQ64, IndexBinaryFlat", rows),
    ]
    return {native.name: native for native in natives}


def _factory_made(
    name: str, factory: str, rows: Vectors, *, iterations: int | None = None
) -> Native:
    index = faiss.index_factory(rows.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    if iterations is not None:
        faiss.downcast_VectorTransform(index.chain.at(0)).niter = iterations
    started = time.perf_counter()
    index.train(rows)
    return Native(name, index, BITS // 8, time.perf_counter() - started)


def _rabitq(name: str, width: int, rows: Vectors) -> Native:
    """RaBitQ after PCA; by L2, because PCA moves the origin and inner products with it."""
    started = time.perf_counter()
    pca = faiss.PCAMatrix(rows.shape[1], width, 0, True)
    pca.train(rows)
    index = faiss.IndexRaBitQ(width, faiss.METRIC_L2)
    index.train(pca.apply(rows))
    seconds = time.perf_counter() - started
    return Native(name, index, index.code_size, seconds, pca.apply)


def _itq(name: str, rows: Vectors) -> Native:
    started = time.perf_counter()
    itq = ITQ.fit(rows, BITS, seed=SEED)
    seconds = time.perf_counter() - started
    return Native(name, faiss.IndexBinaryFlat(BITS), BITS // 8, seconds, itq.encode)


def native_methods(natives: dict[str, Native], space: GrownSpace) -> Iterator[Method]:
    """The quantizers, filled; FastScan forms are made of the codes of the others."""
    yield natives["PQ8x8"].method(space)
    yield natives["OPQ8"].method(space)
    plain = natives["PQ16x4"].index

    def rescore(queries: Vectors, ids: Ids) -> Scores:
        decoded = plain.reconstruct_batch(ids.ravel()).reshape(*ids.shape, -1)
        scores: Scores = np.einsum("qd,qkd->qk", queries, decoded)
        return scores

    fast = replace(natives["PQ16x4"], name="PQ16x4fs", index=faiss.IndexPQFastScan(plain))
    yield fast.method(space, exact=natives["PQ16x4"].method(space), rescore=rescore)
    for name in ("RaBitQ 8d fs", "RaBitQ 64d fs"):
        packed = faiss.IndexRaBitQFastScan(natives[name].index)
        yield replace(natives[name], index=packed).method(space)


def binary_methods(
    flat: Native, space: GrownSpace, nlist: int
) -> Iterator[Method | dict[str, str]]:
    """Hamming search over the same bits: all of them, by lists, and by a graph if it gets built."""
    exact = flat.method(space)
    yield exact
    bits = faiss.vector_to_array(flat.index.xb).reshape(-1, BITS // 8)
    started = time.perf_counter()
    inverted = _binary_lists(bits, nlist)
    name = f"ITQ64, IndexBinaryIVF{nlist}"
    seconds = flat.seconds + time.perf_counter() - started
    yield _tuned_binary(
        Native(name, inverted, BITS // 8 + 8, seconds, flat.prepare),
        exact,
        faiss.SearchParametersIVF,
        "nprobe",
        nlist,
    )
    started = time.perf_counter()
    graph, expected = _binary_graph(bits)
    name = f"ITQ64, IndexBinaryHNSW{HNSW_LINKS}"
    if graph is None:
        yield {"method": name, "reason": f"not built: it would take {expected:.0f} s or more"}
        return
    size = BITS // 8 + 4 * graph.hnsw.nb_neighbors(0)
    seconds = flat.seconds + time.perf_counter() - started
    yield _tuned_binary(
        Native(name, graph, size, seconds, flat.prepare),
        exact,
        faiss.SearchParametersHNSW,
        "efSearch",
        HNSW_WIDEST,
    )


def _tuned_binary(
    native: Native, exact: Method, parameters: Any, knob: str, largest: int
) -> Method:
    def run(queries: Codes, k: int, **knobs: int) -> tuple[Any, Ids]:
        found: tuple[Any, Ids] = native.index.search(queries, k, params=parameters(**knobs))
        return found

    method = native.method(exact.space, exact=exact, run=run)
    method.tune(knob, largest)
    return method


def _binary_lists(bits: Codes, nlist: int) -> Any:
    quantizer = faiss.IndexBinaryFlat(BITS)
    index = faiss.IndexBinaryIVF(quantizer, BITS, nlist)
    quantizer.this.disown()
    index.own_fields = True
    index.cp.niter, index.cp.seed = 10, SEED + 1
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, 64
    index.train(bits)
    index.add(bits)
    return index


def _binary_graph(bits: Codes) -> tuple[Any, float]:
    """A graph over the bits, or None where that would take too long, and the seconds it takes."""
    index = faiss.IndexBinaryHNSW(BITS, HNSW_LINKS)
    started, expected = time.perf_counter(), 0.0
    for start in range(0, len(bits), CHUNK):
        index.add(bits[start : start + CHUNK])
        expected = (time.perf_counter() - started) * len(bits) / index.ntotal
        if expected > HNSW_SECONDS:
            return None, expected
    return index, expected


Call = Callable[[int], object]
"""Something to time, told how often it was called before."""


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


def time_in_turns(calls: dict[str, Call], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Seconds per call in each round, all calls in turns within a round.

    Args:
        calls: What to time, by name.
        rounds: Rounds, after an untimed call of each.
        seconds: In a round, a call is repeated until it takes about this long.
    """
    repeats = {}
    for name, call in calls.items():
        once = _seconds(call, 1)
        if once < seconds:
            once = _seconds(call, 1)
        repeats[name] = max(1, math.ceil(seconds / once))
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(_seconds(call, repeats[name]) / repeats[name])
    return taken


def _seconds(call: Call, repeats: int) -> float:
    started = time.perf_counter()
    for i in range(repeats):
        call(i)
    return time.perf_counter() - started


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


def ratio_of(slow: list[float], fast: list[float]) -> dict[str, Any]:
    """Ratios within a round, and their median."""
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    return {"ratio": statistics.median(ratios), "ratio_min": min(ratios), "rounds": ratios}


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
    """Adding rows to a filled index: vectors to FAISS, codes to the engine, and stored codes.

    Stored codes are FAISS's own, list numbers included; FastScan indexes do not take them.
    """
    space = method.space
    vectors = space.sample(settings.add_rows)
    codes = encode(vectors, space.books)
    given_vectors = faiss.clone_index(engine.index)
    calls: dict[str, Call] = {
        "vectors": lambda _: given_vectors.add(vectors),
        "codes": lambda _: engine.add(codes),
    }
    if "fs" not in method.name:
        given_stored = faiss.clone_index(engine.index)
        stored = given_stored.sa_encode(vectors)
        calls["stored codes"] = lambda _: given_stored.add_sa_codes(stored)
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
