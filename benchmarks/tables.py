"""Put the committed results into the tables of README.md and docs/, and draw their plots.

    python benchmarks/tables.py

Sentences are written by hand in the pages. A page asks for a table by name, and the script writes
what lies between the two marks, nothing else:

    <!-- table: quality -->
    <!-- end -->

A test compares every page with what this script would write, so the two cannot drift apart; it does
not draw.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import ablation_tables
import milvus_tables
import quality_tables
import speed_tables
from markdown_table import Table

REPOSITORY = Path(__file__).resolve().parents[1]

TABLES: dict[str, Callable[[], Table]] = {
    table.__name__.replace("_", "-"): table
    for table in (
        quality_tables.data,
        quality_tables.headline,
        quality_tables.quality,
        quality_tables.quality_settings,
        quality_tables.vectors_cifar10,
        quality_tables.vectors_texts,
        quality_tables.images,
        quality_tables.images_settings,
        speed_tables.search,
        speed_tables.search_ratios,
        speed_tables.search_layer,
        speed_tables.adding,
        speed_tables.list_finders,
        speed_tables.scale,
        speed_tables.scale_growth,
        milvus_tables.milvus,
        milvus_tables.milvus_rare,
        milvus_tables.milvus_segments,
        milvus_tables.milvus_filters,
        milvus_tables.milvus_layer,
        ablation_tables.ablation,
        ablation_tables.selection,
        ablation_tables.selection_best,
        speed_tables.training_speed,
        ablation_tables.demo,
    )
}
"""Every table by the name that pages ask for."""

_BEGIN = re.compile(r"^<!-- table: (.*?) -->$", re.MULTILINE)
_BLOCK = re.compile(r"^<!-- table: ([^\n]*?) -->\n(.*?)^<!-- end -->$", re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    """The pages that may hold tables: README.md and all of docs/."""
    return [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("**/*.md"))]


def names(page: str) -> list[str]:
    """The tables that a page asks for, in its order."""
    return _BEGIN.findall(page)


def fill(page: str) -> str:
    """The page with its tables written anew.

    Raises:
        ValueError: If a table is not known, or its block does not end.
    """
    for name in names(page):
        if name not in TABLES:
            raise ValueError(f"unknown table {name!r}; choose one of {sorted(TABLES)}.")
    blocks = _BLOCK.findall(page)
    if not len(blocks) == len(names(page)) == len(re.findall("^<!-- table:", page, re.MULTILINE)):
        raise ValueError(
            "every '<!-- table: NAME -->' needs a line of its own, and needs its own "
            "'<!-- end -->' on a line below it."
        )
    return _BLOCK.sub(lambda found: _block(found[1]), page)


def _block(name: str) -> str:
    return f"<!-- table: {name} -->\n\n{TABLES[name]()}\n\n<!-- end -->"


def main() -> None:
    """Write the tables of all pages and draw the plots."""
    from plots import draw_ablation, draw_selection

    for path in pages():
        page = path.read_text(encoding="utf-8")
        path.write_text(fill(page), encoding="utf-8")
    draw_ablation()
    draw_selection()


if __name__ == "__main__":
    main()
