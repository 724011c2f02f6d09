"""The trained network: backbone (or cached features), projection, quantizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..codebooks import Backbone, Codebooks, Layer
from .config import TrainConfig
from .objective.making import make_quantizer
from .objective.quantizer import Quantizer


class MeCoQ(nn.Module):
    """Map images or features to embeddings, and embeddings to soft codes.

    Args:
        feature_width: P, the width of the backbone's output.
        config: The training settings.
        backbone: Maps images (B, 3, H, W) to features (B, P); None if features are cached.
    """

    def __init__(
        self, feature_width: int, config: TrainConfig, backbone: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = _make_projection(feature_width, config)
        self.quantizer: Quantizer = make_quantizer(config)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Return embeddings z (B, D) of images (B, 3, H, W) or features (B, P)."""
        features = x if self.backbone is None else self.backbone(x)
        z: torch.Tensor = self.projection(features)
        return z

    def to_codebooks(
        self, *, backbone: Backbone | None, provenance: Mapping[str, Any]
    ) -> Codebooks:
        """Return the codebooks as trained so far, with the projection as affine layers."""
        layers: list[Layer] = []
        for module in self.projection:
            if isinstance(module, nn.Linear):
                layers.append(
                    Layer(module.weight.detach().cpu().numpy(), module.bias.detach().cpu().numpy())
                )
            elif isinstance(module, nn.BatchNorm1d):
                layers.append(_fold(layers.pop(), module))
        codewords = self.quantizer.unit_codewords().detach().cpu().numpy()
        return Codebooks(codewords, projection=layers, backbone=backbone, provenance=provenance)


def _make_projection(feature_width: int, config: TrainConfig) -> nn.Sequential:
    if config.projection == "linear":
        return nn.Sequential(nn.Linear(feature_width, config.dim))
    hidden: list[nn.Module] = [nn.Linear(feature_width, config.hidden_dim)]
    if config.projection == "mlp-bn":
        hidden.append(nn.BatchNorm1d(config.hidden_dim))
    return nn.Sequential(*hidden, nn.ReLU(), nn.Linear(config.hidden_dim, config.dim))


def _fold(layer: Layer, norm: nn.BatchNorm1d) -> Layer:
    """Merge a layer and the normalization after it into one affine map for inference."""
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a normalization without running statistics cannot be folded.")
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    shift = norm.bias - scale * norm.running_mean
    factor = scale.detach().cpu().numpy()
    return Layer(layer.weight * factor[:, None], layer.bias * factor + shift.detach().cpu().numpy())
