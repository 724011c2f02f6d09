"""What a training run asks of its objective, and nothing more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ..._arrays import Ids, Vectors
from .quantizer import Quantized, Quantizer

Embed = Callable[[torch.Tensor], torch.Tensor]
"""Gives embeddings (B, D) in float32 of a batch."""


class Objective(ABC):
    """What is minimized, with the state that it needs."""

    @abstractmethod
    def check_source(self, num_items: int, *, has_two_views: bool, is_views: bool) -> None:
        """Refuse a source that cannot be learned from.

        Args:
            num_items: Number of items.
            has_two_views: Whether two views of one item differ.
            is_views: Whether the source has several views of an item, or images.

        Raises:
            InvalidInputError: If it does not fit.
            MissingDependencyError: If a package is needed for it.
        """

    @property
    def needs_features(self) -> bool:
        """Whether `prepare` is to be called with one vector an item."""
        return False

    def prepare(  # noqa: B027 (most objectives make nothing)
        self, features: Vectors, projection: nn.Sequential, quantizer: Quantizer
    ) -> None:
        """Make what is made once, from the features (n, P) as they are before any training."""

    def parameters(self) -> list[nn.Parameter]:
        """Numbers that the loss learns itself."""
        return []

    def partners(self, epoch: int) -> Ids | None:
        """The item that gives the second view of each item (n,); None for the same item."""
        return None

    @abstractmethod
    def loss(
        self,
        embed: Embed,
        quantizer: Quantizer,
        view1: torch.Tensor,
        view2: torch.Tensor,
        epoch: int,
    ) -> tuple[dict[str, torch.Tensor], Quantized]:
        """The terms of the loss of a batch, ``loss`` among them, and its quantized embeddings."""

    def after_step(self, quantized: Quantized) -> None:  # noqa: B027
        """Take in the batch of a step that was made."""

    def extra_negatives(self, epoch: int) -> int:
        """How many stored negatives take part in the loss of an epoch."""
        return 0

    def state_dict(self) -> dict[str, Any]:
        """Everything that a checkpoint needs."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Take up the state of `state_dict`."""
