"""Data sets of torch with a length, whose items are images or vectors, perhaps with a label."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import as_vectors
from ..errors import InvalidInputError
from .images import as_rgb, is_pil_image, readable, to_pil
from .reader import RowReader


def is_dataset(source: object) -> bool:
    """Whether ``source`` is a torch data set with a length.

    Raises:
        InvalidInputError: If it is a torch data set without a length, or a loader of one.
    """
    torch = sys.modules.get("torch")  # whoever holds a data set has loaded the package
    if torch is None:
        return False
    if isinstance(source, torch.utils.data.DataLoader):
        raise InvalidInputError("a torch Dataset is needed, got a DataLoader. Give its .dataset.")
    if not isinstance(source, torch.utils.data.Dataset):
        return False
    if not hasattr(source, "__len__"):
        raise InvalidInputError(
            f"a torch Dataset must have a length, but {type(source).__name__} has none. Give one "
            "that is indexed by number."
        )
    return True


def content_of(item: object) -> Any:
    """Return the image or vector of an item, which may be followed by a label."""
    return item[0] if isinstance(item, (tuple, list)) and item else item


def holds_vectors(dataset: Any) -> bool:
    """Whether the items are vectors rather than images, judged by the first one.

    Raises:
        InvalidInputError: If the data set is empty, or its first item is neither.
    """
    if not len(dataset):
        raise InvalidInputError("the data set must hold items, but it is empty.")
    first = content_of(dataset[0])
    if is_pil_image(first):
        return False
    shape = getattr(first, "shape", None)
    if shape is not None and len(shape) in (1, 3):
        return len(shape) == 1
    raise InvalidInputError(
        "items of a data set must be PIL images, tensors (3, H, W), vectors (P,), or such with a "
        f"label, got {type(first).__name__} {'' if shape is None else tuple(shape)}."
    )


def labels_of(dataset: Any) -> npt.NDArray[np.int64] | None:
    """Return the labels (n,) of a data set; None without.

    They are taken from ``targets``, as torchvision calls them, or from the items one by one.

    Raises:
        InvalidInputError: If a label is no whole number.
    """
    found = getattr(dataset, "targets", None)
    if found is None or len(found) != len(dataset):
        first = dataset[0]
        if not isinstance(first, (tuple, list)) or len(first) < 2:
            return None
        found = [dataset[i][1] for i in range(len(dataset))]
    try:
        labels = np.asarray([int(label) for label in found], np.int64)
    except (TypeError, ValueError) as exc:
        raise InvalidInputError(f"labels of a data set must be whole numbers: {exc}") from exc
    return labels


class DatasetImages:
    """The images of a torch data set."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def load(self, i: int) -> Any:
        """Return image i as a PIL image in RGB.

        Raises:
            InvalidInputError: If the data set cannot give it, or its values are no pixels.
        """
        with readable(self.name(i)):
            image = content_of(self._dataset[i])
            return as_rgb(image if is_pil_image(image) else to_pil(np.asarray(image)))

    def name(self, i: int) -> str:
        """Return the number of image i."""
        return f"image {i}"


class DatasetRows(RowReader):
    """The vectors of a torch data set, as float32."""

    def __init__(self, dataset: Any) -> None:
        first = np.asarray(content_of(dataset[0]))
        super().__init__(len(dataset), len(first), np.dtype(np.float32), name="the data set")
        self._dataset = dataset

    def _read(self, start: int, stop: int) -> npt.NDArray[Any]:
        rows = [np.asarray(content_of(self._dataset[i])) for i in range(start, stop)]
        return as_vectors(rows, self.width, name="items of the data set")
