"""The coarse quantizer of IVF over learned codes: the lists, and which list a code belongs to.

Lists are made by spherical k-means, by inner product, on *decoded* vectors, and items are assigned
by their decoded vectors: those are what a query is compared with. Lists made from raw embeddings
find less, because the lengths of their subvectors play no part in AQS.

Usually the index keeps codes of the centroids, not the centroids. Blocks of a centroid have lengths
from a tenth to a third, because the means of many items are short where these differ, and such
blocks have no weight in an inner product. A code gives every block the length 1 again, as AQS does:
a list is then ranked as its items are, and its score takes M table lookups instead of D products.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..._arrays import Codes, Ids, Vectors, check_vectors
from ..._optional import import_faiss
from ..._progress import Progress, silent
from ...codebooks import Codebooks
from ...errors import InvalidInputError
from ...scoring import decode
from .calls import reconstruct_n, search
from .forking import about_to_work
from .inject import Layers, layers_of, mark_trained

_POINTS_PER_LIST = 256
_MIN_POINTS_PER_LIST = 39  # fewer, and FAISS warns
_MAX_POINTS = 1 << 19
_RUN = 64
_ITERATIONS = 10
_DECODED_AT_ONCE = 1 << 16
_SEEDS = 2**31 - 1  # FAISS takes a 32-bit integer


def train_coarse_quantizer(
    index: Any,
    codes: Codes,
    codebooks: Codebooks,
    *,
    seed: int = 0,
    on_progress: Progress = silent,
) -> None:
    """Train the lists of an IVF index on (a sample of) the codes it will hold.

    Args:
        index: An empty IVF index from `index_factory`, maybe inside wrappers.
        codes: uint8, shape (n, M), n at least the number of lists.
        codebooks: The codebooks in the index.
        seed: Seed of the sample and of k-means.
        on_progress: Told the iterations of k-means done and in all.

    Raises:
        InvalidInputError: If the index has no lists or holds items already, there are fewer codes
            than lists, or the seed is no integer from 0 to 2**31 - 2.
    """
    core = _empty_ivf(index)
    runs = sample_runs(len(codes), core.nlist, seed)
    sample = np.concatenate([codes[first:last] for first, last in runs])
    centroids = make_centroids(sample, index, codebooks, seed=seed, on_progress=on_progress)
    set_centroids(index, centroids, seed=seed)


def _empty_ivf(index: Any) -> Any:
    layers = layers_of(index)
    if not layers.is_ivf:
        raise InvalidInputError(
            "the index must be IVF to have lists to train, got a flat one, which is ready for add."
        )
    if index.ntotal:
        raise InvalidInputError(
            f"the index must be empty when its lists are trained, but it holds {index.ntotal} "
            "items, which would stay in the old lists. Make a new one."
        )
    return layers.core


def sample_runs(items: int, nlist: int, seed: int) -> list[tuple[int, int]]:
    """Which of ``items`` rows the lists are made from, as ascending runs (first, after last).

    256 rows a list, but no more than 2**19 in all unless 39 a list, which FAISS wants, are more.
    Runs of 64 rows rather than single ones, since rows may have to be read from disk for this.

    Raises:
        InvalidInputError: If there are fewer items than lists, or FAISS cannot take the seed.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < _SEEDS:
        raise InvalidInputError(f"seed must be an integer from 0 to {_SEEDS - 1}, got {seed!r}.")
    check_enough(items, nlist)
    wanted = min(_POINTS_PER_LIST * nlist, max(_MAX_POINTS, _MIN_POINTS_PER_LIST * nlist))
    if items <= wanted:
        return [(0, items)]
    runs = np.random.default_rng(seed).choice(
        items // _RUN, max(1, wanted // _RUN), replace=False, shuffle=False
    )
    return [(int(run) * _RUN, (int(run) + 1) * _RUN) for run in np.sort(runs)]


def check_enough(items: int, nlist: int) -> None:
    """Refuse fewer items than lists, which are made from them, before FAISS makes room for lists.

    Raises:
        InvalidInputError: If so.
    """
    if items < nlist:
        raise InvalidInputError(
            f"IVF{nlist} needs at least {nlist} items to make its lists from, got {items}. "
            "Use fewer lists, or a string without IVF."
        )


def make_centroids(
    codes: Codes, index: Any, codebooks: Codebooks, *, seed: int = 0, on_progress: Progress = silent
) -> Vectors:
    """Spherical k-means by inner product on decoded vectors.

    Args:
        codes: uint8, shape (n, M), n at least the number of lists.
        index: The IVF index that the centroids are for; it is not changed.
        codebooks: The codebooks in the index.
        seed: Seed of k-means.
        on_progress: Called with (text, iterations done, iterations in all).

    Returns:
        float32, shape (nlist, D), of unit length. Equal codes and seeds give equal centroids, where
        the index does not hold codes of them only with the same number of threads.
    """
    layers = layers_of(index)
    if layers.coded_quantizer is not None:
        return _coded_centroids(codes, layers, codebooks, seed, on_progress)
    faiss = import_faiss()
    about_to_work()
    sample, nlist = decode(codes, codebooks), layers.core.nlist
    width = sample.shape[1]
    parameters = faiss.ClusteringParameters()
    parameters.spherical = True
    parameters.niter = 1
    parameters.seed = int(seed) + 1
    parameters.min_points_per_centroid = 1
    parameters.max_points_per_centroid = max(1, len(sample))
    clustering = faiss.Clustering(width, nlist, parameters)
    # One iteration a call: train() starts from the centroids that are there.
    assigner = faiss.IndexFlatIP(width)
    for iteration in range(_ITERATIONS):
        clustering.train(sample, assigner)
        on_progress("making lists", iteration + 1, _ITERATIONS)
    centroids: Vectors = faiss.vector_to_array(clustering.centroids).reshape(nlist, width)
    if len(sample) == nlist:
        faiss.normalize_L2(centroids)  # FAISS has then copied them as they are
    return centroids


def _coded_centroids(
    codes: Codes, layers: Layers, codebooks: Codebooks, seed: int, on_progress: Progress
) -> Vectors:
    """K-means whose centroids are codes, assigned to by the very index that will find lists.

    The sum of a list's items has, in each block, every codeword as often as an item has its code.
    The code of that sum is the same whatever its length.
    """
    nlist, M, K = layers.core.nlist, codebooks.M, codebooks.K
    rng = np.random.default_rng(seed)
    quantizer = import_faiss().clone_index(layers.coded_quantizer)
    centers = codes[np.sort(rng.choice(len(codes), nlist, replace=False))]
    for iteration in range(_ITERATIONS):
        # All items would go to the first of several lists of one code, and none to the others.
        first = np.unique(centers, axis=0, return_index=True)[1]
        repeated = np.setdiff1d(np.arange(nlist), first)
        centers[repeated] = codes[rng.choice(len(codes), len(repeated), replace=False)]
        quantizer.reset()
        quantizer.add(decode(centers, codebooks))
        lists = np.concatenate(
            [
                _nearest_lists(quantizer, decode(codes[at : at + _DECODED_AT_ONCE], codebooks))
                for at in range(0, len(codes), _DECODED_AT_ONCE)
            ]
        )
        filled = np.bincount(lists, minlength=nlist) > 0
        for m in range(M):
            counts = np.bincount(lists * K + codes[:, m], minlength=nlist * K).reshape(nlist, K)
            sums = counts.astype(np.float32) @ codebooks.codewords[m]
            best = np.argmax(sums @ codebooks.codewords[m].T, axis=1)
            centers[filled, m] = best[filled]
        on_progress("making lists", iteration + 1, _ITERATIONS)
    centroids: Vectors = decode(centers, codebooks) / np.float32(M**0.5)
    return centroids


def set_centroids(index: Any, centroids: Vectors, *, seed: int = 0) -> None:
    """Make the lists of an empty IVF index those around the centroids (nlist, D).

    Raises:
        InvalidInputError: If the index has no lists, or holds items already, or the centroids are
            malformed.
    """
    core = _empty_ivf(index)
    centroids = check_vectors(centroids, core.d, name="centroids")
    if len(centroids) != core.nlist:
        raise InvalidInputError(
            f"centroids must be one a list, {core.nlist} in all, got {len(centroids)}."
        )
    quantizer = layers_of(index).quantizer
    quantizer.reset()
    if not quantizer.is_trained:  # lists of lists
        quantizer.cp.spherical = True
        quantizer.cp.seed = int(seed) + 1
        quantizer.cp.min_points_per_centroid = 1
        quantizer.train(centroids)
    with _one_thread():  # the links of a graph depend on the order in which threads add
        quantizer.add(centroids)
    if hasattr(quantizer, "nprobe"):
        # One list at least that is not empty, so that every item finds a list of its own.
        sizes = [quantizer.get_list_size(number) for number in range(quantizer.nlist)]
        quantizer.nprobe = max(quantizer.nprobe, sizes.count(0) + 1)
    mark_trained(layers_of(index), lists=True)


def centroids_of(core: Any) -> Vectors:
    """The centroids (nlist, D) of a trained IVF index, in the order of the lists.

    Where the index holds their codes these are decoded, and have the length sqrt(M).
    """
    return _stored_centroids(import_faiss().downcast_index(core.quantizer))


def _stored_centroids(quantizer: Any) -> Vectors:
    if hasattr(quantizer, "make_direct_map"):
        quantizer = import_faiss().clone_index(quantizer)  # a direct map would be written to files
        quantizer.make_direct_map()
    return reconstruct_n(quantizer, 0, quantizer.ntotal)


def assign_lists(core: Any, codes: Codes, codebooks: Codebooks) -> Ids:
    """The list that each code belongs to: the one whose centroid its decoded vector is nearest to.

    Args:
        core: A trained IVF index.
        codes: uint8, shape (n, M).
        codebooks: The codebooks in the index.

    Returns:
        int64, shape (n,).
    """
    return _nearest_lists(import_faiss().downcast_index(core.quantizer), decode(codes, codebooks))


def _nearest_lists(quantizer: Any, x: Vectors) -> Ids:
    """The list whose centroid each vector (n, D) is nearest to, int64 (n,)."""
    lists: Ids = search(quantizer, x, 1)[1][:, 0]
    lost = np.flatnonzero(lists < 0)
    if len(lost):  # FastScan finds nothing that scores as little as anything could
        lists[lost] = np.argmax(x[lost] @ _stored_centroids(quantizer).T, axis=1)
    return lists


@contextmanager
def _one_thread() -> Iterator[None]:
    """FAISS on one thread; the setting belongs to the calling thread alone (OpenMP)."""
    faiss = import_faiss()
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
