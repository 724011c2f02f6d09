"""Data sets of the package ``datasets`` (Hugging Face): as tables, and as images."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from ..errors import ArtifactError, InvalidInputError
from .image_files import open_limited
from .images import as_rgb, readable
from .table import Table


def is_dataset(source: object) -> bool:
    """Whether ``source`` is a data set of the package ``datasets``.

    Raises:
        InvalidInputError: If it is a dictionary of several splits, or streamed.
    """
    package = sys.modules.get("datasets")  # whoever holds a data set has loaded the package
    if package is None:
        return False
    if isinstance(source, (package.DatasetDict, package.IterableDatasetDict)):
        raise InvalidInputError(
            f"the data set must be one split, got {sorted(source)}. Choose one: data['train']."
        )
    if isinstance(source, package.IterableDataset):
        raise InvalidInputError(
            "the data set must have a length, but it is streamed. Load it without streaming=True."
        )
    return isinstance(source, package.Dataset)


def image_columns(dataset: Any) -> list[str]:
    """Return the names of the columns that hold images."""
    kind = sys.modules["datasets"].Image
    return [name for name, feature in dataset.features.items() if isinstance(feature, kind)]


class DatasetTable(Table):
    """A data set as a table. Each row is a part of its own: reading can start anywhere."""

    def __init__(self, dataset: Any) -> None:
        super().__init__("the data set", dataset.features.arrow_schema, len(dataset))
        self._dataset = dataset

    def part(self, row: int) -> int:
        """Return the row itself."""
        return row

    def batches(self, column: str, row: int, size: int) -> Iterator[tuple[int, Any]]:
        """Yield Arrow arrays as `Table.batches` says.

        Raises:
            ArtifactError: If the data set's files are damaged.
        """
        values = self._dataset.select_columns([column]).with_format("arrow")
        for at in range(row, self.n, size):
            try:
                array = values[at : min(at + size, self.n)].column(0).combine_chunks()
            except (OSError, ValueError, IndexError) as exc:
                raise ArtifactError(f"the data set cannot be read: {exc}") from exc
            yield at, array


class DatasetImages:
    """One column of images of a data set."""

    def __init__(self, dataset: Any, column: str) -> None:
        self._column = column
        self._rows = dataset.select_columns([column]).with_format(None)
        undecoded = sys.modules["datasets"].Image(decode=False)
        self._files = self._rows.cast_column(column, undecoded)
        self.fingerprint = f"{getattr(dataset, '_fingerprint', '')} {column}"

    def __len__(self) -> int:
        return len(self._rows)

    def load(self, i: int) -> Any:
        """Return image i as a PIL image in RGB.

        Raises:
            InvalidInputError: If it cannot be decoded.
        """
        with readable(f"image {i}"):
            stored = self._files[i][self._column]
            if stored is None:
                raise ValueError("it is missing")
            source: Any = None
            if stored.get("bytes") is not None:
                source = BytesIO(stored["bytes"])
            elif stored.get("path") and Path(stored["path"]).exists():
                source = Path(stored["path"])
            if source is None:  # in an archive, or elsewhere: the data set knows the way
                return as_rgb(self._rows[i][self._column])
            with open_limited(source) as image:
                return as_rgb(image)

    def name(self, i: int) -> str:
        """Return the path of image i if it has one, else its number."""
        stored = self._files[i][self._column] or {}
        return stored.get("path") or f"image {i}"
