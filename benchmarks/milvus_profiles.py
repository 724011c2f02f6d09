"""What does each profile of the Milvus engine cost, and how exact is it?

    python benchmarks/milvus_profiles.py --json benchmarks/results/milvus_profiles.json

CIFAR-10: the 50,000 images of the database are stored, and randomly drawn test images are the
queries. Codebooks are trained without labels, with settings that were chosen before (trained.py);
nothing is chosen here. The server is that of the tests, Milvus 2.3.5 in one process; it indexes
rows at once, and waits for about 2.5 of the seconds of indexing.

Recall is measured against exact AQS over the same codes, by score with a tolerance, because codes
tie. The mAP@1000 of exact AQS is given for the same queries, which are fewer on milvus-lite.
``hamming`` stores bits of ITQ on the features, as in quality_cifar10.py, and its recall is measured
against exact Hamming distance. Searches are timed in turns while all collections are loaded.
Insertion ends when Milvus has accepted the last row, and indexing when it has indexed and loaded
all of them. Bytes are the estimates of the profile, without ids.

milvus_compact.py, which this runs, measures the weak points of ``compact``.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from milvus_compact import measure_rare, measure_segment, measure_skipping
from milvus_places import LITE, SERVER, fill, open_places
from timing import Call, time_in_turns
from trained import Trained, cifar10, trained

from common import add_output_options, write_result
from mecoq_index._arrays import Codes, Scores
from mecoq_index.baselines.hashing import ITQ
from mecoq_index.bench.environment import describe_environment
from mecoq_index.bench.metrics import mean_average_precision, recall_at
from mecoq_index.codebooks import Codebooks
from mecoq_index.engines.milvus.collection import MilvusCollection
from mecoq_index.engines.milvus.connection import Connection
from mecoq_index.engines.milvus.profile import Profile
from mecoq_index.engines.milvus.profiles import Compact, Exact, Graph, Hamming, Sparse
from mecoq_index.engines.milvus.searching import search
from mecoq_index.scoring import aqs, encode

SEED = 0
TOLERANCE = 1e-4
MAP_AT = 1000
K_TIMED = 10
BATCH, SPARSE_BATCH = 100, 5


@dataclass(frozen=True)
class Settings:
    """How much to measure.

    Attributes:
        bits: Bits of a code.
        codewords: Codewords per codebook; some things are measured for the first number only.
        extra_bits: Bits of the codes of ``compact`` above log2 K.
        rare_extra_bits: The same, for rare codewords.
        queries: Queries on the server.
        lite_queries: Queries on milvus-lite.
        rounds: Rounds in which every collection is timed in turn.
        sample_seconds: Seconds for which calls are repeated, about.
        skipping_items: Rows of the collection that is scanned in part.
        segments: Bits of Milvus's codes, and numbers of rows around that power of 2.
        quick: Whether to train briefly as well.
    """

    bits: tuple[int, ...] = (64, 32)
    codewords: tuple[int, ...] = (256, 16)
    extra_bits: tuple[int, ...] = (1, 2)
    rare_extra_bits: tuple[int, ...] = (1, 2, 4)
    queries: int = 500
    lite_queries: int = 50
    rounds: int = 5
    sample_seconds: float = 0.2
    skipping_items: int = 20_000
    segments: tuple[tuple[int, int, tuple[int, ...]], ...] = (
        (16, 5, (31, 33, 1023, 1024, 1100)),
        (256, 9, (511, 513, 1023, 1024, 1100)),
        (256, 10, (1000, 1023, 1024, 1025, 1100, 2048)),
        (256, 12, (1023, 1100, 4095, 4096)),
    )
    quick: bool = False


QUICK = Settings(
    bits=(64,),
    codewords=(16,),
    extra_bits=(1,),
    rare_extra_bits=(1,),
    queries=50,
    lite_queries=20,
    rounds=2,
    sample_seconds=0.002,
    skipping_items=2000,
    segments=((16, 5, (1024,)),),
    quick=True,
)


@dataclass(frozen=True, eq=False)
class Stored:
    """Codes, queries for them, and the true scores.

    Attributes:
        K: Codewords of a codebook; None for binary codes.
        codes: uint8, shape (n, width of a code).
        labels: Classes of the items (n,).
        queries: nq queries as a profile takes them.
        query_labels: Their classes (nq,).
        truth: float32, shape (nq, n), true scores.
    """

    K: int | None
    codes: Codes
    labels: npt.NDArray[np.int64]
    queries: Any
    query_labels: npt.NDArray[np.int64]
    truth: Scores

    @cached_property
    def best(self) -> npt.NDArray[np.int64]:
        """The ids of the first 1,000 items for each query, best first."""
        first = np.argpartition(-self.truth, MAP_AT - 1, axis=1)[:, :MAP_AT]
        order = np.argsort(-np.take_along_axis(self.truth, first, axis=1), axis=1)
        return np.take_along_axis(first, order, axis=1)

    def mean_ap(self, ids: npt.NDArray[np.int64]) -> float:
        """The mAP of lists for the first queries, in percent."""
        return 100 * mean_average_precision(ids, self.labels, self.query_labels[: len(ids)])

    def quality(self, collection: MilvusCollection, nq: int) -> dict[str, Any]:
        """Compare the results of a collection for the first queries with the truth."""
        queries, truth, best = self.queries[:nq], self.truth[:nq], self.best[:nq]
        row: dict[str, Any] = {"queries": nq}
        for k in (10, 100):
            hits = search(collection, queries, k)
            reached = np.take_along_axis(truth, hits.ids, axis=1)
            bar = np.take_along_axis(truth, best[:, :k], axis=1)
            row[f"recall_at_{k}"] = recall_at(hits.ids, reached, bar, k, tolerance=TOLERANCE)
            row["score_error"] = float(np.abs(hits.scores - reached)[hits.ids >= 0].max())
        row["map"] = self.mean_ap(search(collection, queries, MAP_AT).ids)
        row["map_of_exact"] = self.mean_ap(best)
        return row


def draw(n: int, nq: int) -> npt.NDArray[np.intp]:
    """Draw queries out of n; smaller draws are the beginning of larger ones."""
    return np.random.default_rng(SEED).permutation(n)[:nq]


def learned(space: Trained, nq: int) -> Stored:
    """Codes of learned codebooks, by AQS."""
    rows = draw(len(space.queries), nq)
    codes, queries = encode(space.items, space.codebooks), space.queries[rows]
    return Stored(
        space.codebooks.K,
        codes,
        space.item_labels,
        queries,
        space.query_labels[rows],
        aqs(queries, codes, space.codebooks),
    )


def hashed(bits: int, features: Path | None, settings: Settings) -> Stored:
    """Bits of ITQ on the features, by Hamming distance."""
    data = cifar10(features, quick=settings.quick).data
    rows = draw(len(data.queries), settings.queries)
    itq = ITQ.fit(data.database, bits, seed=SEED)
    codes, queries = itq.encode(data.database), itq.encode(data.queries[rows])
    asked, held = (2.0 * np.unpackbits(packed, axis=1) - 1 for packed in (queries, codes))
    return Stored(
        None,
        codes,
        np.asarray(data.database_labels, np.int64),
        queries,
        np.asarray(data.query_labels, np.int64)[rows],
        ((bits + asked @ held.T) / 2).astype(np.float32),
    )


def profiles_of(books: Codebooks, settings: Settings) -> list[tuple[str, Profile]]:
    """The places and profiles to measure."""
    bits = books.K.bit_length() - 1
    return [
        (SERVER, Exact(books)),
        (SERVER, Graph(books)),
        *((SERVER, Compact(books, nbits=bits + extra)) for extra in settings.extra_bits),
        (LITE, Exact(books)),
        (LITE, Graph(books)),
        (LITE, Sparse(books)),
    ]


@dataclass(frozen=True, eq=False)
class Measured:
    """A row of the result, and its collection."""

    row: dict[str, Any]
    collection: MilvusCollection
    stored: Stored
    batch: int

    def call(self, batch: int) -> Call:
        """A search for one batch of the queries after another."""
        queries = self.stored.queries
        starts = range(0, max(1, len(queries) - batch + 1), batch)
        turns = itertools.cycle([queries[start : start + batch] for start in starts])
        return lambda _: search(self.collection, next(turns), K_TIMED)


def measure_filling(
    place: str, connection: Connection, profile: Profile, stored: Stored, settings: Settings
) -> Measured:
    """Fill a collection, and compare its results with the truth."""
    filled = fill(connection, profile, stored.codes)
    row = {
        "place": place,
        "K": stored.K,
        "profile": profile.name,
        "nbits": getattr(profile, "nbits", None),
        "index": profile.index_type,
        "bytes_per_vector": profile.bytes_per_vector,
        "items": len(stored.codes),
        "distinct_codes": len(np.unique(stored.codes, axis=0)),
        "insert_seconds": filled.insert_seconds,
        "index_seconds": filled.index_seconds,
    }
    nq = settings.queries if place == SERVER else settings.lite_queries
    row |= stored.quality(filled.collection, nq)
    batch = SPARSE_BATCH if isinstance(profile, Sparse) else BATCH
    return Measured(row, filled.collection, stored, batch)


def measure_speed(measured: list[Measured], settings: Settings) -> None:
    """Add the speed of its collection to every row."""
    for name, batches in (
        ("single", [1] * len(measured)),
        ("batch", [one.batch for one in measured]),
    ):
        calls = {str(i): one.call(batches[i]) for i, one in enumerate(measured)}
        taken = time_in_turns(calls, settings.rounds, settings.sample_seconds)
        for one, size, seconds in zip(measured, batches, taken.values(), strict=True):
            one.row[name] = {
                "queries": size,
                "queries_per_second": size / statistics.median(seconds),
                "rounds": [second / size for second in seconds],
            }


def measure_profiles(
    places: dict[str, Connection], features: Path | None, settings: Settings
) -> Iterator[dict[str, Any]]:
    """A row for every profile of every codebook at every place."""
    for bits in settings.bits:
        jobs: list[tuple[str, Profile, Stored]] = []
        for K in settings.codewords:
            space = trained(K, bits=bits, features=features, quick=settings.quick)
            stored = learned(space, settings.queries)
            jobs += [
                (place, profile, stored)
                for place, profile in profiles_of(space.codebooks, settings)
            ]
        jobs.append((SERVER, Hamming(bits), hashed(bits, features, settings)))
        measured = [
            measure_filling(place, places[place], profile, stored, settings)
            for place, profile, stored in jobs
            if place in places
        ]
        measure_speed(measured, settings)
        for one in measured:
            yield {"bits": bits, **one.row}
            one.collection.drop()


def measure(
    places: dict[str, Connection], features: Path | None, settings: Settings, run: dict[str, Any]
) -> Iterator[None]:
    """Fill ``run``; yield when it should be saved."""
    spaces = {K: trained(K, features=features, quick=settings.quick) for K in settings.codewords}
    run["codebooks"] = {f"K={K}": space.codebooks.fingerprint for K, space in spaces.items()}
    first = spaces[settings.codewords[0]]
    run["profiles"] = []
    for row in measure_profiles(places, features, settings):
        run["profiles"].append(row)
        yield
    if SERVER in places:
        server = places[SERVER]
        run["rare"] = [
            row
            for space in spaces.values()
            for row in measure_rare(server, space, settings.rare_extra_bits)
        ]
        yield
        run["segments"] = [
            measure_segment(server, spaces[K], nbits, n)
            for K, nbits, sizes in settings.segments
            for n in sizes
        ]
        yield
        run["skipping"] = measure_skipping(server, first, settings.skipping_items)
        yield


def show(run: dict[str, Any]) -> None:
    """Print the results."""
    print(
        f"\n{'':<30}{'bits':>5}{'bytes':>7}{'insert':>8}{'index':>7}{'@10':>7}{'@100':>7}"
        f"{'mAP':>7}{'exact':>7}{'single':>8}{'batch':>8}"
    )
    for row in run["profiles"]:
        nbits = "" if row["nbits"] is None else f", nbits {row['nbits']}"
        name = f"{row['place']}, K={row['K']}: {row['profile']}{nbits}"
        print(
            f"{name:<30}{row['bits']:>5}{row['bytes_per_vector']:>7.0f}"
            f"{row['insert_seconds']:>8.2f}{row['index_seconds']:>7.1f}"
            f"{row['recall_at_10']:>7.3f}{row['recall_at_100']:>7.3f}"
            f"{row['map']:>7.2f}{row['map_of_exact']:>7.2f}"
            f"{row['single']['queries_per_second']:>8.0f}{row['batch']['queries_per_second']:>8.0f}"
        )
    for part in ("rare", "segments", "skipping"):
        print(f"\n{part}")
        for row in run.get(part, []):
            print("  " + ", ".join(f"{name} {_short(value)}" for name, value in row.items()))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Parse, measure, print; the results so far are written whenever there are more of them."""
    question = __doc__.splitlines()[0]
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument("--features", type=Path, help="an .npz made by mecoq-index embed")
    add_output_options(parser)
    args = parser.parse_args()
    settings = QUICK if args.quick else Settings()
    environment = describe_environment()
    run: dict[str, Any] = {"settings": asdict(settings)}
    started = time.perf_counter()
    with open_places(without_server=args.quick) as places:
        run["places"] = {place: str(connection.server) for place, connection in places.items()}
        for _ in measure(places, args.features, settings, run):
            run["seconds"] = round(time.perf_counter() - started)
            write_result(args.json, run, question=question, seed=SEED, environment=environment)
    show(run)


if __name__ == "__main__":
    main()
