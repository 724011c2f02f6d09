"""Run methods over a data set and measure each: quality, speed, size.

Every method sees the same rows in the same random order. Quality and speed are measured apart:
lists for the metrics come from one search over all queries, times from repeated searches over a
part of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np

from .._arrays import Codes, Vectors
from ..baselines.hashing import ITQ, LSH, PCARotation, PCASign
from ..baselines.quantization import OPQ, PQ, ExactCosine
from ..codebooks import Codebooks, VectorKind
from ..data.datasets import Dataset
from ..engines.abilities import Benchable, BitsStore, BitsVariant, Variant
from ..engines.base import Engine
from ..engines.hits import Hits
from ..engines.registry import get_engine
from ..errors import InvalidInputError
from ..scoring import block_normalize, decode, encode
from .environment import resident_mib
from .metrics import (
    average_precision,
    count_relevant,
    precision_at,
    precision_recall_curve,
    recall_at,
    relevance,
)

BASELINES = {method.name: method for method in (LSH, PCASign, PCARotation, ITQ, PQ, OPQ)}

_SINGLE_QUERIES = 200
_BATCH_QUERIES = 1000


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """What is measured, and how often."""

    map_at: int = 1000
    """The k of mAP@k and the length of the lists."""
    precision_at: int = 100
    """The k of precision@k."""
    recall_at: tuple[int, ...] = (10, 100)
    """The k of recall@k."""
    repeats: int = 5
    """Timed repeats, after one that is thrown away."""
    seed: int = 0
    """Seed of the row order and of every method."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What was measured of one method. Scores are fractions; None is: not measurable here."""

    method: str
    bits: float
    bytes_per_vector: float
    build_seconds: float
    """Fitting (baselines) or nothing (learned codebooks), encoding and filling the index."""
    mean_average_precision: float | None
    precision: float | None
    recall_float: dict[int, float]
    """recall@k against the exact cosine of the input vectors, by k."""
    recall_aqs: dict[int, float]
    """recall@k against exact AQS, by k; learned codebooks only."""
    single_ms_p50: float
    single_ms_p99: float
    queries_per_second: float
    """One query at a time, median of the repeats."""
    batch_queries_per_second: float
    """All timed queries in one call, median of the repeats."""
    resident_mib: float | None
    """Memory of the whole process after the index was built."""
    details: dict[str, Any] = field(default_factory=dict)
    curve: dict[str, list[float]] = field(default_factory=dict)
    """Precision over recall, where labels are given."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


class _Searcher(Protocol):
    def search(self, q: Vectors, k: int, /) -> Hits: ...

    @property
    def bytes_per_vector(self) -> float: ...


_Store = Callable[[Any, Vectors], AbstractContextManager[_Searcher]]


def run_bench(
    dataset: Dataset,
    codebooks: Codebooks,
    *,
    engine: str = "faiss",
    factories: Sequence[str] = ("MeCoQ",),
    baselines: Sequence[str] = tuple(BASELINES),
    options: Mapping[str, Any] | None = None,
    given: VectorKind | None = None,
    settings: BenchSettings | None = None,
    on_method: Callable[[str], None] | None = None,
) -> list[Record]:
    """Measure learned codebooks in an engine, baselines at equal bits, and exact floats.

    An engine that can hold packed bits is measured with those of ITQ as well.

    Args:
        dataset: Features of the width that the codebooks' projection takes, or embeddings (n, D).
        codebooks: The learned codebooks.
        engine: Name of the engine that searches by them.
        factories: Factory strings for the ``faiss`` engine; other engines have one layout.
        baselines: Names out of `BASELINES`; all of them are searched in this process.
        options: Of the engine's stage ``bench``, by name.
        given: Whether the data set holds features or embeddings; told by the width if None.
        settings: What is measured.
        on_method: Called with each method's name before it runs.

    Returns:
        One record a method: learned ones first, exact floats last.

    Raises:
        InvalidInputError: If names are unknown, or data set and codebooks do not fit together, or
            the engine cannot hold the codes.
        ServerError: If a server is out of reach, refuses, or fails.
    """
    settings = settings or BenchSettings()
    if unknown := sorted(set(baselines) - BASELINES.keys()):
        raise InvalidInputError(f"unknown baselines {unknown}; choose from {sorted(BASELINES)}.")
    variants = engine_variants(engine, codebooks, factories, options, settings.seed)
    dataset = dataset.shuffled(settings.seed)
    bench = _Bench(dataset, codebooks, given, settings)
    notify = on_method or (lambda name: None)
    records = []
    for name, variant in variants.items():
        notify(name)
        if isinstance(variant, BitsVariant):
            store = partial(_hashed, variant)
            records.append(bench.baseline(ITQ.name, store, called=name))
        else:
            records.append(bench.learned(name, variant))
    for name in baselines:
        notify(name)
        records.append(bench.baseline(name))
    notify(ExactCosine.name)
    records.append(bench.exact())
    return records


def engine_variants(
    engine: str,
    codebooks: Codebooks,
    factories: Sequence[str] = ("MeCoQ",),
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> dict[str, Variant | BitsVariant]:
    """The variants of an engine to measure, by the names of their rows.

    Raises:
        InvalidInputError: If the engine cannot hold codes of these codebooks.
        ServerError: If a server is out of reach or refuses the credentials.
    """
    kind = get_engine(engine)
    if isinstance(kind, Benchable):
        found: dict[str, Variant | BitsVariant] = {}
        for name, variant in kind.bench_variants(codebooks, **(options or {})).items():
            method = ITQ.name if isinstance(variant, BitsVariant) else "MeCoQ"
            found[f"{method} ({engine}, {name})"] = variant
        return found
    if engine != "faiss":
        return {f"MeCoQ ({engine})": partial(_in_process, engine, {})}
    return {
        f"MeCoQ ({engine}, {factory})": partial(
            _in_process, engine, {"factory": factory, "seed": seed}
        )
        for factory in factories
    }


@contextmanager
def _in_process(
    engine: str, options: dict[str, Any], codebooks: Codebooks, codes: Codes
) -> Iterator[Engine]:
    yield get_engine(engine).build(codebooks, codes, **options)


@contextmanager
def _hashed(variant: BitsVariant, method: Any, x: Vectors) -> Iterator[_Searcher]:
    with variant(method.encode(x)) as stored:
        yield _HashedQueries(method, stored)


@dataclass(frozen=True, eq=False)
class _HashedQueries:
    """Packed bits that are searched with vectors, as other methods are."""

    method: Any
    stored: BitsStore

    def search(self, q: Vectors, k: int, /) -> Hits:
        return self.stored.search(self.method.encode(q), k)

    @property
    def bytes_per_vector(self) -> float:
        return self.stored.bytes_per_vector


@contextmanager
def _in_itself(method: Any, x: Vectors) -> Iterator[_Searcher]:
    method.add(x)
    yield method


class _Bench:
    """One data set, its ground truth, and the measuring of a method on it."""

    def __init__(
        self,
        dataset: Dataset,
        codebooks: Codebooks,
        given: VectorKind | None,
        settings: BenchSettings,
    ) -> None:
        self.dataset, self.codebooks, self.settings = dataset, codebooks, settings
        self.z = codebooks.embed(dataset.database, given=given)
        self.zq = codebooks.embed(dataset.queries, given=given)
        self.depth = min(settings.map_at, len(dataset.database))
        self.cosine = ExactCosine.fit(dataset.database)
        self.cosine.add(dataset.database)
        self.best_cosine = self.cosine.search(dataset.queries, max(settings.recall_at))
        self.best_aqs: Hits | None = None

    def learned(self, name: str, making: Variant) -> Record:
        started = time.perf_counter()
        codes = encode(self.z, self.codebooks)
        with making(self.codebooks, codes) as built:
            seconds = time.perf_counter() - started
            if self.best_aqs is None:
                # Exact like the numpy engine, and a matrix product instead of table look-ups.
                reference = get_engine("torch").build(self.codebooks, codes, device="cpu")
                self.best_aqs = reference.search(self.zq, max(self.settings.recall_at))
            return self._measure(
                name,
                built,
                self.zq,
                seconds,
                bits=self.codebooks.bits,
                best_aqs=self.best_aqs,
                details=built.describe(),
            )

    def baseline(self, name: str, store: _Store = _in_itself, called: str = "") -> Record:
        bits = int(self.codebooks.bits)
        started = time.perf_counter()
        method = BASELINES[name].fit(self.dataset.database, bits, seed=self.settings.seed)
        with store(method, self.dataset.database) as searcher:
            seconds = time.perf_counter() - started
            return self._measure(called or name, searcher, self.dataset.queries, seconds, bits=bits)

    def exact(self) -> Record:
        bits = 32 * self.dataset.database.shape[1]
        return self._measure(self.cosine.name, self.cosine, self.dataset.queries, 0.0, bits=bits)

    def _measure(
        self,
        name: str,
        searcher: _Searcher,
        queries: Vectors,
        build_seconds: float,
        *,
        bits: float,
        best_aqs: Hits | None = None,
        details: dict[str, Any] | None = None,
    ) -> Record:
        resident = resident_mib()
        hits = searcher.search(queries, self.depth)
        quality, curve = self._quality(hits)
        return Record(
            method=name,
            bits=bits,
            bytes_per_vector=searcher.bytes_per_vector,
            build_seconds=build_seconds,
            recall_float=self._recall(hits, self.best_cosine, self._cosine_of),
            recall_aqs={} if best_aqs is None else self._recall(hits, best_aqs, self._aqs_of),
            resident_mib=resident,
            details=details or {},
            curve=curve,
            **quality,
            **self._speed(searcher, queries),
        )

    def _quality(self, hits: Hits) -> tuple[dict[str, Any], dict[str, list[float]]]:
        database, queries = self.dataset.database_labels, self.dataset.query_labels
        if database is None or queries is None:
            return {"mean_average_precision": None, "precision": None}, {}
        relevant = relevance(hits.ids, database, queries)
        recall, precision = precision_recall_curve(relevant, count_relevant(database, queries))
        quality = {
            "mean_average_precision": float(average_precision(relevant).mean()),
            "precision": precision_at(relevant, min(self.settings.precision_at, self.depth)),
        }
        return quality, {"recall": recall.tolist(), "precision": precision.tolist()}

    def _recall(
        self, hits: Hits, best: Hits, true_score: Callable[[Hits, int], Vectors]
    ) -> dict[int, float]:
        result = {}
        for k in self.settings.recall_at:
            if k <= self.depth:
                result[k] = recall_at(hits.ids, true_score(hits, k), best.scores, k)
        return result

    def _cosine_of(self, hits: Hits, k: int) -> Vectors:
        return _pairwise(
            self.dataset.queries, self.dataset.database, hits.ids[:, :k], normalize=True
        )

    def _aqs_of(self, hits: Hits, k: int) -> Vectors:
        codes = encode(self.z, self.codebooks)
        queries = block_normalize(self.zq, self.codebooks.M)
        return _pairwise(queries, decode(codes, self.codebooks), hits.ids[:, :k], normalize=False)

    def _speed(self, searcher: _Searcher, queries: Vectors) -> dict[str, float]:
        k = min(max(self.settings.recall_at), self.depth)
        single, rates, batch = [], [], []
        some = queries[:_SINGLE_QUERIES]
        many = queries[:_BATCH_QUERIES]
        for repeat in range(self.settings.repeats + 1):
            times = []
            for row in range(len(some)):
                started = time.perf_counter()
                searcher.search(some[row : row + 1], k)
                times.append(time.perf_counter() - started)
            started = time.perf_counter()
            searcher.search(many, k)
            seconds = time.perf_counter() - started
            if repeat:  # the first is warm-up
                single += times
                rates.append(len(times) / sum(times))
                batch.append(len(many) / seconds)
        return {
            "single_ms_p50": 1e3 * float(np.percentile(single, 50)),
            "single_ms_p99": 1e3 * float(np.percentile(single, 99)),
            "queries_per_second": float(np.median(rates)),
            "batch_queries_per_second": float(np.median(batch)),
        }


def _pairwise(
    queries: Vectors, database: Vectors, ids: np.ndarray[Any, Any], *, normalize: bool
) -> Vectors:
    """Inner products (or cosines) of each query with the items listed for it, (nq, k)."""
    scores = np.full(ids.shape, -np.inf, np.float32)
    for row, (query, listed) in enumerate(zip(queries, ids, strict=True)):
        items = database[listed]
        inner = items @ query
        if normalize:
            lengths = np.linalg.norm(items, axis=1) * np.linalg.norm(query)
            inner = np.divide(inner, lengths, out=np.zeros_like(inner), where=lengths > 0)
        scores[row] = inner
    scores[ids < 0] = -np.inf
    return scores
