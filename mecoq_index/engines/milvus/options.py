"""The settings of the engine, in Python by keyword and in the shell as options."""

from __future__ import annotations

from ..base import Option

CONSISTENCY_LEVELS = ("Strong", "Bounded", "Session", "Eventually")

OPTIONS = (
    Option(
        name="uri",
        kind=str,
        help="a server, http://host:19530, or a database of it, http://host:19530/shop, or a "
        "milvus-lite file, photos.db; of an index folder, instead of the one that it names. "
        "[default: the environment's MILVUS_URI]",
        stages=frozenset({"build", "open", "bench"}),
    ),
    Option(
        name="token",
        kind=str,
        help="user:password or an API key. [default: the environment's MILVUS_TOKEN, which goes to "
        "servers that you name or MILVUS_URI names, not to those of index folders]",
        stages=frozenset({"build", "open", "bench"}),
        is_secret=True,
    ),
    Option(
        name="database",
        kind=str,
        help="the database on the server. [default: the one in the address]",
        stages=frozenset({"build", "open"}),
    ),
    Option(
        name="collection",
        kind=str,
        help="the collection. [default: the last name in the address]",
        stages=frozenset({"build", "open"}),
    ),
    Option(
        name="profile",
        kind=str,
        help="how codes are stored and scanned: exact, graph, compact or sparse. [default: exact]",
        stages=frozenset({"build", "export"}),
    ),
    Option(
        name="precision",
        kind=("float32", "float16"),
        help="for exact and graph, the precision of stored vectors. [default: float32]",
        stages=frozenset({"build"}),
    ),
    Option(
        name="nbits",
        kind=int,
        help="for compact, bits of Milvus's code for each codebook. [default: log2 K + 2]",
        stages=frozenset({"build"}),
        minimum=1,
    ),
    Option(
        name="links",
        kind=int,
        help="for graph, links of an item on each level. [default: 16]",
        stages=frozenset({"build"}),
        minimum=2,
    ),
    Option(
        name="ef_construction",
        kind=int,
        help="for graph, items to look at when one is linked. [default: 200]",
        stages=frozenset({"build"}),
        minimum=2,
    ),
    Option(
        name="partition",
        kind=str,
        help="the partition that the items go into. [default: Milvus's own]",
        stages=frozenset({"build"}),
    ),
    Option(
        name="consistency_level",
        kind=CONSISTENCY_LEVELS,
        help="which changes by other clients a search is sure to see. [default: Session, or that "
        "of the collection]",
        stages=frozenset({"build", "search"}),
    ),
    Option(
        name="filter",
        kind=str,
        help="a condition on the items, such as 'name like \"cats/%\"'.",
        stages=frozenset({"search"}),
    ),
    Option(
        name="ef",
        kind=int,
        help="for graph, items to look at, at least k. [default: 512]",
        stages=frozenset({"search"}),
        minimum=1,
    ),
    Option(
        name="output_fields",
        kind=str,
        help="columns that results carry, such as name,year.",
        stages=frozenset({"search"}),
    ),
    Option(
        name="partitions",
        kind=str,
        help="partitions to search in, such as old,new. [default: all]",
        stages=frozenset({"search"}),
    ),
    Option(
        name="profiles",
        kind=str,
        help="profiles to measure, such as exact,compact. [default: exact]",
        stages=frozenset({"bench"}),
    ),
)
