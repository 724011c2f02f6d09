"""Backbones by name: networks that map images to features.

    mecoq:small                       a small network of this package, for small images
    torchvision:<model>[:<weights>]   weights: a file, ``none``, or the model's default (downloaded)
    timm:<model>[:none]               needs the package timm
    <module>:<attribute>              anything importable that returns an nn.Module when called

The classification layer is cut off. VGG-16 keeps the rest of its classifier and gives 4096
features, as in the MeCoQ paper; ``vgg16`` is short for ``torchvision:vgg16``.

A codebook file names its backbone too. The code of a ``<module>:<attribute>`` that only a file
names is never run, and no file of weights that only a file names is read: the caller has to give
the same name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .._optional import require
from .._reading import check_readable
from .._torch_tensors import from_torch, load_torch, to_torch
from ..backbone import Backbone, check_transform
from ..errors import ArtifactError, InvalidInputError, first_line
from .small_network import SmallNetwork

_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
_HEADS = ("fc", "classifier", "heads", "head")

_NO_WEIGHTS = "none"
SMALL = "mecoq:small"
"""The name of `SmallNetwork`."""
# Names that earlier versions wrote into files.
_OLD_NAMES = {
    "mecoq_index.learn.small_network:SmallNetwork": SMALL,
    "mecoq_index.embed.small_network:SmallNetwork": SMALL,
}
_BUILT_IN: dict[str, Callable[[], nn.Module]] = {"small": SmallNetwork}

# The names of `needs_consent` that callers gave to `load_backbone` in this process.
_named_by_caller: set[str] = set()


@dataclass(frozen=True, eq=False)
class BackboneModel:
    """A network, and the images that it expects.

    Attributes:
        name: The name that it was loaded by.
        module: Maps float32 images (B, 3, H, W) to features (B, P).
        width: P.
        transform: ``resize`` (shorter side), ``crop`` (side of the central square), ``mean`` and
            ``std`` by channel, of values in [0, 1].
        weights_sha256: Digest of the weights as loaded.
        base_sha256: Digest of the weights that the name stands for; None if they were not needed.
        base_tensors: Digests of these weights one by one, by name.
    """

    name: str
    module: nn.Module
    width: int
    transform: Mapping[str, Any]
    weights_sha256: str
    base_sha256: str | None = None
    base_tensors: Mapping[str, str] = field(default_factory=dict, repr=False)


def load_backbone(name: str, *, image_size: int | None = None) -> BackboneModel:
    """Load the backbone called ``name``.

    Args:
        name: See the head of this module. The code of ``<module>:<attribute>`` is run.
        image_size: Side of the square images; the model's own if None.

    Raises:
        InvalidInputError: If the name cannot be read, or nothing of that name exists.
        ArtifactError: If the weights cannot be loaded.
        MissingDependencyError: If torchvision or timm is needed and not installed.
    """
    if not isinstance(name, str):
        raise InvalidInputError(f"backbone must be a name, got {type(name).__name__}.")
    name = _OLD_NAMES.get(name, name)
    if needs_consent(name):
        _named_by_caller.add(name)
    module, transform = _make(name, load_weights=True)
    if image_size is not None:
        transform = {**transform, "resize": image_size, "crop": image_size}
    transform = check_transform(transform, f"the backbone {name!r}")
    width = _feature_width(module, transform["crop"], name)
    digest = _digest(module)
    return BackboneModel(name, module, width, transform, digest, digest, _tensor_digests(module))


def needs_consent(name: str) -> bool:
    """Whether only a caller may name this backbone: it has code or a file of weights of its own."""
    family, _, rest = _OLD_NAMES.get(name, name).partition(":")
    if family == "torchvision":
        return rest.partition(":")[2] not in ("", _NO_WEIGHTS)
    return bool(rest) and family not in ("mecoq", "timm")


def _make(name: str, *, load_weights: bool) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network of this name, and the images that it expects."""
    family, _, rest = name.partition(":")
    if not rest:
        family, rest = "torchvision", name
    # Random weights come from a stream of their own, so they are the same every time.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if family == "torchvision":
            return _torchvision(rest, load_weights)
        if family == "timm":
            return _timm(rest, load_weights)
        if family == "mecoq":
            return _built_in(rest)
        return _importable(name, family, rest)


def _built_in(rest: str) -> tuple[nn.Module, dict[str, Any]]:
    if rest not in _BUILT_IN:
        raise InvalidInputError(
            f"unknown backbone 'mecoq:{rest}'; choose one of "
            f"{[f'mecoq:{name}' for name in _BUILT_IN]}."
        )
    module = _BUILT_IN[rest]()
    return module, _own_transform(module)


def _torchvision(rest: str, load_weights: bool) -> tuple[nn.Module, dict[str, Any]]:
    models = require("torchvision.models", extra="images", purpose="a torchvision backbone")
    model, _, weights = rest.partition(":")
    if model not in models.list_models(module=models):
        raise InvalidInputError(
            f"unknown torchvision model {model!r}; choose one of "
            f"{models.list_models(module=models)}."
        )
    default = models.get_model_weights(model).DEFAULT
    preset = default.transforms()
    transform = {
        "resize": int(preset.resize_size[0]),
        "crop": int(preset.crop_size[0]),
        "mean": list(preset.mean),
        "std": list(preset.std),
    }
    module: nn.Module = models.get_model(model, weights=None)
    if load_weights and weights != _NO_WEIGHTS:
        if weights:
            _load_state(module, load_torch(check_readable(Path(weights))), rest)
        else:
            module.load_state_dict(
                _download(lambda: default.get_state_dict(), f"torchvision:{model}")
            )
    _cut_classification_layer(module, rest)
    return module, transform


def _timm(rest: str, load_weights: bool) -> tuple[nn.Module, dict[str, Any]]:
    timm = require("timm", extra=None, purpose="a timm backbone")
    model, _, weights = rest.partition(":")
    if model not in timm.list_models():
        raise InvalidInputError(f"unknown timm model {model!r}; timm.list_models() names them all.")
    pretrained = load_weights and weights != _NO_WEIGHTS
    module = _download(
        lambda: timm.create_model(model, pretrained=pretrained, num_classes=0), f"timm:{model}"
    )
    config = timm.data.resolve_model_data_config(module)
    size = int(config["input_size"][-1])
    transform = {
        "resize": round(size / config["crop_pct"]),
        "crop": size,
        "mean": list(config["mean"]),
        "std": list(config["std"]),
    }
    return module, transform


def _importable(name: str, module_name: str, attribute: str) -> tuple[nn.Module, dict[str, Any]]:
    try:
        make = getattr(import_module(module_name), attribute)
    except ModuleNotFoundError as exc:
        raise InvalidInputError(
            f"backbone {name!r}: there is no module {exc.name!r} to import. Use mecoq:small, "
            "torchvision:<model>, timm:<model>, or <module>:<attribute> of a module on PYTHONPATH."
        ) from exc
    except AttributeError as exc:
        raise InvalidInputError(f"backbone {name!r}: {module_name} has no {attribute!r}.") from exc
    except (TypeError, ValueError) as exc:  # no name of a module
        raise InvalidInputError(f"backbone {name!r}: {first_line(exc)}.") from exc
    try:
        module = make()
    except (TypeError, SystemExit) as exc:
        raise InvalidInputError(
            f"backbone {name!r} must return an nn.Module when called without arguments, but the "
            f"call failed: {first_line(exc)}."
        ) from exc
    if not isinstance(module, nn.Module):
        raise InvalidInputError(
            f"backbone {name!r} must return an nn.Module when called, got {type(module).__name__}."
        )
    return module, _own_transform(module)


def _own_transform(module: nn.Module) -> dict[str, Any]:
    """Return the transform that a network describes by attributes, or the usual one."""
    size = getattr(module, "image_size", 224)
    described = {key: getattr(module, key, usual) for key, usual in _IMAGENET.items()}
    return {"resize": size, "crop": size, **described}


def _download(get: Callable[[], Any], name: str) -> Any:
    try:
        return get()
    except (URLError, OSError) as exc:
        raise ArtifactError(
            f"the weights of {name!r} could not be downloaded ({exc}). Use a model of "
            f"torchvision with a file of weights, torchvision:<model>:<file>, or '{name}:none' for "
            "random weights."
        ) from exc


def _load_state(module: nn.Module, state: Any, name: str) -> None:
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as exc:
        reason = str(exc).splitlines()[0]
        raise ArtifactError(f"the weights do not fit the backbone {name!r}: {reason}") from exc


def _cut_classification_layer(module: nn.Module, name: str) -> None:
    for head in _HEADS:
        if hasattr(module, head):
            linear = [n for n, m in module.named_modules() if isinstance(m, nn.Linear)]
            inside = [n for n in linear if n == head or n.startswith(f"{head}.")]
            if inside:
                parent, _, last = inside[-1].rpartition(".")
                setattr(module.get_submodule(parent), last, nn.Identity())
                return
    raise InvalidInputError(f"the model {name!r} has no linear classification layer to cut off.")


@torch.no_grad()
def _feature_width(module: nn.Module, size: int, name: str) -> int:
    was_training = module.training
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    features = module.eval()(torch.zeros(1, 3, size, size, device=device))
    module.train(was_training)
    if features.ndim != 2:
        raise InvalidInputError(
            f"backbone {name!r} must map (B, 3, H, W) to (B, P), got {tuple(features.shape)}."
        )
    return int(features.shape[1])


def _digest(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(_bytes(value))
    return digest.hexdigest()


def _tensor_digests(module: nn.Module) -> dict[str, str]:
    return {
        name: hashlib.sha256(_bytes(value)).hexdigest()
        for name, value in module.state_dict().items()
    }


def _bytes(tensor: torch.Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def backbone_record(model: BackboneModel, *, trained: bool) -> Backbone:
    """Return the record of a backbone that codebooks keep.

    Args:
        model: The backbone.
        trained: Whether its weights may have changed since it was loaded. The record then holds
            those that differ from the weights that the name stands for, and nothing of the others.

    Raises:
        InvalidInputError: If a codebook file cannot hold a weight.
    """
    if not trained:
        return Backbone(model.name, model.weights_sha256, model.transform)
    now = _tensor_digests(model.module)
    changed = {
        name: np.array(from_torch(value))
        for name, value in model.module.state_dict().items()
        if model.base_tensors.get(name) != now[name]
    }
    digest = _digest(model.module)
    if not changed:
        return Backbone(model.name, digest, model.transform)
    # Where everything changed, the weights that the name stands for are not needed any more.
    base = model.base_sha256 if len(changed) < len(now) else None
    return Backbone(model.name, digest, model.transform, changed, base)


def restore_backbone(record: Backbone, *, backbone: str | None = None) -> BackboneModel:
    """Build the backbone that codebooks were learned with.

    Args:
        record: The record in the codebooks.
        backbone: The name of the backbone, which must be given if loading it runs code from
            outside this package, ``<module>:<attribute>``, or reads a file of weights, unless the
            caller has loaded it by `load_backbone` before. Checked against the record if given.

    Raises:
        InvalidInputError: If a name of code or of a file is not given, or another one than the
            record's; or the record's transform is malformed.
        ArtifactError: If the weights that the name stands for today are not those of training.
        MissingDependencyError: If torchvision or timm is needed and not installed.
    """
    name = _OLD_NAMES.get(record.name, record.name)
    needs_base = record.state is None or record.base_sha256 is not None
    _check_named(name, backbone, reads_weights=needs_base)
    module, own_transform = _make(name, load_weights=needs_base)
    base, tensors = None, dict[str, str]()
    if needs_base:
        base, tensors = _digest(module), _tensor_digests(module)
        _check_digest(name, base, record.base_sha256 or record.weights_sha256)
    if record.state is not None:
        changed = {key: to_torch(value) for key, value in record.state.items()}
        whole = {**module.state_dict(), **changed} if needs_base else changed
        _load_state(module, whole, name)
    transform = check_transform({**own_transform, **record.transform}, "the codebooks' backbone")
    digest = _digest(module)
    _check_digest(name, digest, record.weights_sha256)
    width = _feature_width(module, transform["crop"], name)
    return BackboneModel(name, module, width, transform, digest, base, tensors)


def _check_named(name: str, given: str | None, *, reads_weights: bool) -> None:
    if given is not None and _OLD_NAMES.get(given, given) != name:
        raise InvalidInputError(
            f"the codebooks were learned with the backbone {name!r}, not with {given!r}. Give "
            "that name, or none."
        )
    if given is not None or name in _named_by_caller or not needs_consent(name):
        return
    is_code = not name.startswith("torchvision:")
    if is_code or reads_weights:
        raise InvalidInputError(
            f"the codebooks name the backbone {name!r}, whose "
            f"{'code would be run' if is_code else 'file of weights would be read'}. If you trust "
            f"it, say so with backbone={name!r} (on the command line: --backbone {name})."
        )


def _check_digest(name: str, found: str, expected: str) -> None:
    if found != expected:
        raise ArtifactError(
            f"the weights of {name!r} are not those that the codebooks were learned on "
            f"({found[:12]} instead of {expected[:12]}). Give the weights file used in training."
        )


def set_trainable(module: nn.Module, last_layers: int) -> list[nn.Parameter]:
    """Freeze all but the last layers, and return the parameters that stay trainable.

    Args:
        module: The backbone.
        last_layers: Number of layers with parameters of their own, counted from the end; 0 freezes
            all, -1 none. In VGG-16, 2 are the last two linear layers, as in the official runs.
    """
    layers = [m for m in module.modules() if any(True for _ in m.parameters(recurse=False))]
    first = 0 if last_layers < 0 else max(0, len(layers) - last_layers)
    trainable = []
    for i, layer in enumerate(layers):
        for parameter in layer.parameters(recurse=False):
            parameter.requires_grad_(i >= first)
            if i >= first:
                trainable.append(parameter)
    return trainable


def frozen_norms_to_eval(module: nn.Module) -> None:
    """Keep the statistics of frozen batch normalizations while the network is in training mode."""
    for layer in module.modules():
        if isinstance(layer, _BatchNorm) and not any(p.requires_grad for p in layer.parameters()):
            layer.eval()
