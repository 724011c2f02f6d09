"""The retrieval protocols of the literature, for data sets in their usual layouts.

| name         | queries                | database              | training                  |
|--------------|------------------------|-----------------------|---------------------------|
| `cifar10`    | the 10,000 test images | the 50,000 others     | the database              |
| `cifar10-i`  | 1,000 a class          | the other 50,000      | the database              |
| `cifar10-ii` | 1,000 a class          | the other 50,000      | 500 a class of them       |
| `flickr25k`  | 2,000 at random        | the others            | 5,000 of them             |
| `nuswide`    | test.txt               | database.txt          | train.txt                 |
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arguments import whole_number
from ..errors import ArtifactError, InvalidInputError, first_line
from .images import ImageArray, ImageFiles, Images, find_images


@dataclass(frozen=True, eq=False)
class RetrievalSplit:
    """A data set, divided into items to learn from, to search in and to search with.

    Attributes:
        images: All images.
        labels: Classes (n,) or 0/1 labels (n, L), in the order of ``images``.
        train: Numbers of the images to learn from; their labels are not used.
        database: Numbers of the images to search in.
        queries: Numbers of the images to search with.
    """

    images: Images
    labels: npt.NDArray[np.int64]
    train: npt.NDArray[np.int64]
    database: npt.NDArray[np.int64]
    queries: npt.NDArray[np.int64]


def load_protocol(name: str, root: Path, *, seed: int = 0) -> RetrievalSplit:
    """Read the data set below ``root``, and divide it by a protocol.

    Args:
        name: One of `PROTOCOLS`.
        root: CIFAR-10: ``train/<class>/*`` and ``test/<class>/*``, or the Python or binary batches
            as distributed. Flickr25K: ``im*.jpg`` and ``annotations/*.txt`` below it. NUS-WIDE:
            ``train.txt``, ``database.txt`` and ``test.txt`` with a path and a 0/1 label vector a
            line, paths relative to ``root``.
        seed: Seed of the images that the protocol draws at random.

    Raises:
        InvalidInputError: If the name is unknown or there is too little data for the protocol.
        ArtifactError: If files are missing or damaged.
    """
    if name not in PROTOCOLS:
        raise InvalidInputError(f"unknown protocol {name!r}; choose one of {sorted(PROTOCOLS)}.")
    return PROTOCOLS[name](Path(root), np.random.default_rng(seed))


def _cifar10(root: Path, rng: np.random.Generator) -> RetrievalSplit:
    images, labels, is_test = _read_cifar10(root)
    database, queries = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    return RetrievalSplit(images, labels, database, database, queries)


def _cifar10_random(train_per_class: int | None, queries_per_class: int = 1000) -> Any:
    def split(root: Path, rng: np.random.Generator) -> RetrievalSplit:
        images, labels, _ = _read_cifar10(root)
        queries = _draw_per_class(labels, np.arange(len(labels)), queries_per_class, rng)
        database = np.setdiff1d(np.arange(len(labels)), queries)
        train = database
        if train_per_class is not None:
            train = _draw_per_class(labels, database, train_per_class, rng)
        return RetrievalSplit(images, labels, train, database, queries)

    return split


def _draw_per_class(
    labels: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    size: int,
    rng: np.random.Generator,
) -> npt.NDArray[np.int64]:
    drawn = []
    for label in np.unique(labels):
        candidates = rows[labels[rows] == label]
        if len(candidates) <= size:
            raise InvalidInputError(
                f"the protocol draws {size} images of each class, but class {label} has only "
                f"{len(candidates)}."
            )
        drawn.append(rng.choice(candidates, size, replace=False))
    return np.sort(np.concatenate(drawn))


def _read_cifar10(root: Path) -> tuple[Images, npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return images, labels, and whether each belongs to the test set."""
    for folder in (root, root / "cifar-10-batches-py", root / "cifar-10-batches-bin"):
        if (folder / "data_batch_1").is_file():
            return _read_batches(folder, "", _read_python_batch)
        if (folder / "data_batch_1.bin").is_file():
            return _read_batches(folder, ".bin", _read_binary_batch)
    if not ((root / "train").is_dir() and (root / "test").is_dir()):
        raise ArtifactError(
            f"{root} must hold CIFAR-10: the folders train/<class> and test/<class>, or the "
            "batches data_batch_1 to 5 and test_batch."
        )
    paths, is_test = [], []
    for part in ("train", "test"):
        found = find_images(root / part)
        paths += found
        is_test += [part == "test"] * len(found)
    names = [path.parent.name for path in paths]
    classes = sorted(set(names))
    labels = np.array([classes.index(name) for name in names], np.int64)
    return ImageFiles(paths, root), labels, np.array(is_test)


def _read_batches(
    folder: Path, suffix: str, read: Callable[[Path], tuple[npt.NDArray[Any], npt.NDArray[Any]]]
) -> tuple[Images, npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    names = [*(f"data_batch_{i}{suffix}" for i in range(1, 6)), f"test_batch{suffix}"]
    pixels, labels, is_test = [], [], []
    for name in names:
        if not (folder / name).is_file():
            raise ArtifactError(f"{folder / name} is missing.")
        planes, classes = read(folder / name)
        pixels.append(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.append(classes)
        is_test.append(np.full(len(classes), name.startswith("test")))
    images = ImageArray(np.ascontiguousarray(np.concatenate(pixels)))
    return images, np.concatenate(labels).astype(np.int64), np.concatenate(is_test)


class _ArraysOnly(pickle.Unpickler):
    """Reads CIFAR-10's pickles, which hold NumPy arrays and plain values, and nothing else."""

    _ALLOWED = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Refuse everything but the parts of an array."""
        if (module_name, global_name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"{module_name}.{global_name} is not allowed")
        return super().find_class(module_name, global_name)


def _read_python_batch(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    try:
        content = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        pixels, labels = content[b"data"], np.array(content[b"labels"])
    except Exception as exc:  # a damaged pickle can raise anything at all
        raise ArtifactError(f"{path} is no CIFAR-10 batch: {first_line(exc)}") from exc
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3072):
        raise ArtifactError(f"{path} is no CIFAR-10 batch: its pixels are {pixels.shape}.")
    return pixels, labels


def _read_binary_batch(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    values = np.fromfile(path, np.uint8)
    if not len(values) or len(values) % 3073:
        raise ArtifactError(f"{path} is damaged: its size is no multiple of 3,073 bytes.")
    records = values.reshape(-1, 3073)
    return records[:, 1:], records[:, 0]


def _flickr25k(root: Path, rng: np.random.Generator) -> RetrievalSplit:
    found = {p: whole_number(p.stem[2:]) for p in find_images(root)}
    paths = {number: p for p, number in found.items() if number is not None}
    annotations = sorted(
        p
        for p in root.rglob("annotations*/*.txt")
        if p.stem.lower() != "readme" and not p.stem.endswith("_r1")
    )
    if not annotations:
        raise ArtifactError(f"{root} holds no annotations/*.txt of Flickr25K.")
    numbers = sorted(paths)
    column = {number: row for row, number in enumerate(numbers)}
    labels = np.zeros((len(numbers), len(annotations)), np.int64)
    for tag, file in enumerate(annotations):
        for word in file.read_text(encoding="utf-8", errors="replace").split():
            number = whole_number(word)
            if number is None:
                raise ArtifactError(
                    f"{file} must list numbers of images, but it holds {word[:40]!r}."
                )
            if number in column:
                labels[column[number], tag] = 1
    if len(numbers) <= 7000:
        raise InvalidInputError(
            "Flickr25K is divided into 2,000 queries and a database with 5,000 training images, "
            f"but {root} has only {len(numbers)} images."
        )
    order = rng.permutation(len(numbers))
    queries, database = np.sort(order[:2000]), np.sort(order[2000:])
    train = np.sort(rng.choice(database, 5000, replace=False))
    images = ImageFiles([paths[number] for number in numbers], root)
    return RetrievalSplit(images, labels, train, database, queries)


def _nuswide(root: Path, rng: np.random.Generator) -> RetrievalSplit:
    rows: dict[str, int] = {}
    labels: list[npt.NDArray[np.int64]] = []
    parts = []
    for name in ("train.txt", "database.txt", "test.txt"):
        numbers = []
        for path, vector in _read_list(root / name):
            if path not in rows:
                rows[path] = len(rows)
                labels.append(vector)
            numbers.append(rows[path])
        parts.append(np.array(numbers, np.int64))
    if len({len(vector) for vector in labels}) != 1:
        raise ArtifactError(f"the lists in {root} do not all have the same number of labels.")
    images = ImageFiles([root / path for path in rows], root)
    return RetrievalSplit(images, np.stack(labels), *parts)


def _read_list(path: Path) -> list[tuple[str, npt.NDArray[np.int64]]]:
    """Return the path and the 0/1 labels of every line."""
    if not path.is_file():
        raise ArtifactError(f"{path} is missing; it lists a path and a 0/1 label vector a line.")
    entries = []
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    for number, line in enumerate(text.splitlines(), start=1):
        name, *vector = line.split() or [""]
        if not vector or set(vector) - {"0", "1"}:
            raise ArtifactError(f"{path}, line {number}: must be a path and a 0/1 label vector.")
        entries.append((name, np.array(vector, np.int64)))
    return entries


PROTOCOLS: dict[str, Callable[[Path, np.random.Generator], RetrievalSplit]] = {
    "cifar10": _cifar10,
    "cifar10-i": _cifar10_random(None),
    "cifar10-ii": _cifar10_random(500),
    "flickr25k": _flickr25k,
    "nuswide": _nuswide,
}
