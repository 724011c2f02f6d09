"""Distillation: codes that reproduce a float ranking, with cosine as the teacher of AQS.

Use it for embeddings whose own similarity you trust (CLIP, DINO, sentence models). It needs only
the vectors. The network starts as product quantization of principal components and is then
fine-tuned by gradient, with hard codes in the forward pass, as in search.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..._arrays import Vectors
from ...errors import InvalidInputError
from .base import Embed, Objective
from .components import start_from_components
from .quantizer import Quantized, Quantizer
from .settings import DistillationSettings

_LENGTH_TOLERANCE = 0.01


class RankingDistillation(nn.Module):
    """Listwise distillation of the cosine into AQS.

    For the rows i, j of a batch, with vectors x, block-normalized embeddings z and decoded
    hard codes r:

        P_i = softmax over j != i of <x_i, x_j> / T
        Q_i = softmax over j != i of s <z_i, r_j>
        L   = mean over i of KL(P_i || Q_i)

    Codes are hard forward and soft backward (straight-through). The scale s is learned.

    Args:
        teacher_temperature: T, the temperature of the teacher's softmax.
    """

    def __init__(self, teacher_temperature: float = 0.05) -> None:
        super().__init__()
        self._teacher_temperature = teacher_temperature
        self.log_scale = nn.Parameter(torch.tensor(0.0))

    def forward(
        self, x: torch.Tensor, z: torch.Tensor, reconstruction: torch.Tensor
    ) -> torch.Tensor:
        """Return the scalar loss of unit vectors (B, P), block-normalized z and r (B, D)."""
        itself = torch.eye(len(x), dtype=torch.bool, device=x.device)
        teacher = (x @ x.T / self._teacher_temperature).masked_fill(itself, -1e4).log_softmax(1)
        student = (self.log_scale.exp() * z @ reconstruction.T).masked_fill(itself, -1e4)
        return F.kl_div(student.log_softmax(1), teacher, reduction="batchmean", log_target=True)


def straight_through(quantized: Quantized, codewords: torch.Tensor) -> torch.Tensor:
    """Return decoded hard codes (n, D) that have the gradient of the soft ones."""
    soft = quantized.soft_codes
    hard = F.one_hot(quantized.logits.argmax(-1), soft.shape[-1]).to(soft)
    codes = soft + (hard - soft).detach()
    return torch.einsum("nmk,mkd->nmd", codes, codewords).flatten(1)


def check_unit_rows(x: Vectors) -> None:
    """Refuse vectors that are not of unit length, since no projection can remove the lengths.

    Raises:
        InvalidInputError: If a length is off by more than 1 %.
    """
    lengths = np.sqrt(np.einsum("np,np->n", x, x))
    off = np.flatnonzero(np.abs(lengths - 1) > _LENGTH_TOLERANCE)
    if len(off):
        raise InvalidInputError(
            "distillation reproduces the cosine, so vectors must have length 1, items and queries "
            f"alike, but {len(off)} of {len(x)} rows have not, the first of them row {off[0]} of "
            f"length {lengths[off[0]]:.4g}. Divide each row by its length: normalize=True, or "
            "--normalize, does it here and in all that uses the codebooks."
        )


class Distillation(Objective):
    """Listwise distillation of the cosine of single vectors.

    Args:
        settings: The settings.
        num_codebooks: M.
        seed: The seed of the starting point.
    """

    def __init__(self, settings: DistillationSettings, *, num_codebooks: int, seed: int) -> None:
        self._settings, self._num_codebooks, self._seed = settings, num_codebooks, seed
        self._loss = RankingDistillation(settings.teacher_temperature)

    def to(self, device: torch.device) -> Distillation:
        """Move the parameters of the loss to a device, and return the objective."""
        self._loss.to(device)
        return self

    def check_source(self, num_items: int, *, has_two_views: bool, is_views: bool) -> None:
        """Refuse views and images, since the ranking of single vectors is reproduced.

        Raises:
            InvalidInputError: If the source holds views or images.
        """
        if is_views:
            raise InvalidInputError(
                "distillation reproduces the ranking of vectors: give one vector an item, (n, P), "
                "without views and without a backbone."
            )

    @property
    def needs_features(self) -> bool:
        """True, because projection and codewords start from the vectors."""
        return True

    def prepare(self, features: Vectors, projection: nn.Sequential, quantizer: Quantizer) -> None:
        """Start projection and codewords as product quantization of principal components.

        Raises:
            InvalidInputError: If vectors are not of unit length, or there is nothing to rank.
        """
        check_unit_rows(features)
        scale = start_from_components(
            projection,
            quantizer,
            features,
            seed=self._seed,
            teacher_temperature=self._settings.teacher_temperature,
        )
        with torch.no_grad():
            self._loss.log_scale.fill_(math.log(scale))

    def parameters(self) -> list[nn.Parameter]:
        """Return the scale of the student."""
        return list(self._loss.parameters())

    def loss(
        self,
        embed: Embed,
        quantizer: Quantizer,
        view1: torch.Tensor,
        view2: torch.Tensor,
        epoch: int,
    ) -> tuple[dict[str, torch.Tensor], Quantized]:
        """Compute the divergence of the student's rankings from the teacher's in the batch."""
        z = embed(view1)
        quantized: Quantized = quantizer(z)
        decoded = straight_through(quantized, quantizer.unit_codewords())
        unit = F.normalize(z.view(len(z), self._num_codebooks, -1), dim=-1).flatten(1)
        return {"loss": self._loss(view1.to(z), unit, decoded)}, quantized

    def state_dict(self) -> dict[str, Any]:
        """Return the scale of the student."""
        return {"distillation": self._loss.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the scale."""
        self._loss.load_state_dict(state["distillation"])
