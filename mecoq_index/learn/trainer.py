"""The training loop: from pairs of views to codebooks.

All random numbers depend on (seed, epoch), so a run that is interrupted and resumed after its last
whole epoch gives the same bits as an uninterrupted one, on the same CPU and versions. Training uses
no labels. The result is the last epoch's codebooks, or those of an earlier epoch if early stopping
chooses it by held-out items, also without labels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .._progress import Progress, silent
from ..codebooks import Codebooks
from ..data.features import HeldOut
from ..embed.backbones import BackboneModel
from ..errors import InvalidInputError, TrainingError
from .checkpoint import RunLog, RunPaths, load_checkpoint, save_checkpoint
from .config import TrainConfig
from .run import FeatureRecord, TrainingRun
from .selection import view_agreement
from .sources import CanHoldOut, HasDropout, PairSource

logger = logging.getLogger("mecoq_index")

Measure = Callable[[Codebooks, Mapping[str, Any]], Mapping[str, Any]]
"""Makes the report on codebooks from them and from facts on the run."""


def fit(
    source: PairSource,
    config: TrainConfig,
    *,
    out: Path | None = None,
    feature_width: int | None = None,
    backbone: BackboneModel | None = None,
    device: str | torch.device | None = None,
    resume: bool = False,
    provenance: Mapping[str, Any] | None = None,
    record: FeatureRecord | None = None,
    measure: Measure | None = None,
    on_progress: Progress = silent,
) -> Codebooks:
    """Learn codebooks from pairs of views: the training loop under `train`.

    Args:
        source: The training items; ``view_dropout`` of the settings is applied to features.
        config: The settings.
        out: The codebook file to write. A log of JSON lines and, until the end, a checkpoint of the
            last epoch are written beside it. None writes nothing.
        feature_width: P, for a source of features without ``width``.
        backbone: The network that turns the source's images into features; None if the source
            gives features.
        device: ``cpu``, ``cuda``, ...; None for CUDA if available.
        resume: Go on from the checkpoint beside ``out``, if there is one.
        provenance: Plain values to keep in the codebook file beside settings and versions.
        record: Facts on the features that the codebooks keep, for a source of features.
        measure: Called with the codebooks and the facts of the run; returns their `report`.
        on_progress: Called every few steps and at the end of each epoch.

    Returns:
        The codebooks after the last epoch, or after the best one where there is ``patience``.

    Raises:
        InvalidInputError: If source and settings do not fit together, or the checkpoint belongs to
            other settings or data.
        ArtifactError: If the checkpoint is damaged.
        TrainingError: If the loss becomes NaN or Inf.
        KeyboardInterrupt: On Ctrl-C; the checkpoint of the last whole epoch stays.
    """
    if config.view_dropout and not isinstance(source, HasDropout):
        raise InvalidInputError(
            f"view_dropout works on features, not on {type(source).__name__}. Set it to 0."
        )
    if isinstance(source, HasDropout) and source.dropout != config.view_dropout:
        if source.dropout:
            raise InvalidInputError(
                f"the dropout of the source must be 0 or view_dropout, {config.view_dropout}, got "
                f"{source.dropout}. Set view_dropout={source.dropout}."
            )
        source = source.with_dropout(config.view_dropout)
    held_out: HeldOut | None = None
    if config.held_out:
        if not isinstance(source, CanHoldOut):
            raise InvalidInputError(
                f"held_out works on features with views, not on {type(source).__name__}. Set it to "
                "0, or make features with mecoq-index embed."
            )
        source, held_out = source.hold_out(config.held_out, config.seed)
    run = TrainingRun(source, config, feature_width, backbone, device, record)
    paths = None if out is None else RunPaths(Path(out))
    resumed = paths is not None and resume and paths.checkpoint.exists()
    if paths is not None and resumed:
        run.restore(load_checkpoint(paths.checkpoint, config, run.source_identity()))
    if not resumed:
        if paths is not None:
            # If preparing is interrupted, the checkpoint of another run must not remain.
            paths.checkpoint.unlink(missing_ok=True)
        run.prepare()
    run_provenance = {**(provenance or {}), **run.provenance()}
    if paths is not None and not resumed:
        # Before the log: a log without a checkpoint is never that of a run to go on with.
        save_checkpoint(paths.checkpoint, run.codebooks(run_provenance), run.state())
    log = RunLog(
        None if paths is None else paths.log,
        {"config": config.to_dict(), "source": run.source_identity()},
        resume_at=run.epoch if resumed else None,
    )
    while not run.is_done:
        try:
            logged = run.train_epoch(on_progress)
        except TrainingError as exc:
            if paths is None:
                raise
            # A resumed run would fail in the same way.
            paths.checkpoint.unlink(missing_ok=True)
            raise TrainingError(
                f"{exc} {paths.log} tells how it went; --overwrite replaces it."
            ) from exc
        if held_out is not None:
            logged["view_agreement"] = run.judge(held_out)
        log.write(logged)
        logger.info("epoch %d: %s", logged["epoch"], logged)
        if paths is not None:
            save_checkpoint(paths.checkpoint, run.codebooks(run_provenance), run.state())
    facts: dict[str, Any] = {"epochs": run.epoch}
    if run.stopping is not None:
        run.stopping.restore_best(run.model)
        run_provenance["epochs_done"] = run.stopping.best_epoch
        facts["best_epoch"] = run.stopping.best_epoch
    if held_out is not None:
        facts["view_agreement"] = view_agreement(run.codebooks({}), held_out)
        run_provenance["view_agreement"] = facts["view_agreement"]
    codebooks = run.codebooks(run_provenance)
    report = facts if measure is None else measure(codebooks, facts)
    codebooks = replace(codebooks, report=report)
    if paths is not None:
        codebooks.save(paths.out)
        paths.checkpoint.unlink(missing_ok=True)
    return codebooks
