"""FAISS files of every layout, changed from a seed, and the process that opens and searches them.

    python faiss_files.py FOLDER FIRST

runs the cases that `write_cases` put into FOLDER, from number FIRST on. It prints a line of JSON
before and after each case, so whoever reads them knows which one a crash was in.
"""

import hashlib
import json
import resource
import shutil
import signal
import struct
import subprocess
import sys
import warnings
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np

# What an engine builds: bundles.
ENGINE_LAYOUTS = [
    *((16, name) for name in ("MeCoQ4x4", "MeCoQ4x4fs", "MeCoQ4x4fs_64", "IDMap2,MeCoQ4x4fs")),
    *((16, name) for name in ("MeCoQ4x4fs,Refine(MeCoQ),IDMap2", "HNSW8,MeCoQ4x4,IDMap2")),
    *((16, name) for name in ("HNSW4,MeCoQ", "IVF4,MeCoQ4x4", "IVF4,MeCoQ4x4fs")),
    *((16, name) for name in ("IVF8_HNSW4,MeCoQ4x4fs,Refine(MeCoQ4x4),IDMap2",)),
    *((16, name) for name in ("IVF8(IVF3,Flat),MeCoQ", "IVF4,MeCoQ4x4fs_128,IDMap")),
    *((256, name) for name in ("MeCoQ", "IDMap,MeCoQ4x8", "IVF8_HNSW4,MeCoQ,IDMap2")),
]
# What `index_factory` makes and `read_index` reads besides.
PLAIN_LAYOUTS = [
    *((16, name) for name in ("Projection,MeCoQ4x4", "IVF4,MeCoQ4x4fs,RFlat,IDMap2")),
    *((16, name) for name in ("MeCoQ,RFlat", "Projection,IVF8,MeCoQ4x4,IDMap2")),
]
ITEMS, M, DS = 40, 4, 4
MEMORY = 400 << 20  # what a file of a few KiB may make the process take
SECONDS = 20
_WORDS = (2**31, 2**31 - 1, 2**40, -1, 0, 1, 2**63 - 1, 3, 2**20, 2**24, 7)


def make_codebooks(K):
    from mecoq_index.codebooks import Codebooks, Layer

    rng = np.random.default_rng(K)
    c = rng.standard_normal((M, K, DS))
    c /= np.linalg.norm(c, axis=-1, keepdims=True)
    layer = Layer(rng.standard_normal((M * DS, 6), np.float32), np.zeros(M * DS, np.float32))
    return Codebooks(c.astype(np.float32), projection=[layer])


def write_layouts(folder):
    """Write a bundle for each layout of the engine, and a file for each other; return the files."""
    import faiss

    from mecoq_index.engines.faiss.engine import FaissEngine
    from mecoq_index.engines.faiss.factory import index_factory
    from mecoq_index.index.bundle import Content, write_bundle
    from mecoq_index.index.columns import ItemColumns
    from mecoq_index.index.names import Names

    files = []
    for number, (K, name) in enumerate(ENGINE_LAYOUTS):
        books = make_codebooks(K)
        codes = np.random.default_rng(number).integers(K, size=(ITEMS, M)).astype(np.uint8)
        engine = FaissEngine.build(books, codes, factory=name)
        content = Content(
            "faiss", "index.faiss", engine.save, books, engine.describe(), Names.from_strings([]),
            ItemColumns.none(),
        )  # fmt: skip
        write_bundle(folder / f"{number}.mecoq", content)
        files.append(folder / f"{number}.mecoq" / "index.faiss")
    for number, (K, name) in enumerate(PLAIN_LAYOUTS):
        books = make_codebooks(K)
        width = books.P if "Projection" in name else books.D
        x = np.random.default_rng(number).standard_normal((ITEMS, width), np.float32)
        index = index_factory(width, name, books)
        index.train(x)
        index.add_with_ids(x, np.arange(ITEMS)) if "IDMap" in name else index.add(x)
        files.append(folder / f"{number}.faiss")
        faiss.write_index(index, str(files[-1]))
    return files


def sign(bundle):
    """Make the manifest of a bundle say what its files are now."""
    from mecoq_index.index.manifest import checksum

    manifest = json.loads((bundle / "manifest.json").read_text())
    for name in manifest["files"]:
        content = (bundle / name).read_bytes()
        manifest["files"][name] |= {
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    manifest["checksum"] = checksum(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def _numbers(content, size):
    """Places where a number of ``size`` bytes that may be a size, a count or a link stands."""
    kind = "<q" if size == 8 else "<i"
    places = range(len(content) - size + 1)
    return [p for p in places if 0 < struct.unpack_from(kind, content, p)[0] < 1 << 21]


def mutate(content, rng):
    """The content with one change, and what was changed."""
    kind = rng.choice(
        ["flip", "flips", "word8", "word8", "word4", "word4", "cut", "splice", "more"]
    )
    changed = bytearray(content)
    place = int(rng.integers(len(content)))
    if kind in ("flip", "flips"):
        head = min(len(content), 200) if rng.random() < 0.5 else len(content)
        for place in rng.integers(head, size=1 if kind == "flip" else 5).tolist():
            changed[place] ^= int(rng.integers(1, 256))
    elif kind in ("word8", "word4"):
        size = int(kind[4:])
        place = int(rng.choice(_numbers(content, size)))
        word = int(rng.choice(_WORDS)) & (1 << 8 * size) - 1
        changed[place : place + size] = word.to_bytes(size, "little")
    elif kind == "cut":
        del changed[place:]
    elif kind == "splice":
        other = int(rng.integers(len(content)))
        changed[place : place + int(rng.integers(64))] = content[other : other + 40]
    else:
        changed += bytes(int(rng.integers(1, 64)))
    return bytes(changed), f"{kind} at {place}"


def write_cases(folder, count, seed):
    """Write ``count`` changed files; return what is known of each."""
    files = write_layouts(folder)
    names = [name for _, name in (*ENGINE_LAYOUTS, *PLAIN_LAYOUTS)]
    rng = np.random.default_rng(seed)
    cases = []
    for number in range(count):
        source = files[number % len(files)]
        content, change = mutate(source.read_bytes(), rng)
        (folder / f"case{number}").write_bytes(content)
        cases.append({"source": str(source), "change": f"{names[number % len(files)]}: {change}"})
    return cases


def add_outside_lists(folder, cases, outside):
    """Append a case for each layout with lists: they lie in a file somewhere else."""
    import faiss

    bundles = [
        (i, K, name) for i, (K, name) in enumerate(ENGINE_LAYOUTS) if name == "IVF4,MeCoQ4x4"
    ]
    for number, _, name in bundles:
        source = folder / f"{number}.mecoq" / "index.faiss"
        index = faiss.read_index(str(source))
        core = faiss.downcast_index(index)
        lists = faiss.OnDiskInvertedLists(core.nlist, core.code_size, str(folder / "scratch"))
        lists.merge_from(core.invlists, 0)
        core.replace_invlists(lists, False)
        faiss.write_index(index, str(folder / "on-disk"))
        content = (folder / "on-disk").read_bytes()
        for target in (outside, Path("../") / outside.name, Path("/proc/self/mem")):
            scratch, path = str(folder / "scratch").encode(), str(target).encode()
            old, new = (struct.pack("<Q", len(name)) + name for name in (scratch, path))
            assert old in content
            (folder / f"case{len(cases)}").write_bytes(content.replace(old, new))
            cases.append({"source": str(source), "change": f"{name}: lists in {target}"})


def run_cases(folder, cases):
    """Run the cases, in as many processes as it takes; return their outcomes."""
    (folder / "cases.json").write_text(json.dumps(cases))
    outcomes, first = {}, 0
    while first < len(cases):
        command = [sys.executable, __file__, str(folder), str(first)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        for line in done.stdout.splitlines():
            if line.startswith("{"):
                report = json.loads(line)
                outcomes[report["case"]] = report
        last = max(outcomes, default=-1)
        if last < first:
            raise RuntimeError(f"the process that runs cases did not start: {done.stderr[-2000:]}")
        if "outcome" not in outcomes[last]:
            outcomes[last]["outcome"] = f"crash: exit {done.returncode} {done.stderr[-200:]}"
        first = last + 1
    return [cases[number] | report for number, report in sorted(outcomes.items())]


def attempt(source, changed, scratch):
    """Open a changed file as a person would, and do with it what a person does."""
    import mecoq_index

    q = np.random.default_rng(0).standard_normal((3, M * DS), np.float32)
    if source.parent.suffix != ".mecoq":
        index = mecoq_index.read_index(changed)
        index.search(q if index.d == M * DS else q[:, : index.d].copy(), 5)
        return
    bundle = scratch / source.parent.name
    if not bundle.exists():
        shutil.copytree(source.parent, bundle)
    shutil.copyfile(changed, bundle / "index.faiss")
    sign(bundle)
    index = mecoq_index.open_index(bundle)
    index.search(q, k=5, given="embeddings")
    index.search(q, k=1, given="embeddings")
    index.engine.codes(index.engine.ids()[:10])
    list(index.engine.items())
    index.engine.add(np.zeros((70, M), np.uint8))
    index.search(q, k=5, given="embeddings")


def main(folder, first):
    import faiss

    from mecoq_index.errors import MecoqError

    metadata.entry_points = cache(metadata.entry_points)  # plug-ins are looked up at every opening
    faiss.omp_set_num_threads(1)
    warnings.simplefilter("ignore")
    cases = json.loads((folder / "cases.json").read_text())
    scratch = folder / "work"
    scratch.mkdir(exist_ok=True)
    attempt(Path(cases[0]["source"]), Path(cases[0]["source"]), scratch)  # loads everything
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for number in range(first, len(cases)):
        print(json.dumps({"case": number}), flush=True)
        signal.alarm(SECONDS)
        try:
            attempt(Path(cases[number]["source"]), folder / f"case{number}", scratch)
            outcome = "opened"
        except MecoqError as exc:
            outcome = f"refused: {exc}"
        except BaseException as exc:
            outcome = f"traceback: {type(exc).__name__}: {str(exc)[:300]}"
        signal.alarm(0)
        print(json.dumps({"case": number, "outcome": outcome}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
