"""Every command that writes, to be killed or to be told that the disk is full.

A writer is run in a folder of its own, which holds what was there before. What lies there
afterwards is compared by `state`: whole files and indexes, without names that begin with a dot.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mecoq_index.codebooks import Codebooks
from mecoq_index.index.bundle import Bundle

N, M = 3000, 4


class Driver:
    """The process that runs commands in children; see kill_driver.py."""

    def __init__(self, folder, warming):
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        script = Path(__file__).with_name("kill_driver.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script), json.dumps(warming)],
            cwd=folder, env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        while (line := self._process.stdout.readline()) != "ready\n":
            assert line

    def __call__(self, *run, **how):
        command = {"run": [str(part) for part in run], **how}
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self):
        self._process.communicate(timeout=20)


@dataclass(frozen=True)
class Writer:
    """A command that writes.

    Attributes:
        words: The command; its last word is the output, in the folder of the run.
        before: What is copied to the output first.
        resumes: Whether it takes --resume.
        steps_in_files: Whether it writes several files, each of which is old or new after a kill.
    """

    words: tuple
    before: str = ""
    resumes: bool = False
    steps_in_files: bool = False

    def command(self, folder, *more):
        name, *words, out = self.words
        return (name, *more, *words, str(folder / out))


BUILD = ("build", "codes.npy", "--ids", "names.txt", "--codebooks", "c.npy")
IVF = ("--factory", "IVF16,MeCoQ")
WRITERS = {
    "train": Writer(
        ("train", "x.npy", "--bits", 16, "--epochs", 3, "--set", "batch_size=128", "--quiet",
         "--device", "cpu", "--out", "o.pt"),
        resumes=True,
    ),
    "embed": Writer(
        ("embed", "photos", "--codebooks", "images.pt", "--device", "cpu", "--out", "o.npy"),
        resumes=True, steps_in_files=True,
    ),
    "embed features": Writer(
        ("embed", "photos", "--backbone", "mecoq:small", "--views", 2, "--device", "cpu", "--out",
         "o.npz"),
        resumes=True,
    ),
    "build": Writer((*BUILD, *IVF, "--out", "o.mecoq"), resumes=True),
    "build over": Writer(
        (*BUILD, *IVF, "--overwrite", "--out", "o.mecoq"), before="small.mecoq", resumes=True
    ),
    "build of images": Writer(
        ("build", "photos", "--codebooks", "images.pt", "--device", "cpu", "--out", "o.mecoq"),
        resumes=True,
    ),
    "add": Writer(("add", "--input", "more.npy", "--ids", "more.txt", "o.mecoq"), "named.mecoq"),
    "remove": Writer(("remove", "--ids", "gone.txt", "o.mecoq"), "named.mecoq"),
    "tune": Writer(
        ("tune", "--queries", "q.npy", "--save", "--recall", 0.5, "o.mecoq"), "named.mecoq"
    ),
    "merge": Writer(("merge", "part2.mecoq", "part1.mecoq", "--out", "o.mecoq")),
    "reencode": Writer(
        ("reencode", "named.mecoq", "codes.npy", "--ids", "names.txt", "--codebooks", "c.npy",
         "--out", "o.mecoq"),
    ),
    "export to faiss": Writer(
        ("export", "named.mecoq", "--to", "faiss", "--out", "o.faiss"), steps_in_files=True
    ),
    "export to milvus": Writer(("export", "named.mecoq", "--to", "milvus", "--out", "o.rows")),
    "export over": Writer(
        ("export", "named.mecoq", "--to", "milvus", "--overwrite", "--out", "o.rows"), "small.rows"
    ),
    "export codebooks": Writer(
        ("export", "--codebooks", "c.npy", "--to", "safetensors", "--out", "o.safetensors")
    ),
}  # fmt: skip


def make_inputs(root):
    """What writers read; the indexes among it are made by the driver that `start` returns."""
    image = __import__("PIL.Image").Image
    rng = np.random.default_rng(0)
    c = rng.standard_normal((M, 256, 4))
    np.save(root / "c.npy", (c / np.linalg.norm(c, axis=-1, keepdims=True)).astype(np.float32))
    np.save(root / "x.npy", rng.standard_normal((400, 16)).astype(np.float32))
    np.save(root / "q.npy", rng.standard_normal((5, 16)).astype(np.float32))
    np.save(root / "codes.npy", rng.integers(256, size=(N, M), dtype=np.uint8))
    np.save(root / "more.npy", rng.integers(256, size=(N // 4, M), dtype=np.uint8))
    names = [f"{i}.jpg" for i in range(N)]
    (root / "names.txt").write_text("".join(f"{name}\n" for name in names))
    (root / "gone.txt").write_text("".join(f"{name}\n" for name in names[::3]))
    (root / "more.txt").write_text("".join(f"more-{i}\n" for i in range(N // 4)))
    (root / "photos").mkdir()
    for i in range(8):
        pixels = rng.integers(256, size=(16, 16, 3), dtype=np.uint8)
        image.fromarray(pixels).save(root / "photos" / f"{i}.png")


def start(root, chosen=WRITERS):
    """Make the inputs of some writers, and start a driver that has run each of them once."""
    make_inputs(root)
    first = [
        (*BUILD, *IVF, "--out", "named.mecoq"),
        ("build", "more.npy", "--codebooks", "c.npy", "--out", "small.mecoq"),
    ]
    words = {word for name in chosen for word in WRITERS[name].words}
    if "train" in chosen:  # once, because torch loads much of itself when it is first needed
        first.append(("train", "x.npy", "--bits", 8, "--epochs", 1, "--device", "cpu", "--quiet",
                      "--out", "first.pt"))  # fmt: skip
    if "part1.mecoq" in words:
        for number in (1, 2):
            part = ("--shards", f"{number}/2", "--out", f"part{number}.mecoq")
            first.append((*BUILD, *IVF, *part))
    if "images.pt" in words:
        features = ("--backbone", "mecoq:small", "--views", 2, "--device", "cpu")
        first.append(("embed", "photos", *features, "--out", "f.npz"))
        first.append(("train", "f.npz", "--bits", 8, "--epochs", 1, "--set", "batch_size=4",
                      "--device", "cpu", "--neighbors", 0, "--out", "images.pt"))  # fmt: skip
    if "export over" in chosen:
        first.append(("export", "small.mecoq", "--to", "milvus", "--out", "small.rows"))
    return Driver(root, [[str(word) for word in line] for line in first])


def fresh(root, name, number):
    """A folder with what is there before a writer runs."""
    folder = root / f"{name.replace(' ', '-')}-{number}"
    folder.mkdir()
    writer = WRITERS[name]
    if writer.before:
        shutil.copytree(root / writer.before, folder / writer.words[-1])
    return folder


def state(folder):
    """What lies in a folder, by names, in a form in which equal content is equal."""
    return {
        path.name: content(path)
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".")
    }


def content(path):
    """The content of an index, of codebooks, of a log, or of a file or folder as it is."""
    if (path / "manifest.json").exists():
        Bundle.open(path)
        manifest = Bundle.read_manifest(path)
        return {name: (path / name).read_bytes() for name in ("manifest.json", *manifest["files"])}
    if path.suffix == ".pt":
        return Codebooks.load(path).fingerprint
    if path.suffix == ".jsonl":
        records = map(json.loads, path.read_text().splitlines())
        return [{k: v for k, v in record.items() if k != "seconds"} for record in records]
    if path.suffix == ".npz":
        with np.load(path) as archive:
            return {name: archive[name].tobytes() for name in archive.files}
    if path.is_dir():
        return {file.name: file.read_bytes() for file in path.iterdir() if file.name != ".lock"}
    return path.read_bytes()


def in_progress(found):
    """The state without what a training run that was interrupted leaves to go on from."""
    return {n: c for n, c in found.items() if n not in ("o.checkpoint.pt", "o.log.jsonl")}


def hidden(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))
