"""Put the committed results into README.md, between its markers, and draw their plots.

    python benchmarks/readme_tables.py

A test compares the page with what this script would write, so the two cannot drift apart; it does
not draw.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from readme_quality import (
    ablation_table,
    images_table,
    quality_table,
    selection_sentence,
    vectors_table,
)
from readme_results import RESULTS, commit, machine, read

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
BEGIN, END = "<!-- results:begin -->\n", "<!-- results:end -->"


def demo_table() -> str:
    """What the demo prints, less the speeds of so small an index."""
    record = read("demo_digits")
    k, first = record["settings"]["map_at"], record["settings"]["precision_at"]
    lines = [
        f"The demo: {record['items']:,} digits to search in, {record['queries']} queries, features "
        "of the network that it trains with the codebooks; no labels in training. "
        f"`mecoq-index demo` prints, among more (here on {machine(record)}):",
        "",
        f"| method | bytes | mAP@{k} | P@{first} |",
        "|---|---|---|---|",
    ]
    for row in record["records"]:
        quality = 100 * row["mean_average_precision"], 100 * row["precision"]
        lines.append(
            f"| {row['method']} | {row['bytes_per_vector']:,.0f} | {quality[0]:.1f} "
            f"| {quality[1]:.1f} |"
        )
    lines += [
        "",
        "and draws queries that one method or the other does not get wholly right (wrong results "
        "framed in red):",
        "",
        "![Queries with their nearest items](benchmarks/results/demo_neighbours.png)",
    ]
    return "\n".join(lines)


def speed_sentence() -> str:
    """How fast training is."""
    record = read("training_speed")
    result = record["result"]
    ours, plain = result["rows"]
    return (
        f"An epoch over {result['items']:,} cached features (M = 8, K = 256, batch 128) takes "
        f"{ours['seconds_per_epoch']:.1f} s on {result['threads']} threads at a peak of "
        f"{ours['peak_mib']:.0f} MiB, about what the equations typed down plainly in PyTorch take "
        f"in the same run: {plain['seconds_per_epoch']:.1f} s and {plain['peak_mib']:.0f} MiB "
        f"(`python benchmarks/training_speed.py`, {commit(record)})."
    )


def search_speeds() -> list[dict[str, Any]]:
    """The measurements of search speed, one a size, ascending; where two are there, the later."""
    found = {}
    for file in sorted(RESULTS.glob("search_speed*.json")):
        record = read(file.stem)
        for run in record["result"]["runs"]:
            found[run["items"]] = {**run, "commit": commit(record)}
    return [run for _, run in sorted(found.items())]


def search_table() -> str:
    """How fast each index answers, and how well, at the largest size measured."""
    record, runs = read("search_speed"), search_speeds()
    run = runs[-1]
    columns = [(1, 1, 10), (1, 100, 10)]
    speed = {(r["method"], r["threads"], r["batch"], r["k"]): r for r in run["speed"]}
    lines = [
        f"Search over {run['items']:,} codes of 64 bits, grown from real embeddings, k = 10; "
        "queries per second on one thread. *own*: recall@10 of an exact scan of the same codes; "
        "*class*: share of the first ten results of the query's class. Lists and graph searches "
        "are set to 95 % of *own*, on other queries. FAISS's own quantizers were trained on the "
        "embeddings that MeCoQ learned: this table is about speed. Its codebooks are of the "
        f"settings recommended at {run['commit']}.",
        "",
        "| index | bytes | own | class | single queries | batches of 100 |",
        "|---|---|---|---|---|---|",
    ]
    for row in run["methods"]:
        cells = [
            f"{1 / speed[(row['method'], *column)]['seconds_per_query']:,.0f}" for column in columns
        ]
        lines.append(
            f"| {row['method']} | {row['bytes_per_vector']:g} | {row['own_recall_at_10']:.3f} "
            f"| {row['class_precision_at_10']:.3f} | " + " | ".join(cells) + " |"
        )
    lines += [f"| {row['method']} | {row['reason']} | | | | |" for row in run["not_built"]]
    return "\n".join([*lines, "", search_claims(record, runs), "", adding_claims(runs[0])])


def search_claims(record: dict[str, Any], runs: list[dict[str, Any]]) -> str:
    """The ratios that the table is about, taken within rounds, and the cost of our layer."""
    wanted = [
        ("MeCoQ16x4fs", "ITQ64, IndexBinaryFlat"),
        ("MeCoQ16x4fs, k_factor 10", "ITQ64, IndexBinaryFlat"),
    ]
    told = []
    for run in runs:
        found = {
            (r["times_faster"], r["than"]): r["ratio"]
            for r in run["ratios"]
            if (r["threads"], r["batch"], r["k"]) == (1, 100, 10)
        }
        fast, again = (found[pair] for pair in wanted)
        seconds = {
            r["method"]: r["seconds_per_query"]
            for r in run["speed"]
            if (r["threads"], r["batch"], r["k"]) == (1, 100, 10)
        }
        lists = ", ".join(
            f"{first} {ratio:.1f} times {than}"
            for (first, than), ratio in found.items()
            if first.startswith("IVF")
        )
        layer = ", ".join(f"{r['method']} {r['overhead']:+.1%}" for r in run["layer"])
        faster = seconds["MeCoQ8x8"] / seconds["MeCoQ16x4fs"]
        told.append(
            f"At {run['items']:,} codes ({run['commit']}), one thread and batches of 100: "
            f"`MeCoQ16x4fs` has {faster:.0f} times the throughput of "
            f"`MeCoQ8x8` and {fast:.2f} times that of Hamming (`IndexBinaryFlat`), with the best "
            f"100 ranked again by exact scores {again:.2f} times; {lists}. "
            "Around a single query the engine takes, above the same "
            f"index called directly with a normalised query: {layer}."
        )
    return " ".join(told) + f" `python benchmarks/search_speed.py` on {machine(record)}."


def adding_claims(run: dict[str, Any]) -> str:
    """How much faster codes are added than vectors."""
    told = []
    for row in run["adding"]:
        if row["threads"] == 1:
            ratios = ", ".join(
                f"{name} {r['ratio']:.1f} times as fast"
                for name, r in row["faster_than_vectors"].items()
            )
            told.append(f"`{row['method']}`: {ratios}")
    return (
        f"Adding to {run['items']:,} codes, one thread, compared with adding vectors: "
        + "; ".join(told)
        + "."
    )


def scale_table() -> str:
    """How building grows."""
    record = read("scale")
    rows, growth = record["result"]["rows"], record["result"]["growth"]
    lines = [
        "Building a bundle of n codes, resumable, 2 threads; memory is what the process takes "
        "above the index itself, pages of files left out:",
        "",
        "| index | n | seconds | file, MiB | memory above the index, MiB |",
        "|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (row["index"], row["items"])):
        lines.append(
            f"| {row['factory']} | {row['items']:,} | {row['seconds']:,.1f} "
            f"| {row['file_bytes'] / 2**20:,.0f} | {row['above_index_mib']:,.0f} |"
        )
    fits = "; ".join(
        f"`{name}`: seconds ~ n^{fit['seconds']:.2f}, memory ~ n^{fit['peak_mib']:.2f}"
        for name, fit in growth.items()
    )
    lines += ["", f"Fitted growth: {fits}. `python benchmarks/scale.py` on {machine(record)}."]
    return "\n".join(lines)


def milvus_table() -> str:
    """What each profile costs and keeps, and where ``compact`` fails."""
    record = read("milvus_profiles")
    run = record["result"]
    rows = [row for row in run["profiles"] if row["bits"] == 64]
    asked = {row["place"]: row["queries"] for row in rows}
    server, lite = run["places"]["server"], run["places"]["lite"]
    lines = [
        f"In Milvus, {rows[0]['items']:,} items of CIFAR-10 in codes of 64 bits, on {server} "
        f"(*server*) and {lite} (*file*). Recall is of exact AQS, for `hamming` of exact Hamming "
        f"distance; mAP@1000, in percent, of {asked['server']:,} random test images on the server "
        f"and {asked['lite']} of them in the file, beside that of the exact ranking; queries per "
        "second one by one and in batches, k = 10. The codebooks are of the settings "
        f"recommended at {commit(record)}.",
        "",
        "| | profile | K | bytes | insert, s | index, s | recall@10 | recall@100 | mAP | exact | "
        "single | batches |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        place = {"server": "server", "lite": "file"}[row["place"]]
        name = row["profile"] + (f", nbits {row['nbits']}" if row["nbits"] else "")
        lines.append(
            f"| {place} | {name} | {row['K'] or 'ITQ'} | {row['bytes_per_vector']:,.0f} "
            f"| {row['insert_seconds']:.1f} | {row['index_seconds']:.1f} "
            f"| {row['recall_at_10']:.4f} | {row['recall_at_100']:.4f} "
            f"| {row['map']:.1f} | {row['map_of_exact']:.1f} "
            f"| {row['single']['queries_per_second']:,.0f} "
            f"| {row['batch']['queries_per_second']:,.0f} |"
        )
    found = [*_compact_findings(run), _layer_finding()]
    made = f"`python benchmarks/milvus_profiles.py` on {machine(record)}."
    return "\n".join([*lines, "", " ".join([*found, made])])


def _compact_findings(run: dict[str, Any]) -> list[str]:
    """Where ``compact`` loses something, one sentence each."""
    kept = [
        ", ".join(
            f"{share:.1%} with {nbits} bits (K = {K})"
            for (K, nbits), share in _rare_rows_kept(run["rare"]).items()
            if nbits == K.bit_length() - 1 + extra
        )
        for extra in (2, 4)
    ]
    indexed = [row for row in run["segments"] if row["rows_in_segments_with_index"]]
    scanned = [row for row in run["segments"] if not row["rows_in_segments_with_index"]]
    scans = {(row["profile"], row["case"]): row for row in run["skipping"]}
    filtered, deleted = (
        scans["compact", "scattered 90 %"],
        scans["compact", "every other row deleted"],
    )
    return [
        "`compact` loses codewords that few rows use: where some are left to 30 rows or fewer, "
        f"{kept[0]} of such rows keep their score; {kept[1]}.",
        f"Milvus indexes segments of {min(row['rows'] for row in indexed):,} rows or more; of "
        f"smaller ones, up to {max(row['rows'] for row in scanned):,} rows here, it says the same, "
        "but searches them without: scores are exact, and recall@10 is at least "
        f"{min(row['recall_at_10'] for row in scanned):.4f}.",
        "IVF_PQ of Milvus 2.3.5 cannot leave rows out: with a filter that keeps a scattered 90 %, "
        f"{filtered['wrong_scores']:.0%} of its scores are wrong, half of them by more than "
        f"{filtered['median_error']:.1f}, and with every other row deleted "
        f"{deleted['wrong_scores']:.0%}; FLAT has none.",
    ]


def _rare_rows_kept(rows: list[dict[str, Any]]) -> dict[tuple[int, int], float]:
    """By K and nbits, the share of rows with a rare codeword whose score is right."""
    counts: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        if row["rows_of_a_codeword"]:
            count = counts.setdefault((row["K"], row["nbits"]), [0.0, 0.0])
            count[0] += row["rows_kept"] * row["queries"]
            count[1] += row["queries"]
    return {key: kept / asked for key, (kept, asked) in counts.items()}


def _layer_finding() -> str:
    """What our layer takes above pymilvus."""
    record = read("milvus_layer")
    run = record["result"]
    told = []
    for row in run["rows"]:
        searches = {(one["batch"], one["k"]): f"{one['overhead']:+.1%}" for one in row["searches"]}
        told.append(
            f"{run['places'][row['place']]}: insertion {row['insertion']['overhead']:+.1%}, single "
            f"queries {searches[1, 10]}, batches of 100 {searches[100, 10]}"
        )
    return (
        f"Above pymilvus called directly, with {run['rows'][0]['rows']:,} rows, our layer takes: "
        + "; ".join(told)
        + f" (`python benchmarks/milvus_layer.py`, {commit(record)})."
    )


def render() -> str:
    """The text between the markers."""
    parts = [
        quality_table(),
        vectors_table(),
        images_table(),
        search_table(),
        scale_table(),
        milvus_table(),
        ablation_table(),
        selection_sentence(),
        speed_sentence(),
        demo_table(),
    ]
    return "\n\n".join(parts) + "\n"


def fill(page: str) -> str:
    """The page with the results put in."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{render()}{END}{after}"


if __name__ == "__main__":
    from readme_plots import draw_ablation, draw_selection

    draw_ablation()
    draw_selection()
    README.write_text(fill(README.read_text(encoding="utf-8")), encoding="utf-8")
