"""Search in a collection, in requests that Milvus takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..._arrays import check_k
from ...errors import InvalidInputError
from ..hits import Hits
from .collection import MilvusCollection
from .schema import ID, VECTOR

_MAX_K = 16384  # Milvus's limit of results a query
_MAX_QUERIES = 1000
_MAX_RESULTS = 1 << 21  # of all queries of a request


@dataclass(frozen=True, eq=False)
class MilvusHits(Hits):
    """Search results with the scalar fields that were asked for.

    Attributes:
        fields: For each query, what each result carries by name; no entry for missing results.
            Empty where no fields were asked for.
    """

    fields: Sequence[Sequence[Mapping[str, Any]]] = ()


def search(
    collection: MilvusCollection,
    q: Any,
    k: int,
    *,
    filter: str = "",
    partitions: Sequence[str] = (),
    output_fields: Sequence[str] = (),
    consistency_level: str | None = None,
    **options: int,
) -> MilvusHits:
    """The k best rows for each query.

    Args:
        collection: Where to search.
        q: Raw queries as the profile takes them: float32 (nq, D), or packed bits.
        k: Results a query; more than 16,384 are fetched from ranges of ids and merged.
        filter: Milvus's expression over scalar fields and ids; rows must satisfy it.
        partitions: Partitions to search in; all if empty.
        output_fields: Scalar fields that results carry.
        consistency_level: Of this search; the collection's own if None. With "Strong" a
            search sees all that was inserted before it.
        options: Settings of the profile, such as ``ef`` for ``graph``.

    Raises:
        InvalidInputError: If arguments are malformed.
        ServerError: If the server fails, or refuses the filter.
    """
    k = check_k(k)
    if unknown := sorted(options.keys() - collection.profile.search_options):
        raise InvalidInputError(
            f"profile {collection.profile.name!r} takes the search options "
            f"{sorted(collection.profile.search_options)}, got {unknown}."
        )
    if filter:
        collection.profile.check_skipping(collection.connection.server, "a filter")
    if k > _MAX_K:
        collection.profile.check_skipping(collection.connection.server, f"k above {_MAX_K}")
    queries = collection.profile.queries(q)
    request: dict[str, Any] = {
        "anns_field": VECTOR,
        "output_fields": list(output_fields),
        "search_params": {
            "metric_type": collection.profile.metric_type,
            "params": collection.profile.search_params(min(k, _MAX_K), options),
        },
    }
    if partitions:
        request["partition_names"] = list(partitions)
    if consistency_level is not None:
        request["consistency_level"] = consistency_level
    if k <= _MAX_K:
        found = _search(collection, queries.values, k, filter, request)
    else:
        found = _search_deep(collection, queries.values, k, filter, request)
    scores = collection.profile.scores(found.scores, queries.offset)
    if found.ids.size and found.ids.item(found.ids.argmin()) < 0:
        scores[found.ids < 0] = -np.inf
    return MilvusHits(scores, found.ids, found.fields)


def _search(
    collection: MilvusCollection, values: Any, k: int, filter: str, request: Mapping[str, Any]
) -> MilvusHits:
    found = Hits.empty(len(values), k)
    fields: list[list[Mapping[str, Any]]] = []
    step = max(1, min(_MAX_QUERIES, _MAX_RESULTS // k))
    for start in range(0, len(values), step):
        results = collection.connection.call(
            "search",
            collection.name,
            data=values[start : start + step],
            limit=k,
            filter=filter,
            **request,
        )
        for row, result in enumerate(results, start):
            n = len(result.ids)
            found.ids[row, :n] = result.ids
            found.scores[row, :n] = result.distances
        if request["output_fields"]:
            fields += [[hit["entity"] for hit in result] for result in results]
    return MilvusHits(found.scores, found.ids, fields)


def _search_deep(
    collection: MilvusCollection, values: Any, k: int, filter: str, request: Mapping[str, Any]
) -> MilvusHits:
    """As `_search`, for a k beyond Milvus's limit.

    Its search iterator would not do: with IVF_PQ, where many scores tie, it gave 17,358
    different rows and 2,642 repeated ones of 20,000.
    """
    ids = collection.ids()
    parts = []
    for at in range(0, len(ids), _MAX_K):
        last = ids[min(at + _MAX_K, len(ids)) - 1]
        inside = f"{ID} >= {ids[at]} and {ID} <= {last}"
        both = f"({filter}) and {inside}" if filter else inside
        parts.append(_search(collection, values, min(_MAX_K, k), both, request))
    merged = Hits.empty(len(values), k)
    fields: list[list[Mapping[str, Any]]] = []
    sign = -1 if collection.profile.metric_type == "IP" else 1
    for row in range(len(values) if parts else 0):
        row_ids = np.concatenate([part.ids[row] for part in parts])
        scores = np.concatenate([part.scores[row] for part in parts])
        held = np.flatnonzero(row_ids >= 0)
        best = held[np.argsort(sign * scores[held], kind="stable")[:k]]
        merged.ids[row, : len(best)] = row_ids[best]
        merged.scores[row, : len(best)] = scores[best]
        if request["output_fields"]:
            carried = [entry for part in parts for entry in part.fields[row]]
            rank_of = np.full(len(row_ids), -1)
            rank_of[held] = np.arange(len(held))
            fields.append([carried[rank_of[place]] for place in best])
    return MilvusHits(merged.scores, merged.ids, fields)
