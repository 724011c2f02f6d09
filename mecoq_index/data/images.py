"""Images in folders: finding them, opening them, and sequences of them.

An image sequence has a length and ``load(i)``; `ImageFiles` reads files when they are asked for,
`ImageArray` holds small images in memory, as CIFAR-10 comes in some of its forms.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .._optional import require
from ..errors import InvalidInputError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"})


class Images(Protocol):
    """A sequence of images."""

    def __len__(self) -> int: ...

    def load(self, i: int) -> Any:
        """Image i as a PIL image in RGB."""
        ...

    def name(self, i: int) -> str:
        """What image i is called."""
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
        """Image i as a PIL image in RGB.

        Raises:
            InvalidInputError: If the file is unreadable or truncated.
        """
        return open_image(self.paths[i])

    def name(self, i: int) -> str:
        """Path of image i."""
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
        """Image i as a PIL image in RGB.

        Raises:
            InvalidInputError: If it is unreadable or truncated.
        """
        image = self._images[i]
        if isinstance(image, (str, Path)):
            return open_image(Path(image))
        with _readable(self.name(i)):
            upright = _upright(image)
        return _rgb(upright)

    def name(self, i: int) -> str:
        """The path of image i, or its number where it has none."""
        image = self._images[i]
        return str(image) if isinstance(image, (str, Path)) else f"image {i}"


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
        """Image i as a PIL image in RGB."""
        return _pil().fromarray(self.pixels[i])

    def name(self, i: int) -> str:
        """The number of image i."""
        return str(i)

    def subset(self, rows: npt.NDArray[np.int64]) -> ImageArray:
        """The images with these numbers."""
        return ImageArray(self.pixels[rows])


class Subset:
    """Some images of a sequence, by number."""

    def __init__(self, images: Images, rows: npt.NDArray[np.int64]) -> None:
        self.images, self._rows = images, rows

    def __len__(self) -> int:
        return len(self._rows)

    def load(self, i: int) -> Any:
        """Image i of the subset as a PIL image in RGB."""
        return self.images.load(int(self._rows[i]))

    def name(self, i: int) -> str:
        """What image i of the subset is called."""
        return self.images.name(int(self._rows[i]))


def fingerprint(images: Images) -> str:
    """SHA-256 over the names, and the pixels where they are in memory and names are numbers."""
    digest = hashlib.sha256()
    for i in range(len(images)):
        digest.update(images.name(i).encode() + b"\0")
    array = images
    while isinstance(array, Subset):
        array = array.images
    if isinstance(array, ImageArray):
        digest.update(np.ascontiguousarray(array.pixels).data)
    return digest.hexdigest()


def _pil() -> Any:
    return require("PIL.Image", extra="images", purpose="reading images")


def find_images(root: Path) -> list[Path]:
    """All image files below ``root``, by suffix, sorted; or ``root`` itself if it is a file.

    Raises:
        InvalidInputError: If there is none.
    """
    root = Path(root)
    if root.is_file():
        return [root]
    if not root.exists():
        raise InvalidInputError(f"{root} does not exist. Give a folder of images, or one image.")
    found = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise InvalidInputError(
            f"{root} holds no images ({', '.join(sorted(SUFFIXES))} are looked for)."
        )
    return found


def open_image(path: Path) -> Any:
    """The image in a file as RGB, upright; transparency is laid over white.

    Raises:
        InvalidInputError: If the file is missing, unreadable or truncated.
    """
    with _readable(str(path)), _pil().open(path) as opened:
        image = _upright(opened)
    return _rgb(image)


@contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, SyntaxError, _pil().DecompressionBombError) as exc:
        raise InvalidInputError(f"{name} is no readable image: {exc}") from exc


def _upright(image: Any) -> Any:
    """A copy of a PIL image, all of it in memory, turned as its camera was held."""
    image.load()
    ops = require("PIL.ImageOps", extra="images", purpose="reading images")
    return ops.exif_transpose(image)


def _rgb(image: Any) -> Any:
    """A PIL image as RGB; transparency is laid over white."""
    image_module = _pil()
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
    images: Images,
    *,
    strict: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Subset, list[tuple[int, str]]]:
    """Open every image once; return the readable ones, and the others with the reason.

    Args:
        images: The images.
        strict: Refuse instead of skipping.
        on_progress: Called with images done and images in all.

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
        if on_progress is not None:
            on_progress(i + 1, len(images))
    if not good:
        raise InvalidInputError(
            f"none of the {len(images)} images is readable; the first: {skipped[0][1]}"
        )
    return Subset(images, np.array(good, np.int64)), skipped


def class_labels(root: Path, paths: Sequence[Path]) -> npt.NDArray[np.int64] | None:
    """Class numbers (n,) where every image lies in ``root/<class>/``, classes sorted; else None."""
    folders = [path.relative_to(root).parts[:-1] for path in paths]
    if any(len(parts) != 1 for parts in folders) or len(set(folders)) < 2:
        return None
    classes = sorted(set(folders))
    return np.array([classes.index(parts) for parts in folders], np.int64)
