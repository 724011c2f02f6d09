"""Items of a source, with whatever the source says about them: vectors (or codes), or images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import Vectors, as_vectors
from ..backbone import Backbone
from ..errors import InvalidInputError
from .features import FeatureViews
from .images import Images, fingerprint
from .metadata import Described, Labels, Metadata
from .reader import RowReader, sample_digest, state_of_files


class VectorItems(Described, RowReader):
    """Vectors or codes, read range by range, with their metadata.

    Args:
        rows: The vectors or codes.
        metadata: Ids, names, columns and labels.
        load_views: Makes the views of the items, where the source has some.
        backbone: The record of the network that made the features.

    Attributes:
        path, n, width, dtype: As those of `RowReader`.
        metadata: Ids, names, columns and labels, which are attributes of their own too.
        backbone: The record of the network that made the features; None if unknown.

    Raises:
        InvalidInputError: If the metadata are not one an item.
    """

    def __init__(
        self,
        rows: RowReader,
        metadata: Metadata | None = None,
        *,
        load_views: Callable[[], FeatureViews] | None = None,
        backbone: Backbone | None = None,
    ) -> None:
        super().__init__(rows.n, rows.width, rows.dtype, path=rows.path, name=rows.name)
        self._rows, self._load_views = rows, load_views
        self.metadata = (metadata or Metadata()).check(rows.n)
        self.backbone = backbone

    def __len__(self) -> int:
        return self.n

    def __repr__(self) -> str:
        return f"VectorItems({self.n} x {self.width} {self.dtype} from {self.name})"

    @property
    def files(self) -> list[Path]:
        """The files that rows are read from; empty in memory."""
        return self._rows.files

    def with_metadata(self, metadata: Metadata) -> VectorItems:
        """Return the same items with other ids, names, columns and labels.

        Raises:
            InvalidInputError: If these are not one an item.
        """
        return VectorItems(
            self._rows, metadata, load_views=self._load_views, backbone=self.backbone
        )

    @property
    def has_codes(self) -> bool:
        """Whether the rows may be codes: they are uint8, and have no scale."""
        return self.dtype == np.uint8

    @property
    def has_views(self) -> bool:
        """Whether the source holds views of its items."""
        return self._load_views is not None

    @cached_property
    def views(self) -> FeatureViews | None:
        """The views of the items, to train on; None without.

        A file for benchmarks has those of its training items, which can be other items.

        Raises:
            ArtifactError: If they are damaged.
            InvalidInputError: If they do not fit together.
        """
        return None if self._load_views is None else self._load_views()

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Plain values that differ from those of another source, for work that is resumed."""
        return {
            "source": None if self.path is None else str(self.path.resolve()),
            "items": self.n,
            "width": self.width,
            "dtype": str(self.dtype),
            "rows": [sample_digest(self._rows), state_of_files(self._rows)],
            "ids": _digest_of_ids(self.metadata),
        }

    def to_array(self) -> npt.NDArray[Any]:
        """Return all rows, (n, width): uint8, or finite float32.

        Raises:
            InvalidInputError: If a value is NaN or Inf.
            ArtifactError: If the rows on disk are damaged.
        """
        rows = self.read(0, self.n)
        return rows if self.has_codes else as_vectors(rows, name=self.name)

    def to_vectors(self) -> Vectors:
        """Return all rows as finite float32 (n, width), numbers of uint8 too.

        Raises:
            InvalidInputError: If a value is NaN or Inf.
            ArtifactError: If the rows on disk are damaged.
        """
        return as_vectors(self.read(0, self.n), name=self.name)

    def _read(self, start: int, stop: int) -> npt.NDArray[Any]:
        return self._rows.read(start, stop)

    def _release(self) -> None:
        self._rows._release()


class ImageItems(Described):
    """Images with their metadata.

    Args:
        images: The images.
        metadata: Ids, names, columns and labels; names are those of the images if it has none.
        path: The folder or file that they come from.
        load_labels: Makes labels that are costly to find, when they are asked for.

    Attributes:
        images: The images.
        metadata: Ids, names, columns and labels, which are attributes of their own too.
        path: The folder or file; None without.

    Raises:
        InvalidInputError: If there are no images, or metadata are not one an item.
    """

    def __init__(
        self,
        images: Images,
        metadata: Metadata | None = None,
        *,
        path: Path | None = None,
        load_labels: Callable[[], Labels | None] | None = None,
    ) -> None:
        if not len(images):
            raise InvalidInputError("there must be at least one image, got none.")
        found = metadata or Metadata()
        names = found.names or [images.name(i) for i in range(len(images))]
        self.images, self.path, self._load_labels = images, path, load_labels
        self.metadata = Metadata(found.ids, names, found.columns, found.labels).check(len(images))

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"ImageItems({len(self)} images from {self.path or 'memory'})"

    def with_metadata(self, metadata: Metadata) -> ImageItems:
        """Return the same images with other ids, names, columns and labels.

        Raises:
            InvalidInputError: If these are not one an item.
        """
        load = None if metadata.labels is not None else self._load_labels
        return ImageItems(self.images, metadata, path=self.path, load_labels=load)

    @property
    def labels(self) -> Labels | None:
        """The labels of the items, (n,) or (n, L); None without."""
        if self.metadata.labels is None and self._load_labels is not None:
            found = self.metadata
            labels, self._load_labels = self._load_labels(), None
            self.metadata = Metadata(found.ids, found.names, found.columns, labels)
        return self.metadata.labels

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Plain values that differ from those of another source, for work that is resumed."""
        return {
            "source": None if self.path is None else str(self.path.resolve()),
            "items": len(self),
            "images": fingerprint(self.images),
            "ids": _digest_of_ids(self.metadata),
        }


def _digest_of_ids(metadata: Metadata) -> str | None:
    if metadata.ids is None and metadata.names is None:
        return None
    digest = hashlib.sha256()
    if metadata.ids is not None:
        digest.update(metadata.ids.tobytes())
    for name in metadata.names or ():
        digest.update(name.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()[:16]
