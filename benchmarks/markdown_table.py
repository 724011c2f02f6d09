"""A table in Markdown, with the line under it that says where its numbers come from."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_NUMBER = re.compile(r"[-+]?\d")


@dataclass(frozen=True)
class Table:
    """Cells as text, and their source.

    Attributes:
        columns: The headings. Columns of numbers are aligned right, all others left.
        rows: The cells, as many in every row as there are columns.
        source: The line under the table: settings read from the results, and `records.made_by`.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    source: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"a row must have {len(self.columns)} cells, one a column; got {list(row)}."
                )

    def __str__(self) -> str:
        rules = [
            "---:" if all(_NUMBER.match(cell) for cell in cells if cell) else "---"
            for cells in zip(*self.rows, strict=True)
        ]
        lines = ["| " + " | ".join(cells) + " |" for cells in (self.columns, rules, *self.rows)]
        if self.source:
            lines += ["", self.source]
        return "\n".join(lines)


def spread(values: Sequence[float], form: str = ".1f") -> str:
    """The mean over seeds, and the standard deviation if there are several."""
    mean = f"{statistics.mean(values):{form}}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):{form.lstrip('+')}}"


def over_seeds(count: int) -> str:
    """What the cells of `spread` are, as a sentence of a source line."""
    return "One seed." if count == 1 else f"Mean ± standard deviation of {count} seeds."


def bold(name: str, ours: bool) -> str:
    """A name, in bold if it is one of our methods."""
    return f"**{name}**" if ours else name
