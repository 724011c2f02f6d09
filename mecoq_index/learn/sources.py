"""Sources of training pairs, as the trainer expects them."""

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
    """Training items, each with two random views per step."""

    def __len__(self) -> int: ...

    def steps(self, batch_size: int) -> int:
        """Return the number of batches in an epoch."""
        ...

    def batches(
        self, epoch: int, batch_size: int, seed: int, partners: Ids | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield two views of each item of a shuffled batch, fixed by seed and epoch.

        The second view of item i is a view of item ``partners[i]``; of i itself if ``partners`` is
        None.
        """
        ...


@runtime_checkable
class HasFeatures(Protocol):
    """A source whose items are feature vectors."""

    def frozen_features(self) -> Vectors:
        """Return one vector per item, float32 (n, P), by which neighbors are found."""
        ...


@runtime_checkable
class HasImages(Protocol):
    """A source whose items are images.

    Attributes:
        images: The images, in the order of the items' numbers.
        workers: The number of processes that load them.
    """

    images: Images
    workers: int


@runtime_checkable
class CanHoldOut(Protocol):
    """A source that can keep items out of training."""

    def hold_out(self, count: int, seed: int) -> tuple[PairSource, HeldOut]:
        """Return the source without ``count`` random items, and the items held out."""
        ...


@runtime_checkable
class HasDropout(Protocol):
    """A source that can zero random entries of its vectors."""

    @property
    def dropout(self) -> float:
        """The fraction of entries that are zeroed."""
        ...

    def with_dropout(self, dropout: float) -> PairSource:
        """Return the same vectors with another dropout."""
        ...


def frozen_features(
    source: PairSource, backbone: BackboneModel | None, device: torch.device
) -> Vectors:
    """Return one vector per item, float32 (n, P), as it is before any training.

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
        "neighbors and distillation need a source with frozen_features(), or images and a "
        f"backbone, got {type(source).__name__}. Give it that method, or set neighbors to 0."
    )
