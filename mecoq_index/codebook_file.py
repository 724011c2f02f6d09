"""Codebook files: their content, and reading them and their relatives without running code.

There are two formats with the same content. ``.safetensors`` is read and written without torch;
``.pt`` is a torch file that is read with ``torch.load(weights_only=True)``, so that opening one can
never run code. Both hold:

    format      "mecoq-index codebooks"
    version     2
    codewords   float32 (M, K, Ds), every codeword of unit length
    projection  layers with weight (out, in) and bias (out,), float32, applied with ReLU in between
    normalize   whether features are divided by their length before the projection
    backbone    null, or name, weights_sha256, base_sha256, transform and weights, see `Backbone`
    statistics  null, or count, lengths and spread, see `VectorStatistics`
    report      plain values: what was measured at the end of training
    provenance  plain values: how the codebooks were made
    fingerprint SHA-256 over codewords, projection and normalize, checked by `Codebooks.load`

In a ``.pt`` file that is a dictionary. Codewords and layers are tensors, ``projection`` is a list
of dictionaries, and the weights of the backbone are a dictionary of tensors under ``state``. Other
keys are left to the writer: a training checkpoint is a codebook file with one key more. Version 1,
which is still read, had no ``normalize``, ``statistics``, ``report`` and ``base_sha256``.

In a ``.safetensors`` file everything but the tensors is one JSON text in the metadata under the
key ``mecoq_index``, together with a SHA-256 of text and tensors, see `_tensor_file`. There
``projection`` is the number of layers, and their tensors are ``projection.0.weight``,
``projection.0.bias`` and so on. ``backbone.weights`` is null, or has ``names`` in their order,
``sha256`` over all of them, and ``file``: null if the tensors are in the same file as
``backbone.<name>``, else the name of a file in the same folder. That file holds them under their
own names, and as JSON its ``format`` ("mecoq-index backbone weights") and ``version``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from . import _tensor_file
from ._array_file import load_npy
from ._files import atomic_file
from ._plain import without_infinities
from ._reading import check_readable
from ._torch_tensors import from_torch, load_torch, require_torch, to_torch
from .errors import ArtifactError, InvalidInputError

FORMAT = "mecoq-index codebooks"
FORMAT_VERSION = 2
SUFFIXES = (".safetensors", ".pt", ".pth")
"""What the name of a codebook file that is to be written must end in."""

# What using the content of a foreign file raises where it is of another kind than expected.
_MALFORMED = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)

_WEIGHTS_FORMAT = "mecoq-index backbone weights"
Array = npt.NDArray[Any]


class BackboneContent(TypedDict):
    """The backbone in a codebook file; the keys are the attributes of `Backbone`."""

    name: str
    weights_sha256: str
    base_sha256: str | None
    transform: dict[str, Any]
    state: Mapping[str, Array] | None


class Content(TypedDict):
    """A codebook file as arrays and plain values; what was read is not yet checked."""

    codewords: Array
    projection: list[tuple[Array, Array]]
    normalize: bool
    backbone: BackboneContent | None
    statistics: dict[str, Any] | None
    report: dict[str, Any]
    provenance: dict[str, Any]
    fingerprint: str | None


def check_suffix(path: str | Path) -> None:
    """Refuse a name that no codebook file can be written to.

    Raises:
        InvalidInputError: If the name ends in none of `SUFFIXES`.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise InvalidInputError(
            f"the name of a codebook file must end in .safetensors or .pt, got {Path(path).name!r}."
        )


def write(content: Content, path: Path, *, weights_file: str | None = None) -> None:
    """Write a codebook file; the name is taken when the file is whole and has been read back.

    Args:
        content: What to write.
        path: The file; one that is there is replaced.
        weights_file: For ``.safetensors``, the name of the file in the same folder, written by
            `write_weights`, that holds the backbone's weights; None puts them into this file.

    Raises:
        InvalidInputError: If the name ends in none of `SUFFIXES`.
        ArtifactError: If the file read back differs from what was to be written.
    """
    check_suffix(path)
    with atomic_file(path) as partial:
        if path.suffix.lower() == ".safetensors":
            structure, arrays = _flatten(content, weights_file)
            _tensor_file.write(partial, structure, arrays)
            again, found = _tensor_file.read(partial)
        else:
            structure, arrays = _flatten(content, None)
            require_torch("writing a .pt file")
            import torch

            # Given a path, torch would write its name into the file: equal content, other bytes.
            with partial.open("wb") as stream:
                torch.save(torch_content(content), stream)
            again, found = _flatten(_read_any(partial), None)
        if _text(again) != _text(structure) or _tensor_file.digest(found) != _tensor_file.digest(
            arrays
        ):
            raise ArtifactError(
                f"{path} was not written: read back, it differed from what was to be written."
            )


def write_weights(state: Mapping[str, Array], path: Path) -> None:
    """Write the weights of a backbone to a ``.safetensors`` file of their own."""
    with atomic_file(path) as partial:
        _tensor_file.write(partial, {"format": _WEIGHTS_FORMAT, "version": FORMAT_VERSION}, state)


def read(path: Path) -> Content:
    """Read any of the files that `Codebooks.load` names.

    Raises:
        ArtifactError: If the file is missing, damaged, foreign, of a newer version, or would have
            to run code to be read.
        MissingDependencyError: If it is a torch file and torch is not installed.
    """
    path = check_readable(path)
    with named_malformed(path):
        content = _read_any(path)
        for key in ("report", "provenance"):  # earlier releases wrote NaN into them
            content[key] = without_infinities(content[key])
        return content


@contextmanager
def named_malformed(path: Path) -> Iterator[None]:
    """Turn what a malformed codebook file leads to in the block into an error that names it.

    Raises:
        ArtifactError: If the block raises an error that such content leads to.
    """
    try:
        yield
    except InvalidInputError as exc:
        raise ArtifactError(f"{path}: {exc}") from exc
    except _MALFORMED as exc:
        raise ArtifactError(
            f"{path} is damaged: a part of the codebook file is missing, or of another kind."
        ) from exc


def _read_any(path: Path) -> Content:
    with path.open("rb") as stream:
        start = stream.read(9)
    if start.startswith(b"\x93NUMPY") or path.suffix == ".npy":
        return _bare(load_npy(path), path)
    # A .safetensors file begins with the length of a JSON object in 8 bytes.
    if start[8:] == b"{" or path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _from_torch_content(load_torch(path), path)


def _bare(codewords: Array, path: Path) -> Content:
    return {
        "codewords": codewords,
        "projection": [],
        "normalize": False,
        "backbone": None,
        "statistics": None,
        "report": {},
        "provenance": {"source": path.name},
        "fingerprint": None,
    }


def _check_version(version: object, path: Path) -> None:
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise ArtifactError(
            f"{path} has format version {version}, but this release reads up to {FORMAT_VERSION}. "
            "Upgrade mecoq-index."
        )


# Files of safetensors


def _flatten(content: Content, weights_file: str | None) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the plain values of a ``.safetensors`` file, and its tensors."""
    arrays = {"codewords": content["codewords"]}
    for i, (weight, bias) in enumerate(content["projection"]):
        arrays |= {f"projection.{i}.weight": weight, f"projection.{i}.bias": bias}
    backbone = None
    if (found := content["backbone"]) is not None:
        backbone = {key: value for key, value in found.items() if key != "state"}
        state = found["state"]
        backbone["weights"] = None
        if state is not None:
            backbone["weights"] = {
                "names": list(state),
                "sha256": _tensor_file.digest(state),
                "file": weights_file,
            }
            if weights_file is None:
                arrays |= {f"backbone.{name}": value for name, value in state.items()}
    structure = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "projection": len(content["projection"]),
        "backbone": backbone,
        **{
            key: content[key]
            for key in ("normalize", "statistics", "report", "provenance", "fingerprint")
        },
    }
    return structure, arrays


def _text(structure: Mapping[str, Any]) -> str:
    return json.dumps(structure, sort_keys=True)


def _read_safetensors(path: Path) -> Content:
    structure, arrays = _tensor_file.read(path)
    if structure["format"] != FORMAT:
        raise ArtifactError(f"{path} holds no codebooks, but {structure['format']!r}.")
    _check_version(structure["version"], path)
    backbone = structure["backbone"]
    if backbone is not None:
        weights = backbone.pop("weights")
        backbone["state"] = None if weights is None else _read_weights(weights, arrays, path)
    return {
        "codewords": arrays["codewords"],
        "projection": [
            (arrays[f"projection.{i}.weight"], arrays[f"projection.{i}.bias"])
            for i in range(structure["projection"])
        ],
        "backbone": backbone,
        "normalize": structure["normalize"],
        "statistics": structure["statistics"],
        "report": structure["report"],
        "provenance": structure["provenance"],
        "fingerprint": structure["fingerprint"],
    }


def _read_weights(
    weights: Mapping[str, Any], arrays: Mapping[str, Array], path: Path
) -> dict[str, Array]:
    """Return the weights of the backbone, from this file or the one that it names."""
    name = weights["file"]
    if name is None:
        return {key: arrays[f"backbone.{key}"] for key in weights["names"]}
    if Path(name).name != name or "\0" in name:
        raise ArtifactError(f"{path} is damaged: it names weights outside its folder, {name!r}.")
    other = path.with_name(name)
    if not os.path.lexists(other):
        raise ArtifactError(
            f"{path} needs the weights of its backbone in {other}, which does not exist. Copy both "
            "files, or save the codebooks to one file with Codebooks.save."
        )
    structure, found = _tensor_file.read(check_readable(other, links=False))
    if structure["format"] != _WEIGHTS_FORMAT:
        raise ArtifactError(f"{other} holds no weights, but {structure['format']!r}.")
    _check_version(structure["version"], other)
    if _tensor_file.digest(found) != weights["sha256"]:
        raise ArtifactError(f"{other} holds other weights than those that belong to {path.name}.")
    return {key: found[key] for key in weights["names"]}


# Files of torch


def torch_content(content: Content) -> dict[str, Any]:
    """Return the dictionary that a ``.pt`` file holds, see the head of this module."""
    backbone: dict[str, Any] | None = None
    if (found := content["backbone"]) is not None:
        backbone = dict(found)
        if found["state"] is not None:
            backbone["state"] = {name: to_torch(value) for name, value in found["state"].items()}
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        **content,
        "codewords": to_torch(content["codewords"]),
        "projection": [
            {"weight": to_torch(weight), "bias": to_torch(bias)}
            for weight, bias in content["projection"]
        ],
        "backbone": backbone,
    }


def _from_torch_content(content: Any, path: Path) -> Content:
    require_torch(f"reading {path.name}")
    import torch

    if isinstance(content, torch.Tensor):
        return _bare(from_torch(content.float()), path)
    if isinstance(content, Mapping):
        if content.get("format") == FORMAT:
            return _from_own(content, path)
        if "pq_layer._C" in content:
            return _from_official(content, path)
    raise ArtifactError(
        f"{path} holds no codebooks. It must be a file of mecoq-index, a bare (M, K, Ds) array, or "
        "an official MeCoQ model.cpt with the key 'pq_layer._C'."
    )


def _from_own(content: Mapping[str, Any], path: Path) -> Content:
    _check_version(content.get("version"), path)
    backbone: BackboneContent | None = None
    if (found := content["backbone"]) is not None:
        state = found["state"]
        if state is not None:
            state = {name: from_torch(value) for name, value in state.items()}
        backbone = {
            "name": found["name"],
            "weights_sha256": found["weights_sha256"],
            "base_sha256": found.get("base_sha256"),
            "transform": found["transform"],
            "state": state,
        }
    return {
        "codewords": from_torch(content["codewords"]),
        "projection": [
            (from_torch(layer["weight"]), from_torch(layer["bias"]))
            for layer in content["projection"]
        ],
        "normalize": content.get("normalize", False),
        "backbone": backbone,
        "statistics": content.get("statistics"),
        "report": content.get("report", {}),
        "provenance": content["provenance"],
        "fingerprint": content["fingerprint"],
    }


def _from_official(content: Mapping[str, Any], path: Path) -> Content:
    """Read a ``model.cpt``, whose codewords the official code normalizes on every use."""
    try:
        raw = from_torch(content["pq_layer._C"]).astype(np.float64)
        weight, bias = content["projection.weight"], content["projection.bias"]
        layer = (from_torch(weight.float()), from_torch(bias.float()))
    except (KeyError, AttributeError) as exc:
        raise ArtifactError(
            f"{path} looks like an official MeCoQ model, but 'projection.weight' or "
            "'projection.bias' is missing."
        ) from exc
    norms = np.linalg.norm(raw, axis=-1, keepdims=True)
    if not (np.isfinite(norms).all() and (norms > 0).all()):
        raise ArtifactError(f"{path} holds codewords of length zero or not finite.")
    found = _bare(raw / norms, path)
    return {
        **found,
        "projection": [layer],
        "provenance": {"source": path.name, "origin": "official"},
    }
