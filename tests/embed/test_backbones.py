from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("torchvision")

from mecoq_index.backbone import Backbone
from mecoq_index.embed.backbones import (
    backbone_record,
    frozen_norms_to_eval,
    load_backbone,
    restore_backbone,
    set_trainable,
)
from mecoq_index.errors import ArtifactError, InvalidInputError

TINY = "tiny_network:TinyNetwork"


@pytest.fixture(autouse=True)
def tiny_on_path(monkeypatch, request):
    monkeypatch.syspath_prepend(str(request.path.parents[1] / "learn"))


@pytest.mark.parametrize(
    "name,width",
    [
        ("torchvision:resnet18:none", 512),
        ("torchvision:mobilenet_v3_small:none", 1024),
        ("torchvision:squeezenet1_1:none", None),
        (TINY, 12),
    ],
)
def test_a_backbone_gives_features_without_its_classification_layer(name, width):
    if width is None:
        with pytest.raises(InvalidInputError, match="has no linear classification layer"):
            load_backbone(name)
        return
    backbone = load_backbone(name)
    size = backbone.transform["crop"]
    with torch.no_grad():
        features = backbone.module.eval()(torch.zeros(2, 3, size, size))
    assert features.shape == (2, width)
    assert backbone.width == width


def test_vgg16_keeps_its_classifier_but_for_the_last_layer():
    torchvision = pytest.importorskip("torchvision")
    from mecoq_index.embed import backbones

    with torch.device("meta"):
        vgg = torchvision.models.vgg16()
        backbones._cut_classification_layer(vgg, "vgg16")
        assert vgg(torch.zeros(1, 3, 224, 224)).shape == (1, 4096)
    trainable = set_trainable(vgg, 2)
    assert [tuple(p.shape) for p in trainable if p.ndim == 2] == [(4096, 25088), (4096, 4096)]


def test_random_weights_are_the_same_every_time_and_leave_the_stream_alone():
    torch.manual_seed(3)
    a = load_backbone(TINY)
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.rand(1) == after
    assert a.weights_sha256 == load_backbone(TINY).weights_sha256


def test_the_image_size_can_be_chosen():
    assert load_backbone(TINY, image_size=24).transform["crop"] == 24
    assert load_backbone("torchvision:resnet18:none").transform["resize"] == 256


def test_weights_come_from_a_file(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(9)
    model = torchvision.models.resnet18()
    torch.save(model.state_dict(), tmp_path / "w.pth")
    backbone = load_backbone(f"torchvision:resnet18:{tmp_path / 'w.pth'}")
    torch.testing.assert_close(backbone.module.conv1.weight, model.conv1.weight)
    with pytest.raises(ArtifactError, match="the weights do not fit the backbone 'mobilenet"):
        load_backbone(f"torchvision:mobilenet_v3_small:{tmp_path / 'w.pth'}")
    with pytest.raises(ArtifactError, match=r"missing\.pth does not exist"):
        load_backbone(f"torchvision:resnet18:{tmp_path / 'missing.pth'}")


@pytest.mark.parametrize(
    "name,message",
    [
        ("torchvision:vgg17", r"unknown torchvision model 'vgg17'; choose one of \['alexnet'"),
        ("vgg17", "unknown torchvision model 'vgg17'"),
        ("no_such_module:Net", "there is no module 'no_such_module' to import"),
        ("tiny_network:Missing", "tiny_network has no 'Missing'"),
        ("tiny_network:not_a_network", "must return an nn.Module when called, got int"),
        ("tiny_network:GivesMaps", r"must map \(B, 3, H, W\) to \(B, P\), got \(1, 3, 16, 16\)"),
    ],
)
def test_names_that_mean_nothing_are_refused(name, message):
    with pytest.raises(InvalidInputError, match=message):
        load_backbone(name)


def test_a_download_that_fails_says_what_to_do(monkeypatch):
    from urllib.error import URLError

    def fail(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", fail)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(
        ArtifactError,
        match=r"'torchvision:resnet18' could not be downloaded .*'torchvision:resnet18:none'",
    ):
        load_backbone("torchvision:resnet18")


@pytest.mark.parametrize("last,expected", [(0, []), (1, [12]), (2, [12, 8]), (-1, [12, 8, 8])])
def test_only_the_last_layers_are_trainable(last, expected):
    module = load_backbone(TINY).module
    trainable = set_trainable(module, last)
    sizes = [p.shape[0] for p in trainable if p.ndim > 1 or p.shape[0] == 8]
    assert sum(p.requires_grad for p in module.parameters()) == len(trainable) == 2 * len(expected)
    assert set(sizes) <= set(expected)


def test_frozen_batch_norms_keep_their_statistics():
    module = load_backbone(TINY).module
    norm = module.layers[1]
    for last, moves in ((1, False), (2, True)):
        set_trainable(module, last)
        module.train()
        frozen_norms_to_eval(module)
        before = norm.running_mean.clone()
        module(torch.randn(4, 3, 16, 16))
        assert torch.equal(norm.running_mean, before) is not moves


def test_a_record_brings_the_same_network_back():
    backbone = load_backbone(TINY)
    again = restore_backbone(backbone_record(backbone, trained=False))
    assert again.weights_sha256 == backbone.weights_sha256
    with torch.no_grad():
        backbone.module.layers[5].weight.add_(1)
    record = backbone_record(backbone, trained=True)
    restored = restore_backbone(record)
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        want = backbone.module.eval()(x)
        torch.testing.assert_close(restored.module.eval()(x), want, rtol=0, atol=0)


def test_other_weights_than_those_of_training_are_refused():
    record = backbone_record(load_backbone(TINY), trained=False)
    object.__setattr__(record, "weights_sha256", "0" * 64)
    with pytest.raises(ArtifactError, match="are not those that the codebooks were learned on"):
        restore_backbone(record)


def test_the_digest_sees_every_weight():
    a, b = load_backbone(TINY), load_backbone(TINY)
    with torch.no_grad():
        b.module.layers[1].running_var[0] += 1
    assert backbone_record(a, trained=True).weights_sha256 == a.weights_sha256
    assert backbone_record(b, trained=True).weights_sha256 != a.weights_sha256
    assert isinstance(a.module, nn.Module)
    assert np.isfinite(a.width)


def test_only_changed_weights_are_kept_and_put_on_the_named_ones():
    backbone = load_backbone(TINY)
    assert backbone_record(backbone, trained=True).state is None
    with torch.no_grad():
        backbone.module.layers[5].bias.add_(1)
    record = backbone_record(backbone, trained=True)
    assert list(record.state) == ["layers.5.bias"]
    assert record.base_sha256 == backbone.weights_sha256
    restored = restore_backbone(record)
    assert restored.weights_sha256 == record.weights_sha256
    torch.testing.assert_close(restored.module.state_dict(), backbone.module.state_dict())
    again = backbone_record(restored, trained=True)
    assert list(again.state) == ["layers.5.bias"]
    assert again.base_sha256 == record.base_sha256


def test_weights_that_changed_all_need_no_others():
    backbone = load_backbone("mecoq:small")
    with torch.no_grad():
        for parameter in backbone.module.parameters():
            parameter.add_(1)
    record = backbone_record(backbone, trained=True)
    assert set(record.state) == set(backbone.module.state_dict())
    assert record.base_sha256 is None
    torch.testing.assert_close(
        restore_backbone(record).module.state_dict(), backbone.module.state_dict()
    )


def test_other_named_weights_than_those_under_the_changed_ones_are_refused():
    backbone = load_backbone(TINY)
    with torch.no_grad():
        backbone.module.layers[5].bias.add_(1)
    record = replace(backbone_record(backbone, trained=True), base_sha256="0" * 64)
    with pytest.raises(
        ArtifactError, match=r"are not those that .* \([0-9a-f]{12} instead of 0000"
    ):
        restore_backbone(record)


@pytest.mark.parametrize("room", ["learn", "embed"])
def test_old_spellings_of_the_small_network_are_read(room):
    model = load_backbone("mecoq:small")
    assert (model.name, model.width, model.transform["crop"]) == ("mecoq:small", 256, 16)
    old = f"mecoq_index.{room}.small_network:SmallNetwork"
    record = Backbone(old, model.weights_sha256, model.transform)
    assert restore_backbone(record).name == "mecoq:small"
    assert load_backbone(old).name == "mecoq:small"


def test_unknown_built_in_networks_are_refused():
    with pytest.raises(InvalidInputError, match=r"unknown backbone 'mecoq:big'; .*'mecoq:small'"):
        load_backbone("mecoq:big")
    with pytest.raises(InvalidInputError, match="backbone must be a name, got int"):
        load_backbone(3)
