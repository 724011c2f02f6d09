"""Indexes of collections, which Milvus builds at its own time, and loading into its memory."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..._progress import Progress, silent
from ...errors import ServerError
from .connection import Connection
from .schema import VECTOR

SLOW_SECONDS = 3600.0
"""The time that one request may take if it waits for work on all rows."""

_LONGEST_PAUSE = 2.0
_STALLED_SECONDS = 3600.0


@dataclass(frozen=True)
class Index:
    """An index of the vector field.

    Attributes:
        type: Milvus's name for its type.
        metric: Milvus's name for its metric.
        params: Its other parameters.
    """

    type: str
    metric: str
    params: Mapping[str, Any] = field(default_factory=dict)


class Indexed(Protocol):
    """A collection with an index."""

    name: str

    def index_state(self) -> dict[str, Any]:
        """Milvus's description of the index."""
        ...


def create(connection: Connection, collection: str, index: Index) -> None:
    """Let Milvus build the index of a collection, unless there is one.

    Raises:
        ServerError: If the server fails.
    """
    if VECTOR in connection.call("list_indexes", collection):
        return
    params = dict(index.params)
    wanted = connection.client.prepare_index_params()
    wanted.add_index(
        VECTOR,
        index_type=index.type,
        metric_type=index.metric,
        # pymilvus 3 flattens these, and milvus-lite reads the nested form only.
        params={"params": params} if connection.server.is_lite else params,
    )
    connection.call("create_index", collection, wanted, sync=False)


def wait(collection: Indexed, on_progress: Progress = silent) -> None:
    """Wait until an index covers all rows.

    Raises:
        ServerError: If Milvus has given up, or has made no progress for an hour.
    """
    pause, last, since = 0.05, (-1, -1), time.monotonic()
    while True:
        state = collection.index_state()
        total, indexed = int(state["total_rows"]), int(state["indexed_rows"])
        on_progress("indexing", indexed, max(total, 1))
        # Milvus calls an index finished before it knows of segments that were just flushed.
        if indexed >= total and not int(state["pending_index_rows"]):
            return
        if (total, indexed) != last:
            last, since = (total, indexed), time.monotonic()
        if state["state"] == "Failed" or time.monotonic() - since > _STALLED_SECONDS:
            reason = state.get("index_state_fail_reason") or "no reason given"
            raise ServerError(
                f"Milvus must index all {total} rows of collection {collection.name!r}, but "
                f"stopped after {indexed}: {reason}. Continue with --resume."
            )
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def is_loaded(connection: Connection, collection: str) -> bool:
    """Whether a collection is in memory and can be searched.

    Raises:
        ServerError: If the server fails.
    """
    state = connection.call("get_load_state", collection)["state"]
    return getattr(state, "name", str(state)) == "Loaded"


def load(connection: Connection, collection: str) -> None:
    """Load a collection into the server's memory.

    Raises:
        ServerError: If the server fails.
    """
    connection.call("load_collection", collection, timeout=SLOW_SECONDS)


def make_searchable(connection: Connection, collection: str, index: Index) -> None:
    """Create the index if it is missing, and load the collection unless it is loaded.

    Raises:
        ServerError: If the server fails.
    """
    if not is_loaded(connection, collection):
        create(connection, collection, index)
        load(connection, collection)
