"""Codebooks trained once with the recommended settings, and the embeddings that go with them.

Training takes some minutes a book on one thread. The books are kept in a cache folder outside
the repository, ``$XDG_CACHE_HOME/mecoq-index-benchmarks`` or ``~/.cache/mecoq-index-benchmarks``,
under a name made of the settings, the training data and the package's version.

K = 256 and K = 16 are trained apart, each with a projection of its own, so each has an embedding
space of its own: scores and float neighbours of one say nothing about the other. The items are the
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

import numpy as np
import numpy.typing as npt
import torch
from cifar10 import Cifar10, find_features, load

from mecoq_index import __version__
from mecoq_index._arrays import Vectors
from mecoq_index.aqs import block_normalize
from mecoq_index.codebooks import Codebooks
from mecoq_index.learn.config import TrainConfig
from mecoq_index.learn.features import FeatureViews
from mecoq_index.learn.presets import for_features
from mecoq_index.learn.trainer import train

BITS = 64
QUICK_ROWS = 6000
QUICK_EPOCHS = 1


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
    config = for_features(bits, num_codewords)
    if quick:
        config = config.replace(epochs=QUICK_EPOCHS)
    books = _train_once(cifar.source(), config)
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


def _train_once(source: FeatureViews, config: TrainConfig) -> Codebooks:
    """The codebooks of these settings from the cache, or trained into it."""
    key = json.dumps([config.to_dict(), source.fingerprint, __version__], sort_keys=True)
    name = f"K{config.num_codewords}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.pt"
    path = cache_folder() / name
    if not path.exists():
        print(f"training {path} for {config.epochs} epochs", file=sys.stderr)
        with _one_thread():
            train(source, config, out=path, device="cpu", resume=True)
    return Codebooks.load(path)


@contextmanager
def _one_thread() -> Iterator[None]:
    """The result of training depends on the number of threads in its last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
