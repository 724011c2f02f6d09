"""Write learned codebooks into a FAISS index, and keep FAISS from overwriting them.

FAISS behaves in ways that a reader would not guess:

- ``train()`` overwrites the codebooks of an IndexPQ even if it is trained. A hot start with no
  iterations leaves them alone (`protect`). ``clone_index`` keeps that setting and the one for
  spherical k-means of the lists; ``write_index`` does not, so both are set again after reading.
  Codebooks and ``by_residual`` are kept by both.
- ``copy_array_to_vector`` resizes its target. A wrong size therefore raises no error: it makes a
  short table, and FAISS reads past its end. Sizes are compared first.
- ``downcast_index`` does not keep the owning index alive. Nothing here outlives its argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._optional import import_faiss
from ...codebooks import Codebooks
from ...errors import InvalidInputError

# FAISS encodes by L2, which equals the largest inner product only for unit codewords.
_UNIT_TOLERANCE = 1e-5
_TRAINED_AT_THE_END = "\2"


def bits_per_code(codebooks: Codebooks) -> int:
    """Return log2 K.

    Raises:
        InvalidInputError: If K is not a power of two. FAISS cannot hold such codebooks.
    """
    nbits = codebooks.K.bit_length() - 1
    if 2**nbits != codebooks.K:
        raise InvalidInputError(
            "FAISS stores 2**nbits codewords per subquantizer, so K must be a power of two; "
            f"got K={codebooks.K}. Train with 16 or 256 codewords, or use the numpy engine."
        )
    return nbits


@dataclass(frozen=True, eq=False)
class Layers:
    """The nested indexes that make up one FAISS index; valid only while that index lives.

    Attributes:
        wrappers: The indexes around the core, outermost first.
        core: The index that holds the items: IndexPQ, IndexIVFPQ, their FastScan forms, or
            IndexHNSWPQ.
        id_map: The IndexIDMap or IndexIDMap2 among the wrappers, or None.
        refine: The IndexRefine among the wrappers, or None.
        transform: The IndexPreTransform among the wrappers, or None.
    """

    wrappers: tuple[Any, ...]
    core: Any
    id_map: Any = None
    refine: Any = None
    transform: Any = None

    @property
    def pq_holders(self) -> list[Any]:
        """All indexes with a product quantizer: the core or its storage, and one for re-ranking."""
        faiss = import_faiss()
        graph = isinstance(self.core, faiss.IndexHNSWPQ)
        holders = [faiss.downcast_index(self.core.storage) if graph else self.core]
        if self.refine is not None:
            again = faiss.downcast_index(self.refine.refine_index)
            holders += [again] if isinstance(again, faiss.IndexPQ) else []
        return holders

    @property
    def quantizer(self) -> Any:
        """The index of the centroids of lists; only for IVF."""
        return import_faiss().downcast_index(self.core.quantizer)

    @property
    def coded_quantizer(self) -> Any:
        """The index of the centroids if it holds their codes, else None."""
        faiss = import_faiss()
        if not self.is_ivf:
            return None
        quantizer = self.quantizer
        return quantizer if isinstance(quantizer, (faiss.IndexPQ, faiss.IndexPQFastScan)) else None

    @property
    def is_ivf(self) -> bool:
        """Whether the core has inverted lists."""
        return hasattr(self.core, "nlist")

    @property
    def is_fast_scan(self) -> bool:
        """Whether the core is FastScan."""
        faiss = import_faiss()
        return isinstance(self.core, (faiss.IndexPQFastScan, faiss.IndexIVFPQFastScan))

    @property
    def is_graph(self) -> bool:
        """Whether the core is an HNSW graph."""
        return isinstance(self.core, import_faiss().IndexHNSWPQ)


def layers_of(index: Any) -> Layers:
    """Look through the wrappers of a FAISS index.

    Raises:
        InvalidInputError: If there is no product quantizer at the core.
    """
    faiss = import_faiss()
    core, wrappers, found = faiss.downcast_index(index), [], {}
    inner = {
        "id_map": (faiss.IndexIDMap, "index"),
        "transform": (faiss.IndexPreTransform, "index"),
        "refine": (faiss.IndexRefine, "base_index"),
    }
    while kind := next((name for name, (cls, _) in inner.items() if isinstance(core, cls)), None):
        found[kind] = core
        wrappers.append(core)
        core = faiss.downcast_index(getattr(core, inner[kind][1]))
    kinds = (
        faiss.IndexPQ,
        faiss.IndexIVFPQ,
        faiss.IndexPQFastScan,
        faiss.IndexIVFPQFastScan,
        faiss.IndexHNSWPQ,
    )
    if not isinstance(core, kinds):
        raise InvalidInputError(
            f"the index must hold a product quantizer, got {type(core).__name__}."
        )
    return Layers(tuple(wrappers), core, **found)


def pq_leaf(index: Any) -> Any:
    """Return the index with the product quantizer; valid only while ``index`` lives.

    Raises:
        InvalidInputError: If there is no product quantizer at the core.
    """
    return layers_of(index).pq_holders[0]


def stored_codewords(index: Any) -> npt.NDArray[np.float32]:
    """Return a copy of the codewords (M, K, Ds) in a FAISS index."""
    pq = pq_leaf(index).pq
    centroids: npt.NDArray[np.float32] = import_faiss().vector_to_array(pq.centroids)
    return centroids.reshape(pq.M, pq.ksub, pq.dsub)


def inject(index: Any, codebooks: Codebooks) -> None:
    """Write the codebooks into a new FAISS index and protect them from ``train()``.

    Afterwards an index without lists is ready for ``add``. An IVF index still needs ``train()``
    for its lists.

    Args:
        index: An index made by ``faiss.index_factory``, with inner product, or L2 for HNSW.
        codebooks: The codebooks; M, K and Ds must be those of the index.

    Raises:
        InvalidInputError: If the index has no product quantizer, or one of another shape.
    """
    layers = layers_of(index)
    norms = np.linalg.norm(codebooks.codewords, axis=2)
    if np.abs(norms - 1).max() > _UNIT_TOLERANCE:
        raise InvalidInputError("codewords must have unit length within 1e-5 for FAISS's encoder.")
    for holder in (*layers.pq_holders, *filter(None, [layers.coded_quantizer])):
        _write_codewords(holder.pq, codebooks)
        if hasattr(holder, "nlist"):
            holder.by_residual = False
        else:
            holder.is_trained = True
    if layers.is_graph:
        # Building the graph takes distances between codes; FAISS makes their table in train().
        layers.pq_holders[0].pq.compute_sdc_table()
    mark_trained(layers)
    protect(index)


def _write_codewords(pq: Any, codebooks: Codebooks) -> None:
    shape = (pq.M, pq.ksub, pq.dsub)
    if shape != codebooks.codewords.shape or pq.centroids.size() != codebooks.codewords.size:
        raise InvalidInputError(
            f"the codebooks must have the index's shape (M, K, Ds) = {shape}, "
            f"got {codebooks.codewords.shape}."
        )
    import_faiss().copy_array_to_vector(codebooks.codewords.ravel(), pq.centroids)
    if pq.transposed_centroids.size():
        pq.sync_transposed_centroids()


def mark_trained(layers: Layers, *, lists: bool = False) -> None:
    """Mark the index and its wrappers as trained; with lists, only if ``lists`` is True."""
    if layers.is_ivf and not lists:
        return
    for index in (layers.core, *layers.wrappers):
        index.is_trained = True


def protect(index: Any) -> None:
    """Make ``train()`` leave the codebooks as they are.

    The k-means of the product quantizer starts from the codebooks and runs for no iteration; the
    k-means of IVF's lists is spherical. Before an index from a file is trained, protect it again,
    or read it with `mecoq_index.read_index`.
    """
    faiss = import_faiss()
    layers = layers_of(index)
    for holder in (*layers.pq_holders, *filter(None, [layers.coded_quantizer])):
        holder.pq.train_type = faiss.ProductQuantizer.Train_hot_start
        holder.pq.cp.niter = 0
        holder.pq.cp.min_points_per_centroid = 1  # or FAISS warns of too few points for nothing
        if hasattr(holder, "do_polysemous_training"):
            holder.do_polysemous_training = False
    if layers.is_ivf:
        layers.core.cp.spherical = True
    if layers.coded_quantizer is not None:
        # K-means over vectors, whose centroids are encoded at its end: FastScan gives no list to
        # some vectors, zeros for instance, and FAISS would count these outside of its memory.
        layers.core.quantizer_trains_alone = _TRAINED_AT_THE_END
