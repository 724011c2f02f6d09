"""A small convolutional network for small images, trained from scratch with the codebooks.

Its name as a backbone is ``mecoq:small``. It needs no download, and learns a data set such as
handwritten digits on a CPU within a minute.
"""

from __future__ import annotations

import torch
from torch import nn


class SmallNetwork(nn.Module):
    """Three convolutions with stride 2, positions kept; (B, 3, 16, 16) to (B, 256).

    Group normalization takes the place of batch normalization, so that the features of an image do
    not depend on the other images of its batch.
    """

    image_size = 16
    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((3, 32), (32, 64), (64, 64)):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1),
                nn.GroupNorm(8, after),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers, nn.Flatten())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features (B, 256) of images (B, 3, 16, 16)."""
        features: torch.Tensor = self.layers(x)
        return features
