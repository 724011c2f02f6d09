"""Tables of Milvus: what each profile costs and keeps, and where ``compact`` fails."""

from __future__ import annotations

from markdown_table import Table
from records import Record, made_by, read

PROFILES = "python benchmarks/milvus_profiles.py"
PLACES = {"server": "server", "lite": "file"}
BITS = 64


def milvus() -> Table:
    """What each profile costs and keeps at 64 bits."""
    record = read("milvus_profiles")
    rows = []
    for row in record["result"]["profiles"]:
        if row["bits"] != BITS:
            continue
        detail = f", nbits {row['nbits']}" if row["nbits"] else "" if row["K"] else ", bits of ITQ"
        rows.append(
            [
                PLACES[row["place"]],
                row["profile"] + detail,
                f"{row['K'] or ''}",
                f"{row['bytes_per_vector']:,.0f}",
                f"{row['insert_seconds']:.1f}",
                f"{row['index_seconds']:.1f}",
                f"{row['recall_at_10']:.4f}",
                f"{row['recall_at_100']:.4f}",
                f"{row['map']:.1f}",
                f"{row['map_of_exact']:.1f}",
                f"{row['single']['queries_per_second']:,.0f}",
                f"{row['batch']['queries_per_second']:,.0f}",
            ]
        )
    columns = (
        "place",
        "profile",
        "K",
        "bytes",
        "insert, s",
        "index, s",
        "recall@10",
        "recall@100",
        "mAP@1000",
        "exact mAP",
        "single",
        "batches",
    )
    return Table(columns, rows, f"Codes of {BITS} bits. {_places(record)} {_source(record)}")


def milvus_rare() -> Table:
    """How many rows with a rare codeword keep their score under ``compact``."""
    record = read("milvus_profiles")
    found: dict[tuple[int, int], list[Record]] = {}
    for row in record["result"]["rare"]:
        if row["rows_of_a_codeword"]:
            found.setdefault((row["K"], row["nbits"]), []).append(row)
    rows = []
    for (K, nbits), group in found.items():
        asked = sum(row["queries"] for row in group)
        kept = sum(row["rows_kept"] * row["queries"] for row in group) / asked
        rows.append([f"{K}", f"{nbits}", f"{asked}", f"{kept:.1%}"])
    most = max(row["rows_of_a_codeword"] for group in found.values() for row in group)
    columns = ("K", "nbits", "rows looked at", "rows that keep their score")
    return Table(columns, rows, f"Codewords that {most} rows or fewer use. {_source(record)}")


def milvus_segments() -> Table:
    """From which size on a segment is indexed, and what a search of the smaller ones finds."""
    record = read("milvus_profiles")
    rows = []
    for indexed in (False, True):
        group = [
            row
            for row in record["result"]["segments"]
            if bool(row["rows_in_segments_with_index"]) is indexed
        ]
        sizes = [row["rows"] for row in group]
        rows.append(
            [
                "indexed" if indexed else "scanned without an index",
                f"{min(sizes):,} to {max(sizes):,}",
                f"{min(row['recall_at_10'] for row in group):.4f}",
                f"{max(row['wrong_scores'] for row in group):.1%}",
            ]
        )
    columns = ("segments", "rows measured", "lowest recall@10", "most wrong scores")
    return Table(columns, rows, _source(record))


def milvus_filters() -> Table:
    """What filters and deleted rows do to the scores of ``exact`` and of ``compact``."""
    record = read("milvus_profiles")
    found = {(row["profile"], row["case"]): row for row in record["result"]["skipping"]}
    rows = []
    for case in dict.fromkeys(case for _, case in found):
        exact, compact = found["exact", case], found["compact", case]
        rows.append(
            [
                case.replace(" %", "%"),
                f"{exact['wrong_scores']:.1%}",
                f"{compact['wrong_scores']:.1%}",
                f"{compact['median_error']:.1f}",
                f"{compact['recall_at_10']:.3f}",
            ]
        )
    columns = (
        "rows that a search may return",
        "`exact`: wrong scores",
        "`compact`: wrong scores",
        "`compact`: median error",
        "`compact`: recall@10",
    )
    return Table(columns, rows, _source(record))


def milvus_layer() -> Table:
    """What our layer takes above pymilvus called directly."""
    record = read("milvus_layer")
    result = record["result"]
    rows = []
    for row in result["rows"]:
        searches = {(one["batch"], one["k"]): one["overhead"] for one in row["searches"]}
        overheads = row["insertion"]["overhead"], searches[1, 10], searches[100, 10]
        rows.append([result["places"][row["place"]], *(f"{share:+.1%}" for share in overheads)])
    columns = ("place", "insertion", "single queries", "batches of 100")
    source = made_by("python benchmarks/milvus_layer.py", record)
    return Table(columns, rows, f"{result['rows'][0]['rows']:,} rows, k = 10. {source}")


def _places(record: Record) -> str:
    places = record["result"]["places"]
    return f"Server: {places['server']}; file: {places['lite']}."


def _source(record: Record) -> str:
    return made_by(PROFILES, record)
