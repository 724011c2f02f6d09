"""How much does a server that only searches have to install and to load?

    python benchmarks/footprint.py --json benchmarks/results/footprint.json

The package is installed with ``pip install '.[cpu]'`` into a new virtual environment, and there a
process imports it, opens an index of 100,000 items, and answers a query. The same codebooks are
loaded from a ``.pt`` file, for which torch is needed, with the Python that runs this script. Every
number is the median over new processes, whose start is not counted; resident memory is that of the
whole process at the end. With ``--quick`` nothing is installed: all runs use the Python at hand.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from common import REPOSITORY, add_output_options, write_result
from mecoq_index.bench.environment import describe_environment
from mecoq_index.codebooks import Codebooks, Layer
from mecoq_index.engines.faiss.engine import FaissEngine
from mecoq_index.index.stored import save_bundle

SEED = 0
ITEMS, M, K, D, P = 100_000, 8, 256, 64, 512

MEASURE = """
import json, resource, sys, time
started = time.perf_counter()
{code}
seconds = time.perf_counter() - started
kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    with open("/proc/self/statm") as file:
        kib = int(file.read().split()[1]) * resource.getpagesize() / 1024
except OSError:
    pass
found = {{"seconds": seconds, "resident_mib": kib / 1024, "torch": "torch" in sys.modules}}
print(json.dumps(found))
"""

TASKS = {
    "import": "import mecoq_index; mecoq_index.Codebooks",
    "import the command line": "import mecoq_index.cli",
    "load codebooks": "import mecoq_index; mecoq_index.Codebooks.load({books!r})",
    "open an index and search": """
import numpy as np
import mecoq_index
results = mecoq_index.open_index({index!r}).search(np.load({query!r}), k=10)
assert results.ids.shape == (1, 10)
""",
}


def write_files(folder: Path) -> dict[str, str]:
    """Write codebooks in both formats, an index and a query; return their paths."""
    rng = np.random.default_rng(SEED)
    codewords = rng.standard_normal((M, K, D // M))
    books = Codebooks(
        codewords / np.linalg.norm(codewords, axis=-1, keepdims=True),
        [Layer(rng.standard_normal((D, P)) / P**0.5, np.zeros(D))],
    )
    paths = {"safetensors": "c.safetensors", "pt": "c.pt", "index": "x.mecoq", "query": "q.npy"}
    found = {name: str(folder / path) for name, path in paths.items()}
    books.save(found["safetensors"])
    books.save(found["pt"])
    np.save(found["query"], rng.standard_normal((1, P), dtype=np.float32))
    codes = rng.integers(K, size=(ITEMS, M), dtype=np.uint8)
    save_bundle(FaissEngine.build(books, codes), found["index"])
    return found


def measure(python: str, code: str, runs: int, tree: Path | None) -> dict[str, Any]:
    """Run code in new processes; return medians, and whether torch was imported."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if tree is not None:
        environment["PYTHONPATH"] = str(tree)
    found = []
    for _ in range(runs + 1):
        done = subprocess.run(
            [python, "-c", MEASURE.format(code=code)],
            cwd=tempfile.gettempdir(), env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        found.append(json.loads(done.stdout.splitlines()[-1]))
    found = found[1:]  # the first one reads files that are not yet in the cache
    seconds = [run["seconds"] for run in found]
    return {
        "seconds": statistics.median(seconds),
        "seconds_min": min(seconds),
        "resident_mib": statistics.median(run["resident_mib"] for run in found),
        "imports_torch": found[0]["torch"],
    }


def install(folder: Path, extras: str) -> tuple[str, dict[str, Any]]:
    """Install the package into a new environment; return its Python, and what was installed."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    site = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()
    )  # fmt: skip
    before = size_mb(site)
    # From a copy, because building leaves files in the folder.
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(REPOSITORY / "mecoq_index", Path(copy) / "mecoq_index")
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(REPOSITORY / name, copy)
        subprocess.run([*pip, "install", "-q", "--no-compile", f"{copy}[{extras}]"], check=True)
    listed = subprocess.run(
        [*pip, "list", "--format", "json"], capture_output=True, text=True, check=True
    )
    packages = {entry["name"]: entry["version"] for entry in json.loads(listed.stdout)}
    for own in ("pip", "setuptools"):
        packages.pop(own, None)
    return python, {
        "extras": extras,
        "packages": packages,
        "count": len(packages),
        "site_packages_mb": size_mb(site) - before,
    }


def size_mb(folder: Path) -> float:
    """Size of all files in a folder, in MB."""
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_output_options(parser)
    parser.add_argument("--runs", type=int, default=7, help="processes for each number")
    parser.add_argument(
        "--train", action="store_true", help="install [cpu,train] as well, which brings torch"
    )
    options = parser.parse_args()
    runs = 1 if options.quick else options.runs
    environment = describe_environment()
    result: dict[str, Any] = {"items": ITEMS, "M": M, "K": K, "D": D, "P": P, "runs": runs}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_files(folder)
        serving, tree = sys.executable, REPOSITORY
        if not options.quick:
            serving, result["installed"] = install(folder / "serving", "cpu")
            installed = result["installed"]
            print(f"[cpu]: {installed['count']} packages, {installed['site_packages_mb']:.0f} MB")
            if options.train:
                _, result["with train"] = install(folder / "training", "cpu,train")
        for where, python, path, books in (
            ("without torch", serving, None if serving != sys.executable else tree, "safetensors"),
            ("with torch", sys.executable, tree, "pt"),
        ):
            found = result[where] = {}
            for task, code in TASKS.items():
                if where == "with torch" and task != "load codebooks":
                    continue
                code = code.format(books=paths[books], index=paths["index"], query=paths["query"])
                found[task] = measure(python, code, runs, path)
                print(
                    f"{where}, {task}: {found[task]['seconds']:.2f} s, "
                    f"{found[task]['resident_mib']:.0f} MiB"
                )
                if found[task]["imports_torch"] != (where == "with torch"):
                    raise SystemExit(f"{where}: {task} imported torch, or should have and did not")
    write_result(
        options.json,
        result,
        question=(__doc__ or "").partition("\n")[0],
        seed=SEED,
        environment=environment,
    )


if __name__ == "__main__":
    main()
