"""The interface between the training loop and an objective.

A run calls `check_source` first and, if `needs_features` is True, `prepare` once. In each epoch it
asks for `partners`; in each step it minimizes `loss`, makes the step, and calls `after_step`. A run
that is resumed calls `load_state_dict` in the place of `prepare`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ..._arrays import Ids, Vectors
from .quantizer import Quantized, Quantizer

Embed = Callable[[torch.Tensor], torch.Tensor]
"""Maps a batch of features (B, P), or images, to embeddings (B, D) in float32."""


class Objective(ABC):
    """A loss to minimize, with its state."""

    @abstractmethod
    def check_source(self, num_items: int, *, has_two_views: bool, is_views: bool) -> None:
        """Refuse a source that cannot be learned from.

        Args:
            num_items: The number of items.
            has_two_views: Whether two views of one item differ.
            is_views: Whether the source holds images, or several views of each item.

        Raises:
            InvalidInputError: If the source does not fit.
            MissingDependencyError: If a package is needed that is not installed.
        """

    @property
    def needs_features(self) -> bool:
        """Whether a new run must call `prepare` with one vector per item."""
        return False

    def prepare(  # noqa: B027 (most objectives make nothing)
        self, features: Vectors, projection: nn.Sequential, quantizer: Quantizer
    ) -> None:
        """Set up the objective, and maybe the network, before the first step.

        Args:
            features: float32 (n, P), one vector per item, as it is before any training.
            projection: The trained layers; may be overwritten.
            quantizer: The quantizer; its codewords may be overwritten.

        Raises:
            InvalidInputError: If the features cannot be learned from.
        """

    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the loss itself, to train along with the network."""
        return []

    def partners(self, epoch: int) -> Ids | None:
        """Return the item that gives each item its second view, (n,); None for the item itself."""
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
        """Compute the loss of a batch.

        Args:
            embed: The network.
            quantizer: The quantizer.
            view1: One view of each item of the batch, (B, P) or (B, 3, H, W).
            view2: Another view of each item, or a view of its partner, in the same order.
            epoch: The epoch, from 0.

        Returns:
            Scalars by name: ``loss``, which is minimized, and its terms, which are logged. With
            them the quantized embeddings, of n = B or 2 B rows.
        """

    def after_step(self, quantized: Quantized) -> None:  # noqa: B027
        """Update the state after a step, from the quantized embeddings of its batch."""

    def extra_negatives(self, epoch: int) -> int:
        """Return the number of stored negatives in the loss of an epoch, for the log."""
        return 0

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a checkpoint needs, as tensors and plain values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Restore the state that `state_dict` returned."""
