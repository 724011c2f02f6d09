"""Hand an index over to plain FAISS: a file that takes raw vectors, with no Python of ours.

Such an index cannot divide vectors by the length of their subvectors, so it scores "raw" AQS: the
inner product of the decoded item with the query as it comes. That is what the official code ranks
by. A note beside the file says so.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..._files import atomic_file, sha256_file
from ..._optional import import_faiss
from ...codebooks import Codebooks, VectorKind
from ...errors import InvalidInputError
from .coarse import centroids_of, set_centroids
from .engine import FaissEngine
from .factory import make_index
from .grammar import FactorySpec, parse
from .inject import layers_of
from .items import Adder, batches

METRIC = (
    "raw AQS: inner product of the query with the decoded codes; subvectors of the query are not "
    "normalised"
)
GRAPH_METRIC = "squared L2 distance between the query and the decoded codes; smaller is better"


def export_index(
    out: str | Path,
    codebooks: Codebooks,
    *,
    factory: str | None = None,
    engine: FaissEngine | None = None,
    takes: VectorKind | None = None,
) -> dict[str, Any]:
    """Write ``out`` for ``faiss.read_index``, and ``out`` + ``.json``, which says what it does.

    Args:
        out: The file to write.
        codebooks: The codebooks.
        factory: Layout of an empty index; IVF then still wants ``train``.
        engine: Instead: an engine whose items are to be in the index.
        takes: What will be added and searched with: ``features`` (n, P) or ``embeddings`` (n, D).
            Features if None and the codebooks have a projection.

    Returns:
        What the note beside the file says.

    Raises:
        InvalidInputError: If features are to go in and the projection is not linear, or FAISS
            cannot represent the layout, or a layout is given beside an engine, which has its own.
    """
    if takes not in (None, "features", "embeddings"):
        raise InvalidInputError(f"takes must be 'features' or 'embeddings', got {takes!r}.")
    if engine is not None and factory is not None:
        raise InvalidInputError(
            f"factory is for an empty index, but an engine of {engine.spec} is given. "
            "Leave one of them out."
        )
    takes = takes or ("features" if codebooks.projection else "embeddings")
    spec = engine.spec if engine is not None else parse(factory or "MeCoQ", codebooks)
    spec = _placed_behind(spec, codebooks, takes)
    index = make_index(spec, codebooks)
    if engine is not None:
        _fill(index, engine)
    out = Path(out)
    with atomic_file(out) as partial:
        import_faiss().write_index(index, str(partial))
        note = {
            "format": "mecoq-index FAISS export",
            "factory": str(spec),
            "faiss": spec.faiss_string,
            "items": int(index.ntotal),
            "trained": bool(index.is_trained),
            "takes": f"{takes}, float32 (n, {index.d})",
            "metric": GRAPH_METRIC if spec.graph else METRIC,
            "fingerprint": codebooks.fingerprint,
            "sha256": sha256_file(partial),
            "train": "after read_index, train() would overwrite the codebooks: call "
            "mecoq_index.read_index instead to train",
        }
    with atomic_file(out.with_name(out.name + ".json")) as partial:
        partial.write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    return note


def _placed_behind(spec: FactorySpec, codebooks: Codebooks, takes: VectorKind) -> FactorySpec:
    if takes == "embeddings" or not codebooks.projection:
        return replace(spec, projection=False)
    if len(codebooks.projection) > 1:
        raise InvalidInputError(
            f"FAISS's transforms are linear, but the projection has {len(codebooks.projection)} "
            "layers with ReLU between them, so features cannot go in. Export for embeddings and "
            "pass codebooks.project(x), or train with --set projection=linear."
        )
    return replace(spec, projection=True)


def _fill(index: Any, engine: FaissEngine) -> None:
    """Put an engine's lists and items into an empty index of the same layout."""
    layers = layers_of(index)
    if engine.spec.nlist:
        set_centroids(index, centroids_of(engine.layers.core))
        layers.core.nprobe = engine.layers.core.nprobe
    adder = Adder(layers, engine.codebooks)
    for batch in batches(engine.layers):
        adder.add(batch.codes, batch.ids, lists=batch.places)
    adder.finish()
