"""The coarse quantizer of IVF over learned codes.

Lists are made by spherical k-means, by inner product, on *decoded* vectors, and items are assigned
by their decoded vectors: those are what a query is compared with. Lists made from raw embeddings
are nearly useless, because the lengths of their subvectors play no part in AQS.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..._arrays import Codes
from ...aqs import decode
from ...codebooks import Codebooks
from ...errors import InvalidInputError
from .inject import import_faiss, pq_leaf

_POINTS_PER_LIST = 256
_ITERATIONS = 10
_SEEDS = 2**31 - 1  # FAISS takes a 32-bit integer


def train_coarse_quantizer(
    index: Any, codes: Codes, codebooks: Codebooks, *, seed: int = 0
) -> None:
    """Train the lists of an IVF index on (a sample of) the codes it will hold.

    Args:
        index: An empty IVF index from `index_factory`, maybe inside IDMap; its quantizer must be
            flat.
        codes: uint8, shape (n, M), n at least the number of lists.
        codebooks: The codebooks in the index.
        seed: Seed of the sample and of k-means.

    Raises:
        InvalidInputError: If the index has no lists or holds items already, there are fewer codes
            than lists, or the seed is no integer from 0 to 2**31 - 2.
    """
    faiss = import_faiss()
    ivf = pq_leaf(index)
    if not hasattr(ivf, "nlist"):
        raise InvalidInputError(
            "the index must be IVF to have lists to train, got a flat one, which is ready for add."
        )
    if index.ntotal:
        raise InvalidInputError(
            f"the index must be empty when its lists are trained, but it holds {index.ntotal} "
            "items, which would stay in the old lists. Make a new one."
        )
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < _SEEDS:
        raise InvalidInputError(f"seed must be an integer from 0 to {_SEEDS - 1}, got {seed!r}.")
    if len(codes) < ivf.nlist:
        raise InvalidInputError(
            f"IVF{ivf.nlist} needs at least {ivf.nlist} items to make its lists from, got "
            f"{len(codes)}. Use fewer lists, or a string without IVF."
        )
    rng = np.random.default_rng(seed)
    size = min(len(codes), _POINTS_PER_LIST * ivf.nlist)
    sample = decode(codes[rng.choice(len(codes), size, replace=False)], codebooks)
    kmeans = faiss.Kmeans(
        codebooks.D,
        ivf.nlist,
        niter=_ITERATIONS,
        spherical=True,
        seed=int(seed) + 1,
        min_points_per_centroid=1,
        max_points_per_centroid=_POINTS_PER_LIST,
    )
    kmeans.train(sample)
    ivf.quantizer.reset()
    ivf.quantizer.add(kmeans.centroids)
    ivf.is_trained = True
    index.is_trained = True
