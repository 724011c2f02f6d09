"""What does our layer take above pymilvus used directly, for insertion and for search?

Both sides insert the same rows in requests of the same size, and search for the same queries in the
same batches, in turns. pymilvus's side holds decoded vectors already; it makes the dictionaries
that pymilvus wants, and arrays of the results. AQS needs block-normalised queries, so there are two
pymilvus sides to search: one that normalises them, which is what our side does, and one that was
given them normalised.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from milvus_places import new_collection
from trained import Trained

from mecoq_index._arrays import Vectors
from mecoq_index.aqs import block_normalize, decode, encode
from mecoq_index.engines.milvus.batches import split
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


def overhead(ours: list[float], plain: list[float]) -> float:
    """What our side takes above the other, by the medians."""
    return statistics.median(ours) / statistics.median(plain) - 1


def measure_layer(
    connection: Connection, space: Trained, inserts: int, pairs: int
) -> dict[str, Any]:
    """Insert all items and queries of a space, and search in them."""
    books = space.codebooks
    codes = encode(np.concatenate([space.items, space.queries]), books)
    profile = Exact(books)
    ids = np.arange(len(codes), dtype=np.int64)
    decoded, client = decode(codes, books), connection.client
    size = len(split(profile, codes, ids, None)[0].ids)
    collections: dict[str, MilvusCollection] = {}

    def empty(name: str) -> MilvusCollection:
        if name in collections:
            collections[name].drop()
        collections[name] = new_collection(connection, profile)
        collections[name].create()
        return collections[name]

    def insert_plainly(_: int) -> None:
        name = collections["pymilvus"].name
        for at in range(0, len(ids), size):
            rows = zip(ids[at : at + size].tolist(), decoded[at : at + size], strict=True)
            client.insert(name, [{ID: number, VECTOR: vector} for number, vector in rows])

    def insert_ours(_: int) -> None:
        collections["ours"].insert(codes, ids)

    taken: dict[str, list[float]] = {"ours": [], "pymilvus": []}
    sides: dict[str, Side] = {"ours": insert_ours, "pymilvus": insert_plainly}
    for turn in range(-1, inserts):
        for name in sides:
            empty(name)
        order = sides if turn % 2 else dict(reversed(sides.items()))
        for name, seconds in time_sides(order, 1, untimed=0).items():
            taken[name] += seconds if turn >= 0 else []
    collections["pymilvus"].drop()
    collections["ours"].finish()
    searches = [
        measure_searches(collections["ours"], space, batch, k, max(4, round(pairs / batch**0.5)))
        for batch, k in SEARCHES
    ]
    collections["ours"].drop()
    return {
        "rows": len(codes),
        "insertion": {
            "seconds": {name: statistics.median(some) for name, some in taken.items()},
            "overhead": overhead(taken["ours"], taken["pymilvus"]),
            "turns": taken,
        },
        "searches": searches,
    }


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
