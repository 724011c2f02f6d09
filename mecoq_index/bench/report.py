"""The result of a bench for people (a table) and for scripts (JSON)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from .._files import atomic_file
from .environment import describe_environment
from .runner import BenchSettings, Record


def make_table(records: Sequence[Record], settings: BenchSettings) -> Table:
    """A table of the records, without the columns that no record fills."""
    recalls = [k for k in settings.recall_at if any(k in r.recall_float for r in records)]
    labeled = any(r.mean_average_precision is not None for r in records)
    table = Table(title_justify="left", header_style="bold")
    table.add_column("method")
    headers = ["bits", "bytes"]
    if labeled:
        headers += [f"mAP@{settings.map_at}", f"P@{settings.precision_at}"]
    headers += [f"recall@{k}" for k in recalls]
    headers += ["of AQS", "build s", "QPS", "p50 ms", "p99 ms", "batch QPS", "RSS MiB"]
    for header in headers:
        table.add_column(header, justify="right")
    for r in records:
        cells = [r.method, f"{r.bits:g}", f"{r.bytes_per_vector:g}"]
        if labeled:
            cells += [_percent(r.mean_average_precision), _percent(r.precision)]
        cells += [_percent(r.recall_float.get(k)) for k in recalls]
        cells += [
            _percent(r.recall_aqs.get(recalls[0]) if recalls else None),
            f"{r.build_seconds:.2f}",
            f"{r.queries_per_second:,.0f}",
            f"{r.single_ms_p50:.2f}",
            f"{r.single_ms_p99:.2f}",
            f"{r.batch_queries_per_second:,.0f}",
            "-" if r.resident_mib is None else f"{r.resident_mib:.0f}",
        ]
        table.add_row(*cells)
    return table


def to_json(records: Sequence[Record], settings: BenchSettings, **context: Any) -> dict[str, Any]:
    """Records with settings, machine and versions, as plain values.

    Args:
        records: The records.
        settings: The settings that they were measured with.
        context: Further plain values, such as the name of the data set.
    """
    return {
        **context,
        "settings": {**settings.__dict__},
        "environment": describe_environment(),
        "records": [r.to_dict() for r in records],
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file in one step, so that it is never half written."""
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
