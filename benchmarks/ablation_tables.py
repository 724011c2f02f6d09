"""Tables of the parts of training, of choosing settings without labels, and of the demo."""

from __future__ import annotations

import json
from collections import defaultdict

from correlation import correlate
from markdown_table import Table, over_seeds, spread
from records import american, made_by, read, read_all


def ablation_scores() -> dict[str, dict[int, float]]:
    """MAP by change (or other score) and seed.

    Raises:
        ValueError: If the files do not make one experiment: a seed is there twice, or the
            recommended settings differ in more than the seed.
    """
    found: dict[str, dict[int, float]] = defaultdict(dict)
    settings = set()
    for record in read_all("ablation_seed*"):
        for row in record["result"]["rows"]:
            scores = row.get("map_of_other_scores", {})
            named = {f"*ranked by:* {score}": value for score, value in scores.items()}
            for name, value in {row["method"]: row["map"], **named}.items():
                label = american(name)
                if row["seed"] in found[label]:
                    raise ValueError(f"seed {row['seed']} of the ablation is there twice")
                found[label][row["seed"]] = value
            if row["method"] == "recommended":
                settings.add(json.dumps(row["config"] | {"seed": None}, sort_keys=True))
    if len(settings) != 1:
        raise ValueError("seeds of the ablation must share settings and precision")
    return found


def ablation() -> Table:
    """What each part contributes, on held-out database rows."""
    found, records = ablation_scores(), read_all("ablation_seed*")
    recommended = found["recommended"]
    rows = []
    for name, values in found.items():
        differences = [value - recommended[seed] for seed, value in values.items()]
        change = "" if name == "recommended" else spread(differences, "+.2f")
        rows.append([name, spread(list(values.values())), change])
    first = next(r for r in records[0]["result"]["rows"] if r["method"] == "recommended")
    notes = (
        f"{first['bits']:g} bits, {first['config']['epochs']} epochs. "
        f"{over_seeds(len(recommended))}"
    )
    source = made_by("python benchmarks/ablation.py", *records)
    columns = ("setting", "mAP@1000", "difference, seed by seed")
    return Table(columns, rows, f"{notes} {source}")


def selection() -> Table:
    """How the label-free criteria follow mAP."""
    record = read("selection_cifar10")
    found = correlate(record["result"]["rows"])["correlation"]
    comparable = found["where_losses_compare"]
    cells = [
        ("view agreement", found["runs"], found["view_agreement"]),
        ("view agreement", comparable["runs"], comparable["view_agreement"]),
        ("contrastive loss, sign turned", comparable["runs"], comparable["contrastive_loss"]),
    ]
    rows = [
        [name, f"{runs}", f"{fit['spearman']:.2f}", f"{fit['pearson']:.2f}"]
        for name, runs, fit in cells
    ]
    columns = ("criterion", "settings compared", "rank correlation", "linear correlation")
    bits = record["result"]["rows"][0]["bits"]
    source = made_by("python benchmarks/selection_cifar10.py", record)
    return Table(columns, rows, f"{bits:g} bits, one seed. {source}")


def selection_best() -> Table:
    """The settings that mAP, the recommendation and the agreement of views would choose."""
    record = read("selection_cifar10")
    by_map = sorted(record["result"]["rows"], key=lambda row: -row["map"])
    by_agreement = sorted(by_map, key=lambda row: -row["view_agreement"])
    recommended = next(row for row in by_map if row["method"] == "recommended")
    chosen = {
        "highest mAP": by_map[0],
        "recommended": recommended,
        "highest agreement": by_agreement[0],
    }
    rows = [
        [
            why,
            american(row["method"]),
            f"{row['map']:.1f}",
            f"{1 + by_map.index(row)}",
            f"{row['view_agreement']:.3f}",
            f"{1 + by_agreement.index(row)}",
        ]
        for why, row in chosen.items()
    ]
    columns = ("choice", "setting", "mAP@1000", "place by mAP", "agreement", "place by agreement")
    source = made_by("python benchmarks/selection_cifar10.py", record)
    return Table(columns, rows, f"{len(by_map)} settings. {source}")


def demo() -> Table:
    """What the demo prints, without the speeds of so small an index."""
    record = read("demo_digits")
    rows = [
        [
            row["method"],
            f"{row['bytes_per_vector']:,.0f}",
            f"{100 * row['mean_average_precision']:.1f}",
            f"{100 * row['precision']:.1f}",
        ]
        for row in record["records"]
    ]
    k, first = record["settings"]["map_at"], record["settings"]["precision_at"]
    columns = ("method", "bytes", f"mAP@{k}", f"P@{first}")
    return Table(columns, rows, made_by("mecoq-index demo", record))
