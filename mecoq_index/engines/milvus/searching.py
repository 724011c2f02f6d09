"""Search in a collection, in requests of a size that Milvus accepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..._arrays import check_k
from ...errors import InvalidInputError
from ..hits import Hits
from .answers import reading
from .collection import MilvusCollection
from .schema import ID, VECTOR

_MAX_K = 16384  # Milvus's limit of results per query
_MAX_QUERIES = 1000
_MAX_RESULTS = 1 << 21  # of all queries of a request


def search(
    collection: MilvusCollection,
    q: Any,
    k: int,
    *,
    filter: str = "",
    partitions: str | Sequence[str] = (),
    output_fields: str | Sequence[str] = (),
    consistency_level: str | None = None,
    **options: int,
) -> Hits:
    """Find the k best rows for each query.

    Args:
        collection: The collection to search in.
        q: Raw queries as the profile takes them: vectors (nq, D), or packed bits.
        k: Results per query; more than 16,384 are fetched from ranges of ids and merged.
        filter: Milvus's expression over scalar fields and ids; rows must satisfy it.
        partitions: Partitions to search in; all if empty. A text is split at its commas.
        output_fields: Scalar fields that results carry. A text is split at its commas.
        consistency_level: Which changes by other clients this search sees; None for the
            collection's own level. With "Strong" it sees all earlier changes.
        options: Settings of the profile, such as ``ef`` for ``graph``.

    Returns:
        Scores and ids (nq, k), best first, missing results -inf and -1; ``fields`` are empty if no
        output fields were requested.

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
        "output_fields": split_names(output_fields),
        "search_params": {
            "metric_type": collection.profile.metric_type,
            "params": collection.profile.search_params(min(k, _MAX_K), options),
        },
    }
    if partitions:
        request["partition_names"] = split_names(partitions)
    if consistency_level is not None:
        request["consistency_level"] = consistency_level
    if k <= _MAX_K:
        found = _search(collection, queries.values, k, filter, request)
    else:
        found = _search_deep(collection, queries.values, k, filter, request)
    scores = collection.profile.scores(found.scores, queries.offset)
    if found.ids.size and found.ids.item(found.ids.argmin()) < 0:
        scores[found.ids < 0] = -np.inf
    return Hits(scores, found.ids, found.fields)


def split_names(names: str | Sequence[str]) -> list[str]:
    """Return names as a list; a text is split at its commas."""
    listed = names.split(",") if isinstance(names, str) else names
    return [name.strip() for name in listed if name.strip()]


def _search(
    collection: MilvusCollection, values: Any, k: int, filter: str, request: Mapping[str, Any]
) -> Hits:
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
        with reading(collection.connection, f"at most {k} ids and scores for each query"):
            rows = range(start, min(start + step, len(values)))
            for row, result in zip(rows, results, strict=True):
                n = len(result.ids)
                found.ids[row, :n] = result.ids
                found.scores[row, :n] = result.distances
            if request["output_fields"]:
                fields += [[hit["entity"] for hit in result] for result in results]
    return Hits(found.scores, found.ids, fields)


def _search_deep(
    collection: MilvusCollection, values: Any, k: int, filter: str, request: Mapping[str, Any]
) -> Hits:
    """Search as `_search` does, for a k beyond Milvus's limit.

    Milvus's search iterator is no help: with IVF_PQ, which gives many rows the same score, it
    returned 17,358 of 20,000 rows, and 2,642 rows a second time.
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
    return Hits(merged.scores, merged.ids, fields)
