import numpy as np
import pytest
import torch

pytest.importorskip("torchvision")

from mecoq_index.data.images import ImageArray, Subset
from mecoq_index.data.views import Augmentation, ImageViews, plain_transform, view_transform

TRANSFORM = {"resize": 12, "crop": 8, "mean": [0.5] * 3, "std": [0.25] * 3}
STILL = Augmentation(min_scale=1.0, flip=False, jitter=0, grayscale=0, blur=0)


def images(n=9):
    return ImageArray(np.random.default_rng(0).integers(256, size=(n, 16, 20, 3), dtype=np.uint8))


def batches(source, epoch=0, seed=0, size=4):
    return list(source.batches(epoch, size, seed))


@pytest.mark.parametrize("workers", [1, 2])
def test_views_do_not_depend_on_the_number_of_workers(workers):
    alone = batches(ImageViews(images(), TRANSFORM))
    helped = batches(ImageViews(images(), TRANSFORM, workers=workers))
    for a, b in zip(alone, helped, strict=True):
        for x, y in zip(a, b, strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=0)


def test_two_views_of_an_image_differ_and_change_with_seed_and_epoch():
    source = ImageViews(images(), TRANSFORM)
    (first, second), *_ = batches(source)
    assert first.shape == (4, 3, 8, 8)
    assert not torch.equal(first, second)
    for other in (batches(source, epoch=1), batches(source, seed=1)):
        assert not torch.equal(other[0][0], first)


def test_the_second_view_is_one_of_the_partner():
    pixels = np.repeat(np.arange(9, dtype=np.uint8) * 20, 16 * 20 * 3).reshape(9, 16, 20, 3)
    source = ImageViews(ImageArray(pixels), TRANSFORM, augmentation=STILL, workers=1)
    partners = np.roll(np.arange(9), 2)
    for first, second in source.batches(0, 4, 0, partners):
        i, j = (((x[:, 0, 0, 0] * 0.25 + 0.5) * 255 / 20).round().int() for x in (first, second))
        np.testing.assert_array_equal(partners[i], j)


def test_loading_leaves_the_global_stream_alone():
    torch.manual_seed(1)
    want = torch.rand(2)
    torch.manual_seed(1)
    batches(ImageViews(images(), TRANSFORM))
    torch.testing.assert_close(torch.rand(2), want)


def test_every_image_is_shown_once_and_a_last_single_one_dropped():
    source = ImageViews(images(9), TRANSFORM)
    assert [len(a) for a, _ in batches(source)] == [4, 4]
    assert source.steps(4) == 2
    assert source.steps(7) == 2


def test_the_plain_transform_is_resize_crop_normalise():
    white = ImageArray(np.full((1, 16, 20, 3), 255, np.uint8)).load(0)
    assert torch.equal(plain_transform(TRANSFORM)(white), torch.full((3, 8, 8), 2.0))


def test_every_part_of_an_augmentation_can_be_switched_off_and_does_something():
    image = images(1).load(0)
    torch.manual_seed(0)
    still = view_transform({**TRANSFORM, "crop": 16}, STILL)
    torch.testing.assert_close(still(image), still(image))
    for change in (
        {"min_scale": 0.3},
        {"flip": True},
        {"jitter": 1.0},
        {"grayscale": 1.0},
        {"blur": 1.0},
    ):
        moved = view_transform({**TRANSFORM, "crop": 16}, Augmentation(**{**vars(STILL), **change}))
        assert any(not torch.equal(moved(image), still(image)) for _ in range(8)), change


def test_fingerprints_tell_image_sets_apart():
    assert (
        ImageViews(images(3), TRANSFORM).fingerprint == ImageViews(images(3), TRANSFORM).fingerprint
    )
    assert (
        ImageViews(images(3), TRANSFORM).fingerprint != ImageViews(images(4), TRANSFORM).fingerprint
    )


def test_fingerprints_see_the_pixels_of_images_without_names():
    def of(images):
        return ImageViews(images, TRANSFORM).fingerprint

    rows = np.arange(2)
    brighter = ImageArray(images(3).pixels // 2 + 100)
    assert of(images(3)) != of(brighter)
    assert of(Subset(images(3), rows)) != of(Subset(brighter, rows))
