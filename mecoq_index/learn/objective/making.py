"""Build the objective and the quantizer from settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .base import Objective
from .contrast import Contrast
from .distillation import Distillation
from .quantizer import Quantizer, SignQuantizer, SoftQuantizer
from .settings import DistillationSettings, SignsSettings

if TYPE_CHECKING:
    from ..config import TrainConfig


def make_quantizer(config: TrainConfig) -> Quantizer:
    """Make the quantizer, with codewords drawn from torch's random stream."""
    if isinstance(config.objective, SignsSettings):
        return SignQuantizer(config.dim, alpha=config.alpha)
    learned = isinstance(config.objective, DistillationSettings) or (
        config.objective.codebooks == "learned"
    )
    return SoftQuantizer(
        config.num_codebooks,
        config.num_codewords,
        config.dim // config.num_codebooks,
        alpha=config.alpha,
        learned=learned,
    )


def make_objective(config: TrainConfig, device: torch.device) -> Objective:
    """Make the objective to minimize."""
    settings = config.objective
    if isinstance(settings, DistillationSettings):
        return Distillation(settings, num_codebooks=config.num_codebooks, seed=config.seed).to(
            device
        )
    return Contrast(
        settings,
        num_codebooks=config.num_codebooks,
        num_codewords=config.num_codewords,
        seed=config.seed,
        device=device,
    )
