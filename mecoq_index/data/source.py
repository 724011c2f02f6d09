"""The one place that decides what a source is: vectors, codes or images, and where they lie."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from .._addresses import exists, shown
from .._arrays import as_vectors
from .._reading import kind_of
from ..errors import InvalidInputError
from . import hugging_face, torch_dataset
from .feature_file import FeatureFile
from .features import FeatureViews, ViewRows
from .image_files import SUFFIXES as IMAGE_SUFFIXES
from .images import ImageArray, ImageFiles, ImageList, class_labels, find_images, is_pil_image
from .items import ImageItems, VectorItems
from .metadata import Metadata, as_ids_or_names, as_labels
from .reader import ArrayRows, RowReader
from .table import Table
from .tables import (
    TableRows,
    open_table,
    read_ids,
    read_labels,
    read_scalars,
    vector_columns,
)
from .vectors import NAMED_PARTS, TABLE_SUFFIXES, join_vectors, map_npy, open_vectors
from .vectors import SUFFIXES as VECTOR_SUFFIXES

__all__ = ["ImageItems", "Source", "VectorItems", "open_source"]


class DatasetLike(Protocol):
    """A data set of torch or of Hugging Face."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: Any, /) -> Any:
        """Return item i."""
        ...


class PilImageLike(Protocol):
    """An image of PIL."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        ...

    @property
    def mode(self) -> str:
        """The kind of its pixels."""
        ...


Source: TypeAlias = (
    "str | os.PathLike[str] | npt.NDArray[Any] | Sequence[Any] | FeatureViews | RowReader "
    "| ImageItems | DatasetLike | PilImageLike"
)
"""Everything that `open_source` accepts."""


@dataclass(frozen=True)
class _Columns:
    """The parts of a table that the caller names."""

    vectors: str | None
    ids: str | None
    others: tuple[str, ...]
    labels: str | None

    def check_unused(self, source: str, *, vectors: bool = False) -> None:
        """Refuse names of columns where there are none.

        Raises:
            InvalidInputError: If one is given.
        """
        given = {
            "vector_column": None if vectors else self.vectors,
            "id_column": self.ids,
            "columns": self.others or None,
            "label_column": self.labels,
        }
        for name, value in given.items():
            if value is not None:
                raise InvalidInputError(
                    f"{name} must be left out: only tables have columns, but the source is "
                    f"{source}."
                )

    def metadata(self, tables: Sequence[Table]) -> Metadata:
        """Read the columns that were asked for from tables that are one after the other.

        Raises:
            MecoqError: If there is no such column, or it has another type.
        """
        ids: object = None
        if self.ids is not None:
            ids = _joined([read_ids(table, self.ids) for table in tables])
        labels: object = None
        if self.labels is not None:
            labels = _joined([read_labels(table, self.labels) for table in tables])
        numbers, names = (None, None) if ids is None else as_ids_or_names(ids)
        return Metadata(
            numbers,
            names,
            {
                name: np.concatenate([read_scalars(table, name) for table in tables])
                for name in self.others
            },
            None if labels is None else as_labels(labels),
        )


def _joined(parts: Sequence[npt.NDArray[Any] | list[str]]) -> npt.NDArray[Any] | list[str]:
    lists = [part for part in parts if isinstance(part, list)]
    if len(lists) == len(parts):
        return [text for part in lists for text in part]
    return np.concatenate([np.asarray(part) for part in parts])


def open_source(
    source: Source,
    *,
    vector_column: str | None = None,
    id_column: str | None = None,
    columns: Sequence[str] = (),
    label_column: str | None = None,
    ids: Sequence[int] | Sequence[str] | npt.NDArray[Any] | str | Path | None = None,
    labels: Sequence[int] | Sequence[str] | npt.NDArray[Any] | str | Path | None = None,
) -> VectorItems | ImageItems:
    """Find out what a source holds, and open it without reading its vectors or images.

    Args:
        source: One of these:

            - an array (n, P) of any float or integer dtype; uint8 stays uint8, since it can be
              codes (n, M); a list of n vectors; an array (V, n, P) of views; an array
              (n, H, W, 3) of uint8, which is images;
            - a path of vectors: a file or folder that `mecoq_index.data.vectors` describes, or an
              ``.npy`` of views (V, n, P);
            - a path of images: an image, or a folder in which images are looked for at any depth;
            - a list of paths of images, of PIL images, or of paths of vectors of one kind;
            - `FeatureViews`;
            - a torch ``Dataset`` with a length, whose items are PIL images, tensors (3, H, W) of
              uint8 or of floats in [0, 1], vectors (P,), or one of these and a label;
            - a Hugging Face ``datasets.Dataset`` with a column of images or of vectors;
            - what this function returned.
        vector_column: The column of vectors or images in a table, the data set in an ``.hdf5``,
            the array in an ``.npz``; needed only if several could be meant.
        id_column: A table's column of integers, which become ``ids``, or strings: ``names``.
        columns: Further columns of plain values to carry along.
        label_column: A table's column of classes, or of lists of 0 and 1.
        ids: Ids or names of the items, or a file of them, as `load_ids` reads it.
        labels: Labels of the items, or a file of them, as `load_labels` reads it. Images in
            ``<folder>/<class>/`` have the labels of their folders without it.

    Returns:
        `VectorItems` or `ImageItems`.

    Raises:
        InvalidInputError: If the source is of no kind listed above, or an option does not fit it.
        ArtifactError: If a file is missing, damaged, or of another kind.
        MissingDependencyError: If a package is needed to read it that is not installed.

    Example:
        >>> items = open_source(np.eye(3), ids=["a", "b", "c"])
        >>> items.n, items.dtype, items.names
        (3, dtype('float32'), ['a', 'b', 'c'])
    """
    if isinstance(columns, str):
        raise InvalidInputError(f"columns must be a list of names, got {columns!r}.")
    if ids is not None and id_column is not None:
        raise InvalidInputError("ids and id_column cannot both be given. Leave out one of them.")
    if labels is not None and label_column is not None:
        raise InvalidInputError(
            "labels and label_column cannot both be given. Leave out one of them."
        )
    wanted = _Columns(vector_column, id_column, tuple(columns), label_column)
    items = _open(source, wanted)
    if ids is None and labels is None:
        return items
    found = items.metadata
    if ids is not None:
        numbers, names = as_ids_or_names(ids)
        names = found.names if names is None else names
        found = replace(found, ids=numbers, names=names)
    if labels is not None:
        found = replace(found, labels=as_labels(labels))
    return items.with_metadata(found)


def _open(source: Source, wanted: _Columns) -> VectorItems | ImageItems:
    if isinstance(source, (str, os.PathLike)):
        return _open_path(Path(source), wanted)
    if hugging_face.is_dataset(source):
        return _open_hugging_face(source, wanted)
    wanted.check_unused(f"a {type(source).__name__}")
    if isinstance(source, (VectorItems, ImageItems)):
        return source
    if isinstance(source, RowReader):
        return VectorItems(source)
    if isinstance(source, FeatureViews):
        return _from_views(source)
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if is_pil_image(source):
        return ImageItems(ImageList([source]))
    if torch_dataset.is_dataset(source):
        return _open_torch(source)
    if isinstance(source, Sequence) and not isinstance(source, bytes):
        return _from_list(source)
    if hasattr(source, "__array__"):  # tensors of torch, data frames of numbers
        return _from_array(np.asarray(source))
    raise InvalidInputError(
        "a source must be an array, a path, a list, FeatureViews or a data set of torch or "
        f"Hugging Face, got {type(source).__name__}."
    )


def _from_array(array: npt.NDArray[Any]) -> VectorItems | ImageItems:
    if array.ndim == 4:
        return ImageItems(ImageArray(array))
    if array.ndim == 3:
        return _from_views(FeatureViews(array))
    return VectorItems(ArrayRows(array, name="source"))


def _from_views(views: FeatureViews, path: Path | None = None) -> VectorItems:
    return VectorItems(
        ViewRows(views, path=path), load_views=partial(_same, views), backbone=views.backbone
    )


def _same(views: FeatureViews) -> FeatureViews:
    return views


def _from_list(source: Sequence[Any]) -> VectorItems | ImageItems:
    if not len(source):
        raise InvalidInputError("a source must hold at least one item, got an empty list.")
    paths = [isinstance(item, (str, os.PathLike)) for item in source]
    images = [is_path or is_pil_image(item) for is_path, item in zip(paths, source, strict=True)]
    if not any(images):
        return _from_array(as_vectors(source, name="source"))
    if not all(images):
        raise InvalidInputError(
            f"a list must hold only paths and images, or only vectors, got {sum(images)} of the "
            f"first and {len(source) - sum(images)} others."
        )
    files = [Path(item) if is_path else item for is_path, item in zip(paths, source, strict=True)]
    if all(paths) and all(file.suffix in VECTOR_SUFFIXES for file in files):
        return VectorItems(join_vectors(files))
    return ImageItems(ImageList(files))


def _open_path(path: Path, wanted: _Columns) -> VectorItems | ImageItems:
    if not exists(path):
        raise InvalidInputError(
            f"{shown(path)} does not exist. Give a file of vectors, an image, or a folder of "
            "either."
        )
    if not (path.is_file() or path.is_dir()):
        raise InvalidInputError(
            f"{path} must be a file or a folder, but it is {kind_of(path.stat())}."
        )
    if holds_images(path):
        wanted.check_unused(f"{path}, which holds images", vectors=False)
        return _open_images(path)
    first = _first_file(path)
    if first.suffix in TABLE_SUFFIXES:
        return _open_tables(path, wanted)
    wanted.check_unused(f"{path}", vectors=first.suffix in NAMED_PARTS)
    if path.suffix == ".npz":
        return _open_features(path, wanted.vectors)
    if path.suffix == ".npy" and path.is_file() and map_npy(path).ndim == 3:
        return _from_views(FeatureViews.load(path), path)
    return VectorItems(open_vectors(path, column=wanted.vectors))


def holds_images(path: Path) -> bool:
    """Whether a path is an image, or a folder without files of vectors at its top."""
    if path.is_file():
        return path.suffix.lower() in IMAGE_SUFFIXES
    inside = {file.suffix for file in path.iterdir() if not file.name.startswith(".")}
    return not inside & set(VECTOR_SUFFIXES)


def _open_images(path: Path) -> ImageItems:
    files = find_images(path)
    if path.is_file():
        return ImageItems(ImageFiles(files), path=path)
    found = Metadata(labels=class_labels(path, files))
    return ImageItems(ImageFiles(files, path), found, path=path)


def _first_file(path: Path) -> Path:
    if path.is_file():
        return path
    return min(file for file in path.iterdir() if file.suffix in VECTOR_SUFFIXES)


def _open_tables(path: Path, wanted: _Columns) -> VectorItems:
    rows = open_vectors(path, column=wanted.vectors)
    return VectorItems(rows, wanted.metadata([open_table(file) for file in rows.files]))


def _open_features(path: Path, array: str | None) -> VectorItems:
    file = FeatureFile(path)
    load: Callable[[], FeatureViews] | None = None
    if file.view_names:
        load = partial(FeatureViews.load, path)
    name = file.main_array(array)
    if name is None:
        rows: RowReader = ViewRows(FeatureViews.load(path), path=path)
        name = "features"
    else:
        rows = file.rows(name)
    found = Metadata(names=file.names(name))
    labels = file.labels(name)
    if labels is not None:
        found = replace(found, labels=as_labels(labels))
    return VectorItems(rows, found, load_views=load, backbone=file.backbone)


def _open_torch(dataset: Any) -> VectorItems | ImageItems:
    if torch_dataset.holds_vectors(dataset):
        found = Metadata(labels=torch_dataset.labels_of(dataset))
        return VectorItems(torch_dataset.DatasetRows(dataset), found)
    load = partial(torch_dataset.labels_of, dataset)
    return ImageItems(torch_dataset.DatasetImages(dataset), load_labels=load)


def _open_hugging_face(dataset: Any, wanted: _Columns) -> VectorItems | ImageItems:
    table = hugging_face.DatasetTable(dataset)
    images = hugging_face.image_columns(dataset)
    found = wanted.metadata([table])
    if wanted.vectors in images:
        return ImageItems(hugging_face.DatasetImages(dataset, wanted.vectors), found)
    fitting = [*images, *vector_columns(table)]
    if wanted.vectors is None and images:
        if len(fitting) > 1:
            raise InvalidInputError(
                f"say which column is meant by vector_column: one of {fitting} could be."
            )
        return ImageItems(hugging_face.DatasetImages(dataset, images[0]), found)
    return VectorItems(TableRows(table, wanted.vectors), found)
