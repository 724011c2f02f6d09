"""Make FAISS indexes that hold learned codebooks, and read them back.

FAISS's own parser cannot be extended from Python, so a factory string (see `grammar`) is
translated, the index built by FAISS, and the codebooks written into it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..._files import check_readable
from ..._optional import import_faiss
from ...codebooks import Codebooks, Layer
from ...errors import ArtifactError, InvalidInputError
from .grammar import FactorySpec, parse
from .inject import bits_per_code, inject, layers_of, protect

_K_FACTOR = 10.0  # FAISS's default of 1 re-ranks nothing but what it returns anyway
EF_SEARCH = 64  # FAISS's default of 16 finds too little among so many equal codes


def index_factory(d: int, string: str, codebooks: Codebooks | str | Path) -> Any:
    """A plain ``faiss.Index`` that holds learned codebooks and ranks by AQS.

    Takes the place of ``faiss.index_factory(d, string, faiss.METRIC_INNER_PRODUCT)``. An index
    without IVF is ready for ``add``; ``train`` on it changes nothing. An IVF index wants ``train``,
    which fits its coarse quantizer by spherical k-means and leaves the codebooks alone.

    FAISS itself does not divide vectors by the length of their subvectors: pass
    ``mecoq_index.block_normalize(z, M)`` to ``train``, ``add`` and ``search``. Raw embeddings in a
    flat index give the same codes and the "raw" AQS of the official code; in an IVF index their
    lists find less. `mecoq_index.engines.faiss.coarse` makes the best lists, from codes.

    FAISS's HNSW over product quantizers ranks by L2 only. For block-normalised vectors that is the
    same ranking: a squared distance is 2 M - 2 AQS.

    Args:
        d: Width of the vectors that go in: of embeddings, D, or with ``Projection`` of features, P.
        string: For instance ``MeCoQ8x8``, ``IVF1024,MeCoQ8x8``, ``MeCoQ16x4fs,IDMap2``; see
            `mecoq_index.engines.faiss.grammar`.
        codebooks: The codebooks, or the path of their file.

    Returns:
        A ``faiss.Index`` with METRIC_INNER_PRODUCT; METRIC_L2 for HNSW.

    Raises:
        InvalidInputError: If the string cannot be read or does not fit, or d is not the width.
        ArtifactError: If the codebook file cannot be read.
        MissingDependencyError: If FAISS is not installed.
    """
    if not isinstance(codebooks, Codebooks):
        codebooks = Codebooks.load(codebooks)
    spec = parse(string, codebooks)
    _check_width(d, spec, codebooks)
    return make_index(spec, codebooks)


def _check_width(d: int, spec: FactorySpec, codebooks: Codebooks) -> None:
    if spec.projection and d != codebooks.P:
        raise InvalidInputError(
            f"d must be the width of features, P={codebooks.P}, behind 'Projection', got {d}."
        )
    if not spec.projection and d != codebooks.D:
        hint = ""
        if d == codebooks.P:
            hint = (
                " That is the width of features: embed them first, with codebooks.project(x), or "
                f"put a linear projection into the index: 'Projection,{spec}'."
            )
        raise InvalidInputError(
            f"d must be the width of embeddings, D={codebooks.D}, got {d}.{hint}"
        )


def make_index(spec: FactorySpec, codebooks: Codebooks) -> Any:
    """The index that a factory string means."""
    faiss = import_faiss()
    metric = faiss.METRIC_L2 if spec.graph else faiss.METRIC_INNER_PRODUCT
    inner = spec.faiss_string.removesuffix(f",{spec.id_map}") if spec.projection else None
    index = faiss.index_factory(codebooks.D, inner or spec.faiss_string, metric)
    if spec.projection:
        index = _behind_projection(index, codebooks.projection[0])
        if spec.id_map:
            index = _owning(getattr(faiss, f"Index{spec.id_map}")(index), index)
    inject(index, codebooks)
    layers = layers_of(index)
    if layers.refine is not None:
        layers.refine.k_factor = _K_FACTOR
    if layers.is_graph:
        layers.core.hnsw.efSearch = EF_SEARCH
    if layers.is_ivf:
        _search_coarse_quantizer_well(faiss.downcast_index(layers.core.quantizer))
    return index


def _behind_projection(index: Any, layer: Layer) -> Any:
    """The index with a learned affine map in front, which FAISS applies to all that goes in."""
    faiss = import_faiss()
    width, features = layer.weight.shape
    transform = faiss.LinearTransform(features, width, True)
    faiss.copy_array_to_vector(layer.weight.ravel(), transform.A)
    faiss.copy_array_to_vector(layer.bias.ravel(), transform.b)
    transform.is_trained = True
    return _owning(faiss.IndexPreTransform(transform, index), index, transform)


def _owning(wrapper: Any, *parts: Any) -> Any:
    """Give the wrapper, in C++, the parts that it was made of in Python."""
    wrapper.own_fields = True
    for part in parts:
        part.this.disown()
    return wrapper


def _search_coarse_quantizer_well(quantizer: Any) -> None:
    """Look for lists widely: a list that is not found hides all its items.

    FAISS's defaults are 16 candidates in a graph and a single list of lists.
    """
    if hasattr(quantizer, "hnsw"):
        quantizer.hnsw.efSearch = EF_SEARCH
    elif hasattr(quantizer, "nprobe"):
        quantizer.nprobe = max(1, round(quantizer.nlist**0.5))


def spec_of(index: Any, codebooks: Codebooks) -> FactorySpec:
    """What a FAISS index is made of.

    Raises:
        InvalidInputError: If there is no product quantizer at its core.
    """
    faiss = import_faiss()
    layers = layers_of(index)
    core, coarse = layers.core, ""
    if layers.is_ivf:
        quantizer = faiss.downcast_index(core.quantizer)
        if hasattr(quantizer, "hnsw"):
            coarse = f"HNSW{quantizer.hnsw.nb_neighbors(1)}"
        elif hasattr(quantizer, "nlist"):
            coarse = f"IVF{quantizer.nlist}"
    refine = ""
    if layers.refine is not None:
        refine = "MeCoQ" if len(layers.pq_holders) > 1 else "Flat"
    return FactorySpec(
        M=codebooks.M,
        nbits=bits_per_code(codebooks),
        nlist=core.nlist if layers.is_ivf else 0,
        coarse=coarse,
        graph=core.hnsw.nb_neighbors(1) if layers.is_graph else 0,
        fast_scan=layers.is_fast_scan,
        block_size=core.bbs if layers.is_fast_scan and core.bbs != 32 else 0,
        refine=refine,
        id_map="" if layers.id_map is None else type(layers.id_map).__name__.removeprefix("Index"),
        projection=layers.transform is not None,
    )


def read_index(path: str | Path) -> Any:
    """Read an index of `index_factory` from a file, with its codebooks safe from ``train()`` again.

    ``faiss.read_index`` reads it just as well, but forgets what protects the codebooks: there,
    ``train()`` on a file that was read replaces them.

    Args:
        path: A file that ``faiss.write_index`` wrote.

    Returns:
        The ``faiss.Index``.

    Raises:
        ArtifactError: If the file is missing, damaged, or holds no product quantizer.
        MissingDependencyError: If FAISS is not installed.
    """
    faiss = import_faiss()
    path = check_readable(Path(path))
    try:
        index = faiss.read_index(str(path))
        protect(index)
    except (RuntimeError, InvalidInputError) as exc:
        raise ArtifactError(f"{path} is no FAISS index with a product quantizer.") from exc
    return index
