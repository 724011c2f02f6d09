"""Contrast: two views of an item, or of neighbors, against all others in batch and memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ..._arrays import Ids, Vectors
from ...errors import InvalidInputError
from .base import Embed, Objective
from .losses import (
    codeword_regularizer,
    official_contrastive_loss,
    paper_contrastive_loss,
    soft_code_entropy,
)
from .memory import CodeMemory
from .neighbors import check_neighbors, draw_partners, neighbor_graph
from .quantizer import Quantized, Quantizer
from .settings import ContrastSettings

_LOSSES = {"paper": paper_contrastive_loss, "official": official_contrastive_loss}


class Contrast(Objective):
    """The debiased contrastive loss with codeword regularizer, entropy and code memory.

    Args:
        settings: The settings.
        num_codebooks: M.
        num_codewords: K.
        seed: The seed by which neighbors are drawn.
        device: The device that holds the memory.
    """

    def __init__(
        self,
        settings: ContrastSettings,
        *,
        num_codebooks: int,
        num_codewords: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self._settings, self._seed = settings, seed
        self._graph: Ids | None = None
        self._memory: CodeMemory | None = None
        if settings.memory_size:
            self._memory = CodeMemory(settings.memory_size, num_codebooks, num_codewords, device)

    def check_source(self, num_items: int, *, has_two_views: bool, is_views: bool) -> None:
        """Refuse a source with one view per item, unless neighbors give the second one.

        Raises:
            InvalidInputError: If there is one view, or an item has fewer others than neighbors.
            MissingDependencyError: If FAISS is needed and not installed.
        """
        if not (self._settings.neighbors or has_two_views):
            raise InvalidInputError(
                "one view an item gives no two views to contrast: set neighbors or view_dropout "
                "above 0, or give (V, n, P) with V of at least 2 (mecoq-index embed --backbone "
                "NAME --views 3 makes them)."
            )
        if self._settings.neighbors:
            check_neighbors(self._settings.neighbors, num_items)

    @property
    def needs_features(self) -> bool:
        """Whether the settings ask for neighbors."""
        return bool(self._settings.neighbors)

    def prepare(self, features: Vectors, projection: nn.Sequential, quantizer: Quantizer) -> None:
        """Find the neighbors of every item."""
        self._graph = neighbor_graph(features, self._settings.neighbors)

    def partners(self, epoch: int) -> Ids | None:
        """Draw a neighbor of each item, or the item itself, anew every epoch."""
        if self._graph is None:
            return None
        rng = np.random.default_rng([self._seed, epoch, 1])
        return draw_partners(self._graph, self._settings.neighbor_share, rng)

    def loss(
        self,
        embed: Embed,
        quantizer: Quantizer,
        view1: torch.Tensor,
        view2: torch.Tensor,
        epoch: int,
    ) -> tuple[dict[str, torch.Tensor], Quantized]:
        """Sum contrast, regularizer and, if its weight is not 0, the entropy of the soft codes."""
        settings, n = self._settings, len(view1)
        quantized: Quantized = quantizer(embed(torch.cat([view1, view2])))
        memory = None
        if self._memory is not None and self._is_memory_used(epoch):
            memory = quantizer.decode(self._memory.soft_codes())
        terms = {
            "contrastive": _LOSSES[settings.loss](
                quantized.reconstruction[:n],
                quantized.reconstruction[n:],
                memory,
                temperature=settings.temperature,
                positive_prior=settings.positive_prior,
            ),
            "regularizer": codeword_regularizer(quantizer.unit_codewords()),
        }
        loss = terms["contrastive"] + settings.regularizer_weight * terms["regularizer"]
        if settings.entropy_weight:
            terms["entropy"] = soft_code_entropy(quantized.soft_codes)
            loss = loss + settings.entropy_weight * terms["entropy"]
        return {"loss": loss, **terms}, quantized

    def _is_memory_used(self, epoch: int) -> bool:
        return epoch >= self._settings.memory_start_epoch

    def after_step(self, quantized: Quantized) -> None:
        """Add the soft codes of the batch to the memory."""
        if self._memory is not None:
            self._memory.enqueue(quantized.soft_codes)

    def extra_negatives(self, epoch: int) -> int:
        """Return the number of soft codes in the memory, or 0 before its first epoch."""
        used = self._memory is not None and self._is_memory_used(epoch)
        return len(self._memory) if used and self._memory is not None else 0

    def state_dict(self) -> dict[str, Any]:
        """Return the memory and the graph of neighbors."""
        return {
            "memory": None if self._memory is None else self._memory.state_dict(),
            "graph": None if self._graph is None else torch.from_numpy(self._graph),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the memory and the graph."""
        if self._memory is not None:
            self._memory.load_state_dict(state["memory"])
        if state["graph"] is not None:
            self._graph = state["graph"].numpy()
