"""A FAISS index of learned codes on GPUs: first a twin that GPU FAISS accepts, then its clone.

What GPU FAISS does that a reader would not guess:

- It knows one product-quantizer index, IndexIVFPQ with residuals: ``by_residual = False``, a flat
  IndexPQ, FastScan and re-ranking cannot be cloned. Sharding over several GPUs drops
  ``by_residual = False`` without a word, and throws inside an OpenMP loop, which can end the
  process. So a twin is checked here, before FAISS sees it.
- Residuals of a list whose centroid is zero are the vectors themselves. A flat index becomes
  several such lists, all of them probed: one list would be one block of threads per query.
- Under inner product a list's centroid only adds <query, centroid> to the scores of its items.
  `LIST_SCALE`, a power of two, leaves the ranking of the lists bit for bit as it was and makes
  that term vanish in rounding; only a score that is exactly zero can show it, by about 1e-9.
- The classic implementation wants 8-bit codes. FAISS packs 4-bit codes low nibble first, so a byte
  of two neighbouring codes is one code of a codebook of the 256 pairs; no code is touched.
- The lists store ids of one's own, so an IDMap around the index has no work left.
- ``use_cuvs`` is always set: its default differs from build to build, and
  ``faiss.should_use_cuvs()`` ends the process where there is no GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._arrays import Codes, Ids
from ..._optional import import_faiss
from ...errors import InvalidInputError, MissingDependencyError
from .calls import reconstruct_n
from .inject import stored_codewords

# What the centroids of an IVF index are multiplied by in its twin.
LIST_SCALE = 2.0**-30
# Results per query, and lists, that classic GPU FAISS can select from.
MAX_K = 2048
MAX_NPROBE = 2048
# A list pays for its lookup table, K * D multiplications, once it holds some thousands of items.
_ITEMS_PER_LIST = 8192
_MAX_FLAT_LISTS = 512

_SUBQUANTIZERS = (1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96)
_FLOAT32_MAX = 48  # larger tables fit the shared memory only in float16
# FAISS's numbers for how items are dealt out to shards.
_BY_ID, _BY_LIST = 1, 4


def legal_subquantizers(*, float16_tables: bool = False) -> tuple[int, ...]:
    """The M that classic GPU FAISS has kernels for; 4-bit codes may have twice these M."""
    return tuple(M for M in _SUBQUANTIZERS if float16_tables or M <= _FLOAT32_MAX)


def to_gpu(
    index: Any,
    devices: Sequence[int] | None = None,
    *,
    shard: bool = False,
    use_cuvs: bool = False,
    float16_tables: bool = False,
) -> Any:
    """Copy an index of learned codes to one GPU or several.

    Scores are AQS, exact up to float32 rounding (float16 rounding with ``float16_tables``), for
    queries as the index takes them on the CPU: block-normalised, or features if it holds a
    projection, which stays on the CPU. Missing results have id -1.

    Args:
        index: An index from `index_factory`, or ``FaissEngine.index``; see `gpu_twin`. Not changed,
            and not needed afterwards. Its ``nprobe`` holds on the GPU.
        devices: CUDA device numbers; None for device 0 alone. A number given twice gets two parts.
        shard: Whether each device gets a part of the items, rather than all of them. Items are
            dealt out by id modulo the number of devices, or by list where that would be uneven.
        use_cuvs: Whether to use NVIDIA cuVS, in a cuVS build, instead of FAISS's own kernels.
        float16_tables: Whether lookup tables are float16: smaller and faster, less exact.

    Returns:
        A ``faiss`` index on the devices. Its search takes k up to `MAX_K`, and raises RuntimeError
        for more. Add to the original and copy it again: cuVS would encode differently, and the
        lists of a flat index would not stay even.

    Raises:
        InvalidInputError: If the index has no twin (see `gpu_twin`), its M has no kernel, nprobe is
            above `MAX_NPROBE`, or a device does not exist.
        MissingDependencyError: If FAISS is missing or was built without GPUs or without cuVS.
    """
    faiss = _gpu_faiss(use_cuvs)
    places = _check_devices(devices, faiss.get_num_gpus())
    twin = gpu_twin(index)
    check_twin(twin, use_cuvs=use_cuvs, float16_tables=float16_tables)
    options = faiss.GpuMultipleClonerOptions()
    options.use_cuvs = use_cuvs
    options.useFloat16 = float16_tables
    options.useFloat16CoarseQuantizer = False  # the scaled centroids would be zero
    options.usePrecomputed = False
    options.shard = shard
    options.shard_type = _shard_type(twin, len(places))
    resources = [faiss.StandardGpuResources() for _ in places]
    clone = faiss.index_cpu_to_gpu_multiple_py(resources, twin, options, places)
    # The clone shares their memory in C++; this keeps the Python objects for as long.
    clone.referenced_objects = resources
    return clone


def gpu_twin(index: Any) -> Any:
    """The same items in an index on the CPU of the form that GPU FAISS accepts.

    Its search gives the ids and scores of ``index``, those of IVF with 8-bit codes bit for bit;
    ties come in the order of the ids. Codes are copied, never encoded again; beside the twin and
    the ids of an IDMap this needs the memory of one list.

    A GPU's coarse quantizer is flat: the centroids of another one (a graph, two levels) are read
    out into a flat one, which finds the same lists, but always the best ones.

    Args:
        index: IndexPQ or IndexIVFPQ of inner product and ``by_residual = False``, with 8-bit codes
            or an even number of 4-bit codes, maybe inside IDMap and behind linear transforms.

    Returns:
        ``faiss.IndexIVFPQ`` with ``by_residual = True``, 8-bit codes and the ids that a search of
        ``index`` returns, behind the same transforms if there are any.

    Raises:
        InvalidInputError: If ``index`` is of another kind, untrained, or its centroids unreadable.
        MissingDependencyError: If FAISS is not installed.
    """
    faiss = import_faiss()
    leaf, transforms, ids = _unwrap(index)
    _check_leaf(leaf)
    twin = (_flat_twin if isinstance(leaf, faiss.IndexPQ) else _ivf_twin)(leaf, ids)
    if not transforms:
        return twin
    chain = faiss.IndexPreTransform(twin)
    for transform in reversed(transforms):
        chain.prepend_transform(_copy_transform(transform))
    return chain


def check_twin(twin: Any, *, use_cuvs: bool = False, float16_tables: bool = False) -> None:
    """Refuse a twin that GPU FAISS would refuse, or would change without a word.

    Args:
        twin: An index from `gpu_twin`.
        use_cuvs: Whether it is for cuVS, which has kernels for every M.
        float16_tables: Whether lookup tables are float16.

    Raises:
        InvalidInputError: If it is no such index, M has no kernel, or nprobe is above `MAX_NPROBE`.
    """
    faiss = import_faiss()
    ivf = _unwrap(twin)[0]
    accepted = type(ivf) is faiss.IndexIVFPQ and ivf.by_residual and ivf.pq.nbits == 8
    if not accepted or ivf.polysemous_ht:
        raise InvalidInputError(
            "a GPU takes an IndexIVFPQ of 8-bit codes, by_residual=True and not polysemous, got "
            f"{type(ivf).__name__} with by_residual={getattr(ivf, 'by_residual', None)}. "
            "Make one with gpu_twin(index)."
        )
    legal = legal_subquantizers(float16_tables=float16_tables)
    if not use_cuvs and ivf.pq.M not in legal:
        raise InvalidInputError(
            f"GPU FAISS has kernels for M in {legal}, and with float16_tables=True 56, 64 and 96, "
            f"counting two 4-bit subquantizers as one, got {ivf.pq.M}. Train with one of these, "
            "use a cuVS build with use_cuvs=True, or search on the CPU."
        )
    if ivf.nprobe > MAX_NPROBE:
        raise InvalidInputError(
            f"nprobe must be at most {MAX_NPROBE} on a GPU, got {ivf.nprobe}. Lower it first."
        )


def _gpu_faiss(use_cuvs: bool) -> Any:
    """The faiss module, if it can use GPUs and, when asked for, cuVS."""
    faiss = import_faiss()
    if not hasattr(faiss, "StandardGpuResources"):
        raise MissingDependencyError(
            "to_gpu needs FAISS with GPU support, but the installed build has none. Replace it: "
            "pip uninstall -y faiss-cpu && pip install 'mecoq-index[gpu]'"
        )
    if use_cuvs and "CUVS" not in faiss.get_compile_options().upper():
        raise MissingDependencyError(
            "use_cuvs=True needs FAISS built with NVIDIA cuVS, but the installed build is without. "
            "Install faiss-gpu-cuvs from conda, or leave use_cuvs out."
        )
    return faiss


def _check_devices(devices: Sequence[int] | None, available: int) -> list[int]:
    """The devices as a list of existing numbers."""
    if not available:
        raise InvalidInputError(
            "to_gpu needs a CUDA GPU, but FAISS sees none. Check nvidia-smi and "
            "CUDA_VISIBLE_DEVICES, or search the index on the CPU."
        )
    places = [0] if devices is None else list(devices)
    if not places or not all(place in range(available) for place in places):
        raise InvalidInputError(
            f"devices must be one or more integers from 0 to {available - 1}, got {places}."
        )
    return [int(place) for place in places]


def _unwrap(index: Any) -> tuple[Any, list[Any], Ids | None]:
    """What wrappers hold, their transforms in order, and ids, if mapped; all die with ``index``."""
    faiss = import_faiss()
    transforms: list[Any] = []
    ids: Ids | None = None
    leaf = faiss.downcast_index(index)
    while isinstance(leaf, (faiss.IndexIDMap, faiss.IndexPreTransform)):
        if isinstance(leaf, faiss.IndexIDMap):
            ids = _map_ids(ids, faiss.vector_to_array(leaf.id_map))
        else:
            steps = (leaf.chain.at(i) for i in range(leaf.chain.size()))
            transforms += map(faiss.downcast_VectorTransform, steps)
        leaf = faiss.downcast_index(leaf.index)
    return leaf, transforms, ids


def _map_ids(mapping: Ids | None, ids: Ids) -> Ids:
    """``mapping[ids]``, or the ids themselves without a mapping."""
    if mapping is None or not len(ids):
        return ids
    if ids.min() < 0 or ids.max() >= len(mapping):
        raise InvalidInputError(
            f"the ids inside IDMap must be from 0 to {len(mapping) - 1}, got {ids.min()} to "
            f"{ids.max()}. Build the index again: FAISS cannot remove items of IVF inside IDMap."
        )
    mapped: Ids = mapping[ids]
    return mapped


def _check_leaf(leaf: Any) -> None:
    """Refuse an index that has no twin, and name one that has."""
    faiss = import_faiss()
    if type(leaf) not in (faiss.IndexPQ, faiss.IndexIVFPQ):
        raise InvalidInputError(
            f"a GPU can hold IndexPQ and IndexIVFPQ, got {type(leaf).__name__}. {_instead(leaf)}"
        )
    build, pq = "Build it with mecoq_index.index_factory.", leaf.pq
    retrain = "or search on the CPU, which takes any."
    if leaf.metric_type != faiss.METRIC_INNER_PRODUCT:
        problem = f"rank by inner product, got metric_type={leaf.metric_type}. {build}"
    elif getattr(leaf, "by_residual", False):
        problem = f"hold learned codes, by_residual=False, got by_residual=True. {build}"
    elif not leaf.is_trained:
        problem = "have its lists, got an untrained one. Train it first."
    elif pq.nbits not in (4, 8):
        problem = f"have 16 or 256 codewords a codebook, got {pq.ksub}. Train with these, {retrain}"
    elif pq.nbits == 4 and pq.M % 2:
        problem = f"pair its 4-bit codes to bytes, got M={pq.M}. Train with an even M, {retrain}"
    else:
        return
    raise InvalidInputError(f"the index must {problem}")


def _instead(leaf: Any) -> str:
    """Which factory string to use in place of a kind of index that no GPU holds."""
    faiss = import_faiss()
    if isinstance(leaf, (faiss.IndexPQFastScan, faiss.IndexIVFPQFastScan)):
        string = f"MeCoQ{leaf.pq.M}x{leaf.pq.nbits}"
        string = f"IVF{leaf.nlist},{string}" if hasattr(leaf, "nlist") else string
        return f"FastScan is for CPUs: build {string!r} instead."
    if isinstance(leaf, faiss.IndexRefine):
        return "Re-ranking stays on the CPU: build the index without it, for instance 'MeCoQ8x8'."
    if isinstance(leaf, faiss.IndexHNSW):
        return "A graph stays on the CPU: build 'IVF1024,MeCoQ8x8' instead."
    return "Build it with mecoq_index.index_factory, for instance 'MeCoQ8x8'."


def _flat_twin(leaf: Any, ids: Ids | None) -> Any:
    """Lists with a zero centroid, filled in turn, all of them probed."""
    faiss = import_faiss()
    n, width = leaf.ntotal, leaf.code_size
    nlist = min(_MAX_FLAT_LISTS, max(1, -(-n // _ITEMS_PER_LIST)))
    twin = _empty_twin(leaf, np.zeros((nlist, leaf.d), np.float32))
    twin.nprobe = nlist
    if not n:
        return twin
    # A view of FAISS's memory; vector_to_array would copy all codes at once.
    codes = faiss.rev_swig_ptr(leaf.codes.data(), n * width).reshape(n, width)
    for number in range(nlist):
        rows = np.arange(number, n, nlist, dtype=np.int64)
        _add_entries(twin, number, _map_ids(ids, rows), codes[number::nlist])
    return twin


def _ivf_twin(leaf: Any, ids: Ids | None) -> Any:
    """The same lists, with centroids too short to show in a score."""
    faiss = import_faiss()
    twin = _empty_twin(leaf, _centroids(leaf) * np.float32(LIST_SCALE))
    twin.nprobe = leaf.nprobe
    lists, width = leaf.invlists, leaf.code_size
    for number in range(leaf.nlist):
        if size := lists.list_size(number):
            own = faiss.rev_swig_ptr(lists.get_ids(number), size)
            codes = faiss.rev_swig_ptr(lists.get_codes(number), size * width)
            _add_entries(twin, number, _map_ids(ids, own), codes.reshape(size, width))
    return twin


def _add_entries(twin: Any, number: int, ids: Ids, codes: Codes) -> None:
    faiss = import_faiss()
    # swig_ptr does not keep its array alive: both stay in these names.
    ids, codes = np.ascontiguousarray(ids), np.ascontiguousarray(codes)
    twin.invlists.add_entries(number, len(ids), faiss.swig_ptr(ids), faiss.swig_ptr(codes))
    twin.ntotal += len(ids)


def _centroids(leaf: Any) -> npt.NDArray[np.float32]:
    """The centroids (nlist, D) of an IVF index; inner product must rank them as it does."""
    faiss = import_faiss()
    quantizer = faiss.downcast_index(leaf.quantizer)
    kind = type(quantizer).__name__
    flat = f"Build 'IVF{leaf.nlist},MeCoQ' with mecoq_index.index_factory."
    if quantizer.ntotal != leaf.nlist:
        raise InvalidInputError(
            f"the index must have a centroid for each of its {leaf.nlist} lists, got "
            f"{quantizer.ntotal} in {kind}. Train it first."
        )
    try:
        if not isinstance(quantizer, faiss.IndexIVF):  # which would want a direct map
            quantizer.reconstruct(0)  # fails where reconstruct_n would end the process
        centroids = reconstruct_n(quantizer, 0, leaf.nlist)
    except RuntimeError as exc:
        raise InvalidInputError(
            f"a GPU needs the centroids of the lists, which FAISS cannot read out of {kind}. {flat}"
        ) from exc
    if quantizer.metric_type != faiss.METRIC_INNER_PRODUCT:
        norms = np.linalg.norm(centroids, axis=1)
        if not np.allclose(norms, norms[0], rtol=1e-4):
            raise InvalidInputError(
                f"the lists must be ranked by inner product, got {kind} of L2 with centroids of "
                f"unequal length. {flat}"
            )
    return centroids


def _empty_twin(leaf: Any, centroids: npt.NDArray[np.float32]) -> Any:
    """An IndexIVFPQ with these lists and the leaf's codebooks, in 8-bit form, but no items."""
    faiss = import_faiss()
    codewords = _eight_bit(stored_codewords(leaf))
    quantizer = faiss.IndexFlatIP(leaf.d)
    quantizer.add(centroids)
    twin = faiss.IndexIVFPQ(
        quantizer, leaf.d, len(centroids), len(codewords), 8, faiss.METRIC_INNER_PRODUCT
    )
    faiss.copy_array_to_vector(codewords.ravel(), twin.pq.centroids)
    twin.by_residual = True
    twin.do_polysemous_training = False
    # As in `inject`: train() must leave the codebooks alone.
    twin.pq.train_type = faiss.ProductQuantizer.Train_hot_start
    twin.pq.cp.niter = 0
    twin.is_trained = True
    return twin


def _eight_bit(codewords: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Codebooks (M, 256, Ds) as they are, or (M, 16, Ds) as (M / 2, 256, 2 * Ds).

    Codeword ``low + 16 * high`` is ``low`` of the even codebook in front of ``high`` of the odd.
    """
    M, K, Ds = codewords.shape
    if K == 256:
        return codewords
    pairs = np.empty((M // 2, K, K, 2 * Ds), np.float32)  # (pair, high, low, 2 * Ds)
    pairs[..., :Ds] = codewords[0::2, None]
    pairs[..., Ds:] = codewords[1::2, :, None]
    return pairs.reshape(M // 2, K * K, 2 * Ds)


def _copy_transform(transform: Any) -> Any:
    """Return a copy of a trained linear transform, or of one that divides vectors by lengths."""
    faiss = import_faiss()
    if isinstance(transform, faiss.NormalizationTransform):
        return faiss.NormalizationTransform(transform.d_in, transform.norm)
    if not isinstance(transform, faiss.LinearTransform) or not transform.is_trained:
        raise InvalidInputError(
            "a transform before the index must be a normalization or a trained linear map, got "
            f"{type(transform).__name__}. Apply it to the queries yourself, and pass the index "
            "without it."
        )
    copy = faiss.LinearTransform(transform.d_in, transform.d_out, transform.have_bias)
    faiss.copy_array_to_vector(faiss.vector_to_array(transform.A), copy.A)
    faiss.copy_array_to_vector(faiss.vector_to_array(transform.b), copy.b)
    copy.is_orthonormal, copy.is_trained = transform.is_orthonormal, True
    return copy


def _shard_type(twin: Any, shards: int) -> int:
    """By id modulo the number of shards, FAISS's default, if that is about even; else by list.

    Ids of one's own may all be multiples of something, which would fill one GPU, and a negative
    one, which belongs to no shard, ends the process.
    """
    faiss = import_faiss()
    ivf = _unwrap(twin)[0]
    counts = np.zeros(shards, np.int64)
    for number in range(ivf.nlist):
        if size := ivf.invlists.list_size(number):
            ids = faiss.rev_swig_ptr(ivf.invlists.get_ids(number), size)
            if ids.min() < 0:
                return _BY_LIST
            counts += np.bincount(ids % shards, minlength=shards)
    return _BY_ID if counts.max() <= 1.5 * counts.mean() else _BY_LIST
