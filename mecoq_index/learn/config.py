"""The settings that decide the outcome of a training run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .._arguments import check_known
from .._json import read_json
from ..errors import ArtifactError, InvalidInputError
from .objective.settings import (
    KINDS,
    ContrastSettings,
    DistillationSettings,
    Settings,
    SignsSettings,
    to_plain,
)
from .validation import check_values

ProjectionKind = Literal["linear", "mlp", "mlp-bn"]
OptimizerName = Literal["sgd", "adamw"]
Precision = Literal["auto", "float32", "bfloat16"]

_HIGHEST_SEED = 2**43 - 1
"""Seed and epoch are combined in one number of 64 bits."""

# Names of settings in files of earlier releases.
_RENAMED = {"neighbours": "neighbors", "neighbour_share": "neighbor_share"}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All settings that decide the outcome of a training run, and nothing else.

    Paths, devices and log levels are arguments of the run, not part of it. Settings of the
    objective are in ``objective``; `replace` and `from_dict` take them by their own names too.
    """

    objective: Settings = field(default_factory=ContrastSettings)
    """The objective to minimize: `ContrastSettings`, `DistillationSettings` or `SignsSettings`."""
    num_codebooks: int = 8
    """M, the number of subquantizers."""
    num_codewords: int = 256
    """K, codewords per codebook, 2..256; a code takes M * log2 K bits."""
    dim: int = 128
    """D, the width of an embedding; a multiple of M."""
    alpha: float = 10.0
    """Sharpness of the soft assignment; larger is closer to the hard one."""
    projection: ProjectionKind = "linear"
    """``linear``: one affine map to D. ``mlp``: a hidden layer with ReLU before it. ``mlp-bn``: the
    same with batch normalization before the ReLU, which is folded into the weights on export."""
    hidden_dim: int = 512
    """Width of the hidden layer of an ``mlp`` or ``mlp-bn`` projection."""
    held_out: int = 0
    """The number of items kept out of training, to judge each epoch by without labels."""
    patience: int = 0
    """Stop after this many epochs without a gain on the held-out items, and keep the best epoch; 0
    trains to the last epoch and keeps it. A run that stops early does not reach the low end of the
    cosine that its learning rate follows over ``epochs``."""

    epochs: int = 50
    """Passes over the training items."""
    batch_size: int = 128
    """N, the number of items per step; each is seen under two views."""
    optimizer: OptimizerName = "sgd"
    """``sgd`` (with momentum) or ``adamw``."""
    lr: float = 0.01
    """Peak learning rate of projection and codebooks."""
    codebook_lr_scale: float = 1.0
    """Learning rate of the codebooks, as a multiple of ``lr``."""
    backbone_lr_scale: float = 0.1
    """Learning rate of the trainable backbone layers, as a multiple of ``lr``."""
    momentum: float = 0.9
    """Momentum of ``sgd``."""
    weight_decay: float = 5e-4
    """beta, on every parameter of backbone and projection, biases and normalizations included;
    codewords are unit vectors and are not decayed."""
    warmup_epochs: int = 1
    """Epochs of linear growth from ``warmup_lr`` to ``lr``."""
    warmup_lr: float = 1e-5
    """Learning rate of the first step."""
    final_lr: float = 1e-5
    """Learning rate at the end of the cosine."""
    max_grad_norm: float = 0.0
    """Clip the gradient to this length; 0 does not clip."""
    trainable_layers: int = 0
    """Layers of the backbone that are trained, counted from its end; -1 trains all."""
    view_dropout: float = 0.0
    """Fraction of the entries of a feature vector zeroed in each view; cached features only."""
    precision: Precision = "auto"
    """The type of the network's matrix products; quantizer and loss stay in float32. ``bfloat16``
    saves time on a CPU with AVX-512 BF16, and takes many times as long on others; ``auto`` is
    float16 with CUDA and float32 without."""
    seed: int = 0
    """Seed of initialization, shuffling and views."""

    def __post_init__(self) -> None:
        check_values(
            self,
            lowest=_LOWEST,
            highest=_HIGHEST,
            positive=_POSITIVE,
            below_one=("view_dropout", "momentum"),
        )
        if self.num_codewords > 256:
            raise InvalidInputError(
                f"num_codewords must be at most 256 (a code is one byte), got {self.num_codewords}."
            )
        if self.warmup_epochs > self.epochs:
            raise InvalidInputError(
                f"warmup_epochs must be at most epochs={self.epochs}, got {self.warmup_epochs}."
            )
        if self.warmup_lr > self.lr:
            raise InvalidInputError(
                f"warmup_lr must be at most lr={self.lr}, got {self.warmup_lr}."
            )
        if self.dim % self.num_codebooks:
            raise InvalidInputError(
                f"dim must be a multiple of num_codebooks={self.num_codebooks}, got {self.dim}."
            )
        if self.patience and not self.held_out:
            raise InvalidInputError(
                "patience needs held-out items to judge an epoch by: set held_out, for instance to "
                "2000."
            )
        self.objective.check_shared(self)

    @property
    def bits(self) -> float:
        """The number of bits of a code, M * log2 K."""
        return self.num_codebooks * math.log2(self.num_codewords)

    def replace(self, **changes: Any) -> TrainConfig:
        """Return a copy with some settings changed, those of the objective by their own names.

        Raises:
            InvalidInputError: If a name is unknown or a value is out of range.
        """
        return _made(self, changes)

    def to_dict(self) -> dict[str, Any]:
        """Return all settings as plain values, with those of the objective in a dictionary."""
        shared = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**shared, "objective": to_plain(self.objective)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, source: str = "") -> TrainConfig:
        """Read settings from plain values, as `to_dict` or earlier releases wrote them.

        Earlier releases wrote the settings of the objective beside the others, and named it by
        ``loss="distillation"`` or ``codebooks="signs"``.

        Args:
            values: Settings by name; missing ones get their defaults.
            source: The file that they come from, for messages.

        Raises:
            InvalidInputError: If a name is unknown or a value is out of range.
        """
        try:
            return _made(cls(), values)
        except InvalidInputError as exc:
            if not source:
                raise
            raise InvalidInputError(f"{source}: {exc}") from exc

    @classmethod
    def from_json(cls, path: str | Path) -> TrainConfig:
        """Read settings from a JSON file that holds one object.

        Raises:
            ArtifactError: If the file is missing or no JSON object.
            InvalidInputError: If a name is unknown or a value is out of range.
        """
        path = Path(path)
        values = read_json(path)
        if not isinstance(values, dict):
            raise ArtifactError(f"{path} must hold one JSON object of settings.")
        return cls.from_dict(values, source=str(path))


def _made(base: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """Return ``base`` with changes by shared names, the objective's names, or old names."""
    given = {_RENAMED.get(name, name): value for name, value in changes.items()}
    objective = _objective(base.objective, given)
    own = {f.name for f in dataclasses.fields(objective)}
    shared = {f.name for f in dataclasses.fields(TrainConfig)}
    check_known(given, shared | own, what="setting")
    of_objective = {name: value for name, value in given.items() if name in own}
    of_all = {name: value for name, value in given.items() if name in shared}
    return dataclasses.replace(
        base, **{**of_all, "objective": dataclasses.replace(objective, **of_objective)}
    )


def _objective(current: Settings, given: dict[str, Any]) -> Settings:
    """Return the objective's settings to start from, and remove its name from ``given``."""
    chosen = given.pop("objective", None)
    if isinstance(chosen, Mapping):
        values = dict(chosen)
        kind = _kind(values.pop("name", current.name))
        check_known(values, {f.name for f in dataclasses.fields(kind)}, what="setting")
        made: Settings = kind(**values)
        return made
    if isinstance(chosen, str):
        return _as_kind(current, _kind(chosen))
    if chosen is not None:
        if not isinstance(chosen, (ContrastSettings, DistillationSettings)):
            raise InvalidInputError(
                f"objective must be a name or settings of one, got {type(chosen).__name__}."
            )
        return chosen
    if given.get("loss") == "distillation":
        # Earlier releases wrote settings of contrast too, which distillation did not use.
        for name in ("loss", "codebooks", *(f.name for f in dataclasses.fields(ContrastSettings))):
            given.pop(name, None)
        return DistillationSettings()
    if given.get("codebooks") == "signs":
        given.pop("codebooks")
        return _as_kind(current, SignsSettings)
    return current


def _kind(name: object) -> type[Any]:
    if not isinstance(name, str) or name not in KINDS:
        raise InvalidInputError(f"objective must be one of {sorted(KINDS)}, got {name!r}.")
    return KINDS[name]


def _as_kind(current: Settings, kind: type[Any]) -> Settings:
    """Return settings of another kind, with the values of the fields that both kinds have."""
    if type(current) is kind:
        return current
    own = {f.name for f in dataclasses.fields(kind)}
    values = {
        f.name: getattr(current, f.name) for f in dataclasses.fields(current) if f.name in own
    }
    return kind(**values)  # type: ignore[no-any-return]


_LOWEST: dict[str, float] = {
    "num_codebooks": 1,
    "num_codewords": 2,
    "dim": 1,
    "hidden_dim": 1,
    "held_out": 0,
    "patience": 0,
    "epochs": 1,
    "batch_size": 2,
    "codebook_lr_scale": 0,
    "backbone_lr_scale": 0,
    "weight_decay": 0,
    "warmup_epochs": 0,
    "final_lr": 0,
    "max_grad_norm": 0,
    "trainable_layers": -1,
    "seed": 0,
}
# Far beyond any use; a slip of the keyboard, or somebody else's file, should not fill the memory.
_HIGHEST: dict[str, float] = {
    "num_codebooks": 1 << 16,
    "dim": 1 << 16,
    "hidden_dim": 1 << 16,
    "held_out": 1 << 31,
    "patience": 1_000_000,
    "epochs": 1_000_000,
    "batch_size": 1 << 20,
    "warmup_epochs": 1_000_000,
    "trainable_layers": 1_000_000,
    "seed": _HIGHEST_SEED,
}
_POSITIVE = ("alpha", "lr", "warmup_lr")
