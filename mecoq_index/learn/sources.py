"""What the trainer learns from: sources of pairs, and the vectors that neighbors are found by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch

from .._arrays import Ids, Vectors
from ..data.features import HeldOut
from ..data.images import Images
from ..embed.backbones import BackboneModel
from ..embed.encoder import extract_features
from ..errors import InvalidInputError


class PairSource(Protocol):
    """Training items, each seen under two random views a step."""

    def __len__(self) -> int: ...

    def steps(self, batch_size: int) -> int:
        """Batches an epoch."""
        ...

    def batches(
        self, epoch: int, batch_size: int, seed: int, partners: Ids | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Two views for each item of every shuffled batch, fixed by seed and epoch.

        The second view of item i is one of item ``partners[i]``, or of i itself if None is given.
        """
        ...


@runtime_checkable
class HasFeatures(Protocol):
    """A source whose items are feature vectors."""

    def frozen_features(self) -> Vectors:
        """One vector an item, float32 (n, P), to find neighbors by."""
        ...


@runtime_checkable
class HasImages(Protocol):
    """A source whose items are images.

    Attributes:
        images: In the order of the items' numbers.
        workers: Processes that load them.
    """

    images: Images
    workers: int


@runtime_checkable
class CanHoldOut(Protocol):
    """A source that can keep items out of training."""

    def hold_out(self, count: int, seed: int) -> tuple[PairSource, HeldOut]:
        """The source without ``count`` random items, and what to judge by."""
        ...


@runtime_checkable
class HasDropout(Protocol):
    """A source that can zero entries of its vectors at random."""

    @property
    def dropout(self) -> float:
        """Fraction of entries zeroed."""
        ...

    def with_dropout(self, dropout: float) -> PairSource:
        """The same vectors, with another dropout."""
        ...


def frozen_features(
    source: PairSource, backbone: BackboneModel | None, device: torch.device
) -> Vectors:
    """One vector an item, float32 (n, P), from before any training.

    Raises:
        InvalidInputError: If the source has neither vectors, nor images and a backbone.
    """
    if isinstance(source, HasFeatures):
        return source.frozen_features()
    if backbone is not None and isinstance(source, HasImages):
        return extract_features(
            source.images, backbone, device=device, workers=source.workers, strict=True
        ).features
    raise InvalidInputError(
        "neighbors and distillation need a source with frozen_features(), neighbors also take "
        f"images with a backbone; got {type(source).__name__}. Give it that method, or set "
        "neighbors to 0."
    )
