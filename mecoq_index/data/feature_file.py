"""``.npz`` files of features, as ``mecoq-index embed`` writes them.

    features           (n, P), one row an item
    view0, view1, ...  (n, P) each, of random views of the items
    paths              (n,), the names of the items
    labels             (n,) classes, or (n, L) of 0 and 1
    scale              a number; all of these features are divided by it as they are read
    backbone           JSON: name, digest and transform of the network that made the features

A file for benchmarks holds ``database``, ``queries`` and maybe ``database_labels`` and
``query_labels``; ``features`` and views are then those of the training items.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._array_file import Archive, Header, open_archive
from .._files import atomic_file
from .._json import parse_json
from .._plain import thaw
from .._reading import check_readable
from ..backbone import Backbone
from ..errors import ArtifactError, InvalidInputError, first_line
from .reader import RowReader

# The arrays that may be meant where none is named, the likeliest first.
_MAIN = ("database", "features")


class FeatureFile:
    """An ``.npz`` of features. Arrays are read when they are asked for, each as a whole.

    Attributes:
        path: The file.
        headers: The heads of all arrays, by name.

    Raises:
        ArtifactError: If the file is missing, damaged or no ``.npz`` file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = check_readable(Path(path))
        with self._open() as archive:
            self.headers: Mapping[str, Header] = archive.headers
        self.view_names = _view_names(self.path, self.headers)

    def _open(self) -> AbstractContextManager[Archive]:
        return open_archive(self.path, what=".npz file", compressed=True)

    def __contains__(self, name: str) -> bool:
        return name in self.headers

    def array(self, name: str) -> npt.NDArray[Any]:
        """Return one array.

        Raises:
            ArtifactError: If there is none of this name, or it is damaged or no plain array.
        """
        if name not in self.headers:
            raise ArtifactError(
                f"{self.path} must hold the array {name!r}, but it holds {sorted(self.headers)}."
            )
        with self._open() as archive:
            return archive[name]

    @cached_property
    def scale(self) -> float:
        """The number that stored features are divided by; 1 without.

        Raises:
            ArtifactError: If it is no number above 0.
        """
        if "scale" not in self:
            return 1.0
        head = self.headers["scale"]
        if head.shape or head.dtype.kind not in "fiu":
            got = f"{head.dtype} of shape {head.shape}"
        else:
            scale = float(self.array("scale"))
            # Features are divided in float32, in which a number may become 0 or infinite.
            with np.errstate(over="ignore", under="ignore"):
                if 0 < np.float32(scale) < np.inf:
                    return scale
            got = str(scale)
        raise ArtifactError(f"scale in {self.path} must be a number above 0, got {got}.")

    def main_array(self, name: str | None = None) -> str | None:
        """Return the name of the array of vectors that is meant; None if there are only views.

        Args:
            name: The one that the caller names. Without it, ``database`` or ``features`` is
                meant, or the only array of numbers with two axes.

        Raises:
            ArtifactError: If the file holds no array of that name, or none of two axes.
            InvalidInputError: If several arrays could be meant.
        """
        if name is not None:
            if name not in self:
                raise ArtifactError(
                    f"{self.path} must hold the array {name!r}, but it holds "
                    f"{sorted(self.headers)}."
                )
            return name
        for likely in _MAIN:
            if likely in self:
                return likely
        if self.view_names:
            return None
        fitting = [
            name
            for name, head in self.headers.items()
            if len(head.shape) == 2 and head.dtype.kind in "fiu" and not name.endswith("labels")
        ]
        if len(fitting) > 1:
            raise InvalidInputError(
                f"say which array of {self.path} is meant: one of {fitting} could be."
            )
        if not fitting:
            raise ArtifactError(
                f"{self.path} must hold vectors, an array of shape (n, P), but it holds "
                f"{sorted(self.headers)}."
            )
        return fitting[0]

    def rows(self, name: str | None = None) -> RowReader:
        """Return an array of vectors as rows; ``name`` as for `main_array`.

        Raises:
            MecoqError: As `main_array` does, or if the array has another shape or type.
        """
        found = self.main_array(name)
        if found is None:
            raise InvalidInputError(
                f"{self.path} holds only views, {', '.join(self.view_names)}. Say which one is "
                "meant."
            )
        return _ArrayInFile(self, found)

    def names(self, array: str) -> list[str] | None:
        """Return the names of the items that the rows of ``array`` are of; None without."""
        if array != "features" or "database" in self or "paths" not in self:
            return None
        return [str(path) for path in self.array("paths")]

    def labels(self, array: str) -> npt.NDArray[Any] | None:
        """Return the labels of the rows of ``array``; None without."""
        name = {"database": "database_labels", "queries": "query_labels"}.get(array, "labels")
        return self.array(name) if name in self else None

    @cached_property
    def backbone(self) -> Backbone | None:
        """The record of the network that made the features, without weights; None if unknown.

        Raises:
            ArtifactError: If the entry is damaged.
        """
        if "backbone" not in self:
            return None
        try:
            found = parse_json(str(self.array("backbone")))
            return Backbone(found["name"], found["weights_sha256"], found["transform"])
        except (ValueError, TypeError, KeyError) as exc:
            raise ArtifactError(
                f"the entry 'backbone' in {self.path} is damaged: {first_line(exc)}"
            ) from exc


class _ArrayInFile(RowReader):
    """One array of an ``.npz``, kept in memory from the first read on."""

    def __init__(self, file: FeatureFile, array: str) -> None:
        shape, stored = file.headers[array].shape, file.headers[array].dtype
        name = f"{array!r} in {file.path}"
        if len(shape) != 2 or shape[1] == 0:
            raise InvalidInputError(f"{name} must have shape (n, P), got {shape}.")
        self._scale = np.float32(file.scale)
        is_scaled = "scale" in file and stored.kind in "fiu"
        dtype = np.dtype(np.float32) if is_scaled else stored
        super().__init__(*shape, dtype, path=file.path, name=name)
        self._source, self._array_name = file, array
        self._array: npt.NDArray[Any] | None = None

    def _read(self, start: int, stop: int) -> npt.NDArray[Any]:
        if self._array is None:
            self._array = self._source.array(self._array_name)
        rows = self._array[start:stop]
        if self._scale == 1:
            return rows
        scaled: npt.NDArray[Any] = rows.astype(np.float32)
        scaled /= self._scale
        return scaled

    def _release(self) -> None:
        self._array = None


def save_features(
    path: str | Path,
    *,
    features: npt.NDArray[Any] | None = None,
    views: npt.NDArray[Any] | None = None,
    names: list[str] | None = None,
    labels: npt.NDArray[Any] | None = None,
    split: Mapping[str, npt.NDArray[Any]] | None = None,
    backbone: Backbone | None = None,
    door: Callable[[Path], AbstractContextManager[Path]] = atomic_file,
) -> list[str]:
    """Write an ``.npz`` of features; a file that is there is replaced when the new one is complete.

    Args:
        path: The file.
        features: Shape (n, P).
        views: Shape (V, n, P).
        names: The names of the n items.
        labels: Their labels, (n,) or (n, L).
        split: For benchmarks: ``database`` and ``queries``, and maybe ``database_labels`` and
            ``query_labels``.
        backbone: The record of the network that made the features.
        door: Gives the temporary path to write to, as `atomic_file` does.

    Returns:
        The names of the arrays in the file.

    Raises:
        InvalidInputError: If the name does not end in ``.npz``, or its folder does not exist; if
            lengths do not fit together; or if the backbone holds weights of its own, for which
            the file has no place.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise InvalidInputError(f"a file of features must end in .npz, got {path.name!r}.")
    arrays: dict[str, npt.NDArray[Any]] = {}
    if features is not None:
        arrays["features"] = features
    arrays |= {f"view{v}": view for v, view in enumerate(() if views is None else views)}
    if names is not None:
        arrays["paths"] = np.array(names, np.str_)
    if labels is not None:
        arrays["labels"] = labels
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidInputError(f"features must have one row an item, got {lengths}.")
    arrays |= dict(split or {})
    if backbone is not None:
        arrays["backbone"] = np.array(_backbone_text(backbone))
    entries: dict[str, Any] = arrays
    with door(path) as partial, partial.open("wb") as stream:
        np.savez(stream, **entries)
    return list(arrays)


def _backbone_text(backbone: Backbone) -> str:
    if backbone.state is not None:
        raise InvalidInputError(
            f"features can only name a backbone, but {backbone.name!r} was trained further. Keep "
            "its codebooks, and embed images with them."
        )
    return json.dumps(
        {
            "name": backbone.name,
            "weights_sha256": backbone.weights_sha256,
            "transform": thaw(backbone.transform),
        }
    )


def _view_names(path: Path, names: Collection[str]) -> list[str]:
    """Return the names of the arrays of views, in order.

    Raises:
        ArtifactError: If a number between them is missing.
    """
    views = {int(name[4:]) for name in names if re.fullmatch("view(0|[1-9][0-9]{0,8})", name)}
    missing = sorted(set(range(len(views))) - views)
    if missing:
        raise ArtifactError(
            f"{path} must hold views from view0 on without a gap, but view{missing[0]} is missing "
            f"and view{max(views)} is there. Make it again."
        )
    return [f"view{number}" for number in range(len(views))]
