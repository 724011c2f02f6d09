"""The settings that decide the outcome of a training run."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from .._files import check_readable
from ..errors import ArtifactError, InvalidInputError

LossVariant = Literal["paper", "official", "distillation"]
CodebookMode = Literal["learned", "frozen", "signs"]
ProjectionKind = Literal["linear", "mlp", "mlp-bn"]
OptimizerName = Literal["sgd", "adamw"]
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides the outcome of a training run, and nothing else.

    Paths, devices and log levels are arguments of the run, not part of it. Symbols are those of the
    MeCoQ paper. A part of the method is switched off by its neutral value: ``positive_prior=0``
    (debiasing), ``memory_size=0``, ``neighbours=0``, ``regularizer_weight=0``,
    ``entropy_weight=0``, ``codebooks="frozen"``.
    """

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
    same with batch normalisation before the ReLU, which is folded into the weights on export."""
    hidden_dim: int = 512
    """Width of the hidden layer of an ``mlp`` or ``mlp-bn`` projection."""
    codebooks: CodebookMode = "learned"
    """``frozen`` keeps the random unit codewords, as the official code does. ``signs``
    learns binary codes instead, of ``num_codebooks`` = ``dim`` bits, with ``num_codewords`` = 2."""

    loss: LossVariant = "paper"
    """``paper``: the paper's equations. ``official``: the released code's, departures and all.
    ``distillation``: no contrast, but the ranking by cosine of the vectors, reproduced."""
    temperature: float = 0.4
    """T of the contrastive loss; smaller sharpens it. Below 0.03, float32 underflows. The teacher
    of ``distillation`` has its own."""
    positive_prior: float = 0.1
    """rho+, the probability that a negative is in truth a positive; 0 turns debiasing off."""
    regularizer_weight: float = 0.5
    """Weight of the codeword regulariser Omega_C."""
    entropy_weight: float = 0.0
    """Weight of the mean entropy of the soft codes; absent in the paper's equations."""
    memory_size: int = 384
    """N_M, soft codes kept as extra negatives; 0 turns the memory off."""
    memory_start_epoch: int = 3
    """The first epoch (from 0) in which the memory takes part in the loss."""

    neighbours: int = 0
    """Nearest neighbours in feature space that serve as an item's positives; 0: only its views."""
    neighbour_share: float = 0.5
    """Share of the positive pairs in which a neighbour gives the second view."""

    held_out: int = 0
    """Items kept out of training, by which each epoch is judged without labels; 0: none."""
    patience: int = 0
    """Stop after so many epochs that the held-out items find no better, and keep the best epoch; 0:
    go on to the last, and keep that. A run that is stopped has not seen the low end of the cosine
    that its learning rate follows over ``epochs``."""

    epochs: int = 50
    """Passes over the training items."""
    batch_size: int = 128
    """N, items a step; each is seen under two views."""
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
    """beta, on every parameter of backbone and projection, biases and normalisations included;
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
    """Of the network's products; quantizer and loss stay in float32. ``bfloat16`` saves time on a
    CPU that has it (as AVX-512 BF16), and takes many times as long on others; ``auto`` is float32,
    but float16 with CUDA."""
    seed: int = 0
    """Seed of initialisation, shuffling and views."""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            _check_kind(name, kind, getattr(self, name))
        for name, lowest in _LOWEST.items():
            value = getattr(self, name)
            if value < lowest:
                raise InvalidInputError(f"{name} must be at least {lowest}, got {value}.")
        for name in _POSITIVE:
            value = getattr(self, name)
            if value <= 0:
                raise InvalidInputError(f"{name} must be above 0, got {value}.")
        if not 0 <= self.neighbour_share <= 1:
            raise InvalidInputError(
                f"neighbour_share must lie in [0, 1], got {self.neighbour_share}."
            )
        for name in ("positive_prior", "view_dropout", "momentum"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise InvalidInputError(f"{name} must lie in [0, 1), got {value}.")
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
        if self.codebooks == "signs" and (self.num_codewords, self.num_codebooks) != (2, self.dim):
            raise InvalidInputError(
                "codebooks='signs' is one bit a coordinate: num_codewords must be 2 and "
                f"num_codebooks equal to dim, got {self.num_codewords}, {self.num_codebooks} and "
                f"{self.dim}."
            )

        if self.loss == "distillation":
            self._check_distillation()

    def _check_distillation(self) -> None:
        if self.projection == "mlp-bn" or self.codebooks != "learned":
            raise InvalidInputError(
                "loss='distillation' goes with a linear or mlp projection and learned codebooks, "
                f"got {self.projection} and {self.codebooks}."
            )
        for name in (
            "neighbours",
            "memory_size",
            "view_dropout",
            "held_out",
            "regularizer_weight",
            "entropy_weight",
        ):
            if getattr(self, name):
                raise InvalidInputError(
                    f"loss='distillation' has no use for {name}: set it to 0, got "
                    f"{getattr(self, name)}."
                )
        for name in ("temperature", "positive_prior"):
            if getattr(self, name) != getattr(type(self), name):
                raise InvalidInputError(
                    f"loss='distillation' has no use for {name}: leave it at "
                    f"{getattr(type(self), name)}, got {getattr(self, name)}."
                )
        components = self.dim - self.num_codebooks
        if components < self.num_codebooks:
            raise InvalidInputError(
                "loss='distillation' needs subvectors of width 2 or more: dim must be at least "
                f"{2 * self.num_codebooks}, got {self.dim}."
            )
        if self.projection == "mlp" and self.hidden_dim < 2 * components:
            raise InvalidInputError(
                "loss='distillation' passes each component through two hidden units: hidden_dim "
                f"must be at least 2 * (dim - num_codebooks) = {2 * components}, got "
                f"{self.hidden_dim}."
            )

    @property
    def bits(self) -> float:
        """Information in one code, M * log2 K bits."""
        return self.num_codebooks * math.log2(self.num_codewords)

    def replace(self, **changes: Any) -> TrainConfig:
        """A copy with some settings changed.

        Raises:
            InvalidInputError: If a name is unknown or a value is out of range.
        """
        _refuse_unknown(changes, "settings")
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, source: str = "settings") -> TrainConfig:
        """Settings from plain values; names that are not settings are refused.

        Raises:
            InvalidInputError: If a name is unknown or a value is out of range.
        """
        _refuse_unknown(values, source)
        return cls(**values)

    @classmethod
    def from_json(cls, path: Path) -> TrainConfig:
        """Settings from a JSON file holding one object.

        Raises:
            ArtifactError: If the file is missing or no JSON object.
            InvalidInputError: If a name is unknown or a value is out of range.
        """
        path = check_readable(path)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as exc:
            raise ArtifactError(f"{path} is no JSON file: {exc}") from exc
        if not isinstance(values, dict):
            raise ArtifactError(f"{path} must hold one JSON object of settings.")
        return cls.from_dict(values, source=str(path))


_LOWEST: dict[str, float] = {
    "num_codebooks": 1,
    "num_codewords": 2,
    "dim": 1,
    "temperature": 0.03,
    "hidden_dim": 1,
    "regularizer_weight": 0,
    "entropy_weight": 0,
    "memory_size": 0,
    "memory_start_epoch": 0,
    "neighbours": 0,
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
_POSITIVE = ("alpha", "lr", "warmup_lr")


def _check_kind(name: str, kind: Any, value: Any) -> None:
    if choices := get_args(kind):
        if value not in choices:
            raise InvalidInputError(f"{name} must be one of {list(choices)}, got {value!r}.")
    elif isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
        raise InvalidInputError(f"{name} must be {kind.__name__}, got {value!r}.")
    elif not math.isfinite(value):
        raise InvalidInputError(f"{name} must be finite, got {value}.")


def _refuse_unknown(values: Mapping[str, Any], source: str) -> None:
    known = {field.name for field in dataclasses.fields(TrainConfig)}
    if unknown := sorted(values.keys() - known):
        raise InvalidInputError(
            f"{source}: unknown settings {unknown}; the settings are {sorted(known)}."
        )
