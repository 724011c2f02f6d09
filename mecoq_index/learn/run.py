"""One training run: model, optimizer, objective and position."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from .. import __version__
from .._devices import cpu_multiplies_bfloat16, pick_device
from .._progress import Progress
from ..backbone import Backbone
from ..codebooks import Codebooks
from ..data.features import HeldOut
from ..embed.backbones import BackboneModel, backbone_record, frozen_norms_to_eval
from ..errors import InvalidInputError, TrainingError
from ..vector_statistics import VectorStatistics
from .config import Precision, TrainConfig
from .model import MeCoQ
from .objective.making import make_objective
from .optimization import make_optimizer, make_scheduler
from .selection import EarlyStopping, view_agreement
from .sources import PairSource, frozen_features
from .statistics import EpochStatistics

logger = logging.getLogger("mecoq_index")

_TOO_LARGE = "Lower lr or raise temperature, and check that the features are not huge or constant."


@dataclass(frozen=True, eq=False)
class FeatureRecord:
    """Facts on the training features that codebooks keep.

    Attributes:
        normalize: Whether features are divided by their length; the source has done so already.
        backbone: The record of the network that made the features; None if unknown.
        statistics: Statistics of the features before the division by their length.
    """

    normalize: bool = False
    backbone: Backbone | None = None
    statistics: VectorStatistics | None = None


class TrainingRun:
    """Model, optimizer, objective and position of one training run."""

    def __init__(
        self,
        source: PairSource,
        config: TrainConfig,
        feature_width: int | None,
        backbone: BackboneModel | None,
        device: str | torch.device | None,
        record: FeatureRecord | None = None,
    ) -> None:
        if len(source) < 2 or source.steps(config.batch_size) < 1:
            raise InvalidInputError(
                f"training needs at least 2 items to contrast, got {len(source)}."
            )
        width = backbone.width if backbone is not None else feature_width
        if width is None:
            width = getattr(source, "width", None)
        if width is None:
            raise InvalidInputError("give feature_width or a backbone: the source has no width.")
        self.device = pick_device(device)
        self.source, self.config, self.backbone = source, config, backbone
        self._record = record or FeatureRecord()
        self.epoch = 0
        self.objective = make_objective(config, self.device)
        self.objective.check_source(
            len(source),
            has_two_views=getattr(source, "has_two_views", True),
            is_views=backbone is not None or getattr(source, "num_views", 1) != 1,
        )
        with _seeded(config.seed, 0):
            module = None if backbone is None else backbone.module
            self.model = MeCoQ(width, config, module).to(self.device)
        self.optimizer = make_optimizer(self.model, config, module, self.objective.parameters())
        self.steps = source.steps(config.batch_size)
        self.scheduler = make_scheduler(self.optimizer, config, self.steps)
        self.autocast = _autocast_dtype(config.precision, self.device)
        self.scaler = torch.amp.GradScaler(enabled=self.autocast == torch.float16)
        self.stopping = EarlyStopping(config.patience) if config.patience else None

    def train_epoch(self, on_progress: Progress) -> dict[str, Any]:
        """Make one pass over the items, and return the epoch's log record."""
        started = time.perf_counter()
        self._train_mode()
        statistics = EpochStatistics(self.steps, self.model.quantizer.logit_scale, self.device)
        with _seeded(self.config.seed, 1 + self.epoch):
            pairs = self._pairs()
            for step, (view1, view2) in enumerate(pairs, start=1):
                self._step(view1, view2, statistics)
                if step % statistics.stride == 0 or step == self.steps:
                    terms = statistics.means()
                    self._check_finite(terms, step)
                    self._tell(on_progress, step, terms)
        record = {
            "epoch": self.epoch,
            "seconds": round(time.perf_counter() - started, 3),
            "lr": self.optimizer.param_groups[0]["lr"],
            "memory": self.objective.extra_negatives(self.epoch),
            **statistics.means(),
            **statistics.codes(),
        }
        self._check_parameters()
        self.epoch += 1
        return record

    @property
    def is_done(self) -> bool:
        """Whether the last epoch is over, or early stopping is due."""
        stopped = self.stopping is not None and self.stopping.is_due
        return stopped or self.epoch >= self.config.epochs

    def judge(self, held_out: HeldOut) -> float:
        """Measure the view agreement of the current codebooks, for early stopping too."""
        agreement = view_agreement(self.codebooks({}), held_out)
        if self.stopping is not None:
            self.stopping.judge(agreement, self.model, self.epoch)
        return agreement

    def prepare(self) -> None:
        """Set up the objective from the features as they are before any training."""
        if self.objective.needs_features:
            features = frozen_features(self.source, self.backbone, self.device)
            self.objective.prepare(features, self.model.projection, self.model.quantizer)

    def _tell(self, on_progress: Progress, step: int, terms: Mapping[str, float]) -> None:
        listed = " ".join(f"{name} {value:.3f}" for name, value in terms.items())
        text = f"epoch {self.epoch + 1}/{self.config.epochs} {listed}"
        on_progress(text, self.epoch * self.steps + step, self.config.epochs * self.steps)

    def _pairs(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        config, partners = self.config, self.objective.partners(self.epoch)
        if partners is None:
            return self.source.batches(self.epoch, config.batch_size, config.seed)
        return self.source.batches(self.epoch, config.batch_size, config.seed, partners)

    def _step(self, view1: torch.Tensor, view2: torch.Tensor, statistics: EpochStatistics) -> None:
        terms, quantized = self.objective.loss(
            self._embed, self.model.quantizer, view1, view2, self.epoch
        )
        self._descend(terms["loss"])
        self.objective.after_step(quantized)
        statistics.add(terms, quantized)

    def _embed(self, x: torch.Tensor) -> torch.Tensor:
        """Return embeddings (B, D) in float32, so that the quantizer runs in float32."""
        with torch.autocast(self.device.type, self.autocast, self.autocast is not None):
            z = self.model.embed(x.to(self.device, non_blocking=True))
        return z.float()

    def _descend(self, loss: torch.Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if self.config.max_grad_norm:
            self.scaler.unscale_(self.optimizer)
            groups = self.optimizer.param_groups
            trained = [parameter for group in groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(trained, self.config.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        if self.model.quantizer.codewords.requires_grad:
            self.model.quantizer.renormalize()

    def _check_finite(self, terms: Mapping[str, float], step: int) -> None:
        if not math.isfinite(terms["loss"]):
            raise TrainingError(
                f"the loss became {terms['loss']} in epoch {self.epoch}, step {step}. {_TOO_LARGE}"
            )

    def _check_parameters(self) -> None:
        for name, value in self.model.state_dict().items():
            if not torch.isfinite(value).all():
                raise TrainingError(f"{name} became NaN or Inf in epoch {self.epoch}. {_TOO_LARGE}")

    def _train_mode(self) -> None:
        self.model.train()
        if self.backbone is not None:
            frozen_norms_to_eval(self.backbone.module)

    def source_identity(self) -> dict[str, Any]:
        """Return plain values that differ between training sets."""
        identity = {"items": len(self.source)}
        fingerprint = getattr(self.source, "fingerprint", None)
        return identity if fingerprint is None else {**identity, "fingerprint": fingerprint}

    def provenance(self) -> dict[str, Any]:
        """Return plain values on how the codebooks are made."""
        return {
            "config": self.config.to_dict(),
            "source": self.source_identity(),
            "versions": {"mecoq-index": __version__, "torch": str(torch.__version__)},
            "device": self.device.type,
        }

    def codebooks(self, provenance: Mapping[str, Any]) -> Codebooks:
        """Return the codebooks as trained so far."""
        made = self.model.to_codebooks(
            backbone=self._backbone_record(), provenance={"epochs_done": self.epoch, **provenance}
        )
        record = self._record
        return replace(made, normalize=record.normalize, statistics=record.statistics)

    def _backbone_record(self) -> Backbone | None:
        if self.backbone is None:
            return self._record.backbone
        trained = self.config.trainable_layers != 0
        return backbone_record(self.backbone, trained=trained)

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint needs beside the codebooks."""
        return {
            "config": self.config.to_dict(),
            "source": self.source_identity(),
            "epoch": self.epoch,
            "projection": self.model.projection.state_dict(),
            "quantizer": self.model.quantizer.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "objective": self.objective.state_dict(),
            "stopping": self.stopping and self.stopping.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self.model.projection.load_state_dict(state["projection"])
        self.model.quantizer.load_state_dict(state["quantizer"])
        if self.backbone is not None and state["backbone_state"] is not None:
            module = self.backbone.module  # a checkpoint keeps the weights that training changed
            module.load_state_dict({**module.state_dict(), **state["backbone_state"]})
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        self.objective.load_state_dict(state["objective"])
        if self.stopping is not None:
            self.stopping.load_state_dict(state["stopping"])
        self.epoch = state["epoch"]


def _autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype | None:
    """Return the type of matrix products and convolutions, or None for float32."""
    if precision == "auto":
        return torch.float16 if device.type == "cuda" else None
    if precision != "bfloat16":
        return None
    if device.type == "cpu" and not cpu_multiplies_bfloat16():
        logger.warning("this CPU has no products of bfloat16: float32 would be much faster.")
    return torch.bfloat16


@contextmanager
def _seeded(seed: int, part: int) -> Iterator[None]:
    """Run a block on its own random stream, and restore the caller's afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed((seed << 20) + part)
        yield
