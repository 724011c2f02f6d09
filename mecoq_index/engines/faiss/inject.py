"""Write learned codebooks into a FAISS index, and keep FAISS from overwriting them.

What FAISS does that a reader would not guess:

- ``train()`` overwrites the codebooks of an IndexPQ whether or not it is trained. A hot start with
  no iterations makes it leave them alone (`protect`). That setting, and the one for spherical
  k-means of the lists, survive ``clone_index``, but not ``write_index``, so they are set again
  after reading; the codebooks and ``by_residual`` survive both.
- ``copy_array_to_vector`` resizes its target, so a wrong size is no error but a short table that
  FAISS then reads beyond. Sizes are compared first.
- ``downcast_index`` does not keep the owning index alive. Nothing here outlives its argument.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._optional import installed_version, require
from ...codebooks import Codebooks
from ...errors import InvalidInputError, MissingDependencyError

# FAISS encodes by L2, which equals the largest inner product only for unit codewords.
_UNIT_TOLERANCE = 1e-5


@cache
def import_faiss() -> Any:
    """The faiss module; what is installed is looked at once, since every search passes here.

    Raises:
        MissingDependencyError: If FAISS is not installed, or two builds of it overwrite each other.
    """
    if all(installed_version(name) for name in ("faiss-cpu", "faiss-gpu")):
        raise MissingDependencyError(
            "faiss-cpu and faiss-gpu are both installed and have overwritten each other's files. "
            "Keep one: pip uninstall -y faiss-cpu && "
            "pip install --force-reinstall --no-deps faiss-gpu"
        )
    return require("faiss", extra="cpu", purpose="the 'faiss' engine")


def bits_per_code(codebooks: Codebooks) -> int:
    """Log2 K.

    Raises:
        InvalidInputError: If K is no power of two, which FAISS cannot hold.
    """
    nbits = codebooks.K.bit_length() - 1
    if 2**nbits != codebooks.K:
        raise InvalidInputError(
            "FAISS stores 2**nbits codewords per subquantizer, so K must be a power of two; "
            f"got K={codebooks.K}. Train with 16 or 256 codewords, or use the numpy engine."
        )
    return nbits


def pq_leaf(index: Any) -> Any:
    """The product-quantizer index inside wrappers; valid only while ``index`` lives.

    Raises:
        InvalidInputError: If there is none.
    """
    faiss = import_faiss()
    leaf = faiss.downcast_index(index)
    while isinstance(leaf, faiss.IndexIDMap):
        leaf = faiss.downcast_index(leaf.index)
    kinds = (
        faiss.IndexPQ,
        faiss.IndexIVFPQ,
        faiss.IndexPQFastScan,
        faiss.IndexIVFPQFastScan,
    )
    if not isinstance(leaf, kinds):
        raise InvalidInputError(
            f"the index must hold a product quantizer, got {type(leaf).__name__}."
        )
    return leaf


def stored_codewords(index: Any) -> npt.NDArray[np.float32]:
    """The codewords (M, K, Ds) that a FAISS index holds, as a copy."""
    faiss = import_faiss()
    pq = pq_leaf(index).pq
    centroids: npt.NDArray[np.float32] = faiss.vector_to_array(pq.centroids)
    return centroids.reshape(pq.M, pq.ksub, pq.dsub)


def inject(index: Any, codebooks: Codebooks) -> None:
    """Write the codebooks into a fresh FAISS index and protect them from ``train()``.

    A flat index is ready for ``add`` afterwards; an IVF index still wants its lists trained.

    Args:
        index: An index made by ``faiss.index_factory`` with inner product, maybe inside IDMap.
        codebooks: The codebooks; M, K and Ds must be those of the index.

    Raises:
        InvalidInputError: If the index holds no product quantizer, or one of another shape.
    """
    faiss = import_faiss()
    leaf = pq_leaf(index)
    pq = leaf.pq
    shape = (pq.M, pq.ksub, pq.dsub)
    if shape != codebooks.codewords.shape or pq.centroids.size() != codebooks.codewords.size:
        raise InvalidInputError(
            f"the codebooks must have the index's shape (M, K, Ds) = {shape}, "
            f"got {codebooks.codewords.shape}."
        )
    norms = np.linalg.norm(codebooks.codewords, axis=2)
    if np.abs(norms - 1).max() > _UNIT_TOLERANCE:
        raise InvalidInputError("codewords must have unit length within 1e-5 for FAISS's encoder.")
    faiss.copy_array_to_vector(codebooks.codewords.ravel(), pq.centroids)
    if pq.transposed_centroids.size():
        pq.sync_transposed_centroids()
    if isinstance(leaf, (faiss.IndexIVFPQ, faiss.IndexIVFPQFastScan)):
        leaf.by_residual = False
    else:
        leaf.is_trained = True
        index.is_trained = True
    protect(index)


def protect(index: Any) -> None:
    """Make ``train()`` leave the codebooks as they are.

    The k-means of the product quantizer starts from the codebooks and runs for no iteration; that
    of IVF's lists is spherical. Call it again on an index that was read from a file and is to be
    trained.
    """
    faiss = import_faiss()
    leaf = pq_leaf(index)
    leaf.pq.train_type = faiss.ProductQuantizer.Train_hot_start
    leaf.pq.cp.niter = 0
    if hasattr(leaf, "do_polysemous_training"):
        leaf.do_polysemous_training = False
    if hasattr(leaf, "nlist"):
        leaf.cp.spherical = True
