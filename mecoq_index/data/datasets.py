"""Data sets for benchmarks: vectors to search in, vectors to search with, and maybe labels."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import Vectors, check_vectors
from .._reading import check_readable
from ..errors import ArtifactError, InvalidInputError
from .feature_file import FeatureFile
from .hdf5 import Hdf5Rows, names_in_hdf5
from .items import VectorItems
from .metadata import Labels, as_labels
from .source import Source, open_source


@dataclass(frozen=True, eq=False)
class Dataset:
    """Vectors to search in and to search with.

    Attributes:
        name: The name of the data set in reports.
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
            raise InvalidInputError(
                "labels must be given for database and queries, or for neither."
            )
        for name, labels, n in (
            ("database_labels", self.database_labels, len(self.database)),
            ("query_labels", self.query_labels, len(self.queries)),
        ):
            if labels is not None and len(labels) != n:
                raise InvalidInputError(f"{name} must be one a row, {n} in all, got {len(labels)}.")

    def shuffled(self, seed: int) -> Dataset:
        """Return the same data set with the database in random order.

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
        """Return the first rows only; all of them for None."""
        labels, query_labels = self.database_labels, self.query_labels
        return Dataset(
            self.name,
            self.database[:database],
            self.queries[:queries],
            None if labels is None else labels[:database],
            None if query_labels is None else query_labels[:queries],
        )


def load_dataset(
    source: Source,
    *,
    queries: Source | None = None,
    labels: npt.ArrayLike | str | Path | None = None,
    query_labels: npt.ArrayLike | str | Path | None = None,
    vector_column: str | None = None,
    label_column: str | None = None,
) -> Dataset:
    """Load a data set.

    Args:
        source: With ``queries``, the vectors to search in: anything that `open_source` takes for
            vectors. Without, a file of both: an ``.npz`` with ``database`` (n, P) and ``queries``
            (nq, P) and maybe ``database_labels`` and ``query_labels``, as
            `mecoq_index.data.feature_file` describes it; or an ann-benchmarks ``.hdf5`` with
            ``train`` and ``test``.
        queries: The vectors to search with, likewise.
        labels: Labels of the database, or a file of them, instead of those in the source.
        query_labels: Labels of the queries, or a file of them.
        vector_column: The column of vectors in both tables.
        label_column: The column of labels in both tables.

    Raises:
        ArtifactError: If a file is missing, damaged, or lacks an array.
        InvalidInputError: If the arrays do not fit together, or the source holds images.
        MissingDependencyError: If a package is needed to read it that is not installed.
    """
    if queries is None:
        if vector_column is not None or label_column is not None:
            raise InvalidInputError(
                "queries must be given where columns are named: a table holds no queries."
            )
        found = _load_file(source)
    else:
        options = {"vector_column": vector_column, "label_column": label_column}
        database = _open(source, "the database", options)
        wanted = _open(queries, "queries", options)
        name = database.path.stem if database.path else "vectors"
        found = Dataset(
            name, database.to_vectors(), wanted.to_vectors(), database.labels, wanted.labels
        )
    if labels is None and query_labels is None:
        return found
    return Dataset(
        found.name,
        found.database,
        found.queries,
        found.database_labels if labels is None else as_labels(labels),
        found.query_labels if query_labels is None else as_labels(query_labels),
    )


def _open(source: Source, what: str, options: dict[str, str | None]) -> VectorItems:
    items = open_source(source, **options)  # type: ignore[arg-type]
    if not isinstance(items, VectorItems):
        raise InvalidInputError(
            f"{what} must be vectors, but they are images. Embed them first, with mecoq-index "
            "embed."
        )
    return items


def _load_file(source: Source) -> Dataset:
    if not isinstance(source, (str, os.PathLike)):
        raise InvalidInputError("queries must be given, the vectors to search with.")
    path = check_readable(Path(source))
    if path.suffix == ".npz":
        file = FeatureFile(path)
        parts = [file.rows(name) for name in ("database", "queries")]
        database, queries = (VectorItems(part).to_vectors() for part in parts)
        labels = [_labels(file, part) for part in ("database", "queries")]
        return Dataset(path.stem, database, queries, *labels)
    if path.suffix in (".hdf5", ".h5"):
        if not {"train", "test"} <= (found := names_in_hdf5(path)):
            raise ArtifactError(
                f"{path} must hold 'train' and 'test', but it holds {sorted(found)}."
            )
        readers = (Hdf5Rows(path, name) for name in ("train", "test"))
        return Dataset(path.stem, *(VectorItems(reader).to_vectors() for reader in readers))
    raise ArtifactError(
        f"{path} must be a data set, .npz or .hdf5, got {path.suffix or 'no suffix'}. Give the "
        "queries separately for other files."
    )


def _labels(file: FeatureFile, array: str) -> Labels | None:
    labels = file.labels(array)
    return None if labels is None else as_labels(labels)
