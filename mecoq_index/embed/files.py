"""Features and embeddings of images as files: what ``mecoq-index embed`` writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._files import check_output
from .._progress import Progress, silent
from .._workspace import Workspace
from ..codebooks import Codebooks
from ..data.feature_file import save_features
from ..data.images import Images
from ..data.metadata import check_names, write_names
from ..data.protocols import RetrievalSplit, load_protocol
from ..data.source import ImageItems, Source, open_source
from ..data.views import Augmentation
from ..errors import InvalidInputError
from .embedder import Embedder

MOST_VIEWS = 100
"""The most views of an image that features are computed of."""


@dataclass(frozen=True, eq=False)
class Written:
    """What was written.

    Attributes:
        files: The files.
        shapes: Shapes of the arrays, by name.
        skipped: Number and reason of the images that could not be read.
    """

    files: Sequence[Path]
    shapes: Mapping[str, Sequence[int]]
    skipped: Sequence[tuple[int, str]]


def write_embeddings(
    source: Source,
    codebooks: Codebooks,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: Progress = silent,
    **options: Any,
) -> Written:
    """Write embeddings of a source as ``.npy``, and names of its items beside it as a text file.

    Args:
        source: Images or vectors, as `open_source` takes them.
        codebooks: The codebooks that make embeddings of them.
        out: The ``.npy`` file; names go to the same name with ``.names.txt``.
        resume: Whether to go on from what an interrupted run has left.
        overwrite: Whether existing files may be replaced.
        on_progress: Called with (text, items done, items in all).
        options: As for `Embedder`: device, workers, strict, backbone, given.

    Raises:
        InvalidInputError: If the source does not fit the codebooks, or a name holds a line break.
    """
    if out.suffix != ".npy":
        raise InvalidInputError(f"a file of embeddings must end in .npy, got {out.name!r}.")
    names_file = out.with_suffix(".names.txt")
    for file in (out, names_file):
        check_output(file, overwrite=overwrite or resume)
    items = open_source(source)
    check_names(items.names or ())  # before the work
    with Workspace.beside(out).locked(resume) as store:
        store.check_outputs(out, names_file, overwrite=overwrite)
        found = Embedder(codebooks, **options).embed(items, store=store, on_progress=on_progress)
        files = [out] if found.names is None else [out, names_file]
        # Who finds the embeddings finds the names, too: they come first.
        with store.outputs(*reversed(files)) as partials:
            with partials[-1].open("wb") as stream:
                np.save(stream, found.z)
            if found.names is not None:
                write_names(partials[0], found.names)
        if found.names is None:  # those of what was there before would be taken for its own
            names_file.unlink(missing_ok=True)
    return Written(files, {"embeddings": found.z.shape}, found.skipped)


def write_features(
    source: Source,
    backbone: str,
    out: Path,
    *,
    views: int = 0,
    protocol: str | None = None,
    image_size: int | None = None,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    device: str | None = None,
    workers: int = 0,
    strict: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: Progress = silent,
) -> Written:
    """Write features of images, and of random views of them, as ``.npz`` to train on.

    The file remembers the backbone, so that codebooks trained on it embed images.

    Args:
        source: A folder of images, or anything that `open_source` takes for images.
        backbone: Name of the network.
        out: The ``.npz`` file.
        views: V, random views an image, at most 100.
        protocol: Divide the images as this protocol says: the file holds ``database`` and
            ``queries`` with labels, and features and views of the training images.
        image_size: Side of the images in pixels; the network's own if None.
        augmentation: The random changes that make a view.
        seed: Seed of views and protocol.
        device: The device of the network; CUDA if available, else the CPU, if None.
        workers: Processes that load images.
        strict: Refuse an unreadable image instead of skipping it.
        resume: Whether to go on from what an interrupted run has left.
        overwrite: Whether an existing file may be replaced.
        on_progress: Called with (text, images done, images in all).

    Raises:
        InvalidInputError: If the source holds no images, or an argument does not fit.
    """
    from .backbones import backbone_record, load_backbone
    from .encoder import extract_features

    if out.suffix != ".npz":
        raise InvalidInputError(f"a file of features must end in .npz, got {out.name!r}.")
    check_output(out, overwrite=overwrite or resume)
    if not 0 <= views <= MOST_VIEWS:
        raise InvalidInputError(f"views must be 0 to {MOST_VIEWS}, got {views}.")
    items = open_source(source)
    if not isinstance(items, ImageItems):
        raise InvalidInputError("features are made of images, but the source holds vectors.")
    split = None
    images: Images = items.images
    if protocol is not None:
        if items.path is None:
            raise InvalidInputError("protocol divides a folder of images, got images in memory.")
        split = load_protocol(protocol, items.path, seed=seed)
        images = split.images
    model = load_backbone(backbone, image_size=image_size)
    with Workspace.beside(out).locked(resume) as store:
        store.check_outputs(out, overwrite=overwrite)
        found = extract_features(
            images,
            model,
            views=views,
            augmentation=augmentation,
            seed=seed,
            device=device,
            workers=workers,
            strict=strict,
            store=store,
            on_progress=on_progress,
        )
        record = backbone_record(model, trained=False)
        if split is None:
            metadata = items.metadata.take(found.kept)
            save_features(
                out,
                features=found.features,
                views=found.views if views else None,
                names=metadata.names,
                labels=None if items.labels is None else items.labels[found.kept],
                backbone=record,
                door=store.output,
            )
            shapes = {"features": found.features.shape, "views": found.views.shape}
            return Written([out], shapes, found.skipped)
        parts = _divided(split, found.features, found.kept)
        row_of = {int(i): row for row, i in enumerate(found.kept)}
        trained = [row_of[int(i)] for i in split.train if int(i) in row_of]
        save_features(
            out,
            features=found.features[trained] if views else None,
            views=found.views[:, trained] if views else None,
            split=parts,
            backbone=record,
            door=store.output,
        )
    return Written([out], {name: part.shape for name, part in parts.items()}, found.skipped)


def _divided(
    split: RetrievalSplit, features: npt.NDArray[np.float32], kept: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[Any]]:
    """Features and labels of database and queries, of the images that could be read."""
    row_of = {int(i): row for row, i in enumerate(kept)}
    arrays: dict[str, npt.NDArray[Any]] = {}
    for part, labels in (("database", "database_labels"), ("queries", "query_labels")):
        numbers = [int(i) for i in getattr(split, part) if int(i) in row_of]
        arrays[part] = features[[row_of[i] for i in numbers]]
        arrays[labels] = split.labels[numbers]
    return arrays
