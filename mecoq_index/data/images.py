"""Images in folders: finding them, opening them, and sequences of them.

An image sequence has a length and ``load(i)``. `ImageFiles` opens a file when its image is loaded;
`ImageArray` holds small images in memory, for instance those of CIFAR-10.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .._addresses import exists, shown
from .._optional import require
from .._progress import Progress, silent
from ..errors import InvalidInputError, MissingDependencyError, first_line
from .image_files import SUFFIXES, check_size, open_limited, pil

_log = logging.getLogger("mecoq_index")


class Images(Protocol):
    """A sequence of images."""

    def __len__(self) -> int: ...

    def load(self, i: int) -> Any:
        """Return image i as a PIL image in RGB."""
        ...

    def name(self, i: int) -> str:
        """Return the name of image i."""
        ...


class ImageFiles:
    """Images in files, opened one at a time.

    Args:
        paths: The files.
        root: Names are relative to it, with forward slashes; absolute paths if None.
    """

    def __init__(self, paths: Sequence[Path], root: Path | None = None) -> None:
        self.paths = list(paths)
        self._root = root

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, i: int) -> Any:
        """Return image i as a PIL image in RGB.

        Raises:
            InvalidInputError: If the file is unreadable or truncated.
        """
        return open_image(self.paths[i])

    def name(self, i: int) -> str:
        """Return the path of image i."""
        path = self.paths[i]
        return path.relative_to(self._root).as_posix() if self._root else str(path)


class ImageList:
    """Images given one by one, each as a path or as a PIL image.

    Args:
        images: The images. PIL images are not changed.
    """

    def __init__(self, images: Sequence[Any]) -> None:
        self._images = list(images)

    def __len__(self) -> int:
        return len(self._images)

    def load(self, i: int) -> Any:
        """Return image i as a PIL image in RGB.

        Raises:
            InvalidInputError: If it is unreadable or truncated.
        """
        image = self._images[i]
        if isinstance(image, (str, Path)):
            return open_image(Path(image))
        with readable(self.name(i)):
            return as_rgb(image)

    def name(self, i: int) -> str:
        """Return the path of image i, or its number if it has none."""
        image = self._images[i]
        return str(image) if isinstance(image, (str, Path)) else f"image {i}"

    def in_memory(self) -> list[Any]:
        """Return the images that were given as PIL images."""
        return [image for image in self._images if not isinstance(image, (str, Path))]


class ImageArray:
    """Images in one array.

    Args:
        pixels: uint8, shape (n, H, W, 3).
    """

    def __init__(self, pixels: npt.NDArray[np.uint8]) -> None:
        if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.dtype != np.uint8:
            raise InvalidInputError(
                f"pixels must be uint8 (n, H, W, 3), got {pixels.dtype} {pixels.shape}."
            )
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def load(self, i: int) -> Any:
        """Return image i as a PIL image in RGB."""
        return pil().fromarray(self.pixels[i])

    def name(self, i: int) -> str:
        """Return the number of image i."""
        return str(i)

    def subset(self, rows: npt.NDArray[np.int64]) -> ImageArray:
        """Return the images with these numbers."""
        return ImageArray(self.pixels[rows])


class Subset:
    """Some images of a sequence, by number."""

    def __init__(self, images: Images, rows: npt.NDArray[np.int64]) -> None:
        self.images, self._rows = images, rows

    def __len__(self) -> int:
        return len(self._rows)

    def load(self, i: int) -> Any:
        """Return image i of the subset as a PIL image in RGB."""
        return self.images.load(int(self._rows[i]))

    def name(self, i: int) -> str:
        """Return the name of image i of the subset."""
        return self.images.name(int(self._rows[i]))


def fingerprint(images: Images) -> str:
    """Return SHA-256 over the names, and over the pixels of images in memory.

    Images that know a ``fingerprint`` of their own add it.
    """
    digest = hashlib.sha256()
    for i in range(len(images)):
        digest.update(images.name(i).encode("utf-8", "surrogatepass") + b"\0")
    whole = images
    while isinstance(whole, Subset):
        whole = whole.images
    if isinstance(whole, ImageArray):
        digest.update(np.ascontiguousarray(whole.pixels).data)
    elif isinstance(whole, ImageList):
        for image in whole.in_memory():
            digest.update(repr((image.mode, image.size)).encode() + image.tobytes())
    elif own := getattr(whole, "fingerprint", ""):
        digest.update(own.encode())
    return digest.hexdigest()


def find_images(root: Path) -> list[Path]:
    """Return all image files below ``root``, by suffix, sorted; or ``root`` if it is a file.

    What the system does not let us look at is named in a warning of the logger ``mecoq_index``.

    Raises:
        InvalidInputError: If there is none.
    """
    root = Path(root)
    if not exists(root):
        raise InvalidInputError(
            f"{shown(root)} does not exist. Give a folder of images, or one image."
        )
    if root.is_file():
        return [root]
    closed: list[OSError] = []
    found = []
    for folder, _, names in os.walk(root, onerror=closed.append):
        for path in (Path(folder, name) for name in names):
            try:
                if path.suffix.lower() in SUFFIXES and path.is_file():
                    found.append(path)
            except OSError as exc:  # the folder may be listed, but not entered
                closed.append(exc)
                break
    found.sort()
    for error in closed:
        _log.warning("images at %s are left out: %s", error.filename, error.strerror)
    if not found:
        raise InvalidInputError(
            f"{root} holds no images ({', '.join(sorted(SUFFIXES))} are looked for)."
        )
    return found


def is_pil_image(value: object) -> bool:
    """Whether a value is a PIL image. Does not load PIL."""
    pil = sys.modules.get("PIL.Image")  # whoever holds a PIL image has loaded PIL
    return pil is not None and isinstance(value, pil.Image)


def open_image(path: Path) -> Any:
    """Return the image in a file as RGB, upright; transparency is laid over white.

    Raises:
        InvalidInputError: If the file is missing, unreadable, truncated, of a format whose suffix
            is not one of `SUFFIXES`, or larger than `open_limited` allows.
    """
    with readable(str(path)), open_limited(Path(path)) as opened:
        return as_rgb(opened)


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn every exception of a decoder into our own, which names the image.

    Raises:
        InvalidInputError: If the block raises any exception.
        OSError: If this process, or the system, has too many files open, which says nothing about
            the image.
    """
    try:
        yield
    except MissingDependencyError:
        raise
    except Exception as exc:  # decoders raise anything at all
        if isinstance(exc, OSError) and exc.errno in (errno.EMFILE, errno.ENFILE):
            raise
        raise InvalidInputError(f"{name} is no readable image: {first_line(exc)}") from exc


def to_pil(pixels: npt.NDArray[Any]) -> Any:
    """Turn pixels (3, H, W) or (1, H, W), uint8 or floats in [0, 1], into a PIL image.

    Raises:
        InvalidInputError: If shape or values are others.
    """
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3):
        raise InvalidInputError(f"pixels must have shape (3, H, W), got {pixels.shape}.")
    if pixels.dtype != np.uint8:
        if pixels.dtype.kind != "f" or not (pixels.min() >= 0 and pixels.max() <= 1):
            raise InvalidInputError(
                "pixels must be uint8, or floats in [0, 1], got "
                f"{pixels.dtype} from {pixels.min():.4g} to {pixels.max():.4g}. Leave out the "
                "normalization: it is the backbone's."
            )
        pixels = (pixels * 255).round().astype(np.uint8)
    last = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    return pil().fromarray(last[..., 0] if last.shape[2] == 1 else last)


def as_rgb(image: Any) -> Any:
    """Return a copy of a PIL image as RGB, upright; transparency is laid over white.

    Raises:
        InvalidInputError: If it is larger than `check_size` allows.
    """
    check_size(image)
    image.load()
    ops = require("PIL.ImageOps", extra="images", purpose="reading images")
    image, image_module = ops.exif_transpose(image), pil()
    if image.mode.startswith("I") or image.mode == "F":
        # PIL clips 16-bit grays to 8 bits instead of scaling them.
        values = np.asarray(image, np.float64)
        top = 65535 if values.max() > 255 else 255
        image = image_module.fromarray((values * (255 / top)).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = image_module.new("RGBA", rgba.size, "white")
        image.alpha_composite(rgba)
    return image.convert("RGB")


def check_images(
    images: Images, *, strict: bool = False, on_progress: Progress = silent
) -> tuple[Subset, list[tuple[int, str]]]:
    """Open every image once; return the readable ones, and the others with the reason.

    Args:
        images: The images.
        strict: Refuse an unreadable image instead of skipping it.
        on_progress: Called with ("checking images", images done, images in all).

    Returns:
        The readable images, and number and reason of the others.

    Raises:
        InvalidInputError: If none is readable, or with ``strict`` one is not.
    """
    good: list[int] = []
    skipped: list[tuple[int, str]] = []
    for i in range(len(images)):
        try:
            images.load(i)
        except InvalidInputError as exc:
            if strict:
                raise
            skipped.append((i, str(exc)))
        else:
            good.append(i)
        on_progress("checking images", i + 1, len(images))
    if not good:
        raise none_readable(len(images), skipped)
    return Subset(images, np.array(good, np.int64)), skipped


def none_readable(n: int, skipped: Sequence[tuple[int, str]]) -> InvalidInputError:
    """Return the error that says that none of n images can be read, with the first reason."""
    if not n:
        return InvalidInputError("there must be at least one image, got none.")
    return InvalidInputError(f"none of the {n} images is readable; the first: {skipped[0][1]}")


def class_labels(root: Path, paths: Sequence[Path]) -> npt.NDArray[np.int64] | None:
    """Return class numbers (n,), in the order of the sorted names of the folders.

    None unless every image lies in ``root/<class>/`` and there are at least two classes.
    """
    folders = [path.relative_to(root).parts[:-1] for path in paths]
    if any(len(parts) != 1 for parts in folders) or len(set(folders)) < 2:
        return None
    classes = sorted(set(folders))
    return np.array([classes.index(parts) for parts in folders], np.int64)
