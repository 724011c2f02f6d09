"""Ids, names, columns and labels of items: reading them, and choosing those of some items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arguments import whole_number
from .._arrays import Ids
from .._reading import check_readable
from ..errors import ArtifactError, InvalidInputError
from .vectors import TABLE_SUFFIXES, check_column, map_npy

Names = Sequence[str]
Labels = npt.NDArray[Any]  # (n,) classes, or (n, L) of 0 and 1


@dataclass(frozen=True, eq=False)
class Metadata:
    """Everything that a source says about its n items beside vectors or images.

    Attributes:
        ids: int64, (n,); None if items are numbered from 0. Whether they repeat is not checked.
        names: n strings; None without.
        columns: Arrays (n,) by name: int64, float64, bool, or object arrays of str.
        labels: Classes (n,) int64, or (n, L) of 0 and 1; None without.
    """

    ids: Ids | None = None
    names: list[str] | None = None
    columns: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    labels: Labels | None = None

    def check(self, n: int) -> Metadata:
        """Return these, if there is one of each for each of n items.

        Raises:
            InvalidInputError: If there is not.
        """
        for name, values in (("ids", self.ids), ("names", self.names), ("labels", self.labels)):
            check_length(name, values, n)
        for name, column in self.columns.items():
            check_length(f"column {name!r}", column, n)
        return self

    def take(self, rows: npt.NDArray[np.int64]) -> Metadata:
        """Return those of the items with these numbers, in this order."""
        return Metadata(
            None if self.ids is None else self.ids[rows],
            None if self.names is None else [self.names[int(row)] for row in rows],
            {name: column[rows] for name, column in self.columns.items()},
            None if self.labels is None else self.labels[rows],
        )


class Described:
    """Items with `Metadata`, whose parts are attributes of their own."""

    metadata: Metadata

    @property
    def ids(self) -> Ids | None:
        """The ids of the items, int64 (n,); None if they are numbered from 0."""
        return self.metadata.ids

    @property
    def names(self) -> list[str] | None:
        """The names of the items; None without."""
        return self.metadata.names

    @property
    def columns(self) -> Mapping[str, npt.NDArray[Any]]:
        """Further values of the items: arrays (n,) by name."""
        return self.metadata.columns

    @property
    def labels(self) -> Labels | None:
        """The labels of the items, (n,) or (n, L); None without."""
        return self.metadata.labels


def check_length(name: str, values: Sequence[Any] | npt.NDArray[Any] | None, n: int) -> None:
    """Refuse values that are not one an item.

    Raises:
        InvalidInputError: If there are not n of them; None is accepted.
    """
    if values is not None and len(values) != n:
        raise InvalidInputError(f"{name} must be one an item, {n} in all, got {len(values)}.")


def as_ids_or_names(ids: object) -> tuple[Ids | None, list[str] | None]:
    """Return ids as int64 (n,), or names; the other one is None.

    Args:
        ids: Integers (n,), as an array of any integer dtype or as a list; n strings; or the path
            of a file that `load_ids` reads.

    Raises:
        InvalidInputError: If they are neither integers nor strings.
        ArtifactError: If the file is missing, damaged or of another kind.
    """
    found = load_ids(ids) if isinstance(ids, (str, Path)) else ids
    if isinstance(found, (list, tuple)) and all(isinstance(name, str) for name in found):
        return None, [str(name) for name in found]
    try:
        array = np.asarray(found)
    except ValueError as exc:
        raise InvalidInputError(f"ids must be integers or strings, one an item: {exc}") from exc
    if array.ndim == 1 and array.dtype.kind in "UT":
        return None, [str(name) for name in array]
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise InvalidInputError(
            f"ids must be integers or strings of shape (n,), got {array.dtype} {array.shape}."
        )
    return _as_int64(array, "ids"), None


def _as_int64(ids: npt.NDArray[Any], name: str) -> Ids:
    if ids.dtype == np.uint64 and ids.max(initial=0) > np.iinfo(np.int64).max:
        raise InvalidInputError(f"{name} must be below 2**63, got {ids.max()}.")
    return ids.astype(np.int64)


def as_labels(labels: object) -> Labels:
    """Return labels as integers: classes (n,), or (n, L) of 0 and 1.

    Args:
        labels: Integers or booleans of these shapes; n strings, which are numbered in sorted
            order; or the path of a file that `load_labels` reads.

    Raises:
        InvalidInputError: If they are none of these.
        ArtifactError: If the file is missing, damaged or of another kind.
    """
    if isinstance(labels, (str, Path)):
        return load_labels(labels)
    if isinstance(labels, (list, tuple)) and all(isinstance(label, str) for label in labels):
        return _numbered(labels)
    try:
        array = np.asarray(labels)
    except ValueError as exc:
        raise InvalidInputError(f"labels must be integers or strings, one an item: {exc}") from exc
    are_texts = array.dtype == object and all(isinstance(label, str) for label in array.ravel())
    if array.ndim == 1 and (are_texts or array.dtype.kind in "UT"):
        return _numbered(array.tolist())
    if array.dtype.kind == "f" and (np.abs(array) < 2**63).all():  # NaN is not
        whole = array.astype(np.int64)
        array = whole if (whole == array).all() else array
    if array.ndim not in (1, 2) or array.dtype.kind not in "iub":
        raise InvalidInputError(
            "labels must be classes (n,), integers or strings, or (n, L) of 0 and 1, got "
            f"{array.dtype} {array.shape}."
        )
    if array.ndim == 2 and not np.isin(array, (0, 1)).all():
        raise InvalidInputError("labels of shape (n, L) must be 0 or 1 everywhere.")
    return array.astype(np.int64)


def _numbered(texts: Sequence[str]) -> Labels:
    # Not by NumPy, in whose arrays each text takes the room of the longest.
    numbers = {text: number for number, text in enumerate(sorted(set(texts)))}
    return np.array([numbers[text] for text in texts], np.int64)


def load_ids(path: str | Path, *, column: str | None = None) -> Ids | list[str]:
    r"""Read the ids or names of all rows of a file of vectors.

    Args:
        path: ``.npy`` of integers (n,); ``.txt`` of UTF-8, a name a line; or a table with a column
            of integers or strings. Lines end with ``\n`` or ``\r\n``. A ``.txt`` always gives
            strings, even if all of them look like numbers: "007" is not 7. An empty line is an
            empty string, so that line i stays with row i. In a ``.names.txt``, as ``mecoq-index
            embed`` writes it, names of files keep bytes that are no UTF-8.
        column: The column of a table; needed only if several could be meant.

    Returns:
        int64 (n,), or n strings. Whether they repeat is not checked.

    Raises:
        ArtifactError: If the file is missing, empty, damaged or of another kind.
        InvalidInputError: If a complete file holds other types or shapes, or ``column`` is wrong.
        MissingDependencyError: If pyarrow is needed and not installed.
    """
    path = check_readable(Path(path))
    check_column(path, column)
    if path.suffix == ".txt":
        return _read_lines(path, "surrogateescape" if is_names_file(path) else "strict")
    if path.suffix in TABLE_SUFFIXES:
        from .tables import open_table, read_ids

        return read_ids(open_table(path), column)
    if path.suffix != ".npy":
        raise _unknown_kind(path, "ids")
    ids = map_npy(path)
    if ids.dtype.kind not in "iu" or ids.ndim != 1:
        raise InvalidInputError(
            f"{path} must be an array of integers of shape (n,), got {ids.dtype} {ids.shape}."
        )
    return _as_int64(np.array(ids, subok=False), str(path))


def load_labels(path: str | Path, *, column: str | None = None) -> Labels:
    """Read the labels of all items.

    Args:
        path: ``.npy`` of integers, (n,) or (n, L); ``.txt`` with a class a line, a number or a
            name; or a table with a column of integers or strings, or of lists of 0 and 1.
        column: The column of a table.

    Returns:
        int64, shape (n,) or (n, L). Names are numbered in sorted order.

    Raises:
        ArtifactError: If the file is missing, empty, damaged or of another kind.
        InvalidInputError: If a complete file holds other types or shapes, or ``column`` is wrong.
        MissingDependencyError: If pyarrow is needed and not installed.
    """
    path = check_readable(Path(path))
    check_column(path, column)
    try:
        if path.suffix == ".txt":
            lines = _read_lines(path)
            numbers = [whole_number(line.strip()) for line in lines]
            return as_labels(lines if None in numbers else numbers)
        if path.suffix in TABLE_SUFFIXES:
            from .tables import open_table, read_labels

            if column is None:
                raise InvalidInputError("say which column holds the labels.")
            return as_labels(read_labels(open_table(path), column))
        if path.suffix == ".npy":
            return as_labels(np.array(map_npy(path), subok=False))
    except InvalidInputError as exc:
        raise InvalidInputError(f"{path}: {exc}") from exc
    raise _unknown_kind(path, "labels")


def _unknown_kind(path: Path, what: str) -> ArtifactError:
    return ArtifactError(
        f"{path} must be a file of {what}: one of .npy, .txt, {', '.join(TABLE_SUFFIXES)} is "
        f"read, got {path.suffix or 'no suffix'}."
    )


def write_names(path: Path, names: Sequence[str]) -> None:
    """Write names to a text file, one a line, as `load_ids` reads them back exactly.

    Args:
        path: The temporary path of a file whose name ends in ``.names.txt``, see `atomic_file`.
        names: The names; `check_names` has accepted them.
    """
    text = "".join(f"{name}\n" for name in names)
    # A mark at the start would be taken for that of UTF-8, unless it comes after that one.
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    path.write_bytes((mark + text).encode("utf-8", "surrogateescape"))


def check_names(names: Sequence[str]) -> None:
    """Refuse names that cannot be one a line of text.

    Raises:
        InvalidInputError: If one holds a line break, or a character that UTF-8 lacks.
    """
    for name in names:
        if "\n" in name or "\r" in name:
            raise InvalidInputError(
                f"names must be one a line, but {name!r} holds a line break. Rename it."
            )
        try:
            name.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as exc:
            raise InvalidInputError(f"names must be text, but {name!r} is not. Rename it.") from exc


def is_names_file(path: Path) -> bool:
    """Whether a file is one that `write_names` writes, where names of files keep their bytes."""
    return path.name.endswith(".names.txt")


def _read_lines(path: Path, errors: str = "strict") -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8-sig", errors)
    except UnicodeDecodeError as exc:
        line = exc.object[: exc.start].count(b"\n") + 1
        raise ArtifactError(f"{path} must be UTF-8 text, but line {line} is not.") from exc
    # str.splitlines would also split at characters that a file name may hold.
    return text.removesuffix("\n").replace("\r\n", "\n").removesuffix("\r").split("\n")
