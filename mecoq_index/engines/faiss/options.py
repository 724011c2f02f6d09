"""What an index of FAISS can be told, in Python by keyword and in the shell."""

from __future__ import annotations

from ..base import Option

OPTIONS = (
    Option(
        name="factory",
        kind=str,
        help="a factory string, IVF1024,MeCoQ8x8, or IVF,MeCoQ8x8 to choose the number of lists "
        "by that of the items. [default: MeCoQ]",
        stages=frozenset({"build", "bench", "export"}),
    ),
    Option(
        name="takes",
        kind=("features", "embeddings"),
        help="what will go into an exported index. [default: features if the projection is linear]",
        stages=frozenset({"export"}),
    ),
    Option(
        name="nprobe",
        kind=int,
        help="with IVF, lists that a search visits. [default: about the root of their number]",
        stages=frozenset({"build", "search", "bench"}),
        minimum=1,
    ),
    Option(
        name="seed",
        kind=int,
        help="with IVF, seed of the lists' k-means. [default: 0]",
        stages=frozenset({"build"}),
        minimum=0,
    ),
    Option(
        name="k_factor",
        kind=int,
        help="with FastScan, fetch so many times k items, and rank them again exactly.",
        stages=frozenset({"search", "bench"}),
        minimum=1,
    ),
    Option(
        name="ef_search",
        kind=int,
        help="with HNSW over the items, how many of them to keep in view.",
        stages=frozenset({"search", "bench"}),
        minimum=1,
    ),
)
