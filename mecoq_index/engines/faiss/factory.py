"""Make FAISS indexes that hold learned codebooks, and read them back.

FAISS's own parser cannot be extended from Python. A factory string (see `grammar`) is therefore
translated, FAISS builds the index, and the codebooks are written into it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ..._optional import import_faiss
from ...codebooks import Codebooks
from ...errors import InvalidInputError
from .grammar import parse
from .inject import bits_per_code, inject, layers_of, protect
from .reading import read_checked
from .spec import FactorySpec

if TYPE_CHECKING:
    from faiss import Index, IOReader

_K_FACTOR = 10.0  # with FAISS's default of 1, only the results themselves are ranked again
EF_SEARCH = 64  # FAISS's default of 16 finds too little among so many equal codes


def index_factory(
    d: int, string: str, codebooks: Codebooks | str | Path, metric: int | None = None
) -> Index:
    """Make a plain ``faiss.Index`` that holds learned codebooks and ranks by AQS.

    Replaces ``faiss.index_factory(d, string, faiss.METRIC_INNER_PRODUCT)``. An index without IVF
    is ready for ``add``; ``train`` changes nothing. An IVF index must be trained: ``train`` fits
    its coarse quantizer by spherical k-means and leaves the codebooks alone.

    FAISS does not divide vectors by the length of their subvectors: pass
    ``mecoq_index.block_normalize(z, M)`` to ``train``, ``add`` and ``search``. With raw embeddings
    a flat index makes the same codes and ranks by the "raw" AQS of the official code, but an IVF
    index finds less. `mecoq_index.engines.faiss.coarse` makes the best lists, from codes. FAISS's
    own ``add`` leaves out vectors of zeros where a FastScan of centroids' codes finds the lists.

    FAISS's HNSW over product quantizers ranks by L2 only. For block-normalized vectors the ranking
    is the same: a squared distance is 2 M - 2 AQS.

    Args:
        d: Width of the vectors that go in: D for embeddings, P for features with ``Projection``.
        string: For instance ``MeCoQ8x8``, ``IVF1024,MeCoQ8x8``, ``MeCoQ16x4fs,IDMap2``; see
            `mecoq_index.engines.faiss.grammar`.
        codebooks: The codebooks, or the path of their file.
        metric: The metric of the index, which may be left out: ``faiss.METRIC_INNER_PRODUCT``, or
            ``faiss.METRIC_L2`` for HNSW. Others are refused.

    Returns:
        A ``faiss.Index`` with METRIC_INNER_PRODUCT; METRIC_L2 for HNSW.

    Raises:
        InvalidInputError: If the string cannot be read or does not fit, d is not the width, or
            metric is not that of the index.
        ArtifactError: If the codebook file cannot be read.
        MissingDependencyError: If FAISS is not installed.
    """
    if not isinstance(codebooks, Codebooks):
        codebooks = Codebooks.load(codebooks)
    spec = parse(string, codebooks)
    _check_width(d, spec, codebooks)
    _check_metric(metric, spec)
    index: Index = make_index(spec, codebooks)
    return index


def _check_width(d: int, spec: FactorySpec, codebooks: Codebooks) -> None:
    if isinstance(d, bool) or not isinstance(d, (int, np.integer)):
        raise InvalidInputError(
            f"d, the width of vectors, must be an integer, got {d!r}. The width of these "
            f"codebooks' embeddings is D={codebooks.D}."
        )
    if spec.projection and d != codebooks.P:
        raise InvalidInputError(
            f"d must be the width of features, P={codebooks.P}, with 'Projection', got {d}."
        )
    if not spec.projection and d != codebooks.D:
        hint = ""
        if d == codebooks.P:
            hint = " That is the width of features: embed them first, with codebooks.embed(x)"
            linear = len(codebooks.projection) == 1
            hint += f", or put the projection into the index: 'Projection,{spec}'." * linear or "."
        raise InvalidInputError(
            f"d must be the width of embeddings, D={codebooks.D}, got {d}.{hint}"
        )


def _check_metric(metric: int | None, spec: FactorySpec) -> None:
    faiss = import_faiss()
    wanted = "METRIC_L2" if spec.graph else "METRIC_INNER_PRODUCT"
    if metric is None or metric == getattr(faiss, wanted):
        return
    names = {getattr(faiss, name): name for name in dir(faiss) if name.startswith("METRIC_")}
    got = names.get(metric, repr(metric)) if isinstance(metric, int) else repr(metric)
    reason = (
        "FAISS's graphs over product quantizers rank by L2 only; for block-normalized vectors a "
        "distance is 2 M - 2 AQS"
        if spec.graph
        else "learned codes rank by AQS, which is an inner product"
    )
    raise InvalidInputError(
        f"metric must be faiss.{wanted} for {str(spec)!r}, got {got}: {reason}. Leave metric out."
    )


def make_index(spec: FactorySpec, codebooks: Codebooks) -> Any:
    """Return a new, empty index as described by ``spec``.

    Raises:
        InvalidInputError: If there is too little memory for it.
    """
    faiss = import_faiss()
    metric = faiss.METRIC_L2 if spec.graph else faiss.METRIC_INNER_PRODUCT
    inner = spec.faiss_string.removesuffix(f",{spec.id_map}") if spec.projection else None
    try:
        index = faiss.index_factory(codebooks.D, inner or spec.faiss_string, metric)
    except MemoryError as exc:
        raise InvalidInputError(
            f"an empty index {str(spec)!r} does not fit into memory. Use fewer lists."
        ) from exc
    if spec.projection:
        index = _with_projection(index, codebooks)
        if spec.id_map:
            index = _owning(getattr(faiss, f"Index{spec.id_map}")(index), index)
    inject(index, codebooks)
    layers = layers_of(index)
    if layers.refine is not None:
        layers.refine.k_factor = _K_FACTOR
    if layers.is_graph:
        layers.core.hnsw.efSearch = EF_SEARCH
    if layers.is_ivf:
        _search_coarse_quantizer_well(layers.quantizer)
    return index


def _with_projection(index: Any, codebooks: Codebooks) -> Any:
    """Put the learned affine map before an index; FAISS applies it to all vectors that go in.

    Features are divided by their lengths first if the codebooks say so.
    """
    faiss = import_faiss()
    layer = codebooks.projection[0]
    width, features = layer.weight.shape
    transform = faiss.LinearTransform(features, width, True)
    faiss.copy_array_to_vector(layer.weight.ravel(), transform.A)
    faiss.copy_array_to_vector(layer.bias.ravel(), transform.b)
    transform.is_trained = True
    chain = _owning(faiss.IndexPreTransform(transform, index), index, transform)
    if codebooks.normalize:
        unit = faiss.NormalizationTransform(features, 2.0)
        chain.prepend_transform(unit)
        _owning(chain, unit)
    return chain


def _owning(wrapper: Any, *parts: Any) -> Any:
    """Hand the parts of a wrapper, made in Python, over to the wrapper in C++; return it."""
    wrapper.own_fields = True
    for part in parts:
        part.this.disown()
    return wrapper


def _search_coarse_quantizer_well(quantizer: Any) -> None:
    """Search for lists widely: a list that is not found hides all its items.

    FAISS's defaults are 16 candidates in a graph and a single list of lists.
    """
    if hasattr(quantizer, "hnsw"):
        quantizer.hnsw.efSearch = EF_SEARCH
    elif hasattr(quantizer, "nprobe"):
        quantizer.nprobe = max(1, round(quantizer.nlist**0.5))


def spec_of(index: Any, codebooks: Codebooks) -> FactorySpec:
    """Return the structure of a FAISS index.

    Raises:
        InvalidInputError: If there is no product quantizer at its core.
    """
    faiss = import_faiss()
    layers = layers_of(index)
    core, coarse = layers.core, ""
    if layers.is_ivf:
        quantizer = layers.quantizer
        if hasattr(quantizer, "hnsw"):
            coarse = f"HNSW{quantizer.hnsw.nb_neighbors(1)}"
        elif hasattr(quantizer, "nlist"):
            coarse = f"IVF{quantizer.nlist}"
        elif layers.coded_quantizer is None:
            coarse = "Flat"
        else:
            scanned = "fs" * isinstance(quantizer, faiss.IndexPQFastScan)
            coarse = f"MeCoQ{codebooks.M}x{bits_per_code(codebooks)}{scanned}"
    refine = ""
    if layers.refine is not None:
        refine = "MeCoQ" if len(layers.pq_holders) > 1 else "Flat"
    spec = FactorySpec(
        M=codebooks.M,
        nbits=bits_per_code(codebooks),
        nlist=core.nlist if layers.is_ivf else 0,
        graph=core.hnsw.nb_neighbors(1) if layers.is_graph else 0,
        fast_scan=layers.is_fast_scan,
        block_size=core.bbs if layers.is_fast_scan and core.bbs != 32 else 0,
        refine=refine,
        id_map="" if layers.id_map is None else type(layers.id_map).__name__.removeprefix("Index"),
        projection=layers.transform is not None,
    )
    return spec.with_coarse(coarse) if layers.is_ivf else spec


def read_index(file: str | os.PathLike[str] | BinaryIO | IOReader, io_flags: int = 0) -> Index:
    """Read an index of `index_factory`, and protect its codebooks from ``train()`` again.

    ``faiss.read_index`` reads the same files, but what protects the codebooks is not stored:
    there, ``train()`` replaces the codebooks of an index that was read. It also trusts the file,
    which is checked here first, so that a file from somebody else can do no harm.

    Args:
        file: A file that ``faiss.write_index`` wrote: its path, an open binary file, or a
            ``faiss.IOReader``; the latter two must hold nothing else, and are read into memory.
        io_flags: FAISS's flags for reading, for instance ``faiss.IO_FLAG_MMAP_IFC`` to map the
            file into memory.

    Returns:
        The ``faiss.Index``.

    Raises:
        ArtifactError: If the file is missing, damaged, not laid out as `index_factory` does, or
            does not fit into memory.
        InvalidInputError: If ``file`` is of another type.
        MissingDependencyError: If FAISS is not installed.
    """
    index: Index = read_checked(file, io_flags)
    protect(index)
    return index
