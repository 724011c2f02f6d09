"""Learn codebooks from any source: images, features with views, or plain vectors."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from .._arguments import check_known
from .._arrays import Vectors
from .._files import check_output
from .._optional import require
from .._progress import Progress, reported
from .._workspace import Workspace
from ..codebook_file import check_suffix
from ..codebooks import Codebooks, VectorStatistics
from ..data.features import FeatureViews
from ..data.images import Images, Subset, check_images
from ..data.protocols import load_protocol
from ..data.source import ImageItems, Source, VectorItems, open_source
from ..data.views import Augmentation, ImageViews
from ..embed.backbones import BackboneModel, load_backbone
from ..embed.encoder import extract_features
from ..errors import InvalidInputError
from .checkpoint import RunPaths
from .config import TrainConfig
from .objective.settings import KINDS, ObjectiveName, Settings
from .presets import Kind, recommended
from .report import measure
from .run import FeatureRecord
from .trainer import Measure, fit

logger = logging.getLogger("mecoq_index")

DEFAULT_BACKBONE = "torchvision:vgg16"
_MOST_HELD_OUT = 1000
_FEWEST_TO_SPARE = 1000
"""Fewer vectors are all trained on, and the report is measured on some of them."""
_SAMPLED_ITEMS = 20_000
_SAMPLED_IMAGES = 500
_JUDGED = 2000


def train(
    source: Source,
    *,
    bits: int | None = None,
    objective: ObjectiveName | Settings | None = None,
    codewords: int | None = None,
    config: TrainConfig | None = None,
    out: str | Path | None = None,
    vector_column: str | None = None,
    normalize: bool = False,
    backbone: str | BackboneModel | None = None,
    image_size: int | None = None,
    protocol: str | None = None,
    augmentation: Augmentation | None = None,
    patience: int | None = None,
    device: str | None = None,
    workers: int = 0,
    strict: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | bool = True,
    **settings: Any,
) -> Codebooks:
    """Learn codebooks by MeCoQ.

    Without ``config``, the settings are those that `recommended` returns for the source, as on the
    command line.

    Args:
        source: Images (a folder, a list of paths, a data set of torch or Hugging Face), features
            with views (`FeatureViews`, or an ``.npz`` of ``mecoq-index embed``), or vectors (n, P):
            an array of any float or integer dtype, a file, a folder of files, a table.
        bits: Bits of a code, M * log2 K; 64 if None.
        objective: ``contrast`` learns which items are alike, ``distillation`` reproduces the
            ranking by cosine of unit vectors, ``signs`` learns binary codes; or an object with
            the settings of one of them. ``contrast`` if None.
        codewords: K, codewords per codebook; if None, 256 for images and distillation, else 16.
        config: All settings at once, instead of ``bits``, ``objective`` and ``codewords``.
        out: The codebook file to write (``.pt`` or ``.safetensors``). A log and, until the end, a
            checkpoint of the last epoch are written beside it. None writes nothing.
        vector_column: For tables: the column of vectors.
        normalize: Divide vectors by their length, here and wherever the codebooks are used.
        backbone: For images: the network that turns them into features, or its name;
            ``torchvision:vgg16`` if None.
        image_size: For images: their side in pixels; the network's own if None.
        protocol: For images: train on the training images of this protocol.
        augmentation: For images: the random changes that make their views.
        patience: For features with views: stop after this many epochs without a gain in the
            agreement of views of held-out items, and keep the best epoch.
        device: ``cpu``, ``cuda``, ...; None for CUDA if available.
        workers: For images: the number of processes that load them.
        strict: For images: refuse unreadable ones instead of skipping them.
        resume: Go on from the checkpoint beside ``out``, if there is one.
        overwrite: Replace an existing file, and discard the checkpoint of an interrupted run.
        progress: True shows a bar, or lines without a terminal; or a function that is called with
            (text, done, total).
        settings: Single settings of `TrainConfig` or of the objective, such as ``epochs=10`` or
            ``temperature=0.3``.

    Returns:
        The codebooks, with a `report` of measures taken at the end.

    Raises:
        InvalidInputError: If source and settings do not fit together, or the output may not be
            written, or a checkpoint belongs to other settings or data.
        ArtifactError: If a file is damaged.
        TrainingError: If the loss becomes NaN or Inf.
        MissingDependencyError: If a package is needed that is not installed.
        KeyboardInterrupt: On Ctrl-C; the checkpoint of the last whole epoch stays.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).standard_normal((600, 32))
        >>> books = train(x, bits=16, epochs=1, progress=False)
        >>> books.M, books.K, books.P
        (4, 16, 32)
    """
    require("torch", extra="train", purpose="training")
    path = None if out is None else Path(out)
    asked = _Asked(bits, objective, codewords, config, patience, settings)
    of_images = {
        "backbone": backbone,
        "image_size": image_size,
        "protocol": protocol,
        "augmentation": augmentation,
    }
    with _alone(path, resume=resume, overwrite=overwrite):
        items = open_source(source, vector_column=vector_column)
        run = {
            "out": path,
            "device": device,
            "resume": resume,
            "provenance": {"trained_on": str(getattr(items.path, "name", "") or "memory")},
        }
        if isinstance(items, ImageItems):
            if normalize:
                raise InvalidInputError(
                    "normalize divides vectors by their length; these are images."
                )
            return _train_on_images(items, asked, of_images, run, workers, strict, progress)
        for name, value in of_images.items():
            if value is not None:
                raise InvalidInputError(f"{name} is for images, but the source holds vectors.")
        return _train_on_vectors(items, asked, normalize, run, progress)


@dataclass(frozen=True)
class _Asked:
    """The settings that the caller asked for."""

    bits: int | None
    objective: ObjectiveName | Settings | None
    codewords: int | None
    config: TrainConfig | None
    patience: int | None
    settings: Mapping[str, Any]

    def config_for(self, kind: Kind) -> TrainConfig:
        """Return all settings for a kind of source.

        Raises:
            InvalidInputError: If the settings do not fit together.
        """
        size = (self.bits, self.objective, self.codewords)
        if self.config is not None:
            if not isinstance(self.config, TrainConfig):
                raise InvalidInputError(
                    f"config must be a TrainConfig, got {type(self.config).__name__}. Use "
                    "TrainConfig.from_json for a file."
                )
            if any(value is not None for value in size):
                raise InvalidInputError(
                    "config holds all settings, so bits, objective and codewords cannot be given "
                    "beside it. Change it with config.replace."
                )
            chosen = self.config
        else:
            chosen = recommended(
                kind,
                64 if self.bits is None else self.bits,
                self.codewords,
                **_named(self.objective),
            )
            if self.objective is not None and not isinstance(self.objective, str):
                chosen = chosen.replace(objective=self.objective)
        changes = dict(self.settings)
        epochs = changes.get("epochs")
        if "warmup_epochs" not in changes and isinstance(epochs, (int, np.integer)) and epochs >= 1:
            changes["warmup_epochs"] = min(chosen.warmup_epochs, epochs)
        return chosen.replace(**changes)


def _named(objective: ObjectiveName | Settings | None) -> dict[str, ObjectiveName]:
    """Return the name of an objective as an argument, or no argument for the default."""
    if objective is None:
        return {}
    if not isinstance(objective, (str, *KINDS.values())):
        raise InvalidInputError(
            f"objective must be one of {sorted(KINDS)} or settings of one, got "
            f"{type(objective).__name__}."
        )
    name = objective if isinstance(objective, str) else objective.name
    check_known([name], KINDS, what="objective")
    return {"objective": cast(ObjectiveName, name)}


@contextmanager
def _alone(path: Path | None, *, resume: bool, overwrite: bool) -> Iterator[None]:
    """Check the output, and keep other programs from training for it, while the block runs."""
    if path is None:
        yield
        return
    check_suffix(path)
    with Workspace.beside(path).locked(resume=False):
        _check_files(RunPaths(path), resume=resume, overwrite=overwrite)
        yield


def _check_files(paths: RunPaths, *, resume: bool, overwrite: bool) -> None:
    check_output(paths.out, overwrite=overwrite)
    may_stay = resume or overwrite
    if paths.checkpoint.exists() and not may_stay:
        raise InvalidInputError(
            f"{paths.checkpoint} is left from an interrupted run. Use resume (--resume) to go on "
            "from it, or overwrite (--overwrite) to start again."
        )
    check_output(paths.checkpoint, overwrite=may_stay)
    check_output(paths.log, overwrite=overwrite or (resume and paths.checkpoint.exists()))
    if overwrite and not resume:
        paths.checkpoint.unlink(missing_ok=True)


def _train_on_vectors(
    items: VectorItems, asked: _Asked, normalize: bool, run: dict[str, Any], progress: Any
) -> Codebooks:
    if items.n < 2:
        raise InvalidInputError(f"training needs at least 2 items to contrast, got {items.n}.")
    views = items.views
    if views is None:
        views = FeatureViews(items.to_vectors()[None], backbone=items.backbone)
    plain = views.items()
    _check_not_all_equal(plain)
    config = asked.config_for("views" if views.num_views > 1 else "vectors")
    if asked.patience is not None:
        held_out = config.held_out or min(_JUDGED, len(views) // 10)
        config = config.replace(patience=asked.patience, held_out=held_out)
    record = FeatureRecord(normalize, views.backbone, VectorStatistics.of(plain))
    if normalize:
        views = views.normalized()
    order = np.random.default_rng([config.seed, 4]).permutation(len(views))
    count = min(_MOST_HELD_OUT, len(views) // 20)
    queries, kept = np.sort(order[:count]), np.sort(order[count:])
    own_rows = None
    if len(views) < _FEWEST_TO_SPARE:
        queries, kept = order[:_MOST_HELD_OUT], np.sort(order)
        own_rows = queries
    measured_on = f"{len(queries)} {'held-out' if len(kept) < len(views) else 'training'} items"
    training = views.take(kept) if len(kept) < len(views) else views
    report = partial(
        measure,
        items=plain[kept[:: max(1, len(kept) // _SAMPLED_ITEMS)]],
        queries=plain[queries],
        own_rows=own_rows,
        num_items=len(kept),
        measured_on=measured_on,
    )
    return _run(training, config, run, progress, record=record, measure=report)


def _check_not_all_equal(x: Vectors) -> None:
    if (x == x[:1]).all():
        raise InvalidInputError(
            f"there is nothing to learn: all {len(x)} vectors are equal. Check how they were made."
        )


def _train_on_images(
    items: ImageItems,
    asked: _Asked,
    of_images: Mapping[str, Any],
    run: dict[str, Any],
    workers: int,
    strict: bool,
    progress: Progress | bool,
) -> Codebooks:
    config = asked.config_for("images")
    if asked.patience is not None:
        raise InvalidInputError(
            "patience judges epochs by views of features, but the source holds images. Make "
            "features of them first with mecoq-index embed."
        )
    images: Images = items.images
    if of_images["protocol"] is not None:
        if items.path is None:
            raise InvalidInputError("protocol divides a folder of images, got images in memory.")
        split = load_protocol(of_images["protocol"], items.path, seed=config.seed)
        images = Subset(split.images, split.train)
    with reported(progress, "checking images") as update:
        images, skipped = check_images(images, strict=strict, on_progress=update)
    _warn_of_skipped(skipped)
    model = of_images["backbone"] or DEFAULT_BACKBONE
    if isinstance(model, str):
        model = load_backbone(model, image_size=of_images["image_size"])
    views = ImageViews(
        images, model.transform, augmentation=of_images["augmentation"], workers=workers
    )
    measured = _measured_on_images(images, model, run["device"], workers)
    return _run(views, config, run, progress, backbone=model, measure=measured)


def _warn_of_skipped(skipped: Sequence[tuple[int, str]]) -> None:
    if skipped:
        logger.warning(
            "skipped %d unreadable images, the first of them: %s", len(skipped), skipped[0][1]
        )


def _measured_on_images(
    images: Images, model: BackboneModel, device: str | None, workers: int
) -> Measure:
    """Return a function that measures on features of a sample of the training images."""
    rows = np.random.default_rng(0).permutation(len(images))[:_SAMPLED_IMAGES]

    def report(codebooks: Codebooks, facts: Mapping[str, Any]) -> Mapping[str, Any]:
        found = extract_features(
            Subset(images, np.sort(rows)), model, device=device, workers=workers
        ).features
        return measure(
            codebooks,
            facts,
            items=found,
            queries=found,
            own_rows=np.arange(len(found)),
            num_items=len(images),
            measured_on=f"{len(found)} training images",
        )

    return report


def _run(
    source: Any, config: TrainConfig, run: Mapping[str, Any], progress: Any, **more: Any
) -> Codebooks:
    with reported(progress, "training") as update:
        books = fit(source, config, on_progress=update, **run, **more)
    for warning in books.report.get("warnings", ()):
        logger.warning("%s", warning)
    return books
