"""Tables of retrieval quality: what codes of features, of vectors and of images find."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from markdown_table import Table, bold, over_seeds, spread
from records import Record, made_by, read, read_lines

Row = dict[str, Any]

OURS, BINARY = "MeCoQ, K=16", "learned binary codes, Hamming"
FLOATS = "exact cosine"

HEADLINE_BYTES = 8
HEADLINE = {
    "MeCoQ, K=16": OURS,
    "learned binary codes (Hamming)": BINARY,
    "PQ": "PQ",
    "ITQ (Hamming)": "ITQ",
    "exact float features": FLOATS,
}
"""The five rows of README's table, and the methods of the record that they show."""


def data() -> Table:
    """How many items are searched in and how many queries are asked, in every section.

    The records do not hold these counts unless they differ from run to run; the scripts that made
    the records fix the others.
    """
    images = read("quality_images")["result"]["image_size"]
    milvus = read("milvus_profiles")["result"]
    asked = {row["place"]: row["queries"] for row in milvus["profiles"]}
    speed = read("search_speed")["result"]["settings"]
    demo = read("demo_digits")
    sizes = " and ".join(f"{n:,}" for n in sorted(speed["items"]))
    features = "CIFAR-10, features of frozen EfficientNet-Lite0 at 128 px, 1,280 floats"
    rows = [
        ("codes of features; vectors without views", features, "50,000", "10,000"),
        (
            "vectors without views",
            "WordNet 3.0 definitions, all-MiniLM-L6-v2, 384 floats, 41 topics",
            "58,000",
            "2,000",
        ),
        ("images", f"CIFAR-10 at {images} px, EfficientNet-Lite0", "50,000", "10,000"),
        ("search speed", "codes grown from CIFAR-10 embeddings", sizes, f"{speed['queries']:,}"),
        (
            "Milvus",
            "codes of CIFAR-10",
            f"{milvus['profiles'][0]['items']:,}",
            f"{asked['server']:,} (server), {asked['lite']:,} (file)",
        ),
        ("ablation; selection", f"{features}, database rows only", "48,000", "2,000"),
        ("demo", "scikit-learn digits", f"{demo['items']:,}", f"{demo['queries']:,}"),
    ]
    return Table(("section", "data", "items", "queries"), rows)


def quality() -> Table:
    """MAP of every method at every number of bits."""
    record = read("quality_cifar10")
    exact, found = _quality_scores(record)
    bits = sorted({b for _, b in found})
    methods = sorted(dict.fromkeys(name for name, _ in found), key=lambda name: name[:5] != "MeCoQ")
    rows = [
        [
            bold(name, name.startswith("MeCoQ")),
            *(spread(found[name, b]) if (name, b) in found else "" for b in bits),
        ]
        for name in methods
    ]
    floats = f"{FLOATS} of the float features, {exact['bytes_per_vector']:,.0f} bytes"
    rows.append([floats, *[f"{exact['map']:.1f}"] * len(bits)])
    ahead = [
        statistics.mean(found[OURS, b]) - statistics.mean(found[BINARY, b])
        if (BINARY, b) in found
        else None
        for b in bits
    ]
    cells = ["" if lead is None else f"{lead:+.1f}" for lead in ahead]
    rows.append(["*K=16 minus learned binary codes*", *cells])
    columns = ["method", *(f"{b:g} bits" for b in bits)]
    seeds = len({row["seed"] for row in record["result"]["rows"]})
    source = made_by("python benchmarks/quality_cifar10.py", record)
    return Table(columns, rows, f"{over_seeds(seeds)} {source}")


def headline() -> Table:
    """Five rows for README: mAP of codes of eight bytes, and of the floats."""
    record = read("quality_cifar10")
    exact, found = _quality_scores(record)
    maps = {name: found[name, 8 * HEADLINE_BYTES] for name in HEADLINE.values() if name != FLOATS}
    maps[FLOATS] = [exact["map"]]
    sizes = dict.fromkeys(maps, HEADLINE_BYTES) | {FLOATS: exact["bytes_per_vector"]}
    rows = [
        [bold(shown, name == OURS), f"{sizes[name]:,.0f}", f"{statistics.mean(maps[name]):.1f}"]
        for shown, name in HEADLINE.items()
    ]
    source = made_by("python benchmarks/quality_cifar10.py", record)
    columns = ("CIFAR-10, searched by", "bytes an item", "mAP@1000, %")
    return Table(columns, rows, f"Mean of {len(maps[OURS])} seeds. {source}")


def quality_settings() -> Table:
    """How each learned method of `quality` was trained, and how much it was tuned."""
    record = read("quality_cifar10")
    log = read_lines("settings_search")
    binary = sum("binary_codes" in line["settings"] for line in log)
    tuned = {"MeCoQ": len(log) - binary, "learned": binary, "official": 0}
    grouped: dict[str, list[Row]] = defaultdict(list)
    for row in record["result"]["rows"]:
        if "config" in row:
            grouped[row["method"]].append(row)
    rows = []
    for name, runs in grouped.items():
        config = runs[0]["config"]
        minutes = max(row["training_seconds"] for row in runs) / 60
        runs_logged = tuned[name.replace(",", " ").split()[0]]
        rows.append(
            [
                name,
                config["projection"],
                f"{config['epochs']}",
                f"{config['neighbours']}",
                f"{runs_logged}",
                f"{minutes:.1f}",
            ]
        )
    columns = (
        "method",
        "projection",
        "epochs",
        "neighbors",
        "tuning runs on these features",
        "longest training, minutes",
    )
    source = made_by("python benchmarks/quality_cifar10.py", record)
    return Table(columns, rows, f"Both K of MeCoQ share their tuning runs. {source}")


def _quality_scores(record: Record) -> tuple[Row, dict[tuple[str, float], list[float]]]:
    """The row of the float features, and the mAPs of the others by method and bits."""
    rows = record["result"]["rows"]
    exact = next(row for row in rows if row["method"] == FLOATS)
    found: dict[tuple[str, float], list[float]] = defaultdict(list)
    for row in rows:
        if row is not exact:
            found[row["method"], row["bits"]].append(row["map"])
    return exact, found


def vectors_cifar10() -> Table:
    """What is kept of the float ranking of image features without views."""
    return _vectors(read("quality_vectors"), "python benchmarks/quality_vectors.py")


def vectors_texts() -> Table:
    """What is kept of the float ranking of sentence embeddings."""
    record = read("quality_vectors_texts")
    return _vectors(record, "python benchmarks/quality_vectors.py --data texts")


def _vectors(record: Record, command: str) -> Table:
    rows = record["result"]["rows"]
    exact = next(row for row in rows if row["method"] == FLOATS)
    found: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        if row is not exact:
            found[row["method"], row["bits"]].append(row)
    bits = sorted({b for _, b in found})
    lines = []
    for name in dict.fromkeys(name for name, _ in found):
        sizes = "/".join(f"{found[name, b][0]['bytes_per_vector']:g}" for b in bits)
        cells = [
            spread([row[key] for row in found[name, b]])
            for key in ("recall_at_100", "map")
            for b in bits
        ]
        lines.append([bold(name, name.startswith("MeCoQ")), sizes, *cells])
    floats = [f"{exact[key]:.1f}" for key in ("recall_at_100", "map") for _ in bits]
    lines.append([FLOATS, f"{exact['bytes_per_vector']:,.0f}", *floats])
    columns = ["method", "bytes", *_by_bits("recall@100", bits), *_by_bits("mAP@1000", bits)]
    seeds = len({row["seed"] for row in rows})
    return Table(columns, lines, f"{over_seeds(seeds)} {made_by(command, record)}")


def _by_bits(score: str, bits: Iterable[int]) -> list[str]:
    return [f"{score}, {b} bits" for b in bits]


IMAGE_PAIRS = {
    "fine-tuned codes, AQS": "codes on frozen features, AQS",
    "fine-tuned features, exact cosine": "frozen features, exact cosine",
}
"""What is fine-tuned, and the same thing of the frozen backbone."""


def images() -> Table:
    """What training the backbone adds to codes on its frozen features."""
    record = read("quality_images")
    rows = record["result"]["rows"]
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["method"]].append(row)
    means = {name: statistics.mean(row["map"] for row in group) for name, group in found.items()}
    lines = []
    for name, group in found.items():
        size = group[0]["bytes_per_vector"]
        gain = f"{means[name] - means[IMAGE_PAIRS[name]]:+.1f}" if name in IMAGE_PAIRS else ""
        shown = bold(name, "codes" in name)
        lines.append([shown, f"{size:,.0f}", spread([row["map"] for row in group]), gain])
    columns = ("ranked by", "bytes", "mAP@1000", "gain by fine-tuning")
    seeds = len({row["seed"] for row in rows if "seed" in row})
    source = made_by("python benchmarks/quality_images.py", record)
    return Table(columns, lines, f"{over_seeds(seeds)} {source}")


def images_settings() -> Table:
    """How the images were trained on, and how long it took."""
    record = read("quality_images")
    result = record["result"]
    tuned = [row for row in result["rows"] if "maps_seconds" in row]
    config = tuned[0]["config"]
    slowest = max(row["training_seconds"] for row in tuned)
    lines = [
        ("image size, px", f"{result['image_size']}"),
        ("trained blocks of the backbone, the last ones, and its head", _blocks(config)),
        ("codewords per codebook, K", f"{config['num_codewords']}"),
        ("epochs", f"{config['epochs']}"),
        ("threads", f"{result['threads']}"),
        ("minutes for the outputs of the frozen blocks", f"{tuned[0]['maps_seconds'] / 60:.0f}"),
        ("minutes of training, the longest seed", f"{slowest / 60:.0f}"),
    ]
    return Table(
        ("setting", "value"), lines, made_by("python benchmarks/quality_images.py", record)
    )


def _blocks(config: Row) -> str:
    """The trained blocks: the head of EfficientNet-Lite0 has 2 layers, each of 16 blocks has 6."""
    return f"{(config['trainable_layers'] - 2) // 6} of 16"
