"""CIFAR-10 as images, from the archive in the data folder beside the repository."""

from __future__ import annotations

import io
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from cifar10 import HELD_OUT
from trained import cache_folder

from common import DATA
from mecoq_index._arrays import Vectors
from mecoq_index._files import atomic_file
from mecoq_index._reading import sha256_file
from mecoq_index.data.datasets import Dataset
from mecoq_index.data.images import ImageArray

ARCHIVE = DATA / "cifar10-images.tar.xz"
QUICK_ROWS, QUICK_QUERIES = 1000, 200
VERSION = 2
"""Of what is kept of the archive: change it with `_decoded`."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images to search in and to search with, in random order.

    Attributes:
        database: The images to train on and to search in.
        queries: The images to search with.
        database_labels: int64, (n,), their classes; they serve for measuring only.
        query_labels: int64, (nq,).
    """

    database: ImageArray
    queries: ImageArray
    database_labels: npt.NDArray[np.int64]
    query_labels: npt.NDArray[np.int64]

    def dataset(self, database: Vectors, queries: Vectors) -> Dataset:
        """The same with vectors (n, P) and (nq, P) in the place of images."""
        return Dataset("cifar10", database, queries, self.database_labels, self.query_labels)


def load_split(*, held_out: bool, quick: bool) -> Split:
    """CIFAR-10, or 2,000 random database images as queries and the rest of them as database."""
    with np.load(_decoded()) as archive:
        pixels, labels, is_test = archive["pixels"], archive["labels"], archive["is_test"]
    order = np.random.default_rng(0).permutation(np.flatnonzero(~is_test))
    if held_out:
        queries, rows = order[:HELD_OUT], order[HELD_OUT:]
    else:
        queries, rows = np.random.default_rng(1).permutation(np.flatnonzero(is_test)), order
    if quick:
        queries, rows = queries[:QUICK_QUERIES], rows[:QUICK_ROWS]
    return Split(
        ImageArray(pixels[rows]), ImageArray(pixels[queries]), labels[rows], labels[queries]
    )


def _decoded() -> Path:
    """The archive's images in one file; its 60,000 files never reach the disk."""
    path = cache_folder() / f"cifar10-images-{sha256_file(ARCHIVE)[:12]}-{VERSION}.npz"
    if path.exists():
        return path
    print(f"decoding {ARCHIVE.name}", file=sys.stderr, flush=True)
    from PIL import Image

    images: dict[str, npt.NDArray[np.uint8]] = {}
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.name.endswith(".jpg") else None
            if stream is not None:
                with Image.open(io.BytesIO(stream.read())) as image:
                    images[member.name.removeprefix("./")] = np.asarray(image.convert("RGB"))
    names = sorted(images)
    parts = [name.split("/") for name in names]
    classes = sorted({part[-2] for part in parts})
    found = len(classes), *(sum(part[-3] == half for part in parts) for half in ("train", "test"))
    if found != (10, 50_000, 10_000):
        raise RuntimeError(
            f"{ARCHIVE.name} must hold 10 classes, 50,000 train and 10,000 test images, got {found}"
        )
    with atomic_file(path) as partial, partial.open("wb") as stream:
        np.savez(
            stream,
            pixels=np.stack([images[name] for name in names]),
            labels=np.array([classes.index(part[-2]) for part in parts], np.int64),
            is_test=np.array([part[-3] == "test" for part in parts]),
        )
    return path
