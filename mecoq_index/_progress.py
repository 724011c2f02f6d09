"""The one shape in which long work reports how far it has come."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with (a few words on the step under way, steps done, steps in all)."""


def silent(text: str, done: int, total: int) -> None:
    """Report nothing."""
