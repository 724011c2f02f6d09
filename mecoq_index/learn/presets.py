"""Presets of the authors' released runs, and recommended settings.

There are twelve presets: four data sets and protocols at 16, 32 and 64 bits. They share VGG-16
(ImageNet), SGD with momentum 0.9, batch 128, learning rate 0.01 with one epoch of warm-up from
1e-5 and a cosine to 1e-5, 50 epochs, K = 256, alpha 10, regularizer 0.5, a memory of 384.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..errors import InvalidInputError
from .config import TrainConfig
from .objective.settings import (
    KINDS,
    ContrastSettings,
    DistillationSettings,
    LossVariant,
    ObjectiveName,
    SignsSettings,
)


@dataclass(frozen=True)
class _Released:
    """The differences between the released runs; each tuple is for 16, 32 and 64 bits."""

    dim: tuple[int, int, int]
    temperature: tuple[float, float, float]
    weight_decay: tuple[float, float, float]
    entropy_weight: tuple[float, float, float]
    positive_prior: float
    memory_start_epoch: int
    trainable_layers: int


_BITS = (16, 32, 64)
_RELEASED = {
    "flickr25k": _Released(
        (32, 64, 128), (0.4, 0.45, 0.4), (1e-1, 1e-1, 1e-1), (0.5, 1.0, 2.0), 0.15, 5, 0
    ),
    "cifar10-i": _Released(
        (32, 64, 128), (0.25, 0.4, 0.4), (1e-3, 1e-3, 1e-3), (0.05, 0.05, 0.05), 0.1, 3, 2
    ),
    "cifar10-ii": _Released(
        (16, 48, 96), (0.35, 0.35, 0.35), (1e-2, 5e-3, 1e-2), (0.01, 0.1, 0.05), 0.1, 15, 2
    ),
    "nuswide": _Released(
        (64, 32, 128), (0.2, 0.4, 0.4), (1e-2, 1e-2, 1e-2), (1.0, 0.2, 0.01), 0.15, 10, 0
    ),
}

PRESETS: tuple[str, ...] = tuple(f"{data}-{bits}" for data in _RELEASED for bits in _BITS)


_ON_FEATURES: dict[str, Any] = {
    "projection": "mlp-bn",
    "batch_size": 256,
    "lr": 0.1,
    "codebook_lr_scale": 2.5,
    "epochs": 40,
    "memory_size": 0,
    "neighbors": 3,
}
_WITHOUT_VIEWS: dict[str, Any] = {
    "neighbors": 5,
    "neighbor_share": 1.0,
    "view_dropout": 0.2,
    "epochs": 20,
}


def preset(name: str, *, loss: LossVariant = "paper") -> TrainConfig:
    """Return the preset ``name``, for instance ``cifar10-i-32``.

    Args:
        name: One of `PRESETS`.
        loss: ``paper`` uses the preset with the paper's equations: learned codebooks and no entropy
            term. ``official`` does as the released code: its own loss, frozen random codebooks, an
            entropy term, and one learning rate for all layers.

    Raises:
        InvalidInputError: If there is no such preset.
    """
    if name not in PRESETS:
        raise InvalidInputError(f"unknown preset {name!r}; choose one of {list(PRESETS)}.")
    data, _, bits = name.rpartition("-")
    released, i = _RELEASED[data], _BITS.index(int(bits))
    official = loss == "official"
    return TrainConfig(
        num_codebooks=int(bits) // 8,
        num_codewords=256,
        dim=released.dim[i],
        objective=ContrastSettings(
            codebooks="frozen" if official else "learned",
            loss=loss,
            temperature=released.temperature[i],
            positive_prior=released.positive_prior,
            regularizer_weight=0.5,
            entropy_weight=released.entropy_weight[i] if official else 0.0,
            memory_size=384,
            memory_start_epoch=released.memory_start_epoch,
        ),
        epochs=50,
        batch_size=128,
        lr=0.01,
        backbone_lr_scale=1.0 if official else 0.1,
        weight_decay=released.weight_decay[i],
        trainable_layers=released.trainable_layers,
    )


Kind = Literal["images", "views", "vectors"]
"""A kind of source: images, features with views, or vectors without views."""

_USUAL_CODEWORDS = {"images": 256, "views": 16, "vectors": 16}


def recommended(
    kind: Kind,
    bits: int = 64,
    codewords: int | None = None,
    objective: ObjectiveName = "contrast",
) -> TrainConfig:
    """Return the settings recommended for a kind of source; `train` uses them.

    Settings for features were chosen on held-out database rows of CIFAR-10.
    benchmarks/results/settings_search.jsonl and distillation_search.jsonl are the logs of that
    search; parts of the method that did not improve the result are left out. Settings for images
    are those that the released CIFAR-10 runs share.

    Args:
        kind: ``images``, ``views`` (features with views) or ``vectors``.
        bits: Bits of a code, a multiple of log2 K.
        codewords: K, a power of two; if None, 256 for images and distillation, else 16.
        objective: ``contrast``, ``distillation`` or ``signs``. Images need ``contrast``, and
            ``distillation`` needs vectors.

    Raises:
        InvalidInputError: If ``bits`` or ``codewords`` do not fit, or objective and kind do not.
    """
    if kind not in _USUAL_CODEWORDS:
        raise InvalidInputError(f"kind must be one of {sorted(_USUAL_CODEWORDS)}, got {kind!r}.")
    if objective not in KINDS:
        raise InvalidInputError(f"objective must be one of {sorted(KINDS)}, got {objective!r}.")
    if kind == "images" and objective != "contrast":
        raise InvalidInputError(
            f"the objective {objective!r} takes features, but the source holds images. Make "
            "features of them first with mecoq-index embed."
        )
    if objective == "signs":
        if codewords not in (None, 2):
            raise InvalidInputError(
                f"the objective 'signs' has no codewords to choose, got codewords={codewords}."
            )
        _check_bits(bits, 2)
        settings = TrainConfig(
            objective=SignsSettings(), num_codebooks=bits, num_codewords=2, dim=bits, alpha=1.0
        ).replace(**_ON_FEATURES)
        return settings if kind == "views" else settings.replace(**_WITHOUT_VIEWS)
    if objective == "distillation":
        return _for_distillation(bits, 256 if codewords is None else codewords)
    settings = _of_size(bits, _USUAL_CODEWORDS[kind] if codewords is None else codewords)
    if kind == "images":
        return settings.replace(trainable_layers=2, weight_decay=1e-3)
    settings = settings.replace(**_ON_FEATURES)
    return settings if kind == "views" else settings.replace(**_WITHOUT_VIEWS)


def _for_distillation(bits: int, codewords: int) -> TrainConfig:
    settings = _of_size(bits, codewords)
    components = settings.dim - settings.num_codebooks
    return settings.replace(
        objective=DistillationSettings(),
        projection="mlp",
        hidden_dim=max(512, 2 * components),
        alpha=100.0,
        optimizer="adamw",
        lr=1e-3,
        weight_decay=0.0,
        batch_size=1024,
        epochs=25,
    )


def _of_size(bits: int, codewords: int) -> TrainConfig:
    per_code = _check_bits(bits, codewords)
    M = bits // per_code
    return TrainConfig(num_codebooks=M, num_codewords=codewords, dim=16 * M)


def _check_bits(bits: int, codewords: int) -> int:
    """Return log2 of the number of codewords.

    Raises:
        InvalidInputError: If it is no integer, or ``bits`` is no multiple of it.
    """
    for name, value in (("bits", bits), ("codewords", codewords)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise InvalidInputError(f"{name} must be an integer of at least 1, got {value!r}.")
    per_code = int(codewords).bit_length() - 1
    if codewords != 2**per_code or not 2 <= codewords <= 256:
        raise InvalidInputError(f"codewords must be 2, 4, 8, ... or 256, got {codewords}.")
    if bits % per_code:
        below = bits // per_code * per_code
        near = f"{below} or {below + per_code}" if below else f"{per_code}"
        raise InvalidInputError(
            f"bits must be a multiple of {per_code}, since each of the codebooks of {codewords} "
            f"codewords takes {per_code} bits; got {bits}. Use {near}."
        )
    return per_code
