"""What does our layer take above pymilvus used directly, for insertion and for search?

Both sides insert the same rows in requests of the same size, in turns request by request, and
search for the same queries in the same batches, in turns. pymilvus's side holds decoded vectors
already; it makes the dictionaries that pymilvus wants, and arrays of the results. AQS needs
block-normalised queries, so there are two pymilvus sides to search: one that normalises them, which
is what our side does, and one that was given them normalised.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from milvus_places import new_collection
from timing import ratio_of
from trained import Trained

from mecoq_index._arrays import Codes, Vectors
from mecoq_index.aqs import block_normalize, encode
from mecoq_index.engines.milvus.collection import MilvusCollection
from mecoq_index.engines.milvus.connection import Connection
from mecoq_index.engines.milvus.profiles import Exact
from mecoq_index.engines.milvus.schema import ID, VECTOR
from mecoq_index.engines.milvus.searching import search

SEARCHES = ((1, 10), (1, 100), (100, 10), (100, 100))
"""Queries in one call, and results a query."""

Side = Callable[[int], object]
"""Something to time, told the turn."""


def time_sides(sides: dict[str, Side], turns: int, *, untimed: int) -> dict[str, list[float]]:
    """Seconds of every side in each turn; sides take turns to be first, too."""
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
    """What our side takes above the other: the median of the ratios within a turn."""
    return float(ratio_of(list(ours), list(plain))["ratio"]) - 1


def measure_layer(
    connection: Connection, space: Trained, inserts: int, pairs: int
) -> dict[str, Any]:
    """Insert all items and queries of a space, and search in them."""
    codes = encode(np.concatenate([space.items, space.queries]), space.codebooks)
    profile = Exact(space.codebooks)
    loads, kept = [], new_collection(connection, profile)
    kept.create()
    insert_in_turns(kept, codes)
    for _ in range(inserts):
        collection = new_collection(connection, profile)
        collection.create()
        loads.append(insert_in_turns(collection, codes))
        collection.drop()
    ours, plain = zip(*loads, strict=True)
    kept.finish()
    searches = [
        measure_searches(kept, space, batch, k, max(2, round(pairs / batch**0.5)))
        for batch, k in SEARCHES
    ]
    kept.drop()
    return {
        "rows": len(codes),
        "insertion": {
            "seconds": {"ours": statistics.median(ours), "pymilvus": statistics.median(plain)},
            "overhead": overhead(ours, plain),
            "turns": {"ours": ours, "pymilvus": plain},
        },
        "searches": searches,
    }


def insert_in_turns(collection: MilvusCollection, codes: Codes) -> tuple[float, float]:
    """Seconds in which our side fills an empty collection, and pymilvus a copy of it.

    A server takes now twice as long for a request, now half: after each of our requests, pymilvus
    sends the same rows to the copy.
    """
    copy = new_collection(collection.connection, collection.profile)
    copy.create()
    client, ids = collection.connection.client, np.arange(len(codes), dtype=np.int64)
    decoded = collection.profile.documents(codes)
    ours, plain, sent, since = 0.0, 0.0, 0, time.perf_counter()

    def insert_plainly(_: str, done: int, __: int) -> None:
        nonlocal ours, plain, sent, since
        ours += (started := time.perf_counter()) - since
        rows = zip(ids[sent:done].tolist(), decoded[sent:done], strict=True)
        client.insert(copy.name, [{ID: number, VECTOR: vector} for number, vector in rows])
        plain += (since := time.perf_counter()) - started
        sent = done

    since = time.perf_counter()
    collection.insert(codes, ids, on_progress=insert_plainly)
    ours += time.perf_counter() - since
    copy.drop()
    return ours, plain


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
    taken = time_sides(sides, turns, untimed=2)
    return {
        "batch": batch,
        "k": k,
        "turns": turns,
        "seconds": {name: statistics.median(some) for name, some in taken.items()},
        "overhead": overhead(taken["ours"], taken["pymilvus"]),
        "overhead_over_prepared": overhead(taken["ours"], taken["pymilvus, prepared"]),
    }
