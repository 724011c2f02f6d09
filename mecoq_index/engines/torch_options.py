"""The options of the torch engine, which are read without loading torch."""

from __future__ import annotations

from .base import Option

OPTIONS = (
    Option(
        name="device",
        kind=str,
        help="where the codes lie: cpu, cuda, ... [default: CUDA where there is one]",
        stages=frozenset({"build", "open", "bench"}),
    ),
)
