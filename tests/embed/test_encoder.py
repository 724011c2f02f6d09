import numpy as np
import pytest
import torch

pytest.importorskip("torchvision")
Image = pytest.importorskip("PIL.Image")

from mecoq_index._workspace import Workspace
from mecoq_index.codebooks import Codebooks
from mecoq_index.data.images import ImageArray, ImageFiles, find_images
from mecoq_index.data.views import ImageViews, plain_transform
from mecoq_index.embed import encoder
from mecoq_index.embed.backbones import load_backbone
from mecoq_index.embed.encoder import embed_images, extract_features
from mecoq_index.errors import InvalidInputError
from mecoq_index.learn.config import TrainConfig
from mecoq_index.learn.trainer import fit

TINY = "tiny_network:TinyNetwork"
CONFIG = TrainConfig().replace(
    num_codebooks=2, num_codewords=4, dim=6, epochs=2, batch_size=8, memory_size=0, lr=0.05
)


@pytest.fixture(autouse=True)
def tiny_on_path(monkeypatch, request):
    monkeypatch.syspath_prepend(str(request.path.parents[1] / "learn"))


def pixels(n=20):
    return np.random.default_rng(0).integers(256, size=(n, 16, 16, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    for i, image in enumerate(pixels(5)):
        Image.fromarray(image).save(root / f"{i}.png")
    (root / "2.png").write_bytes(b"broken")
    return root


def test_features_are_those_of_the_network():
    backbone = load_backbone(TINY)
    images = ImageArray(pixels())
    got = extract_features(images, backbone, device="cpu", batch_size=7)
    plain = plain_transform(backbone.transform)
    with torch.no_grad():
        want = backbone.module.eval()(torch.stack([plain(images.load(i)) for i in range(20)]))
    np.testing.assert_allclose(got.features, want, atol=1e-6)
    np.testing.assert_array_equal(got.kept, np.arange(20))
    assert got.views.shape == (0, 20, 12)


def test_views_are_reproducible_and_differ_from_each_other():
    backbone = load_backbone(TINY)
    a, b, c = (
        extract_features(ImageArray(pixels()), backbone, views=2, seed=seed, workers=workers)
        for seed, workers in ((0, 0), (0, 2), (1, 0))
    )
    assert a.views.shape == (2, 20, 12)
    np.testing.assert_array_equal(a.views, b.views)
    assert not np.array_equal(a.views, c.views)
    assert not np.array_equal(a.views[0], a.views[1])


def test_unreadable_images_are_skipped_and_named_or_refused(folder):
    images = ImageFiles(find_images(folder), folder)
    got = extract_features(images, load_backbone(TINY))
    np.testing.assert_array_equal(got.kept, [0, 1, 3, 4])
    ((number, reason),) = got.skipped
    assert number == 2
    assert "2.png is no readable image" in reason
    with pytest.raises(InvalidInputError, match=r"2\.png is no readable image"):
        extract_features(images, load_backbone(TINY), strict=True)


def test_nothing_readable_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"broken")
    with pytest.raises(InvalidInputError, match="none of the 1 images is readable"):
        extract_features(ImageFiles([tmp_path / "a.png"]), load_backbone(TINY))


def test_an_interrupted_extraction_goes_on_from_its_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(encoder, "_CHUNK", 6)
    backbone, images = load_backbone(TINY), ImageArray(pixels())
    whole = extract_features(images, backbone, views=1)
    done = []

    def interrupt(text, count, total):
        done.append(count)
        if count == 12:
            raise KeyboardInterrupt

    def extract(views, **options):
        with Workspace.beside(tmp_path / "f.npz").locked(resume=True) as store:
            return extract_features(images, backbone, views=views, store=store, **options)

    with pytest.raises(KeyboardInterrupt):
        extract(1, on_progress=interrupt)
    with pytest.raises(
        InvalidInputError, match=r"left from another run, which differs in: views\. Leave out"
    ):
        extract(2)
    computed = []
    real = encoder._Network.features
    monkeypatch.setattr(encoder._Network, "features", lambda *a: computed.append(a) or real(*a))
    resumed = extract(1)
    assert len(computed) == 2
    np.testing.assert_array_equal(resumed.features, whole.features)
    np.testing.assert_array_equal(resumed.views, whole.views)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layers", [0, 1, -1])
def test_training_from_images_gives_codebooks_that_embed_images(layers, tmp_path):
    backbone = load_backbone(TINY)
    images = ImageArray(pixels())
    config = CONFIG.replace(trainable_layers=layers)
    out = tmp_path / "c.pt"
    fit(ImageViews(images, backbone.transform), config, backbone=backbone, out=out, device="cpu")
    books = Codebooks.load(out)
    assert (books.backbone.state is None) == (layers == 0)
    z = embed_images(images, books, device="cpu").z
    extracted = extract_features(images, backbone, device="cpu")
    np.testing.assert_allclose(z, books.project(extracted.features), atol=1e-6)


@pytest.mark.parametrize("neighbors", [0, 3])
def test_a_trained_backbone_changes_where_it_may_and_resumes_to_equal_bits(neighbors, tmp_path):
    config = CONFIG.replace(
        trainable_layers=1, epochs=3, backbone_lr_scale=1.0, neighbors=neighbors
    )

    def run(out, resume=False, stop=None):
        backbone = load_backbone(TINY)
        before = {k: v.clone() for k, v in backbone.module.state_dict().items()}

        def on_progress(text, done, total):
            if done == stop:
                raise KeyboardInterrupt

        source = ImageViews(ImageArray(pixels()), backbone.transform)
        books = fit(
            source, config, backbone=backbone, out=out, resume=resume, on_progress=on_progress
        )
        return books, before, backbone.module.state_dict()

    books, before, after = run(tmp_path / "whole.pt")
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed == {"layers.5.weight", "layers.5.bias"}
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "c.pt", stop=1)
    resumed, _, again = run(tmp_path / "c.pt", resume=True)
    assert resumed.fingerprint == books.fingerprint
    assert all(torch.equal(after[k], again[k]) for k in after)


def test_codebooks_of_vectors_cannot_embed_images():
    c = np.eye(4, dtype=np.float32)[None]
    with pytest.raises(
        InvalidInputError, match="learned from vectors, so they cannot embed images"
    ):
        embed_images(ImageArray(pixels(1)), Codebooks(c))
