"""Export an index to plain FAISS: files that FAISS, NumPy and JSON read without this package.

=====================  =======================================================================
``OUT``                for ``faiss.read_index``
``OUT.json``           a note: what goes in, how it is scored, the digest of ``OUT``
``OUT.names.json``     names by id, if items have names
``OUT.projection.npz`` the projection of features to embeddings, if the index takes embeddings and
                       the codebooks have one
=====================  =======================================================================

A projection file holds ``format``, ``version``, ``fingerprint``, ``M``, ``normalize`` (whether
features are divided by their lengths first), ``layers``, and for each layer i the arrays
``weight{i}`` (out, in) and ``bias{i}`` (out,), float32, applied as ``x @ weight.T + bias`` with
ReLU between layers. docs/faiss.md has a reader of ten lines.

Such an index cannot divide vectors by the length of their subvectors. It scores "raw" AQS, the
inner product of the query as it comes with the decoded item, as the official code does. Queries
that are block-normalized first, with M, are scored by AQS.
"""

from __future__ import annotations

import json
from collections.abc import Sized
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..._files import atomic_file, atomic_files, check_output
from ..._reading import sha256_file
from ...codebooks import Codebooks, VectorKind
from ...errors import InvalidInputError
from .coarse import centroids_of, set_centroids
from .factory import make_index
from .grammar import parse
from .inject import layers_of
from .items import Adder, batches
from .reading import write_index
from .spec import FactorySpec

if TYPE_CHECKING:
    from .engine import FaissEngine

METRIC = (
    "raw AQS: inner product of the query with the decoded codes; subvectors of the query are not "
    "normalized"
)
GRAPH_METRIC = "squared L2 distance between the query and the decoded codes; smaller is better"
PROJECTION_FORMAT = "mecoq-index projection"

_NOTE, _NAMES, _PROJECTION = ".json", ".names.json", ".projection.npz"
_NAMES_AT_ONCE = 1 << 16


class Names(Sized, Protocol):
    """Names by id; of length 0 for items without names."""

    def __getitem__(self, id: int, /) -> str: ...


def export_index(
    out: str | Path,
    codebooks: Codebooks,
    *,
    factory: str | None = None,
    engine: FaissEngine | None = None,
    takes: VectorKind | None = None,
    names: Names | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write ``out`` for ``faiss.read_index``, and the files beside it that this module describes.

    Args:
        out: The file to write. The others have its name with a suffix appended.
        codebooks: The codebooks.
        factory: Layout of an empty index; with IVF it must still be trained.
        engine: Instead of ``factory``: an engine whose items go into the index.
        takes: Vectors to add and to search with: ``features`` (n, P) or ``embeddings`` (n, D).
            If None, features for a projection that FAISS can apply, which is a linear one;
            embeddings otherwise.
        names: Names of the engine's items by id.
        overwrite: Whether to replace an older export: its files that this one does not write are
            removed.

    Returns:
        The content of the note.

    Raises:
        InvalidInputError: If features are to go in and the projection is not linear, FAISS cannot
            represent the layout, a layout is given in addition to an engine, which has its own, or
            one of the files exists and ``overwrite`` is False.
    """
    if takes not in (None, "features", "embeddings"):
        raise InvalidInputError(f"takes must be 'features' or 'embeddings', got {takes!r}.")
    if engine is not None and factory is not None:
        raise InvalidInputError(
            f"factory is for an empty index, but an engine of {engine.spec} is given. "
            "Leave one of them out."
        )
    out = Path(out)
    check_output(out, overwrite=overwrite)
    for suffix in (_NOTE, _NAMES, _PROJECTION):
        check_output(_beside(out, suffix), overwrite=overwrite)
    takes = takes or ("features" if len(codebooks.projection) == 1 else "embeddings")
    spec = engine.spec if engine is not None else parse(factory or "MeCoQ", codebooks)
    spec = _with_projection(spec, codebooks, takes)
    index = make_index(spec, codebooks)
    if engine is not None:
        _fill(index, engine)
    called = names if engine is not None and names is not None and len(names) else None
    embeds = takes == "embeddings" and bool(codebooks.projection or codebooks.normalize)
    note = {
        "format": "mecoq-index FAISS export",
        "factory": str(spec),
        "faiss": spec.faiss_string,
        "items": int(index.ntotal),
        "trained": bool(index.is_trained),
        "takes": f"{takes}, float32 (n, {index.d})",
        "metric": GRAPH_METRIC if spec.graph else METRIC,
        "M": codebooks.M,
        "fingerprint": codebooks.fingerprint,
        "sha256": "",
        "names": None if called is None else _beside(out, _NAMES).name,
        "projection": _beside(out, _PROJECTION).name if embeds else None,
        "train": "after faiss.read_index, train() would overwrite the codebooks: to train, read "
        "the file with mecoq_index.read_index instead",
    }
    written = [_NAMES] * (called is not None) + [_PROJECTION] * embeds + [_NOTE, ""]
    with atomic_files(*(_beside(out, suffix) for suffix in written)) as partials:
        files = dict(zip(written, partials, strict=True))
        if called is not None and engine is not None:
            _write_names(files[_NAMES], called, engine.ids().tolist())
        if embeds:
            _write_projection(files[_PROJECTION], codebooks)
        write_index(index, files[""])
        note["sha256"] = sha256_file(files[""])
        files[_NOTE].write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    for suffix in {_NAMES, _PROJECTION}.difference(written):
        _beside(out, suffix).unlink(missing_ok=True)
    return note


def write_projection(path: str | Path, codebooks: Codebooks) -> None:
    """Write the projection of features to embeddings as the ``.npz`` file described above.

    Raises:
        InvalidInputError: If the folder does not exist.
    """
    with atomic_file(Path(path)) as partial:
        _write_projection(partial, codebooks)


def _write_projection(path: Path, codebooks: Codebooks) -> None:
    arrays: dict[str, Any] = {
        "format": PROJECTION_FORMAT,
        "version": 1,
        "fingerprint": codebooks.fingerprint,
        "M": codebooks.M,
        "normalize": codebooks.normalize,
        "layers": len(codebooks.projection),
    }
    for i, layer in enumerate(codebooks.projection):
        arrays |= {f"weight{i}": layer.weight, f"bias{i}": layer.bias}
    # Given a path instead of a stream, NumPy would append a suffix to it.
    with path.open("wb") as stream:
        np.savez(stream, **arrays)


def _beside(out: Path, suffix: str) -> Path:
    return out.with_name(out.name + suffix)


def _write_names(path: Path, names: Names, ids: list[int]) -> None:
    """Write a JSON object of names by id, an entry a line."""
    with path.open("w", encoding="ascii") as stream:
        for at in range(0, len(ids), _NAMES_AT_ONCE):
            part = {str(i): names[i] for i in ids[at : at + _NAMES_AT_ONCE]}
            stream.write(",\n" if at else "{\n")
            stream.write(json.dumps(part, indent=0)[2:-2])
        stream.write("\n}\n" if ids else "{}\n")


def _with_projection(spec: FactorySpec, codebooks: Codebooks, takes: VectorKind) -> FactorySpec:
    """Put the projection into the layout if features go in."""
    if takes == "embeddings" or not codebooks.projection:
        return replace(spec, projection=False)
    if len(codebooks.projection) > 1:
        raise InvalidInputError(
            f"FAISS's transforms are linear, but the projection has {len(codebooks.projection)} "
            "layers with ReLU between them, so features cannot go in. Export for embeddings, with "
            "the projection in a file beside the index, or train with --set projection=linear."
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
