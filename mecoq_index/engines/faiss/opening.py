"""Reading an index file: it is what it should be, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..._optional import import_faiss
from ...codebooks import Codebooks
from ...errors import ArtifactError, InvalidInputError
from .factory import spec_of
from .grammar import parse
from .inject import layers_of, protect
from .reading import read_checked
from .spec import FactorySpec


def open_index(path: Path, codebooks: Codebooks) -> tuple[Any, FactorySpec]:
    """The ``faiss.Index`` in a file, and what it is made of.

    Raises:
        ArtifactError: If the file is damaged, of another kind, or holds other codebooks.
    """
    index = read_checked(path, codebooks=codebooks)
    spec = spec_of(index, codebooks)
    _check_opened(path, index, spec, codebooks)
    protect(index)
    return index, spec


def _check_opened(path: Path, index: Any, spec: FactorySpec, codebooks: Codebooks) -> None:
    """Refuse an index that would not rank by AQS over these codebooks."""
    faiss = import_faiss()
    core = layers_of(index).core
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
    try:
        parse(str(spec), codebooks)
    except InvalidInputError as exc:  # FAISS builds layouts that it cannot search
        raise ArtifactError(f"{path} cannot be searched. {exc}") from exc
