"""The HNSW graph in a FAISS file: every link leads to an item, on a level that the item is on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .file_fields import Fields
from .limits import FEWEST_LINKS, MOST_CANDIDATES, MOST_LINKS

_MOST_LEVELS = 100  # FAISS stops where a level has a billionth of the items
_NODES_AT_ONCE = 1 << 16


def check_graph(fields: Fields, ntotal: int) -> None:
    """Check the graph that comes next.

    Args:
        fields: The file.
        ntotal: Number of items.

    Raises:
        ArtifactError: If it is damaged.
    """
    links = _links_up_to(fields)
    levels = fields.counted("<i4", "levels of items")
    fields.check_equal(len(levels), ntotal, "the number of levels of items")
    highest = int(levels.max(initial=0))
    if ntotal:
        fields.check_range(int(levels.min()), 1, len(links) - 1, "the levels of items")
        fields.check_range(highest, 1, len(links) - 1, "the levels of items")
    offsets = fields.counted("<u8", "offsets of links")
    fields.check_equal(len(offsets), ntotal + 1, "the number of offsets of links")
    n = fields.count(4, "links")
    fields.check(
        int(offsets[0]) == 0
        and int(offsets[-1]) == n
        and bool((np.diff(offsets) == links[levels].astype(np.uint64)).all()),
        "the offsets of links must fit the levels of items, but do not",
    )
    for start in range(0, ntotal, _NODES_AT_ONCE):
        nodes = slice(start, min(start + _NODES_AT_ONCE, ntotal))
        first, last = int(offsets[nodes.start]), int(offsets[nodes.stop])
        found = fields.array("<i4", last - first, "links")
        _check_links(fields, found, offsets[nodes].astype(np.int64) - first, nodes, levels, links)
    entry = fields.number("i", "entry point")
    fields.check_range(entry, 0 if ntotal else -1, ntotal - 1, "the entry point of the graph")
    fields.check_equal(fields.number("i", "highest level"), highest - 1, "the highest level")
    if ntotal:
        fields.check_equal(int(levels[entry]), highest, "the level of the entry point")
    for what in ("efConstruction", "efSearch"):
        fields.check_range(fields.number("i", what), 1, max(MOST_CANDIDATES, ntotal), what)
    fields.number("i", "beam")  # FAISS passes over it


def _links_up_to(fields: Fields) -> npt.NDArray[np.int64]:
    """The number of links of an item on the first n levels, for n from 0 on."""
    probabilities = fields.counted("<f8", "probabilities of levels")
    fields.check_range(len(probabilities), 2, _MOST_LEVELS, "the number of levels")
    fields.check(
        bool(((probabilities >= 0) & (probabilities <= 1)).all()),
        "the probabilities of levels must be from 0 to 1, but are not",
    )
    links = fields.counted("<i4", "links on levels").astype(np.int64)
    fields.check_equal(len(links), len(probabilities) + 1, "the number of levels with links")
    each = int(links[-1] - links[-2])
    fields.check_range(each, FEWEST_LINKS, MOST_LINKS, "the links of an item")
    wanted = np.concatenate([[0], each * np.arange(2, len(links) + 1)])
    fields.check(
        np.array_equal(links, wanted),
        f"an item must have {2 * each} links on the lowest level and {each} on others, but has not",
    )
    return links


def _check_links(
    fields: Fields,
    found: npt.NDArray[Any],
    offsets: npt.NDArray[np.int64],
    nodes: slice,
    levels: npt.NDArray[Any],
    links: npt.NDArray[np.int64],
) -> None:
    """Check the links ``found`` of some nodes, which begin at ``offsets``."""
    ntotal = len(levels)
    fields.check(
        int(found.min(initial=-1)) >= -1 and int(found.max(initial=-1)) < ntotal,
        f"links must lead to one of {ntotal} items, but one does not",
    )
    # An item has no room for links above its own levels: FAISS would read those of the next one.
    for level in range(1, int(levels[nodes].max(initial=0))):
        starts = offsets[levels[nodes] > level] + links[level]
        places = starts[:, None] + np.arange(links[level + 1] - links[level])
        ends = found[places]
        fields.check(
            bool(((ends < 0) | (levels[ends] > level)).all()),
            f"links on level {level} must lead to items on it, but one does not",
        )
