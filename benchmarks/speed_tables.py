"""Tables of speed and size: searching, adding, building, training."""

from __future__ import annotations

from markdown_table import Table
from records import Record, commit, made_by, read, read_all

SEARCH = "python benchmarks/search_speed.py"
ONE_BY_ONE, IN_BATCHES = (1, 1, 10), (1, 100, 10)
"""Threads, queries in one call, and k of the measurements that are shown."""
TARGET = 0.95
"""The share of a scan's recall that lists and graphs are set to, as in ``contenders.py``."""


def search() -> Table:
    """How fast each index answers, and how well, at the largest size measured."""
    record, run = _search_runs()[-1]
    speed = {(r["method"], r["threads"], r["batch"], r["k"]): r for r in run["speed"]}
    rows = []
    for row in run["methods"]:
        seconds = [
            speed[(row["method"], *column)]["seconds_per_query"]
            for column in (ONE_BY_ONE, IN_BATCHES)
        ]
        rows.append(
            [
                row["method"],
                f"{row['bytes_per_vector']:g}",
                f"{row['own_recall_at_10']:.3f}",
                f"{row['class_precision_at_10']:.3f}",
                *(f"{1 / one:,.0f}" for one in seconds),
            ]
        )
    rows += [[f"{row['method']} ({row['reason']})", *[""] * 5] for row in run["not_built"]]
    columns = ("index", "bytes", "own", "class", "single queries", "batches of 100")
    notes = (
        f"{run['items']:,} codes, k = 10, one thread; queries per second. Lists and graphs are set "
        f"to {TARGET:.0%} of the *own* of a scan."
    )
    return Table(columns, rows, f"{notes} {made_by(SEARCH, record)}")


def search_ratios() -> Table:
    """How many times the throughput of one index is that of another, taken within rounds."""
    runs = _search_runs()
    ratios = [
        {
            (r["times_faster"], r["than"]): r["ratio"]
            for r in run["ratios"]
            if (r["threads"], r["batch"], r["k"]) == IN_BATCHES
        }
        for _, run in runs
    ]
    rows = [
        [first, than, *(f"{found[first, than]:.2f}" for found in ratios)]
        for first, than in ratios[0]
        if first != "memory read"
    ]
    columns = ("index", "compared with", *_sizes(runs))
    source = made_by(SEARCH, *(record for record, _ in runs))
    notes = "Ratio of queries per second, one thread, batches of 100, k = 10."
    return Table(columns, rows, f"{notes} {source}")


def search_layer() -> Table:
    """What the engine takes for a single query above the FAISS index called directly."""
    runs = _search_runs()
    found = [{row["method"]: row["overhead"] for row in run["layer"]} for _, run in runs]
    rows = [[name, *(f"{one[name]:+.1%}" for one in found)] for name in found[0]]
    source = made_by(SEARCH, *(record for record, _ in runs))
    return Table(("index", *_sizes(runs)), rows, f"One query, k = 10. {source}")


def adding() -> Table:
    """How much faster codes are added than vectors."""
    record, run = _search_runs()[0]
    measured = [row for row in run["adding"] if row["threads"] == 1]
    kinds = list(dict.fromkeys(kind for row in measured for kind in row["faster_than_vectors"]))
    rows = []
    for row in measured:
        ratios = row["faster_than_vectors"]
        cells = [f"{ratios[kind]['ratio']:.1f}" if kind in ratios else "" for kind in kinds]
        rows.append([row["method"], *cells])
    notes = (
        f"Times as fast as adding the vectors; {measured[0]['rows']:,} rows added to "
        f"{run['items']:,} codes, one thread."
    )
    return Table(("index", *kinds), rows, f"{notes} {made_by(SEARCH, record)}")


def _search_runs() -> list[tuple[Record, Record]]:
    """The record and the run of every size, ascending; the later file where two have one size."""
    found = {}
    for record in read_all("search_speed*"):
        for run in record["result"]["runs"]:
            found[run["items"]] = (record, run)
    return [pair for _, pair in sorted(found.items())]


def _sizes(runs: list[tuple[Record, Record]]) -> list[str]:
    return [f"{run['items']:,} codes (commit {commit(record)})" for record, run in runs]


def list_finders() -> Table:
    """What finds the lists of an IVF index: recall and speed by the number of lists visited."""
    record = read("list_finders")
    run = record["result"]
    nprobes = sorted({row["nprobe"] for row in run["rows"]})
    found = {(row["method"], row["nprobe"]): row for row in run["rows"]}
    rows = [
        [
            method,
            f"{seconds:.0f}",
            *(
                f"{point['own_recall_at_10']:.3f} at {point['queries_per_second']:,.0f}"
                for point in (found[method, nprobe] for nprobe in nprobes)
            ),
        ]
        for method, seconds in run["build_seconds"].items()
    ]
    columns = ("index", "built in, s", *(f"lists: {nprobe}" for nprobe in nprobes))
    note = (
        f"*own* at queries per second; {run['items']:,} codes, k = {run['k']}, one thread, batches "
        f"of {run['batch']}. {made_by('python benchmarks/list_finders.py', record)}"
    )
    return Table(columns, rows, note)


def scale() -> Table:
    """How building grows with the number of codes."""
    record = read("scale")
    rows = [
        [
            row["factory"],
            f"{row['items']:,}",
            f"{row['seconds']:,.1f}",
            f"{row['file_bytes'] / 2**20:,.0f}",
            f"{row['above_index_mib']:,.0f}",
        ]
        for row in sorted(record["result"]["rows"], key=lambda row: (row["index"], row["items"]))
    ]
    columns = ("index", "codes", "seconds", "file, MiB", "memory above the index, MiB")
    return Table(columns, rows, f"2 threads. {made_by('python benchmarks/scale.py', record)}")


def scale_growth() -> Table:
    """The exponents of the fitted growth of building."""
    record = read("scale")
    rows = [
        # an exponent that rounds to zero must not show as -0.00
        [name, *(f"{round(fit[key], 2) + 0.0:.2f}" for key in ("seconds", "peak_mib"))]
        for name, fit in record["result"]["growth"].items()
    ]
    columns = ("index", "exponent of the time", "exponent of the memory")
    return Table(columns, rows, made_by("python benchmarks/scale.py", record))


def training_speed() -> Table:
    """What an epoch of training takes, beside a plain implementation of the equations."""
    record = read("training_speed")
    result = record["result"]
    config = result["config"]
    rows = [
        [
            {"plain": "the equations, written out plainly in PyTorch"}.get(
                row["implementation"], row["implementation"]
            ),
            f"{row['seconds_per_epoch']:.1f}",
            f"{row['peak_mib']:.0f}",
        ]
        for row in result["rows"]
    ]
    notes = (
        f"{result['items']:,} cached features, M = {config['num_codebooks']}, "
        f"K = {config['num_codewords']}, batches of {config['batch_size']}, "
        f"{result['threads']} threads; median of {result['rounds']} rounds."
    )
    source = made_by("python benchmarks/training_speed.py", record)
    return Table(
        ("implementation", "seconds an epoch", "peak memory, MiB"), rows, f"{notes} {source}"
    )
