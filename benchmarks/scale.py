"""How do the time, memory and file of building an index grow with the number of codes?

    python benchmarks/scale.py --json benchmarks/results/scale.json

Codes of rows grown from real embeddings (growth.py) are written once to a temporary folder, which
is removed at the end. A bundle is built from the first n of them as `mecoq-index build` does it:
chunk by chunk, with all that it takes to go on after a kill, in a process of its own. Memory is
anonymous memory, looked at every few milliseconds from outside: what the process takes above its
libraries, the index itself, and what is left for building. Pages of files are not counted, because
the system may drop them. The growth is a, of a fitted n^a.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from growth import Growth, write_codes

from common import add_output_options, write_result
from mecoq_index.bench.environment import describe_environment
from mecoq_index.codebooks import Codebooks
from mecoq_index.engines.faiss.grammar import lists_for
from mecoq_index.index.bundle import Bundle

SEED = 0
SIZES = (1e6, 3e6, 1e7, 3e7, 1e8)
QUICK_SIZES = (1e4, 1e5)
# More lists would take longer to make than to fill.
MOST_LISTS = 4096
LOOK_SECONDS = 0.005
MIB = 2**20

FACTORIES: dict[str, tuple[int, Callable[[int], str]]] = {
    "MeCoQ8x8": (256, lambda n: "MeCoQ8x8"),
    "MeCoQ16x4fs": (16, lambda n: "MeCoQ16x4fs"),
    "IVF_HNSW32,MeCoQ8x8": (256, lambda n: f"IVF{count_lists(n)}_HNSW32,MeCoQ8x8"),
}
"""K and the factory string for n codes, by the name in the tables."""

FITTED = ("seconds", "peak_mib", "file_bytes")


def count_lists(n: int) -> int:
    """Inverted lists for n codes."""
    return min(MOST_LISTS, lists_for(n))


def build(codes: Path, n: int, codebooks: Codebooks, factory: str, out: Path) -> dict[str, Any]:
    """Build a bundle of the first n codes of a file; what its manifest says of it."""
    from mecoq_index.data.reader import ArrayRows
    from mecoq_index.index.build import BuildOptions, build_bundle

    rows = ArrayRows(np.load(codes, mmap_mode="r")[:n])
    options = BuildOptions(options={"factory": factory, "seed": SEED})
    build_bundle(rows, codebooks, out, options)
    return dict(Bundle.read_manifest(out))


def anonymous_mib(process: int | str) -> float:
    """Memory of a process that no file stands behind; 0 if the process has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    lines = [line for line in status.splitlines() if line.startswith("RssAnon")]
    return int(lines[0].split()[1]) / 1024 if lines else 0.0


def run_one(job: dict[str, Any]) -> dict[str, Any]:
    """Build one index in this process."""
    codebooks = Codebooks(np.load(job["codewords"]))
    # A small build first: the libraries are loaded and their threads started.
    out = Path(job["out"])
    build(Path(job["codes"]), min(job["n"], 1000), codebooks, job["warm_up"], out)
    shutil.rmtree(out)
    before = anonymous_mib("self")
    started = time.perf_counter()
    manifest = build(Path(job["codes"]), job["n"], codebooks, job["factory"], out)
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "before_mib": before,
        "bytes_per_vector": manifest["description"]["bytes_per_vector"],
        "file_bytes": manifest["files"][manifest["index_file"]]["bytes"],
        # KiB on Linux. Counts the pages of the file of codes, too.
        "peak_resident_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measure_one(job: dict[str, Any]) -> dict[str, Any]:
    """Build one index in a fresh process and watch its memory."""
    command = [sys.executable, __file__, "--one", json.dumps(job)]
    peak = 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            peak = max(peak, anonymous_mib(process.pid))
            time.sleep(LOOK_SECONDS)
        output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(f"building {job['factory']} of {job['n']} codes failed")
    row: dict[str, Any] = json.loads(output.splitlines()[-1])
    shutil.rmtree(job["out"])
    row["peak_mib"] = peak - row["before_mib"]
    row["index_mib"] = job["n"] * row["bytes_per_vector"] / MIB
    row["above_index_mib"] = row["peak_mib"] - row["index_mib"]
    return row


def prepare(folder: Path, K: int, n: int, *, features: Path | None, quick: bool) -> dict[str, Any]:
    """Write n codes and their codebooks; the part of a job that says where they are."""
    from trained import trained  # not above: the processes that build need no torch

    source = trained(K, features=features, quick=quick)
    job = {"codewords": str(folder / f"K{K}.npy"), "codes": str(folder / f"codes{K}.npy")}
    np.save(job["codewords"], source.codebooks.codewords)
    started = time.perf_counter()
    write_codes(Path(job["codes"]), Growth(source.items, seed=SEED), source.codebooks, n)
    print(f"{n:,} codes of K={K} written in {time.perf_counter() - started:.0f} s")
    return job


def fit_growth(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The exponent a of y ~ n^a for each index and quantity, by least squares in logarithms."""
    fits: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(row["index"] for row in rows):
        for what in FITTED:
            own = [row for row in rows if row["index"] == name and row[what] > 0]
            if len(own) > 1:
                n, y = ([row[key] for row in own] for key in ("items", what))
                fits.setdefault(name, {})[what] = float(np.polyfit(np.log(n), np.log(y), 1)[0])
    return fits


def measure(
    folder: Path, sizes: list[int], *, largest_ivf: int, features: Path | None, quick: bool
) -> Iterator[dict[str, Any]]:
    """A row for each index at each size, the small sizes first."""
    jobs = {
        K: prepare(folder, K, max(sizes), features=features, quick=quick)
        for K in sorted({K for K, _ in FACTORIES.values()})
    }
    for n in sizes:
        for name, (K, factory_for) in FACTORIES.items():
            if name.startswith("IVF") and n > largest_ivf:
                continue
            job = jobs[K] | {"n": n, "factory": factory_for(n), "out": str(folder / "index.mecoq")}
            job["warm_up"] = factory_for(1000)
            row = {"index": name, "factory": job["factory"], "items": n, **measure_one(job)}
            print(
                f"{row['factory']:<28}{n:>12,} codes {row['seconds']:>9.2f} s, "
                f"file {row['file_bytes'] / MIB:>8.1f} MiB, memory {row['peak_mib']:>8.1f} MiB, "
                f"{row['above_index_mib']:>8.1f} MiB of it above the index"
            )
            yield row


def main() -> None:
    """Parse, measure, print; the results so far are written after every index."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=float, nargs="+", help="numbers of codes, like 1e6 3e6")
    parser.add_argument(
        "--largest-ivf",
        type=float,
        default=3e7,
        help="build IVF up to this size; finding the lists of more takes long",
    )
    parser.add_argument("--features", type=Path, help="an .npz made by mecoq-index embed")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    add_output_options(parser)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(run_one(args.one)))
        return
    environment = describe_environment()
    sizes = sorted(int(n) for n in args.sizes or (QUICK_SIZES if args.quick else SIZES))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for row in measure(
            Path(folder),
            sizes,
            largest_ivf=int(args.largest_ivf),
            features=args.features,
            quick=args.quick,
        ):
            rows.append(row)
            result = {"rows": rows, "growth": fit_growth(rows)}
            question = __doc__.splitlines()[0]
            write_result(args.json, result, question=question, seed=SEED, environment=environment)
    for name, fit in fit_growth(rows).items():
        print(f"{name}: " + ", ".join(f"{what} ~ n^{power:.2f}" for what, power in fit.items()))


if __name__ == "__main__":
    main()
