"""Codebook files: what is in one, and reading it and its relatives without running code.

A codebook file (``.pt``) is a dictionary of tensors and plain values, read with
``torch.load(weights_only=True)``, so that opening a file can never run code:

    format      "mecoq-index codebooks"
    version     1
    codewords   float32 tensor (M, K, Ds), every codeword of unit length
    projection  list of {"weight": (out, in), "bias": (out,)} float32, applied with ReLU in between
    backbone    None, or {"name", "weights_sha256", "transform", "state"}
    provenance  plain values: how the codebooks were made
    fingerprint SHA-256 over codewords and projection, checked on load

Other keys are left to the writer: a training checkpoint is a codebook file with one key more.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ._files import UNREADABLE, atomic_file, check_readable, first_line, load_npy
from .codebooks import Backbone, Codebooks, Layer
from .errors import ArtifactError, InvalidInputError

FORMAT = "mecoq-index codebooks"
FORMAT_VERSION = 1


def to_content(codebooks: Codebooks) -> dict[str, Any]:
    """What a file of these codebooks holds, see the head of this module."""
    import torch

    def tensor(array: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.array(array))

    backbone = None
    if codebooks.backbone is not None:
        state = codebooks.backbone.state
        backbone = {
            "name": codebooks.backbone.name,
            "weights_sha256": codebooks.backbone.weights_sha256,
            "transform": dict(codebooks.backbone.transform),
            "state": None if state is None else {k: tensor(v) for k, v in state.items()},
        }
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "codewords": tensor(codebooks.codewords),
        "projection": [
            {"weight": tensor(layer.weight), "bias": tensor(layer.bias)}
            for layer in codebooks.projection
        ],
        "backbone": backbone,
        "provenance": dict(codebooks.provenance),
        "fingerprint": codebooks.fingerprint,
    }


def write(codebooks: Codebooks, path: Path) -> None:
    """Write a codebook file; one that is there is replaced only when the new one is whole."""
    import torch

    # Given a path, torch would write its name into the file: equal codebooks, other bytes.
    with atomic_file(path) as partial, partial.open("wb") as stream:
        torch.save(to_content(codebooks), stream)


def read(path: Path) -> Codebooks:
    """Read codebooks from any of the files that `Codebooks.load` names.

    Raises:
        ArtifactError: If the file is missing, damaged, foreign, of a newer version, or would have
            to run code to be read.
    """
    path = check_readable(path)
    with path.open("rb") as stream:
        is_npy = stream.read(6) == b"\x93NUMPY"
    content = load_npy(path) if is_npy or path.suffix == ".npy" else load_torch(path)
    try:
        return _from_content(content, path)
    except InvalidInputError as exc:
        raise ArtifactError(f"{path}: {exc}") from exc


def load_torch(path: Path) -> Any:
    """Read a torch file without ever running code from it.

    Raises:
        ArtifactError: If the file is damaged, is no torch file, or holds pickled objects.
    """
    import torch

    try:
        # torch warns of what it finds odd in a file; here a file is read or refused.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        raise ArtifactError(
            f"{path} is no codebook file: it is damaged, or holds Python objects that would run "
            "code when loaded, and is refused. Save tensors and plain values only."
        ) from exc
    except Exception as exc:  # a damaged pickle can make torch raise anything at all
        raise ArtifactError(
            f"{path} is no readable torch file; it is truncated, damaged or of another kind."
        ) from exc


def _from_content(content: Any, path: Path) -> Codebooks:
    import torch

    if isinstance(content, np.ndarray):
        return Codebooks(content, provenance={"source": path.name})
    if isinstance(content, torch.Tensor):
        return Codebooks(content.float().numpy(), provenance={"source": path.name})
    if isinstance(content, Mapping):
        if content.get("format") == FORMAT:
            return _from_own(content, path)
        if "pq_layer._C" in content:
            return _from_official(content, path)
    raise ArtifactError(
        f"{path} holds no codebooks. It must be a file of mecoq-index, a bare (M, K, Ds) array, or "
        "an official MeCoQ model.cpt with the key 'pq_layer._C'."
    )


def _from_own(content: Mapping[str, Any], path: Path) -> Codebooks:
    version = content.get("version")
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise ArtifactError(
            f"{path} has format version {version}, but this release reads up to {FORMAT_VERSION}. "
            "Upgrade mecoq-index."
        )
    _check_container(path)
    try:
        backbone = content["backbone"]
        if backbone is not None:
            state = backbone["state"]
            backbone = Backbone(
                name=backbone["name"],
                weights_sha256=backbone["weights_sha256"],
                transform=backbone["transform"],
                state=None if state is None else {k: v.numpy() for k, v in state.items()},
            )
        codebooks = Codebooks(
            content["codewords"].numpy(),
            projection=[
                Layer(layer["weight"].numpy(), layer["bias"].numpy())
                for layer in content["projection"]
            ],
            backbone=backbone,
            provenance=content["provenance"],
        )
        recorded = content["fingerprint"]
    except (KeyError, TypeError, AttributeError) as exc:
        raise ArtifactError(f"{path} is damaged: a part of the codebook file is missing.") from exc
    if codebooks.fingerprint != recorded:
        raise ArtifactError(
            f"{path} is damaged: codewords or projection differ from the fingerprint written with "
            "them. Restore the file from a copy."
        )
    return codebooks


def _check_container(path: Path) -> None:
    """Compare the checksums in the zip file around a codebook file, which torch does not look at.

    Raises:
        ArtifactError: If a part differs from its checksum.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except UNREADABLE as exc:
        raise ArtifactError(f"{path} is damaged: {first_line(exc)}") from exc
    if damaged is not None:
        raise ArtifactError(
            f"{path} is damaged: {damaged} in it differs from its checksum. "
            "Restore the file from a copy."
        )


def _from_official(content: Mapping[str, Any], path: Path) -> Codebooks:
    """The official code normalises its codewords whenever it reads them; so do we."""
    try:
        raw = content["pq_layer._C"].double().numpy()
        weight, bias = content["projection.weight"], content["projection.bias"]
        layer = Layer(weight.float().numpy(), bias.float().numpy())
    except (KeyError, AttributeError) as exc:
        raise ArtifactError(
            f"{path} looks like an official MeCoQ model, but 'projection.weight' or "
            "'projection.bias' is missing."
        ) from exc
    norms = np.linalg.norm(raw, axis=-1, keepdims=True)
    if not (np.isfinite(norms).all() and (norms > 0).all()):
        raise ArtifactError(f"{path} holds codewords of length zero or not finite.")
    return Codebooks(
        raw / norms, projection=[layer], provenance={"source": path.name, "origin": "official"}
    )
