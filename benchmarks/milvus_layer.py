"""How much slower is our layer than pymilvus used directly, for insertion and for search?

    python benchmarks/milvus_layer.py --json benchmarks/results/milvus_layer.json

All 60,000 rows of CIFAR-10, profile ``exact``. Both sides insert the same rows in requests of the
same size, in turns request by request, and search for the same queries in the same batches, in
turns. pymilvus's side starts from decoded vectors; it makes the dictionaries that pymilvus needs,
and arrays of the results. AQS needs block-normalized queries, so there are two pymilvus sides for
search: one that normalizes them, as our side does, and one that starts from normalized queries.

The times of a server's answers to equal insertions differ by a factor of two. For insertion, the
benchmark therefore compares the work of each side in this process around pymilvus's call, as a
share of pymilvus's whole side.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from milvus_places import SERVER, new_collection, open_places
from timing import ratio_of
from trained import Trained, trained

from common import add_output_options, write_result
from mecoq_index._arrays import Codes, Vectors
from mecoq_index.bench.environment import describe_environment
from mecoq_index.engines.milvus.collection import MilvusCollection
from mecoq_index.engines.milvus.connection import Connection
from mecoq_index.engines.milvus.profiles import Exact
from mecoq_index.engines.milvus.schema import ID, VECTOR
from mecoq_index.engines.milvus.searching import search
from mecoq_index.scoring import block_normalize, encode

SEARCHES = ((1, 10), (1, 100), (100, 10), (100, 100))
"""Queries in one call, and results per query."""

Side = Callable[[int], object]
"""A function to time, called with the number of the turn."""


def time_sides(sides: dict[str, Side], turns: int, *, untimed: int) -> dict[str, list[float]]:
    """Seconds of every side in each turn; sides also take turns in going first."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(-untimed, turns):
        names = list(sides)
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            started = time.perf_counter()
            sides[name](turn)
            seconds = time.perf_counter() - started
            if turn >= 0:
                taken[name].append(seconds)
    return taken


def overhead(ours: Sequence[float], plain: Sequence[float]) -> float:
    """The share by which our side is slower: the median of the ratios within a turn, minus 1."""
    return float(ratio_of(list(ours), list(plain))["ratio"]) - 1


@dataclasses.dataclass(frozen=True)
class Load:
    """Seconds of one load on both sides.

    Attributes:
        ours: All of our side.
        ours_around: The part of it outside pymilvus's ``insert``.
        plain: All of pymilvus's side.
        plain_around: The part of it outside ``insert``, which makes the dictionaries.
    """

    ours: float
    ours_around: float
    plain: float
    plain_around: float

    @property
    def overhead(self) -> float:
        """The extra work of our side in this process, as a share of the other's seconds."""
        return (self.ours_around - self.plain_around) / self.plain


class TimedInserts:
    """A client that counts the seconds of its insertions."""

    def __init__(self, client: Any) -> None:
        self._client, self.seconds = client, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def insert(self, *args: Any, **kwargs: Any) -> Any:
        """Insert with the client."""
        started = time.perf_counter()
        try:
            return self._client.insert(*args, **kwargs)
        finally:
            self.seconds += time.perf_counter() - started


def measure_layer(
    connection: Connection, space: Trained, inserts: int, pairs: int
) -> dict[str, Any]:
    """Insert all items and queries of a space, and search in them."""
    codes = encode(np.concatenate([space.items, space.queries]), space.codebooks)
    profile = Exact(space.codebooks)
    kept = new_collection(connection, profile)
    kept.create()
    insert_in_turns(kept, codes)
    loads = []
    for _ in range(inserts):
        collection = new_collection(connection, profile)
        collection.create()
        loads.append(insert_in_turns(collection, codes))
        collection.drop()
    kept.finish()
    searches = [
        measure_searches(kept, space, batch, k, max(1, round(pairs / batch**0.5)))
        for batch, k in SEARCHES
    ]
    kept.drop()
    return {
        "rows": len(codes),
        "insertion": {
            "overhead": statistics.median(load.overhead for load in loads),
            "overhead_with_noise_of_the_server": overhead(
                [load.ours for load in loads], [load.plain for load in loads]
            ),
            "turns": [dataclasses.asdict(load) for load in loads],
        },
        "searches": searches,
    }


def insert_in_turns(collection: MilvusCollection, codes: Codes) -> Load:
    """Fill a collection with our layer, and a copy with pymilvus after each request."""
    copy = new_collection(collection.connection, collection.profile)
    copy.create()
    client, ids = collection.connection.client, np.arange(len(codes), dtype=np.int64)
    decoded = collection.profile.documents(codes)
    ours = plain = inside = 0.0
    sent, since = 0, time.perf_counter()

    def insert_plainly(_: str, done: int, __: int) -> None:
        nonlocal ours, plain, inside, sent, since
        ours += (started := time.perf_counter()) - since
        rows = zip(ids[sent:done].tolist(), decoded[sent:done], strict=True)
        made = [{ID: number, VECTOR: vector} for number, vector in rows]
        asked = time.perf_counter()
        client.insert(copy.name, made)
        since = time.perf_counter()
        inside += since - asked
        plain += since - started
        sent = done

    timed = TimedInserts(client)
    connection = dataclasses.replace(collection.connection, client=timed)
    watched = MilvusCollection(connection, collection.name, collection.profile)
    since = time.perf_counter()
    watched.insert(codes, ids, on_progress=insert_plainly)
    ours += time.perf_counter() - since
    copy.drop()
    return Load(ours, ours - timed.seconds, plain, plain - inside)


def measure_searches(
    collection: MilvusCollection, space: Trained, batch: int, k: int, turns: int
) -> dict[str, Any]:
    """Search by batches of queries."""
    queries, M = space.queries, space.codebooks.M
    normalized = block_normalize(queries, M)

    def part(of: Vectors, turn: int) -> Vectors:
        at = turn * batch % (len(of) - batch + 1)
        return of[at : at + batch]

    def search_plainly(asked: Vectors) -> tuple[Any, Any]:
        found = collection.connection.client.search(
            collection.name,
            data=asked,
            limit=k,
            anns_field=VECTOR,
            search_params={"metric_type": "IP", "params": {}},
        )
        ids = np.array([one.ids for one in found], np.int64)
        return ids, np.array([one.distances for one in found], np.float32)

    sides: dict[str, Side] = {
        "ours": lambda turn: search(collection, part(queries, turn), k),
        "pymilvus": lambda turn: search_plainly(block_normalize(part(queries, turn), M)),
        "pymilvus, prepared": lambda turn: search_plainly(part(normalized, turn)),
    }
    taken = time_sides(sides, turns, untimed=1)
    return {
        "batch": batch,
        "k": k,
        "turns": turns,
        "seconds": {name: statistics.median(some) for name, some in taken.items()},
        "overhead": overhead(taken["ours"], taken["pymilvus"]),
        "overhead_over_prepared": overhead(taken["ours"], taken["pymilvus, prepared"]),
    }


def main() -> None:
    """Parse, measure, print, write."""
    question = __doc__.splitlines()[0]
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument("--features", type=Path, help="an .npz made by mecoq-index embed")
    add_output_options(parser)
    args = parser.parse_args()
    environment = describe_environment()
    inserts, pairs = (1, 8) if args.quick else (9, 600)
    space = trained(16 if args.quick else 256, features=args.features, quick=args.quick)
    run: dict[str, Any] = {"rows": []}
    with open_places(without_server=args.quick) as places:
        run["places"] = {place: str(connection.server) for place, connection in places.items()}
        for place, connection in places.items():
            some = pairs if place == SERVER else max(2, pairs // 4)
            row = {"place": place, **measure_layer(connection, space, inserts, some)}
            run["rows"].append(row)
            print(f"{place}: insertion {row['insertion']['overhead']:+.1%}")
            for one in row["searches"]:
                print(
                    f"  batch {one['batch']}, k {one['k']}: {one['overhead']:+.1%} above pymilvus "
                    f"that normalizes, {one['overhead_over_prepared']:+.1%} above one that does not"
                )
    write_result(args.json, run, question=question, seed=0, environment=environment)


if __name__ == "__main__":
    main()
