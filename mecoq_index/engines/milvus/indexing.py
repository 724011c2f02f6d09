"""Waiting for an index, which Milvus builds when it likes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from ...errors import ServerError

Progress = Callable[[str, int, int], None]
"""Told what is done (a few words), steps done and steps in all."""

_LONGEST_PAUSE = 2.0
_STALLED_SECONDS = 3600.0


class Indexed(Protocol):
    """What has an index."""

    name: str

    def index_state(self) -> dict[str, Any]:
        """What Milvus says of it."""
        ...


def wait_for_index(collection: Indexed, on_progress: Progress | None = None) -> None:
    """Wait until an index covers all rows.

    Raises:
        ServerError: If Milvus has given up, or has not gone on for an hour.
    """
    pause, last, since = 0.05, (-1, -1), time.monotonic()
    while True:
        state = collection.index_state()
        total, indexed = int(state["total_rows"]), int(state["indexed_rows"])
        if on_progress is not None:
            on_progress("indexing", indexed, max(total, 1))
        # Milvus calls an index finished before it knows of segments that were just flushed.
        if indexed >= total and not int(state["pending_index_rows"]):
            return
        if (total, indexed) != last:
            last, since = (total, indexed), time.monotonic()
        if state["state"] == "Failed" or time.monotonic() - since > _STALLED_SECONDS:
            reason = state.get("index_state_fail_reason") or "no reason given"
            raise ServerError(
                f"Milvus has built the index of collection {collection.name!r} for {indexed} of "
                f"{total} rows, and does not go on: {reason}. What is loaded can be resumed."
            )
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
