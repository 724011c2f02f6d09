"""Settings: those of the authors' released runs, by name, and the ones we recommend.

Twelve presets: four data sets and protocols at 16, 32 and 64 bits. What they share: VGG-16
(ImageNet), SGD with momentum 0.9, batch 128, learning rate 0.01 with one epoch of warm-up from
1e-5 and a cosine to 1e-5, 50 epochs, K = 256, alpha 10, regulariser 0.5, a memory of 384.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import InvalidInputError
from .config import LossVariant, TrainConfig


@dataclass(frozen=True)
class _Released:
    """What differs between the released runs; each tuple is for 16, 32 and 64 bits."""

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
    "neighbours": 3,
}
_WITHOUT_VIEWS: dict[str, Any] = {
    "neighbours": 5,
    "neighbour_share": 1.0,
    "view_dropout": 0.2,
    "epochs": 20,
}


def preset(name: str, *, loss: LossVariant = "paper") -> TrainConfig:
    """The settings called ``name``, for instance ``cifar10-i-32``.

    Args:
        name: One of `PRESETS`.
        loss: ``paper`` takes the settings into the paper's equations: learned codebooks, and no
            entropy term. ``official`` is the released code, departures and all: the official
            loss, frozen random codebooks, the entropy term, one learning rate for all layers.

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
        codebooks="frozen" if official else "learned",
        loss=loss,
        temperature=released.temperature[i],
        positive_prior=released.positive_prior,
        regularizer_weight=0.5,
        entropy_weight=released.entropy_weight[i] if official else 0.0,
        memory_size=384,
        memory_start_epoch=released.memory_start_epoch,
        epochs=50,
        batch_size=128,
        lr=0.01,
        backbone_lr_scale=1.0 if official else 0.1,
        weight_decay=released.weight_decay[i],
        trainable_layers=released.trainable_layers,
    )


def for_features(bits: int, num_codewords: int = 16) -> TrainConfig:
    """Settings for cached features with views, chosen on held-out database rows of CIFAR-10.

    benchmarks/results/settings_search.jsonl is the log of that search; parts that are in it but not
    in these settings did not earn their place.

    Args:
        bits: Bits of a code, a multiple of log2 K.
        num_codewords: K, a power of two.

    Raises:
        InvalidInputError: If ``bits`` does not fit.
    """
    return _recommended(bits, num_codewords, **_ON_FEATURES)


def for_vectors(bits: int, num_codewords: int = 16) -> TrainConfig:
    """Settings for vectors without views: neighbours and dropout take their place.

    Args:
        bits: Bits of a code, a multiple of log2 K.
        num_codewords: K, a power of two.

    Raises:
        InvalidInputError: If ``bits`` does not fit.
    """
    return for_features(bits, num_codewords).replace(**_WITHOUT_VIEWS)


def for_binary(bits: int, *, views: bool = True) -> TrainConfig:
    """Settings for binary codes: `for_features` or `for_vectors`, with another head.

    Args:
        bits: Bits of a code.
        views: Whether the features come with views.
    """
    settings = TrainConfig(
        codebooks="signs",
        num_codebooks=bits,
        num_codewords=2,
        dim=bits,
        alpha=1.0,
        **_ON_FEATURES,
    )
    return settings if views else settings.replace(**_WITHOUT_VIEWS)


def for_distillation(bits: int, num_codewords: int = 256) -> TrainConfig:
    """Settings that reproduce the ranking by cosine of unit vectors.

    benchmarks/results/distillation_search.jsonl is the log of the search for them.

    Args:
        bits: Bits of a code, a multiple of log2 K.
        num_codewords: K, a power of two.

    Raises:
        InvalidInputError: If ``bits`` does not fit.
    """
    settings = _recommended(bits, num_codewords)
    components = settings.dim - settings.num_codebooks
    return settings.replace(
        loss="distillation",
        projection="mlp",
        hidden_dim=max(512, 2 * components),
        alpha=100.0,
        regularizer_weight=0.0,
        memory_size=0,
        optimizer="adamw",
        lr=1e-3,
        weight_decay=0.0,
        batch_size=1024,
        epochs=25,
    )


def for_images(bits: int, num_codewords: int = 256) -> TrainConfig:
    """Settings for images: those that the released CIFAR-10 runs share, at any number of bits.

    Args:
        bits: Bits of a code, a multiple of log2 K.
        num_codewords: K, a power of two.

    Raises:
        InvalidInputError: If ``bits`` does not fit.
    """
    return _recommended(bits, num_codewords, trainable_layers=2, weight_decay=1e-3)


def _recommended(bits: int, num_codewords: int, **settings: Any) -> TrainConfig:
    per_code = num_codewords.bit_length() - 1
    if num_codewords != 2**per_code or per_code < 1 or bits % per_code:
        raise InvalidInputError(
            "bits must be a multiple of log2 of the codewords per codebook, a power of two; got "
            f"{bits} bits and {num_codewords} codewords."
        )
    M = bits // per_code
    return TrainConfig(num_codebooks=M, num_codewords=num_codewords, dim=16 * M, **settings)
