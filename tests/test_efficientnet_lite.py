import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"

spec = importlib.util.spec_from_file_location("lite", BENCHMARKS / "efficientnet_lite.py")
efficientnet_lite = importlib.util.module_from_spec(spec)
spec.loader.exec_module(efficientnet_lite)


@pytest.mark.parametrize("height, width", [(3, 3), (2, 4), (1, 1), (6, 6)])
@pytest.mark.parametrize("side", [3, 5])
def test_a_convolution_of_small_maps_and_its_gradients_are_pytorchs(side, height, width):
    torch.manual_seed(0)
    theirs = nn.Conv2d(6, 6, side, padding=side // 2, groups=6, bias=False).double()
    ours = efficientnet_lite.DepthwiseConvolution(theirs)
    x = torch.randn(5, 6, height, width, dtype=torch.float64, requires_grad=True)
    grad = torch.randn_like(x)
    found = [torch.autograd.grad(module(x), [x, theirs.weight], grad) for module in (ours, theirs)]
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(found[0], found[1])


def test_a_convolution_of_channels_last_maps_in_float32_is_pytorchs():
    # the memory format and the precision that the network trains in
    torch.manual_seed(0)
    theirs = nn.Conv2d(24, 24, 5, padding=2, groups=24, bias=False)
    ours = efficientnet_lite.DepthwiseConvolution(theirs)
    x = torch.randn(16, 24, 3, 3).contiguous(memory_format=torch.channels_last).requires_grad_()
    grad = torch.randn_like(x)
    found = [torch.autograd.grad(module(x), [x, theirs.weight], grad) for module in (ours, theirs)]
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


def test_a_pointwise_convolution_and_its_gradients_are_pytorchs():
    torch.manual_seed(0)
    theirs = nn.Conv2d(6, 10, 1, bias=False).double()
    ours = efficientnet_lite.PointwiseConvolution(theirs)
    x = torch.randn(5, 6, 3, 4, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(5, 10, 3, 4, dtype=torch.float64)
    found = [torch.autograd.grad(module(x), [x, theirs.weight], grad) for module in (ours, theirs)]
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(found[0], found[1])


def test_a_convolution_that_is_not_plain_is_refused():
    for other in (nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1, stride=2, bias=False)):
        with pytest.raises(ValueError, match="stride 1 without a bias is wanted, got Conv2d"):
            efficientnet_lite.PointwiseConvolution(other)
