"""Timing calls in turns, so that what disturbs the machine disturbs all of them alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

Call = Callable[[int], object]
"""Something to time, told how often it was called before."""


def time_in_turns(calls: dict[str, Call], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Seconds per call in each round, all calls in turns within a round.

    Args:
        calls: What to time, by name.
        rounds: Rounds, after an untimed call of each.
        seconds: In a round, a call is repeated until it takes about this long.
    """
    repeats = {}
    for name, call in calls.items():
        once = _seconds(call, 1)
        if once < seconds:
            once = _seconds(call, 1)
        repeats[name] = max(1, math.ceil(seconds / once))
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(_seconds(call, repeats[name]) / repeats[name])
    return taken


def _seconds(call: Call, repeats: int) -> float:
    started = time.perf_counter()
    for i in range(repeats):
        call(i)
    return time.perf_counter() - started


def ratio_of(slow: list[float], fast: list[float]) -> dict[str, Any]:
    """Ratios within a round, and their median."""
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    return {"ratio": statistics.median(ratios), "ratio_min": min(ratios), "rounds": ratios}
