"""What `search_speed` compares: learned codes in FAISS, FAISS's own quantizers, binary hashing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from growth import CHUNK, GrownSpace
from trained import BITS

from mecoq_index._arrays import Codes, Ids, Scores, Vectors
from mecoq_index.baselines.hashing import ITQ
from mecoq_index.engines.faiss.engine import FaissEngine
from mecoq_index.engines.faiss.inject import import_faiss
from mecoq_index.scoring import decode

faiss = import_faiss()

SEED = 0
RECALL_AT = 10
DEEP = 100
TARGET = 0.95
TOLERANCE = 1e-4
K_FACTOR = 10
HNSW_LINKS = 16
HNSW_WIDEST = 2048
HNSW_SECONDS = 120.0


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
