"""Vectors and data sets from the file formats of the field.

A *vector file* holds one matrix (see `mecoq_index.data.vectors`). A *data set* holds database and
queries, and maybe labels: an ``.npz`` of features (see `load_dataset`), or an ann-benchmarks
``.hdf5``.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import Vectors, check_vectors
from .._files import check_readable
from .._optional import require
from ..errors import ArtifactError, InvalidInputError
from .vectors import open_vectors


@dataclass(frozen=True, eq=False)
class Dataset:
    """Vectors to search in and to search with.

    Attributes:
        name: What to call it in a report.
        database: float32, shape (n, P).
        queries: float32, shape (nq, P).
        database_labels: (n,) classes or (n, L) of 0 and 1; None without labels.
        query_labels: Likewise for the queries.
    """

    name: str
    database: Vectors
    queries: Vectors
    database_labels: npt.NDArray[Any] | None = None
    query_labels: npt.NDArray[Any] | None = None

    def __post_init__(self) -> None:
        check_vectors(self.database, name="database")
        check_vectors(self.queries, self.database.shape[1], name="queries")
        if (self.database_labels is None) != (self.query_labels is None):
            raise InvalidInputError("labels must be given for database and queries, or for none.")
        for name, labels, n in (
            ("database_labels", self.database_labels, len(self.database)),
            ("query_labels", self.query_labels, len(self.queries)),
        ):
            if labels is not None and len(labels) != n:
                raise InvalidInputError(f"{name} must be one a row, {n} in all, got {len(labels)}.")

    def shuffled(self, seed: int) -> Dataset:
        """The same with the database in random order.

        Engines break ties by row, so a database sorted by class would flatter every method that
        ties often.
        """
        order = np.random.default_rng(seed).permutation(len(self.database))
        labels = self.database_labels
        return Dataset(
            self.name,
            self.database[order],
            self.queries,
            None if labels is None else labels[order],
            self.query_labels,
        )

    def first(self, database: int | None, queries: int | None) -> Dataset:
        """The first rows only."""
        labels, query_labels = self.database_labels, self.query_labels
        return Dataset(
            self.name,
            self.database[:database],
            self.queries[:queries],
            None if labels is None else labels[:database],
            None if query_labels is None else query_labels[:queries],
        )


def load_vectors(path: str | Path) -> Vectors:
    """One matrix of vectors, float32 (n, D), from any file or folder that `open_vectors` opens.

    Raises:
        ArtifactError: If the file is missing, damaged, or of another kind.
        InvalidInputError: If its content is not finite float32 of two axes.
        MissingDependencyError: If pyarrow is needed and not installed.
    """
    file = open_vectors(path)
    if file.dtype != np.float32:
        raise InvalidInputError(f"{path} must hold float32 vectors, got {file.dtype} codes.")
    return check_vectors(file.read(0, file.n), name=str(path))


def load_dataset(path: str | Path) -> Dataset:
    """A data set from one file.

    Args:
        path: An ``.npz`` with ``database`` (n, P) and ``queries`` (nq, P), float32 or, with a
            number ``scale``, uint8 (features are ``x / scale``), and maybe ``database_labels`` and
            ``query_labels``; or an ann-benchmarks ``.hdf5`` with ``train`` and ``test``.

    Raises:
        ArtifactError: If the file is missing, damaged, or lacks an array.
        InvalidInputError: If the arrays do not fit together.
        MissingDependencyError: If h5py is needed and not installed.
    """
    path = check_readable(Path(path))
    if path.suffix == ".npz":
        arrays = _read_npz(path)
        return Dataset(
            path.stem,
            _features(arrays, "database", path),
            _features(arrays, "queries", path),
            arrays.get("database_labels"),
            arrays.get("query_labels"),
        )
    if path.suffix in (".hdf5", ".h5"):
        return _read_hdf5(path)
    raise ArtifactError(
        f"{path} must be a data set: .npz or .hdf5 is read, got {path.suffix or 'no suffix'}."
    )


def _features(arrays: Mapping[str, npt.NDArray[Any]], name: str, path: Path) -> Vectors:
    if name not in arrays:
        raise ArtifactError(f"{path} must hold the array {name!r}, but it holds {sorted(arrays)}.")
    x = arrays[name]
    if x.dtype == np.uint8 and "scale" in arrays:
        scaled: Vectors = x.astype(np.float32)
        scaled /= np.float32(arrays["scale"])
        return scaled
    return check_vectors(x, name=f"{name} in {path}")


def _read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            wanted = ("database", "queries", "database_labels", "query_labels", "scale")
            found = {name: archive[name] for name in archive.files if name in wanted}
            return found or dict.fromkeys(archive.files, np.empty(0))
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as exc:
        raise ArtifactError(f"{path} is no readable .npz file: {exc}") from exc


def _read_hdf5(path: Path) -> Dataset:
    h5py = require("h5py", extra="bench", purpose="reading an .hdf5 data set")
    try:
        with h5py.File(path, "r") as file:
            if not {"train", "test"} <= set(file):
                raise ArtifactError(
                    f"{path} must hold 'train' and 'test', but it holds {sorted(file)}."
                )
            return Dataset(path.stem, file["train"][:], file["test"][:])
    except OSError as exc:
        raise ArtifactError(f"{path} is no readable .hdf5 file: {exc}") from exc
