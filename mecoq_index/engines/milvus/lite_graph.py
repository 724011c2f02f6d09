"""The only FAISS files that milvus-lite writes for this package: HNSW graphs over flat vectors.

FAISS follows the paths in a file, allocates what it declares, and does not check that neighbors
exist. A graph is therefore read here first, as far as FAISS relies on it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._reading import named_damage
from ...errors import ArtifactError

_HEAD = np.dtype(
    [
        ("kind", "S4"),
        ("width", "<i4"),
        ("items", "<i8"),
        ("unused", "<i8", 2),
        ("is_trained", "u1"),
        ("metric", "<i4"),  # inner product 0, L2 1; others have an argument, which would follow
    ]
)
_LAST = np.dtype(
    [
        ("entry", "<i4"),
        ("top", "<i4"),
        ("ef_construction", "<i4"),
        ("ef_search", "<i4"),
        ("unused", "<i4"),
    ]
)
_MOST_EF = 1 << 16
_MOST_LEVELS = 64


def is_plain_graph(path: Path) -> bool:
    """Whether a file is a graph that FAISS can read and search without leaving it."""
    try:
        with named_damage(str(path)):
            return _is_plain(_Reader(np.memmap(path, np.uint8, mode="r")))
    except ArtifactError:
        return False


class _Reader:
    """Takes one part of a file after the other."""

    def __init__(self, content: npt.NDArray[np.uint8]) -> None:
        self._content, self._at = content, 0

    def take(self, dtype: Any, count: int = 1) -> npt.NDArray[Any]:
        """The next values; fails if there are fewer."""
        size = np.dtype(dtype).itemsize * count
        part = self._content[self._at : self._at + size]
        if count < 0 or len(part) != size:
            raise ValueError("the file is too short")
        self._at += size
        return np.frombuffer(part.tobytes(), dtype)

    def vector(self, dtype: Any) -> npt.NDArray[Any]:
        """A number, and so many values."""
        return self.take(dtype, int(self.take("<u8")[0]))

    @property
    def is_at_end(self) -> bool:
        """Whether everything was taken."""
        return self._at == len(self._content)


def _is_plain(file: _Reader) -> bool:
    head = file.take(_HEAD)[0]
    file.vector("<f8")  # probabilities of levels, for adding
    widths, levels = file.vector("<i4"), file.vector("<i4")
    offsets, neighbors = file.vector("<u8"), file.vector("<i4")
    last, flat = file.take(_LAST)[0], file.take(_HEAD)[0]
    vectors = int(file.take("<u8")[0])
    file.take("<f4", vectors)
    items, width = int(head["items"]), int(head["width"])
    return bool(
        head["kind"] == b"IHNf"
        and flat["kind"] in (b"IxFI", b"IxF2")
        and file.is_at_end
        and width > 0
        and vectors == items * width
        and (flat["items"], flat["width"]) == (items, width)
        and {int(head["metric"]), int(flat["metric"])} <= {0, 1}
        and 1 <= last["ef_construction"] <= _MOST_EF
        and 1 <= last["ef_search"] <= _MOST_EF
        and len(levels) == items
        and _holds_together(widths, levels, offsets, neighbors, last)
    )


def _holds_together(
    widths: npt.NDArray[Any],
    levels: npt.NDArray[Any],
    offsets: npt.NDArray[Any],
    neighbors: npt.NDArray[Any],
    last: Any,
) -> bool:
    """Whether all neighbors exist, on the level on which they are neighbors.

    Args:
        widths: Places for neighbors of an item below each level.
        levels: The number of levels of each item.
        offsets: Where the places of each item begin.
        neighbors: An item in each place, or -1.
        last: The rest: the item to start from, and its highest level.
    """
    if not (1 < len(widths) <= _MOST_LEVELS and widths[0] == 0 and (np.diff(widths) >= 0).all()):
        return False
    if not len(levels):
        return bool(last["entry"] == -1 and not len(neighbors))
    if levels.min() < 1 or levels.max() >= len(widths):
        return False
    wanted = np.concatenate([[0], np.cumsum(widths[levels], dtype=np.uint64)])
    if not np.array_equal(offsets, wanted) or len(neighbors) != wanted[-1]:
        return False
    if (
        not (0 <= last["entry"] < len(levels) and last["top"] == levels[last["entry"]] - 1)
        or not ((neighbors >= -1) & (neighbors < len(levels))).all()
    ):
        return False
    starts = offsets[:-1].astype(np.int64)
    for level in range(1, int(levels.max())):
        owners = starts[levels > level]
        places = owners[:, None] + np.arange(widths[level], widths[level + 1])
        found = neighbors[places.ravel()]
        if (levels[found[found >= 0]] <= level).any():
            return False
    return True
