"""Backbones by name: networks that map images to features.

    torchvision:<model>[:<weights>]   weights: a file, ``none``, or the model's default (downloaded)
    timm:<model>[:none]               where timm is installed
    <module>:<attribute>              anything importable that returns an nn.Module when called

The classification layer is cut off. VGG-16 keeps the rest of its classifier and gives 4096
features, as in the MeCoQ paper; ``vgg16`` is short for ``torchvision:vgg16``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .._files import check_readable
from .._optional import require
from ..codebook_file import load_torch
from ..codebooks import Backbone
from ..errors import ArtifactError, InvalidInputError

_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
_HEADS = ("fc", "classifier", "heads", "head")


@dataclass(frozen=True, eq=False)
class BackboneModel:
    """A network and the images it wants.

    Attributes:
        name: As given by the user.
        module: Maps float32 images (B, 3, H, W) to features (B, P).
        width: P.
        transform: ``resize`` (shorter side), ``crop`` (side of the central square), ``mean`` and
            ``std`` by channel, of values in [0, 1].
        weights_sha256: Digest of the weights as loaded.
    """

    name: str
    module: nn.Module
    width: int
    transform: Mapping[str, Any]
    weights_sha256: str


def load_backbone(
    name: str,
    *,
    image_size: int | None = None,
    state: Mapping[str, npt.NDArray[Any]] | None = None,
) -> BackboneModel:
    """The backbone called ``name``.

    Args:
        name: See the head of this module.
        image_size: Side of the square images; the model's own if None.
        state: Weights to load instead of those the name asks for.

    Raises:
        InvalidInputError: If the name cannot be read, or nothing of that name exists.
        ArtifactError: If the weights cannot be had or do not fit.
        MissingDependencyError: If torchvision or timm is needed and not installed.
    """
    family, _, rest = name.partition(":")
    if not rest:
        family, rest = "torchvision", name
    load_weights = state is None
    # Random weights are drawn from a stream of their own, so that they are the same every time.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if family == "torchvision":
            module, transform = _torchvision(rest, load_weights)
        elif family == "timm":
            module, transform = _timm(rest, load_weights)
        else:
            module, transform = _importable(name, family, rest)
    if state is not None:
        _load_state(module, {k: torch.tensor(np.array(v)) for k, v in state.items()}, name)
    if image_size is not None:
        transform = {**transform, "resize": image_size, "crop": image_size}
    width = _feature_width(module, transform["crop"], name)
    return BackboneModel(name, module, width, transform, _digest(module))


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
    if load_weights and weights != "none":
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
    pretrained = load_weights and weights != "none"
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
            f"backbone {name!r}: there is no module {exc.name!r} to import. Use "
            "torchvision:<model>, timm:<model>, or <module>:<attribute> of a module on PYTHONPATH."
        ) from exc
    except AttributeError as exc:
        raise InvalidInputError(f"backbone {name!r}: {module_name} has no {attribute!r}.") from exc
    module = make()
    if not isinstance(module, nn.Module):
        raise InvalidInputError(
            f"backbone {name!r} must return an nn.Module when called, got {type(module).__name__}."
        )
    size = int(getattr(module, "image_size", 224))
    transform = {
        "resize": size,
        "crop": size,
        "mean": list(getattr(module, "mean", _IMAGENET["mean"])),
        "std": list(getattr(module, "std", _IMAGENET["std"])),
    }
    return module, transform


def _download(get: Callable[[], Any], name: str) -> Any:
    try:
        return get()
    except (URLError, OSError) as exc:
        raise ArtifactError(
            f"the weights of {name!r} could not be downloaded ({exc}). Use a model of "
            f"torchvision with a file of weights, torchvision:<model>:<file>, or '{name}:none' for "
            "random ones."
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
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def backbone_record(model: BackboneModel, *, trained: bool) -> Backbone:
    """What a codebook file keeps of a backbone; its weights only where they were trained."""
    if not trained:
        return Backbone(model.name, model.weights_sha256, model.transform)
    state = {k: v.detach().cpu().numpy().copy() for k, v in model.module.state_dict().items()}
    return Backbone(model.name, _digest(model.module), model.transform, state)


def restore_backbone(record: Backbone) -> BackboneModel:
    """The backbone that a codebook file was learned with.

    Raises:
        ArtifactError: If the weights that the name stands for today are not those of training.
    """
    model = load_backbone(record.name, state=record.state)
    if model.weights_sha256 != record.weights_sha256:
        raise ArtifactError(
            f"the weights of {record.name!r} are not those that the codebooks were learned on "
            f"({model.weights_sha256[:12]} instead of {record.weights_sha256[:12]}). "
            "Give the weights file used in training."
        )
    return BackboneModel(
        model.name, model.module, model.width, record.transform, model.weights_sha256
    )


def set_trainable(module: nn.Module, last_layers: int) -> list[nn.Parameter]:
    """Freeze all but the last layers, and return the parameters that stay trainable.

    Args:
        module: The backbone.
        last_layers: Layers with parameters of their own, counted from the end; 0 freezes all, -1
            none. Two of them are the last two linear layers of VGG-16, as in the official runs.
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
    """Keep the statistics of frozen batch normalisations while the network is in training mode."""
    for layer in module.modules():
        if isinstance(layer, _BatchNorm) and not any(p.requires_grad for p in layer.parameters()):
            layer.eval()
