import os
from pathlib import Path

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")

from mecoq_index.data.images import (
    ImageArray,
    ImageFiles,
    ImageList,
    check_images,
    class_labels,
    find_images,
    open_image,
    to_pil,
)
from mecoq_index.errors import InvalidInputError


def pixels(h=6, w=8, seed=0):
    return np.random.default_rng(seed).integers(256, size=(h, w, 3), dtype=np.uint8)


def test_images_are_found_below_a_folder_whatever_their_suffix_case(tmp_path):
    for name in ("b/x.PNG", "a.jpg", "b/c/y.JpEg", "notes.txt", ".hidden/z.bmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"?")
    found = [p.relative_to(tmp_path).as_posix() for p in find_images(tmp_path)]
    assert found == [".hidden/z.bmp", "a.jpg", "b/c/y.JpEg", "b/x.PNG"]
    assert find_images(tmp_path / "a.jpg") == [tmp_path / "a.jpg"]


def test_a_folder_without_images_says_what_is_looked_for(tmp_path):
    with pytest.raises(InvalidInputError, match=r"holds no images \(\.bmp, \.gif, \.jpeg"):
        find_images(tmp_path)
    with pytest.raises(InvalidInputError, match="none does not exist"):
        find_images(tmp_path / "none")


def test_gray_palette_and_alpha_become_rgb(tmp_path):
    gray = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    Image.fromarray(gray).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "gray.png"))[..., 1], gray)

    Image.fromarray(pixels()).quantize(4).save(tmp_path / "palette.png")
    want = Image.open(tmp_path / "palette.png").convert("RGB")
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "palette.png")), want)

    rgba = np.dstack([pixels(), np.zeros((6, 8), np.uint8)])
    rgba[0, 0, 3] = 255
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    opened = np.asarray(open_image(tmp_path / "alpha.png"))
    np.testing.assert_array_equal(opened[0, 0], rgba[0, 0, :3])
    assert (opened[1:] == 255).all()

    Image.fromarray(pixels()).convert("CMYK").save(tmp_path / "cmyk.jpg")
    assert open_image(tmp_path / "cmyk.jpg").mode == "RGB"


def test_sixteen_bit_gray_is_scaled_not_clipped(tmp_path):
    deep = (np.arange(48).reshape(6, 8) * 1365).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    opened = np.asarray(open_image(tmp_path / "deep.png"))[..., 0]
    np.testing.assert_allclose(opened, deep / 257, atol=1)


def test_exif_orientation_turns_the_image_upright(tmp_path):
    image = Image.fromarray(pixels(6, 8))
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was held on its side
    image.save(tmp_path / "turned.png", exif=exif)
    opened = open_image(tmp_path / "turned.png")
    assert opened.size == (6, 8)
    np.testing.assert_array_equal(np.asarray(opened), np.rot90(pixels(6, 8), -1))


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_unreadable_images_are_named(tmp_path, content):
    path = tmp_path / "bad.jpg"
    if content is None:
        Image.fromarray(pixels(64, 64)).save(path)
        content = path.read_bytes()[:-200]
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"bad\.jpg is no readable image: "):
        open_image(path)


def test_checking_skips_or_refuses_bad_images(tmp_path):
    Image.fromarray(pixels()).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"x")
    seen = []
    images = ImageFiles(find_images(tmp_path), tmp_path)
    good, skipped = check_images(images, on_progress=lambda *a: seen.append(a))
    assert [good.name(i) for i in range(len(good))] == ["good.png"]
    assert [images.name(i) for i, _ in skipped] == ["bad.png"]
    assert seen == [("checking images", 1, 2), ("checking images", 2, 2)]
    with pytest.raises(InvalidInputError, match=r"bad\.png is no readable image"):
        check_images(images, strict=True)
    with pytest.raises(InvalidInputError, match="none of the 1 images is readable; the first: "):
        check_images(ImageFiles([tmp_path / "bad.png"]))


def test_labels_come_from_class_folders_only(tmp_path):
    paths = [tmp_path / name for name in ("b/1.png", "a/2.png", "b/3.png")]
    np.testing.assert_array_equal(class_labels(tmp_path, paths), [1, 0, 1])
    assert class_labels(tmp_path, [*paths, tmp_path / "4.png"]) is None
    assert class_labels(tmp_path, paths[:1]) is None


def test_image_sequences_have_names_and_rgb_images(tmp_path):
    Image.fromarray(pixels()).save(tmp_path / "x.png")
    files = ImageFiles([tmp_path / "x.png"], tmp_path)
    array = ImageArray(pixels()[None])
    for images, name in ((files, "x.png"), (array, "0")):
        assert len(images) == 1
        assert images.name(0) == name
        np.testing.assert_array_equal(np.asarray(images.load(0)), pixels())
    with pytest.raises(
        InvalidInputError, match=r"pixels must be uint8 \(n, H, W, 3\), got float64"
    ):
        ImageArray(np.zeros((1, 2, 2, 3)))


def test_a_list_of_paths_and_pil_images_is_read_as_files_are(tmp_path):
    Image.fromarray(pixels()).save(tmp_path / "plain.png")
    rotated = Image.fromarray(pixels(seed=1))
    exif = rotated.getexif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    rotated.save(tmp_path / "rotated.png", exif=exif)
    deep = (np.arange(48).reshape(6, 8) * 1365).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    paths = [tmp_path / f"{name}.png" for name in ("plain", "rotated", "deep")]
    want = [np.asarray(open_image(path)) for path in paths]
    assert want[1].shape == (8, 6, 3)
    opened = [Image.open(path) for path in paths]
    for images in (ImageList(paths), ImageList([str(path) for path in paths]), ImageList(opened)):
        assert len(images) == 3
        for i in range(3):
            np.testing.assert_array_equal(np.asarray(images.load(i)), want[i])
    assert [ImageList([paths[0], opened[1]]).name(i) for i in (0, 1)] == [str(paths[0]), "image 1"]
    assert opened[1].size == (8, 6)  # those that were given stay as they are
    for image in opened:
        image.close()


def test_an_unreadable_image_in_a_list_is_named(tmp_path):
    Image.fromarray(pixels(60, 80)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    with Image.open(tmp_path / "b.png") as cut:
        with pytest.raises(InvalidInputError, match="image 1 is no readable image"):
            ImageList([tmp_path / "a.png", cut]).load(1)
    with pytest.raises(InvalidInputError, match=r"b\.png is no readable image"):
        ImageList([tmp_path / "b.png"]).load(0)


def test_a_decoder_that_fails_in_any_way_skips_its_image(tmp_path, monkeypatch):
    for name in ("a.png", "b.png"):
        Image.fromarray(pixels()).save(tmp_path / name)
    real = Image.Image.convert

    def convert(image, *args):
        if image.size == (8, 6) and not seen:
            seen.append(1)
            raise ZeroDivisionError("a broken header")
        return real(image, *args)

    seen = []
    monkeypatch.setattr(Image.Image, "convert", convert)
    good, skipped = check_images(ImageFiles(find_images(tmp_path), tmp_path))
    assert [good.name(i) for i in range(len(good))] == ["b.png"]
    assert len(skipped) == 1
    assert skipped[0][1].endswith("a.png is no readable image: a broken header")


def test_folders_that_cannot_be_opened_are_named_in_a_warning(tmp_path, monkeypatch, caplog):
    (tmp_path / "closed").mkdir()
    Image.fromarray(pixels()).save(tmp_path / "a.png")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert find_images(tmp_path) == [tmp_path / "a.png"]
    assert "closed are left out: Permission denied" in caplog.text


def test_folders_that_cannot_be_entered_are_named_in_a_warning(tmp_path, monkeypatch, caplog):
    """They can be listed, but not a single file in them can be looked at."""
    for name in ("a.png", "closed/b.png", "closed/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels()).save(tmp_path / name)
    real = Path.is_file

    def is_file(path):
        if path.parent.name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "is_file", is_file)
    assert find_images(tmp_path) == [tmp_path / "a.png"]
    assert len(caplog.records) == 1
    assert "closed" in caplog.text
    assert "left out: Permission denied" in caplog.text


@pytest.mark.parametrize("channels", [1, 3])
def test_tensors_of_bytes_or_of_unit_floats_become_images(channels):
    planes = pixels().transpose(2, 0, 1)[:channels]
    for given in (planes, planes / np.float32(255)):
        image = np.asarray(to_pil(given).convert("RGB")).transpose(2, 0, 1)
        np.testing.assert_array_equal(image, np.broadcast_to(planes, (3, 6, 8)))


@pytest.mark.parametrize(
    "bad,message",
    [
        (np.zeros((6, 8, 3), np.uint8), r"must have shape \(3, H, W\), got \(6, 8, 3\)"),
        (
            np.full((3, 2, 2), -1.5),
            r"floats in \[0, 1\], got float64 from -1\.5 to -1\.5\. Leave out",
        ),
        (np.zeros((3, 2, 2), int), r"got int64 from 0 to 0"),
    ],
)
def test_other_tensors_are_no_pixels(bad, message):
    with pytest.raises(InvalidInputError, match=message):
        to_pil(bad)
