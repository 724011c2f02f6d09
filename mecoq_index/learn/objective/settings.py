"""The settings of each objective, validated; `TrainConfig` keeps those that all of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Protocol

from ...errors import InvalidInputError
from ..validation import check_values

LossVariant = Literal["paper", "official"]
CodebookMode = Literal["learned", "frozen"]


class Shared(Protocol):
    """The shared settings that objectives check."""

    @property
    def num_codebooks(self) -> int: ...  # noqa: D102

    @property
    def num_codewords(self) -> int: ...  # noqa: D102

    @property
    def dim(self) -> int: ...  # noqa: D102

    @property
    def projection(self) -> str: ...  # noqa: D102

    @property
    def hidden_dim(self) -> int: ...  # noqa: D102

    @property
    def view_dropout(self) -> float: ...  # noqa: D102

    @property
    def held_out(self) -> int: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class ContrastSettings:
    """Settings of the debiased contrastive loss with code memory, in the paper's symbols.

    A neutral value switches a part of the method off: ``positive_prior=0`` (debiasing),
    ``memory_size=0``, ``neighbors=0``, ``regularizer_weight=0``, ``entropy_weight=0``,
    ``codebooks="frozen"``.
    """

    name: ClassVar[str] = "contrast"

    loss: LossVariant = "paper"
    """``paper``: the paper's equations. ``official``: those of the released code, with its
    departures from the paper."""
    codebooks: CodebookMode = "learned"
    """``frozen`` keeps the random unit codewords, as the official code does."""
    temperature: float = 0.4
    """T of the contrastive loss; smaller sharpens it. Below 0.03, float32 underflows."""
    positive_prior: float = 0.1
    """rho+, the probability that a negative is really a positive; 0 turns debiasing off."""
    regularizer_weight: float = 0.5
    """Weight of the codeword regularizer Omega_C."""
    entropy_weight: float = 0.0
    """Weight of the mean entropy of the soft codes; absent in the paper's equations."""
    memory_size: int = 384
    """N_M, the number of soft codes kept as extra negatives; 0 turns the memory off."""
    memory_start_epoch: int = 3
    """The first epoch (from 0) in which the memory takes part in the loss."""
    neighbors: int = 0
    """The number of nearest neighbors in feature space that are positives of an item, beside its
    views."""
    neighbor_share: float = 0.5
    """The share of positive pairs whose second view is a neighbor's."""

    def __post_init__(self) -> None:
        check_values(
            self,
            lowest={
                "temperature": 0.03,
                "regularizer_weight": 0,
                "entropy_weight": 0,
                "memory_size": 0,
                "memory_start_epoch": 0,
                "neighbors": 0,
            },
            highest={
                "memory_size": 1 << 20,
                "memory_start_epoch": 1_000_000,
                "neighbors": 10_000,
            },
            below_one=("positive_prior",),
            shares=("neighbor_share",),
        )

    def check_shared(self, shared: Shared) -> None:
        """Accept any shared settings."""


@dataclass(frozen=True, kw_only=True)
class SignsSettings(ContrastSettings):
    """Settings of learned binary codes: contrast, with signs instead of codewords.

    The codewords of a sign are -1 and +1, so ``codebooks`` and ``regularizer_weight`` change
    nothing.
    """

    name: ClassVar[str] = "signs"

    def check_shared(self, shared: Shared) -> None:
        """Refuse shared settings other than one bit per coordinate.

        Raises:
            InvalidInputError: If a coordinate does not have one bit.
        """
        if (shared.num_codewords, shared.num_codebooks) != (2, shared.dim):
            raise InvalidInputError(
                "the objective 'signs' has one bit a coordinate: num_codewords must be 2 and "
                f"num_codebooks equal to dim, got {shared.num_codewords}, {shared.num_codebooks} "
                f"and {shared.dim}."
            )


@dataclass(frozen=True, kw_only=True)
class DistillationSettings:
    """Settings of the distillation of a float ranking."""

    name: ClassVar[str] = "distillation"

    teacher_temperature: float = 0.05
    """The temperature of the softmax over the cosines to reproduce."""

    def __post_init__(self) -> None:
        check_values(self, positive=("teacher_temperature",))

    def check_shared(self, shared: Shared) -> None:
        """Refuse shared settings that distillation cannot use.

        Raises:
            InvalidInputError: If one of them is set, or a width does not fit.
        """
        if shared.projection == "mlp-bn":
            raise InvalidInputError(
                "the objective 'distillation' goes with a linear or mlp projection, got "
                f"{shared.projection}."
            )
        for name in ("view_dropout", "held_out"):
            if getattr(shared, name):
                raise InvalidInputError(
                    f"the objective 'distillation' has no use for {name}: set it to 0, got "
                    f"{getattr(shared, name)}."
                )
        components = shared.dim - shared.num_codebooks
        if components < shared.num_codebooks:
            raise InvalidInputError(
                "the objective 'distillation' needs subvectors of width 2 or more: dim must be at "
                f"least {2 * shared.num_codebooks}, got {shared.dim}."
            )
        if shared.projection == "mlp" and shared.hidden_dim < 2 * components:
            raise InvalidInputError(
                "the objective 'distillation' passes each component through two hidden units: "
                f"hidden_dim must be at least 2 * (dim - num_codebooks) = {2 * components}, got "
                f"{shared.hidden_dim}."
            )


Settings = ContrastSettings | SignsSettings | DistillationSettings
ObjectiveName = Literal["contrast", "distillation", "signs"]

KINDS: Mapping[str, type[ContrastSettings] | type[DistillationSettings]] = {
    kind.name: kind for kind in (ContrastSettings, DistillationSettings, SignsSettings)
}
"""The classes of settings, by the name of their objective."""


def to_plain(settings: Settings) -> dict[str, Any]:
    """Return settings as plain values, with the objective's name."""
    return {"name": settings.name, **asdict(settings)}
