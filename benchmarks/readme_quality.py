"""README's tables of retrieval quality: what codes find, and what each part contributes."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from typing import Any

from readme_results import RESULTS, commit, machine, read


def search_runs() -> tuple[int, int]:
    """Runs in the log of the search that chose our settings, and those of binary codes in it."""
    log = (RESULTS / "settings_search.jsonl").read_text(encoding="utf-8").splitlines()
    return len(log), sum("binary_codes" in json.loads(line)["settings"] for line in log)


def spread(values: list[float], form: str = ".1f") -> str:
    """The mean over seeds, and the standard deviation where there are several."""
    mean = f"{statistics.mean(values):{form}}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):{form.lstrip('+')}}"


def over_seeds(count: int) -> str:
    """What the numbers of `spread` are."""
    return "one seed" if count == 1 else f"mean and standard deviation of {count} seeds"


def quality_table() -> str:
    """MAP of every method at every number of bits, mean and spread over seeds."""
    record = read("quality_cifar10")
    rows = record["result"]["rows"]
    exact = next(row for row in rows if row["method"] == "exact cosine")
    others = [row for row in rows if row is not exact]
    bits = sorted({row["bits"] for row in others})
    found: dict[tuple[str, float], list[float]] = defaultdict(list)
    for row in others:
        found[row["method"], row["bits"]].append(row["map"])
    methods = list(dict.fromkeys(row["method"] for row in others))
    methods.sort(key=lambda name: not name.startswith("MeCoQ"))
    seeds = len({row["seed"] for row in others})
    lines = [
        "CIFAR-10, 50,000 items, all 10,000 test images as queries, on frozen EfficientNet-Lite0 "
        f"features; mAP@1000 in percent, {over_seeds(seeds)}. Training saw no labels.",
        "",
        "| method | " + " | ".join(f"{b:g} bits" for b in bits) + " |",
        "|---|" + "---|" * len(bits),
    ]
    for method in methods:
        cells = [spread(found[method, b]) if (method, b) in found else "" for b in bits]
        name = f"**{method}**" if method.startswith("MeCoQ") else method
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append(
        f"| exact cosine of the float features, {exact['bytes_per_vector']:,.0f} bytes | "
        + " | ".join(f"{exact['map']:.1f}" for _ in bits)
        + " |"
    )
    official = next(row for row in rows if row["method"].startswith("official"))["config"]
    slowest = max(row["training_seconds"] for row in rows if row["method"].startswith("MeCoQ"))
    binary = "learned binary codes, Hamming"
    runs, binary_runs = search_runs()
    ahead = [
        f"{statistics.mean(found['MeCoQ, K=16', b]) - statistics.mean(found[binary, b]):+.1f} "
        f"({b:g} bits)"
        for b in bits
        if (binary, b) in found
    ]
    lines += [
        "",
        "The learned binary codes come from the same trainer, views, neighbours and epochs, with "
        "signs in the place of codewords; beside them, codewords of K = 16 have "
        f"{', '.join(ahead)} points. The official quantizer and loss ran with their released "
        f"settings, a {official['projection']} projection and {official['epochs']} epochs; the "
        "baselines are FAISS's with its defaults. Ours and the binary codes alone were tuned on "
        f"these features: {runs} runs, {binary_runs} of them of binary codes, which have the "
        "settings of ours but for their head, judged by labels of held-out database rows "
        "(`benchmarks/results/settings_search.jsonl`).",
        "",
        f"Training a model took at most {slowest / 60:.1f} minutes on one thread. Made by "
        f"`python benchmarks/quality_cifar10.py` on {machine(record)}.",
    ]
    return "\n".join(lines)


def ablation_scores() -> dict[str, dict[int, float]]:
    """MAP by change (or other score) and seed.

    Raises:
        ValueError: If the files do not make one experiment: a seed is there twice, or recommended
            settings differ in more than the seed.
    """
    found: dict[str, dict[int, float]] = defaultdict(dict)
    settings = set()
    for record in _ablation_records():
        for row in record["result"]["rows"]:
            scores = row.get("map_of_other_scores", {})
            named = {f"*ranked by:* {score}": value for score, value in scores.items()}
            for name, value in {row["method"]: row["map"], **named}.items():
                if row["seed"] in found[name]:
                    raise ValueError(f"seed {row['seed']} of the ablation is there twice")
                found[name][row["seed"]] = value
            if row["method"] == "recommended":
                settings.add(json.dumps(row["config"] | {"seed": None}, sort_keys=True))
    if len(settings) != 1:
        raise ValueError("seeds of the ablation must share settings and precision")
    return found


def _ablation_records() -> list[dict[str, Any]]:
    return [read(file.stem) for file in sorted(RESULTS.glob("ablation_seed*.json"))]


def ablation_table() -> str:
    """What each part contributes, on held-out database rows."""
    found, records = ablation_scores(), _ablation_records()
    recommended = found["recommended"]
    made_on = "; ".join(sorted({machine(record) for record in records}))
    lines = [
        "What the parts contribute, at 32 bits and after 20 epochs, on 2,000 held-out database "
        "rows, the same by which the settings were chosen (the queries above are not touched); "
        f"{over_seeds(len(recommended))}. A difference that is not larger than its deviation over "
        f"seeds shows nothing. `python benchmarks/ablation.py` on {made_on}:",
        "",
        "| | mAP@1000 | difference, seed by seed |",
        "|---|---|---|",
    ]
    for name, values in found.items():
        differences = [value - recommended[seed] for seed, value in values.items()]
        change = "" if name == "recommended" else spread(differences, "+.2f")
        lines.append(f"| {name} | {spread(list(values.values()))} | {change} |")
    lines += ["", "![The same as dots](benchmarks/results/ablation.png)"]
    return "\n".join(lines)


def vectors_table() -> str:
    """What is kept of a float ranking, and mAP, of vectors without views."""
    records = [read(file.stem) for file in sorted(RESULTS.glob("quality_vectors*.json"))]
    rows = [row for record in records for row in record["result"]["rows"]]
    found: dict[tuple[str, str, int], list[dict[str, Any]]] = defaultdict(list)
    exact = {row["data"]: row for row in rows if row["method"] == "exact cosine"}
    for row in rows:
        if row["method"] != "exact cosine":
            found[row["data"], row["method"], row["bits"]].append(row)
    bits = sorted({b for _, _, b in found})
    methods = list(dict.fromkeys(name for _, name, _ in found))
    seeds = len(next(iter(found.values())))
    lines = [
        "Embeddings that come as a matrix, without views: recall@100 against the exact ranking by "
        f"cosine, and mAP@1000 by labels, both in percent, {over_seeds(seeds)}. RaBitQ has the "
        "bits of the others and 8 bytes more.",
    ]
    for data, floats in exact.items():
        lines += [
            "",
            f"*{data}*; floats have mAP@1000 {floats['map']:.1f}:",
            "",
            "| | "
            + " | ".join(f"recall, {b} bits" for b in bits)
            + " | "
            + " | ".join(f"mAP, {b} bits" for b in bits)
            + " |",
            "|---|" + "---|" * (2 * len(bits)),
        ]
        for method in methods:
            cells = [
                spread([row[key] for row in found[data, method, b]])
                for key in ("recall_at_100", "map")
                for b in bits
            ]
            name = f"**{method}**" if method.startswith("MeCoQ") else method
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "`python benchmarks/quality_vectors.py`, and the same with `--data texts`, on "
        f"{machine(records[0])}.",
    ]
    return "\n".join(lines)


def images_table() -> str:
    """What training the backbone too adds to codes on its frozen features."""
    record = read("quality_images")
    rows = record["result"]["rows"]
    found: dict[tuple[str, float], list[float]] = defaultdict(list)
    for row in rows:
        found[row["method"], row["bytes_per_vector"]].append(row["map"])
    trained = [row for row in rows if "maps_seconds" in row]
    config, seeds = trained[0]["config"], {row["config"]["seed"] for row in trained}
    slowest = max(row["training_seconds"] for row in trained)
    lines = [
        "End to end from the images: CIFAR-10 as above, through EfficientNet-Lite0 at "
        f"{record['result']['image_size']} px; its last 4 of 16 blocks and its head were trained "
        f"with projection and codebooks of K = {config['num_codewords']}: {config['epochs']} "
        f"epochs, which took at most {slowest / 60:.0f} minutes on {record['result']['threads']} "
        f"threads, after {trained[0]['maps_seconds'] / 60:.0f} minutes for what the other blocks "
        "make of the images and of views of them. "
        "Codes on frozen features learn from what the whole backbone makes of the same images and "
        f"views. mAP@1000 in percent, {over_seeds(len(seeds))}. The settings are those recommended "
        "for features, with changes that were not tuned. (The features of the first table were "
        "made by others, at 128 px, so the two do not compare.)",
        "",
        "| ranked by | bytes | mAP@1000 |",
        "|---|---|---|",
    ]
    for (method, size), values in found.items():
        name = f"**{method}**" if size <= 8 else method
        lines.append(f"| {name} | {size:,.0f} | {spread(values)} |")
    means = {method: statistics.mean(values) for (method, _), values in found.items()}
    codes = means["fine-tuned codes, AQS"] - means["codes on frozen features, AQS"]
    floats = means["fine-tuned features, exact cosine"] - means["frozen features, exact cosine"]
    lines += [
        "",
        f"Fine-tuning adds {codes:.1f} points to the codes, and {floats:.1f} to the backbone's own "
        f"features. `python benchmarks/quality_images.py` on {machine(record)}.",
    ]
    return "\n".join(lines)


def selection_sentence() -> str:
    """How the label-free criterion follows mAP."""
    from selection_cifar10 import correlate

    record = read("selection_cifar10")
    rows = sorted(record["result"]["rows"], key=lambda row: -row["map"])
    found = correlate(record["result"]["rows"])["correlation"]
    comparable = found["where_losses_compare"]
    best = max(rows, key=lambda row: row["view_agreement"])
    place, behind = 1 + rows.index(best), rows[0]["map"] - best["map"]
    return (
        f"Over {len(rows)} settings at 32 bits, the agreement of two views of held-out items, "
        "which `--patience` goes by and `inspect` tells, follows mAP@1000 with a rank correlation "
        f"of {found['view_agreement']['spearman']:.2f}. Values of the contrastive loss compare at "
        f"best within the {comparable['runs']} settings that share the loss's own settings and the "
        "batch size: over these, its rank correlation, sign turned, is "
        f"{comparable['contrastive_loss']['spearman']:.2f}, and that of the agreement "
        f"{comparable['view_agreement']['spearman']:.2f}. The setting of the highest agreement, "
        f"*{best['method']}*, has place {place} by mAP, {behind:.1f} points behind the first "
        f"(`python benchmarks/selection_cifar10.py`, {commit(record)}).\n\n"
        "![mAP over the agreement of views](benchmarks/results/selection_cifar10.png)"
    )
