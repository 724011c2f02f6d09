"""Codebooks trained once, and the embeddings that go with those of the recommended settings.

Training takes some minutes a book on one thread. The books are kept in a cache folder outside
the repository, ``$XDG_CACHE_HOME/mecoq-index-benchmarks`` or ``~/.cache/mecoq-index-benchmarks``,
under a name made of the settings, the training data, the code, versions and the machine.

K = 256 and K = 16 are trained apart, each with a projection of its own, so each has an embedding
space of its own: scores and float neighbors of one say nothing about the other. The items are the
same ones in the same order, and so are their classes.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from cifar10 import Cifar10, find_features, load

import mecoq_index
from mecoq_index._arrays import Vectors
from mecoq_index._progress import Progress, silent
from mecoq_index.bench.environment import describe_environment
from mecoq_index.codebooks import Codebooks
from mecoq_index.data.features import FeatureViews
from mecoq_index.embed.backbones import BackboneModel
from mecoq_index.learn.checkpoint import RunPaths
from mecoq_index.learn.config import TrainConfig
from mecoq_index.learn.presets import recommended
from mecoq_index.learn.sources import PairSource
from mecoq_index.learn.trainer import fit
from mecoq_index.scoring import block_normalize

BITS = 64
QUICK_ROWS = 6000
QUICK_EPOCHS = 1
TRAINING_MODULES = ("*.py", "data/*.py", "embed/*.py", "learn/**/*.py")
TRAINING_CODE = ("trained.py", "cifar10.py", "efficientnet_lite.py", "quality_images.py")
TRAINING_PACKAGES = ("numpy", "torch", "torchvision", "pillow", "faiss-cpu")


@dataclass(frozen=True, eq=False)
class Trained:
    """Codebooks with real rows in their space.

    Attributes:
        codebooks: As trained.
        items: float32, (n, D), block-normalised embeddings of the database rows.
        item_labels: int64, (n,), their classes.
        queries: float32, (nq, D), block-normalised embeddings of held-out rows.
        query_labels: int64, (nq,), their classes.
    """

    codebooks: Codebooks
    items: Vectors
    item_labels: npt.NDArray[np.int64]
    queries: Vectors
    query_labels: npt.NDArray[np.int64]


def cache_folder() -> Path:
    """Where trained codebooks are kept; made if need be."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "mecoq-index-benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def trained(
    num_codewords: int, *, bits: int = BITS, features: Path | None = None, quick: bool = False
) -> Trained:
    """Codebooks of ``num_codewords`` codewords; exits with a message without the data.

    Args:
        num_codewords: K, 16 or 256.
        bits: Of a code.
        features: A file made by ``mecoq-index embed``; the data pack's if None.
        quick: Train on few rows for one epoch.
    """
    cifar = cifar10(features, quick=quick)
    config = recommended("views", bits, num_codewords)
    if quick:
        config = config.replace(epochs=QUICK_EPOCHS)
    books = _book(cifar.source(), config)
    return Trained(
        books,
        block_normalize(books.project(cifar.data.database), books.M),
        np.asarray(cifar.data.database_labels, np.int64),
        block_normalize(books.project(cifar.data.queries), books.M),
        np.asarray(cifar.data.query_labels, np.int64),
    )


@cache
def cifar10(features: Path | None, *, quick: bool = False) -> Cifar10:
    """The features that codebooks are trained on; few rows of them for a quick run."""
    return load(find_features(features), held_out=False, limit=QUICK_ROWS if quick else None)


def _book(source: FeatureViews, config: TrainConfig) -> Codebooks:
    # the result of training depends on the number of threads in its last bits
    with threads(1):
        return Codebooks.load(train_once(source, config, f"K{config.num_codewords}").out)


def train_once(
    source: PairSource,
    config: TrainConfig,
    kind: str,
    backbone: BackboneModel | None = None,
    on_progress: Progress = silent,
) -> RunPaths:
    """Codebooks from the cache, or trained into it; a run that was killed goes on.

    Args:
        source: The training data.
        config: Every setting.
        kind: What the name in the cache begins with.
        backbone: As in `mecoq_index.learn.trainer.fit`.
        on_progress: Likewise.
    """
    weights = None if backbone is None else backbone.weights_sha256
    name = name_of(config.to_dict(), source.fingerprint, weights)
    paths = RunPaths(cache_folder() / f"{kind}-{name}.pt")
    if not paths.out.exists():
        print(f"training {paths.out} for {config.epochs} epochs", file=sys.stderr, flush=True)
        fit(
            source,
            config,
            out=paths.out,
            backbone=backbone,
            device="cpu",
            resume=True,
            on_progress=on_progress,
        )
    return paths


def name_of(*settings: Any) -> str:
    """A short name that neither other settings, nor other code or machines would have."""
    key = json.dumps([*settings, _code()], sort_keys=True)
    return hashlib.sha256(key.encode()).hexdigest()[:16]


@cache
def _code() -> list[Any]:
    """What training and its times depend on: code, versions, machine."""
    package, here = Path(mecoq_index.__file__).parent, Path(__file__).parent
    files = [file for pattern in TRAINING_MODULES for file in package.glob(pattern)]
    files += map(here.joinpath, TRAINING_CODE)
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.name}\0".encode() + file.read_bytes())
    environment = describe_environment()
    versions = {name: environment["versions"].get(name) for name in TRAINING_PACKAGES}
    return [digest.hexdigest(), versions, environment["processor"], environment["cores"]]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let PyTorch have so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
