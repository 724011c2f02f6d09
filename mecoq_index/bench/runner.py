"""Run methods over a data set and measure each: quality, speed, size.

Every method sees the same rows in the same random order. Quality and speed are measured apart:
lists for the metrics come from one search over all queries, times from repeated searches with some
of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np

from .._arrays import Scores, Vectors
from .._progress import Progress, silent
from ..baselines.base import Baseline
from ..baselines.hashing import ITQ, LSH, PCARotation, PCASign, SignHash
from ..baselines.quantization import OPQ, PQ, ExactCosine
from ..codebooks import Codebooks, VectorKind
from ..data.datasets import Dataset
from ..engines.abilities import BitsStore, BitsVariant, Variant
from ..engines.hits import Hits
from ..engines.registry import DEFAULT_ENGINE
from ..errors import InvalidInputError
from ..scoring import encode
from .environment import resident_mib
from .metrics import (
    average_precision,
    count_relevant,
    precision_at,
    precision_recall_curve,
    recall_at,
    relevance,
)
from .truth import aqs_of, best_aqs, cosine_of
from .variants import engine_variants

BASELINES: dict[str, type[Baseline]] = {
    method.name: method for method in (LSH, PCASign, PCARotation, ITQ, PQ, OPQ)
}

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
    """Seed of the row order, of every baseline, and of an engine's option ``seed``."""

    def __post_init__(self) -> None:
        counts = (self.map_at, self.precision_at, self.repeats, *self.recall_at)
        if not self.recall_at or min(counts) < 1:
            raise InvalidInputError(
                "map_at, precision_at, repeats and every k of recall_at must be at least 1, and "
                f"recall_at must not be empty, got {self}."
            )


@dataclass(frozen=True, kw_only=True)
class Record:
    """What was measured of one method. Scores are fractions; None without labels."""

    method: str
    bits: float
    bytes_per_vector: float
    build_seconds: float
    """Fitting, encoding and filling the index. Learned codebooks are fitted beforehand."""
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
    """Memory of the whole process after the index was built; None if the system does not tell."""
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


def run_bench(
    dataset: Dataset,
    codebooks: Codebooks,
    *,
    engine: str = DEFAULT_ENGINE,
    options: Sequence[Mapping[str, Any]] = ({},),
    baselines: Sequence[str] = tuple(BASELINES),
    given: VectorKind | None = None,
    settings: BenchSettings | None = None,
    on_progress: Progress = silent,
) -> list[Record]:
    """Measure learned codebooks in an engine, baselines at equal bits, and exact floats.

    Args:
        dataset: Features of the width that the codebooks' projection takes, or embeddings (n, D).
        codebooks: The learned codebooks.
        engine: Name of the engine that searches by them.
        options: Sets of the engine's options of the stage ``bench``, by name, each measured by
            itself: for FAISS ``[{"factory": "MeCoQ"}, {"factory": "IVF64,MeCoQ", "nprobe": 8}]``.
        baselines: Names out of `BASELINES`, whose codes are searched in this process.
        given: Whether the data set holds features or embeddings; told by the width if None.
        settings: What is measured.
        on_progress: Called with the name of the method under way, methods done, methods in all.

    Returns:
        One record a method: those in the engine first, exact floats last.

    Raises:
        InvalidInputError: If names or options are unknown, data set and codebooks do not fit
            together, or the engine cannot hold the codes.
        ServerError: If a server is out of reach, refuses, or fails.
    """
    settings = settings or BenchSettings()
    variants = engine_variants(
        engine, codebooks, options, items=len(dataset.database), seed=settings.seed
    )
    return measure(
        dataset,
        codebooks,
        variants,
        baselines=baselines,
        given=given,
        settings=settings,
        on_progress=on_progress,
    )


def measure(
    dataset: Dataset,
    codebooks: Codebooks,
    variants: Mapping[str, Variant | BitsVariant],
    *,
    baselines: Sequence[str] = tuple(BASELINES),
    given: VectorKind | None = None,
    settings: BenchSettings | None = None,
    on_progress: Progress = silent,
) -> list[Record]:
    """Measure variants of engines, see `run_bench` for the other arguments.

    Args:
        dataset: The data set.
        codebooks: The learned codebooks.
        variants: What to measure, by the names of the rows. A `Variant` is given learned codes, a
            `BitsVariant` the bits of ITQ.
        baselines: Names out of `BASELINES`.
        given: What the data set holds.
        settings: What is measured.
        on_progress: Called before each method, and at the end.

    Returns:
        One record a method: variants first, exact floats last.

    Raises:
        InvalidInputError: If names are unknown, or data set and codebooks do not fit together.
    """
    settings = settings or BenchSettings()
    if unknown := sorted(set(baselines) - BASELINES.keys()):
        raise InvalidInputError(f"unknown baselines {unknown}; choose from {sorted(BASELINES)}.")
    if not len(dataset.database) or not len(dataset.queries):
        raise InvalidInputError(
            f"there must be items and queries to measure, got {len(dataset.database)} and "
            f"{len(dataset.queries)}."
        )
    bench = _Bench(dataset.shuffled(settings.seed), codebooks, given, settings)
    methods: dict[str, Callable[[str], Record]] = {}
    for name, variant in variants.items():
        if isinstance(variant, BitsVariant):
            methods[name] = partial(bench.hashed, variant)
        else:
            methods[name] = partial(bench.learned, variant)
    methods |= dict.fromkeys(baselines, bench.baseline)
    methods[ExactCosine.name] = bench.exact
    records: list[Record] = []
    for name, method in methods.items():
        on_progress(name, len(records), len(methods))
        records.append(method(name))
    on_progress("done", len(records), len(methods))
    return records


@dataclass(frozen=True, eq=False)
class _HashedQueries:
    """Packed bits that are searched with vectors, as other methods are."""

    method: SignHash
    stored: BitsStore

    def search(self, q: Vectors, k: int, /) -> Hits:
        return self.stored.search(self.method.encode(q), k)

    @property
    def bytes_per_vector(self) -> float:
        return self.stored.bytes_per_vector


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
        z = codebooks.embed(dataset.database, given=given)
        self.zq = codebooks.embed(dataset.queries, given=given)
        self.depth = min(settings.map_at, len(dataset.database))
        self.cosine = ExactCosine.fit(dataset.database)
        self.cosine.add(dataset.database)
        self.best_cosine = self.cosine.search(dataset.queries, max(settings.recall_at)).scores
        started = time.perf_counter()
        self.codes = encode(z, codebooks)
        self.encode_seconds = time.perf_counter() - started
        self.best_aqs = best_aqs(self.zq, self.codes, codebooks, max(settings.recall_at))

    def learned(self, variant: Variant, name: str) -> Record:
        """Measure learned codes in an engine."""
        started = time.perf_counter()
        with variant(self.codebooks, self.codes) as engine:
            return self._measure(
                name,
                engine,
                self.zq,
                self.encode_seconds + time.perf_counter() - started,
                bits=self.codebooks.bits,
                is_learned=True,
                details=engine.describe(),
            )

    def hashed(self, variant: BitsVariant, name: str) -> Record:
        """Measure the bits of ITQ at the place of an engine."""
        bits, x = int(self.codebooks.bits), self.dataset.database
        started = time.perf_counter()
        method = ITQ.fit(x, bits, seed=self.settings.seed)
        with variant(method.encode(x)) as stored:
            seconds = time.perf_counter() - started
            searcher = _HashedQueries(method, stored)
            return self._measure(name, searcher, self.dataset.queries, seconds, bits=bits)

    def baseline(self, name: str) -> Record:
        """Measure a baseline in this process."""
        bits, x = int(self.codebooks.bits), self.dataset.database
        started = time.perf_counter()
        method = BASELINES[name].fit(x, bits, seed=self.settings.seed)
        method.add(x)
        seconds = time.perf_counter() - started
        return self._measure(name, method, self.dataset.queries, seconds, bits=bits)

    def exact(self, name: str) -> Record:
        """Measure exact floats."""
        bits = 32 * self.dataset.database.shape[1]
        return self._measure(name, self.cosine, self.dataset.queries, 0.0, bits=bits)

    def _measure(
        self,
        name: str,
        searcher: _Searcher,
        queries: Vectors,
        build_seconds: float,
        *,
        bits: float,
        is_learned: bool = False,
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
            recall_aqs=self._recall(hits, self.best_aqs, self._aqs_of) if is_learned else {},
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
        self, hits: Hits, best: Scores, true_scores: Callable[[Hits, int], Scores]
    ) -> dict[int, float]:
        return {
            k: recall_at(hits.ids, true_scores(hits, k), best, k)
            for k in self.settings.recall_at
            if k <= self.depth
        }

    def _cosine_of(self, hits: Hits, k: int) -> Scores:
        return cosine_of(self.dataset.queries, self.dataset.database, hits.ids[:, :k])

    def _aqs_of(self, hits: Hits, k: int) -> Scores:
        return aqs_of(self.zq, self.codes, self.codebooks, hits.ids[:, :k])

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
