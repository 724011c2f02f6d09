"""Reading an index file: it is what it should be, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..._files import check_readable
from ..._optional import import_faiss
from ...codebooks import Codebooks
from ...errors import ArtifactError, InvalidInputError
from .factory import spec_of
from .grammar import FactorySpec
from .inject import holds, layers_of, protect


def open_index(path: Path, codebooks: Codebooks) -> tuple[Any, FactorySpec]:
    """The ``faiss.Index`` in a file, and what it is made of.

    Raises:
        ArtifactError: If the file is damaged, of another kind, or holds other codebooks.
    """
    path = check_readable(path)
    try:
        index = import_faiss().read_index(str(path))
        spec = spec_of(index, codebooks)
    except (RuntimeError, InvalidInputError) as exc:
        raise ArtifactError(f"{path} is no FAISS index with a product quantizer.") from exc
    _check_opened(path, index, spec, codebooks)
    protect(index)
    return index, spec


def _check_opened(path: Path, index: Any, spec: FactorySpec, codebooks: Codebooks) -> None:
    """Refuse an index that would not rank by AQS over these codebooks."""
    faiss = import_faiss()
    core = layers_of(index).core
    if not holds(index, codebooks):
        raise ArtifactError(
            f"{path} holds other codebooks than the ones given "
            f"({codebooks.fingerprint[:12]}). Search it with its own."
        )
    if spec.projection or spec.refine == "Flat":
        raise ArtifactError(
            f"{path} is {spec}, which takes vectors that the engine does not have. "
            "Search it with FAISS itself."
        )
    if core.metric_type != (faiss.METRIC_L2 if spec.graph else faiss.METRIC_INNER_PRODUCT):
        raise ArtifactError(f"{path} does not rank by inner product, so not by AQS.")
    if getattr(core, "by_residual", False):
        raise ArtifactError(
            f"{path} holds codes of residuals, so its scores are not AQS. "
            "Build it again with mecoq_index.index_factory."
        )
    if not index.is_trained:
        raise ArtifactError(f"{path} has no lists yet. Train the index before it is saved.")
