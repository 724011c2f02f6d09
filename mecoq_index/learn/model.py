"""The network that is trained: backbone (or cached features), projection, quantizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..codebooks import Backbone, Codebooks, Layer
from .config import TrainConfig
from .quantizer import Quantized, SignQuantizer, SoftQuantizer


class MeCoQ(nn.Module):
    """Features to embeddings to soft codes.

    Args:
        feature_width: P, the width of the backbone's output.
        config: The training settings.
        backbone: Maps images (B, 3, H, W) to features (B, P); None where the features come cached.
    """

    def __init__(
        self, feature_width: int, config: TrainConfig, backbone: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        if config.projection == "mlp":
            self.projection = nn.Sequential(
                nn.Linear(feature_width, config.hidden_dim),
                nn.ReLU(),
                nn.Linear(config.hidden_dim, config.dim),
            )
        else:
            self.projection = nn.Sequential(nn.Linear(feature_width, config.dim))
        self.quantizer: SoftQuantizer | SignQuantizer
        if config.codebooks == "signs":
            self.quantizer = SignQuantizer(config.dim, alpha=config.alpha)
        else:
            self.quantizer = SoftQuantizer(
                config.num_codebooks,
                config.num_codewords,
                config.dim // config.num_codebooks,
                alpha=config.alpha,
                learned=config.codebooks == "learned",
            )

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Embeddings z (B, D) of images (B, 3, H, W) or features (B, P)."""
        features = x if self.backbone is None else self.backbone(x)
        z: torch.Tensor = self.projection(features)
        return z

    def forward(self, x: torch.Tensor) -> Quantized:
        """Soft codes and reconstructions; the quantizer runs in float32 under autocast too."""
        z = self.embed(x)
        with torch.autocast(z.device.type, enabled=False):
            quantized: Quantized = self.quantizer(z.float())
        return quantized

    def to_codebooks(
        self, *, backbone: Backbone | None, provenance: Mapping[str, Any]
    ) -> Codebooks:
        """What has been learned so far, as an artefact."""
        layers = [
            Layer(layer.weight.detach().cpu().numpy(), layer.bias.detach().cpu().numpy())
            for layer in self.projection
            if isinstance(layer, nn.Linear)
        ]
        codewords = self.quantizer.unit_codewords().detach().cpu().numpy()
        return Codebooks(codewords, projection=layers, backbone=backbone, provenance=provenance)
