"""What FAISS can take and what it cannot, for layouts that are asked for and for files."""

from __future__ import annotations

FEWEST_LINKS = 2  # FAISS crashes at 1
MOST_LINKS = 1024  # FAISS counts their bytes in 32 bits

MOST_CANDIDATES = 1 << 16
"""The widest view of a graph, unless there are more items: FAISS makes room for all of it."""

MOST_LISTS = 1 << 22
"""Inverted lists; FAISS takes some 150 bytes for each of them, empty or not."""

MOST_UNTRAINED_LISTS = 1 << 20
"""Lists of a file without centroids, which nothing in the file has to pay for."""

LARGEST_BLOCK = 160
"""FastScan's block of vectors: FAISS builds with larger ones, but cannot search."""

MOST_FAST_SCANNED = 257
"""Subquantizers of FastScan: it adds table entries of up to 255 in 16 bits."""

MOST_FAST_SCANNED_ALONE = 128
"""Subquantizers of FastScan for k = 1: FAISS 1.15 keeps that one sum in 15 bits."""


def searches_flat(K: int, Ds: int) -> bool:
    """Whether an IndexPQ can search: for codewords of width 2, FAISS's kernel takes 8 at a time."""
    return Ds != 2 or K % 8 == 0


def graph_fits(M: int, nbits: int) -> bool:
    """Whether the distances between codewords, which FAISS keeps for a graph, fit into 1 GiB."""
    return M << 2 * nbits <= 1 << 28
