"""Damaged and foreign images: each is opened, or skipped with an error of ours; nothing else."""

import io
import struct
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")

from hostile.limited import mutated, report, run
from mecoq_index.data.image_files import check_size
from mecoq_index.data.images import ImageFiles, check_images, open_image
from mecoq_index.errors import InvalidInputError

# A new format is attacked by adding a line: its suffix, Pillow's name of it, how it is saved.
LISTED = [
    (".jpg", "JPEG", {}),
    (".jpg", "JPEG", {"progressive": True, "optimize": True}),
    (".jpg", "MPO", {}),
    (".png", "PNG", {}),
    (".png", "PNG", {"mode": "P"}),
    (".png", "PNG", {"mode": "I;16"}),
    (".gif", "GIF", {}),
    (".gif", "GIF", {"save_all": True, "append_images": [Image.new("RGB", (20, 12))]}),
    (".webp", "WEBP", {}),
    (".webp", "WEBP", {"lossless": True}),
    (".tif", "TIFF", {}),
    (".tif", "TIFF", {"compression": "tiff_lzw"}),
    (".tif", "TIFF", {"compression": "jpeg"}),
    (".bmp", "BMP", {}),
    (".ppm", "PPM", {}),
    (".ppm", "PPM", {"mode": "1"}),
]
# Formats that Pillow knows and we do not list, under names that we do.
FOREIGN = ["AVIF", "BLP", "DDS", "EPS", "ICNS", "ICO", "JPEG2000", "PCX", "PDF", "SGI"]
FOREIGN += ["SPIDER", "TGA", "XBM", "MSP", "QOI"]
MODES = {"XBM": "1", "MSP": "1", "SPIDER": "F", "BLP": "P"}


def saved(kind, mode="RGB", **options):
    pixels = np.random.default_rng(0).integers(256, size=(12, 20, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image = Image.fromarray(pixels[..., 0].astype(np.uint16)) if "16" in mode else (
        image.convert(mode)
    )  # fmt: skip
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def attacks(seed, count):
    """Opening ``count`` mutated images, one after the other under one name."""
    rng = np.random.default_rng(seed)
    folder = Path(tempfile.mkdtemp())
    kinds = [(suffix, saved(kind, **options)) for suffix, kind, options in LISTED]
    for i in range(count):
        suffix, content = kinds[i % len(kinds)]
        path = folder / f"x{suffix}"
        path.write_bytes(mutated(rng, content))
        yield f"seed {seed}, image {i}", lambda path=path: open_image(path)


@pytest.mark.slow
@pytest.mark.parametrize("seed,warnings", [(1, "default"), (2, "error")])
def test_mutated_images_are_opened_or_refused(seed, warnings):
    bad, counts = run(__file__, seed, 2000, warnings=warnings)
    assert bad == []
    opened, refused, _ = map(int, counts.split())
    assert opened > 200
    assert refused > 200


@pytest.mark.parametrize("suffix,kind,options", LISTED)
def test_listed_formats_are_opened(suffix, kind, options, tmp_path):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(saved(kind, **options))
    assert open_image(path).size == (20, 12)


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_formats_are_refused_whatever_their_name(kind, tmp_path):
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"Pillow cannot write {kind} here")
    (tmp_path / "x.jpg").write_bytes(saved(kind, MODES.get(kind, "RGB")))
    with pytest.raises(InvalidInputError, match=r"x\.jpg is no readable image: cannot identify"):
        open_image(tmp_path / "x.jpg")


def png(width, height, *chunks):
    def chunk(kind, content):
        return (
            struct.pack(">L", len(content))
            + kind
            + content
            + struct.pack(">L", zlib.crc32(kind + content))
        )

    head = chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0))
    rest = b"".join(chunk(kind, content) for kind, content in chunks)
    body = chunk(b"IDAT", zlib.compress(bytes(height * (3 * width + 1))[: 1 << 24]))
    return b"\x89PNG\r\n\x1a\n" + head + rest + body + chunk(b"IEND", b"")


def tags(entries, size):
    """A TIFF of overlapping tags: ``entries`` of ``size`` bytes each."""
    table = b"".join(struct.pack("<HHLL", 40000 + i, 7, size, 0) for i in range(entries))
    start = struct.pack("<2sHL", b"II", 42, 8) + struct.pack("<H", entries) + table + bytes(4)
    return start + bytes(max(0, size - len(start)))


LARGE = {
    "pixels.png": (png(13_000, 13_000), "no more than 100,000,000 are read"),
    "side.png": (png(2, 60_000), "no side may be more than 256 times as long as the other"),
    "tags.tif": (tags(20_000, 1 << 18), "its table of tags declares 5,242,880,000 bytes"),
    "exif.png": (
        png(20, 12, (b"eXIf", tags(20_000, 1 << 18))),
        "its table of tags declares 5,242,880,000 bytes",
    ),
}


@pytest.mark.parametrize("name", LARGE)
def test_images_that_declare_much_are_refused_before_they_take_memory(name):
    bad, counts = run(__file__, name)
    assert (bad, counts) == ([], "0 1 0")


def refuse_large(name):
    content, message = LARGE[name]
    path = Path(tempfile.mkdtemp()) / name
    path.write_bytes(content)
    try:
        open_image(path)
    except InvalidInputError as exc:
        if message in str(exc):
            raise
        raise ValueError(str(exc)) from exc


def test_a_large_jpeg_is_decoded_smaller(monkeypatch, tmp_path):
    monkeypatch.setattr("mecoq_index.data.image_files._MOST_PIXELS", 2_000)
    Image.new("RGB", (160, 160)).save(tmp_path / "x.jpg")
    assert open_image(tmp_path / "x.jpg").size == (40, 40)
    Image.new("RGB", (160, 160)).save(tmp_path / "y.jpg", progressive=True)
    with pytest.raises(InvalidInputError, match="160 x 160 pixels, and no more than 2,000"):
        open_image(tmp_path / "y.jpg")


def test_images_in_memory_are_bounded_too():
    with pytest.raises(InvalidInputError, match="no side may be more than 256 times"):
        check_size(Image.new("L", (1, 300)))


def test_one_odd_file_is_skipped_and_told(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "good.png")
    (tmp_path / "bad.jpg").write_bytes(saved("DDS"))
    names = ["bad.jpg", "good.png"]
    images, skipped = check_images(ImageFiles([tmp_path / name for name in names], tmp_path))
    assert [images.name(i) for i in range(len(images))] == ["good.png"]
    assert [i for i, _ in skipped] == [0]


if __name__ == "__main__":
    if sys.argv[1] in LARGE:
        report(
            [(sys.argv[1], lambda: refuse_large(sys.argv[1]))],
            memory=400 << 20,
            packages=["PIL.Image"],
        )
    else:
        report(attacks(int(sys.argv[1]), int(sys.argv[2])), memory=1 << 30, packages=["PIL.Image"])
