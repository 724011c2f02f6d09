"""Copy a FAISS index of learned codes to GPUs: make a twin that GPU FAISS accepts, and clone it.

GPU FAISS behaves in ways that a reader would not guess:

- Its only product-quantizer index is IndexIVFPQ with residuals: ``by_residual = False``, a flat
  IndexPQ, FastScan and re-ranking cannot be cloned. Sharding over several GPUs drops
  ``by_residual = False`` silently, or ends the process. Twins are therefore checked here first.
- Residuals of a list whose centroid is zero are the vectors themselves. A flat index becomes
  several such lists, and all of them are probed: one list would be one block of threads per query.
- Under inner product a list's centroid only adds <query, centroid> to the scores of its items.
  `LIST_SCALE`, a power of two, keeps the ranking of the lists bit for bit and makes that term
  vanish in rounding; it can only be seen in a score of exactly zero, as about 1e-9.
- The classic implementation requires 8-bit codes. FAISS packs 4-bit codes low nibble first, so a
  byte of two neighboring codes is a code for a codebook of the 256 pairs; codes are not changed.
- The lists store arbitrary ids, so an IDMap around the index is not needed.
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

# Factor of the centroids of an IVF index in its twin.
LIST_SCALE = 2.0**-30
# Limits of classic GPU FAISS: results per query, and lists to probe.
MAX_K = 2048
MAX_NPROBE = 2048
# With some thousands of items a list is worth its lookup table of K * D multiplications.
_ITEMS_PER_LIST = 8192
_MAX_FLAT_LISTS = 512

_SUBQUANTIZERS = (1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96)
_FLOAT32_MAX = 48  # larger tables fit the shared memory only in float16
# FAISS's numbers for the ways of distributing items over shards.
_BY_ID, _BY_LIST = 1, 4


def legal_subquantizers(*, float16_tables: bool = False) -> tuple[int, ...]:
    """Return the M with kernels in classic GPU FAISS; 4-bit codes may have twice these M."""
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
    the queries of the index on the CPU: block-normalized ones, or features if it holds a
    projection, which stays on the CPU. Missing results have id -1.

    Args:
        index: An index from `index_factory`, or ``FaissEngine.index``; see `gpu_twin`. It is not
            changed, and not needed afterwards. Its ``nprobe`` is used on the GPU.
        devices: CUDA device numbers; None for device 0 alone. A number given twice gets two parts.
        shard: Whether each device gets a part of the items instead of all of them. The part
            depends on the id modulo the number of devices, or on the list if that would be uneven.
        use_cuvs: Whether to use NVIDIA cuVS, in a cuVS build, instead of FAISS's own kernels.
        float16_tables: Whether lookup tables are float16: smaller and faster, less exact.

    Returns:
        A ``faiss`` index on the devices. Its search takes k up to `MAX_K`, and raises RuntimeError
        for more. To add items, add to the original, which encodes as before, and copy it again.

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
    """Return an index on the CPU with the same items, of the kind that GPU FAISS accepts.

    A search in it returns the ids and scores of ``index``, for IVF with 8-bit codes bit for bit;
    ties are in the order of their ids. Codes are copied, in the memory of one list, not encoded.

    Its coarse quantizer is always flat, and finds the best lists instead of probably good ones.

    Args:
        index: IndexPQ or IndexIVFPQ of inner product and ``by_residual = False``, with 8-bit codes
            or an even number of 4-bit codes; also inside IDMap, linear transforms, normalization.

    Returns:
        ``faiss.IndexIVFPQ`` with ``by_residual = True``, 8-bit codes and the ids that a search in
        ``index`` returns, after the same transforms if there are any.

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
    """Refuse a twin that GPU FAISS would refuse, or would change silently.

    Args:
        twin: An index from `gpu_twin`.
        use_cuvs: Whether the twin is for cuVS, which has kernels for every M.
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
    """Return the faiss module, if it can use GPUs and, with ``use_cuvs``, cuVS."""
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
    """Return the numbers of the devices as a list, if all of them exist."""
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
    """Return the core, transforms in order, and mapped ids; valid only while ``index`` lives."""
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
    """Return ``mapping[ids]``, or ``ids`` without a mapping."""
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
    """Refuse an index that cannot have a twin, and name one that can."""
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
    """Return advice on which factory string a GPU can hold."""
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
    """Return a twin with several lists of zero centroids, filled in turn and all probed."""
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
    """Return a twin with the same lists, and centroids too short to affect a score."""
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
    """Return the centroids (nlist, D) of an IVF index whose lists inner product ranks alike."""
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
        if not isinstance(quantizer, faiss.IndexIVF):  # IVF would need a direct map
            quantizer.reconstruct(0)  # raises where reconstruct_n would end the process
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
    """Return an empty IndexIVFPQ with these lists and the leaf's codebooks, in 8-bit form."""
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
    """Return codebooks (M, 256, Ds) as they are, and (M, 16, Ds) as (M / 2, 256, 2 * Ds).

    Codeword ``low + 16 * high`` is ``low`` of the even codebook, followed by ``high`` of the odd.
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
            f"{type(transform).__name__}. Apply it yourself, and pass the index without it."
        )
    copy = faiss.LinearTransform(transform.d_in, transform.d_out, transform.have_bias)
    faiss.copy_array_to_vector(faiss.vector_to_array(transform.A), copy.A)
    faiss.copy_array_to_vector(faiss.vector_to_array(transform.b), copy.b)
    copy.is_orthonormal, copy.is_trained = transform.is_orthonormal, True
    return copy


def _shard_type(twin: Any, shards: int) -> int:
    """Return FAISS's number for sharding by id, its default, if that is about even; else by list.

    Ids that are all multiples of the number of shards would fill a single GPU. A negative id
    belongs to no shard and ends the process.
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
