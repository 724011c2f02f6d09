"""The one shape in which long work reports how far it has come."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

Progress = Callable[[str, int, int], None]
"""Called with (a few words on the step under way, steps done, steps in all)."""


def reported(progress: Progress | bool, label: str) -> AbstractContextManager[Progress]:
    """A callback for ``progress``: itself, one that shows a bar for True, a silent one for False.

    Args:
        progress: As a public function takes it.
        label: What the work is, as a bar calls it.
    """
    if callable(progress):
        return nullcontext(progress)
    return shown(label) if progress else nullcontext(silent)


def silent(text: str, done: int, total: int) -> None:
    """Report nothing."""
