"""Opening one image file from somebody else, in bounded memory.

Pillow knows dozens of formats, and chooses by content, not by name: a ``.jpg`` can be PostScript,
which runs another program. So only the formats that this package lists are tried. A few bytes can
declare billions of pixels, or tables that overlap; both are compared with limits before anything
is decoded.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO, Any

from .._optional import require
from ..errors import InvalidInputError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"})
"""The suffixes, in lower case, by which images are found."""
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")

_MOST_PIXELS = 100_000_000
# An image is resized by its shorter side, so that the longer one decides the memory.
_MOST_SIDES = 256
_TIFF_HEADS = {b"II*\0": "<", b"MM\0*": ">", b"MM*\0": ">", b"II\0*": "<"}
_BIG_TIFF_HEADS = {b"II+\0": "<", b"MM\0+": ">"}
_FREE_TAG_BYTES = 1 << 20


def pil() -> Any:
    """Return the module ``PIL.Image``.

    Raises:
        MissingDependencyError: If Pillow is not installed.
    """
    return require("PIL.Image", extra="images", purpose="reading images")


def open_limited(source: Path | IO[bytes]) -> Any:
    """Open an image without decoding its pixels.

    A JPEG of more than 100 million pixels is set to be decoded at a half, a quarter or an eighth of
    its size.

    Args:
        source: The file; a stream must be able to seek.

    Returns:
        A PIL image, to be used in a ``with`` statement.

    Raises:
        InvalidInputError: If it is no ordinary file, declares tables larger than itself, more than
            100 million pixels, or a side more than 256 times as long as the other.
        Exception: What Pillow raises of damaged files: anything at all.
    """
    if isinstance(source, Path):
        if not source.exists():
            raise InvalidInputError("it does not exist")
        if not source.is_file():
            raise InvalidInputError("it is no ordinary file")
        with source.open("rb") as stream:
            _check_tags(stream)
    else:
        _check_tags(source)
    image = pil().open(source, formats=_FORMATS)
    try:
        _draft(image)
        check_size(image)
        if isinstance(exif := image.info.get("exif"), bytes):
            _check_table(exif.removeprefix(b"Exif\0\0"), len(exif))
    except BaseException:
        image.close()
        raise
    return image


def check_size(image: Any) -> None:
    """Refuse an image whose pixels would take too much memory, now or when it is resized.

    Raises:
        InvalidInputError: If it has more than 100 million pixels, or one side is more than 256
            times as long as the other.
    """
    short, long = sorted(image.size)
    if short * long > _MOST_PIXELS:
        raise InvalidInputError(
            f"it has {image.size[0]} x {image.size[1]} pixels, and no more than {_MOST_PIXELS:,} "
            "are read"
        )
    if short < 1 or long > _MOST_SIDES * short:
        raise InvalidInputError(
            f"it has {image.size[0]} x {image.size[1]} pixels, and no side may be more than "
            f"{_MOST_SIDES} times as long as the other"
        )


def _draft(image: Any) -> None:
    """Have a large JPEG decoded smaller; a progressive one is decoded whole at first."""
    width, height = image.size
    if image.format not in ("JPEG", "MPO") or image.info.get("progressive"):
        return
    scale = next((s for s in (1, 2, 4) if width * height <= _MOST_PIXELS * s * s), 8)
    if scale > 1:
        image.draft(None, (width // scale, height // scale))


def _check_tags(stream: IO[bytes]) -> None:
    """Refuse a TIFF whose first table declares more bytes than the file has.

    Pillow reads all entries of a table at once, and entries may overlap: a megabyte can declare
    gigabytes.

    Raises:
        InvalidInputError: If so.
    """
    at = stream.tell()
    head = stream.read(4)
    if head in _TIFF_HEADS or head in _BIG_TIFF_HEADS:
        size = stream.seek(0, 2)
        stream.seek(at)
        # Entries lie anywhere, so the whole table is looked at, not the values.
        _check_table(stream, size)
    stream.seek(at)


def _check_table(source: bytes | IO[bytes], size: int) -> None:
    """Refuse a TIFF, or the EXIF part of an image, that declares more bytes than it has."""

    def read(at: int, count: int) -> bytes:
        if isinstance(source, bytes):
            return source[at : at + count]
        source.seek(at)
        return source.read(count)

    head = read(0, 16)
    order = _TIFF_HEADS.get(head[:4]) or _BIG_TIFF_HEADS.get(head[:4])
    if order is None or len(head) < 16:
        return
    is_big = head[:4] in _BIG_TIFF_HEADS
    layout, entry, start = ("Q", 20, 8) if is_big else ("L", 12, 4)
    (place,) = struct.unpack_from(order + layout, head, start)
    counted = read(place, 8 if is_big else 2)
    if len(counted) < (8 if is_big else 2):
        return
    (entries,) = struct.unpack(order + ("Q" if is_big else "H"), counted)
    table = read(place + len(counted), min(entries, 0xFFFF) * entry)
    declared = 0
    for number in range(len(table) // entry):
        kind, count = struct.unpack_from(order + "H" + layout, table, number * entry + 2)
        declared += count * _TYPE_BYTES.get(kind, 1)
    if declared > 2 * size + _FREE_TAG_BYTES:
        raise InvalidInputError(
            f"it has {size:,} bytes, but its table of tags declares {declared:,} bytes"
        )


_TYPE_BYTES = {3: 2, 8: 2, 4: 4, 9: 4, 11: 4, 13: 4, 5: 8, 10: 8, 12: 8, 16: 8, 17: 8, 18: 8}
