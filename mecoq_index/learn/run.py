"""One training run: model, optimizer, memory, graph, and where it stands."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .. import __version__
from .._arrays import Ids
from .._devices import cpu_multiplies_bfloat16, pick_device
from ..codebooks import Backbone, Codebooks
from ..data.features import HeldOut
from ..embed.backbones import BackboneModel, backbone_record, frozen_norms_to_eval
from ..errors import InvalidInputError, TrainingError
from .config import Precision, TrainConfig
from .memory import CodeMemory
from .model import MeCoQ
from .neighbours import check_neighbours, draw_partners, neighbour_graph
from .objective.contrast import (
    codeword_regularizer,
    official_contrastive_loss,
    paper_contrastive_loss,
    soft_code_entropy,
)
from .objective.distillation import (
    RankingDistillation,
    check_unit_rows,
    start_from_components,
    straight_through,
)
from .optimization import make_optimizer, make_scheduler
from .quantizer import Quantized
from .selection import EarlyStopping, view_agreement
from .sources import PairSource, frozen_features
from .statistics import EpochStatistics

logger = logging.getLogger("mecoq_index")

_TOO_LARGE = "Lower lr or raise temperature, and check that the features are not huge or constant."
_CONTRASTIVE = {"paper": paper_contrastive_loss, "official": official_contrastive_loss}


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        epoch: The epoch under way, from 0.
        epochs: Epochs in all.
        step: Steps done of this epoch, from 1.
        steps: Steps of this epoch.
        terms: The loss and its terms, averaged over the epoch so far.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    terms: Mapping[str, float]


class TrainingRun:
    """Model, optimizer, memory and position of one training run."""

    def __init__(
        self,
        source: PairSource,
        config: TrainConfig,
        feature_width: int | None,
        backbone: BackboneModel | None,
        device: str | torch.device | None,
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
        distills = config.loss == "distillation"
        if not (config.neighbours or distills or getattr(source, "has_two_views", True)):
            raise InvalidInputError(
                "one view an item gives no two views to contrast: set neighbours or view_dropout "
                "above 0, or give (V, n, P) with V of at least 2 (mecoq-index embed --backbone "
                "NAME --views 3 makes them)."
            )
        if distills and (backbone is not None or getattr(source, "num_views", 1) != 1):
            raise InvalidInputError(
                "distillation reproduces the ranking of vectors: give one vector an item, (n, P), "
                "without views and without a backbone."
            )
        if config.neighbours:
            check_neighbours(config.neighbours, len(source))
        self.device = pick_device(device)
        self.source, self.config, self.backbone = source, config, backbone
        self.epoch = 0
        with _seeded(config.seed, 0):
            module = None if backbone is None else backbone.module
            self.model = MeCoQ(width, config, module).to(self.device)
        self.distillation = RankingDistillation().to(self.device) if distills else None
        scales = list(self.distillation.parameters()) if self.distillation is not None else []
        self.optimizer = make_optimizer(self.model, config, module, scales)
        self.steps = source.steps(config.batch_size)
        self.scheduler = make_scheduler(self.optimizer, config, self.steps)
        self.autocast = _autocast_dtype(config.precision, self.device)
        self.scaler = torch.amp.GradScaler(enabled=self.autocast == torch.float16)
        self.graph: Ids | None = None
        self.stopping = EarlyStopping(config.patience) if config.patience else None
        self.memory = None
        if config.memory_size:
            self.memory = CodeMemory(
                config.memory_size, config.num_codebooks, config.num_codewords, self.device
            )

    def train_epoch(self, on_progress: Callable[[Progress], None] | None) -> dict[str, Any]:
        """One pass over the items; returns the epoch's log record."""
        started = time.perf_counter()
        self._train_mode()
        alpha = None if self.config.codebooks == "signs" else self.config.alpha
        statistics = EpochStatistics(self.steps, alpha, self.device)
        with _seeded(self.config.seed, 1 + self.epoch):
            pairs = self._pairs()
            for step, (view1, view2) in enumerate(pairs, start=1):
                self._step(view1, view2, statistics)
                if step % statistics.stride == 0 or step == self.steps:
                    terms = statistics.means()
                    self._check_finite(terms, step)
                    if on_progress is not None:
                        on_progress(
                            Progress(self.epoch, self.config.epochs, step, self.steps, terms)
                        )
        record = {
            "epoch": self.epoch,
            "seconds": round(time.perf_counter() - started, 3),
            "lr": self.optimizer.param_groups[0]["lr"],
            "memory": len(self.memory) if self._memory_in_use() else 0,  # type: ignore[arg-type]
            **statistics.means(),
            **statistics.codes(),
        }
        self._check_parameters()
        self.epoch += 1
        return record

    @property
    def is_done(self) -> bool:
        """Whether the last epoch is over, or patience is."""
        stopped = self.stopping is not None and self.stopping.is_due
        return stopped or self.epoch >= self.config.epochs

    def judge(self, held_out: HeldOut) -> float:
        """View agreement of the codebooks as they are."""
        agreement = view_agreement(self.codebooks({}), held_out)
        if self.stopping is not None:
            self.stopping.judge(agreement, self.model, self.epoch)
        return agreement

    def prepare(self) -> None:
        """What is made once, from the features as they are before any training."""
        if not (self.config.neighbours or self.distillation):
            return
        features = frozen_features(self.source, self.backbone, self.device)
        if self.config.neighbours:
            self.graph = neighbour_graph(features, self.config.neighbours)
        if self.distillation is not None:
            check_unit_rows(features)
            start_from_components(self.model, self.distillation, features, self.config)

    def _pairs(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        config = self.config
        if self.graph is None:
            return self.source.batches(self.epoch, config.batch_size, config.seed)
        rng = np.random.default_rng([config.seed, self.epoch, 1])
        partners = draw_partners(self.graph, config.neighbour_share, rng)
        return self.source.batches(self.epoch, config.batch_size, config.seed, partners)

    def _step(self, view1: torch.Tensor, view2: torch.Tensor, statistics: EpochStatistics) -> None:
        if self.distillation is None:
            terms, quantized = self._contrast(view1, view2)
        else:
            terms, quantized = self._distill(view1, self.distillation)
        self._descend(terms["loss"])
        if self.memory is not None:
            self.memory.enqueue(quantized.soft_codes)
        statistics.add(terms, quantized)

    def _embed(self, x: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, D) in float32; the quantizer runs in float32 under autocast too."""
        with torch.autocast(self.device.type, self.autocast, self.autocast is not None):
            z = self.model.embed(x.to(self.device, non_blocking=True))
        return z.float()

    def _contrast(
        self, view1: torch.Tensor, view2: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], Quantized]:
        config, n = self.config, len(view1)
        quantized: Quantized = self.model.quantizer(self._embed(torch.cat([view1, view2])))
        memory = None
        if self.memory is not None and self._memory_in_use():
            memory = self.model.quantizer.decode(self.memory.soft_codes())
        terms = {
            "contrastive": _CONTRASTIVE[config.loss](
                quantized.reconstruction[:n],
                quantized.reconstruction[n:],
                memory,
                temperature=config.temperature,
                positive_prior=config.positive_prior,
            ),
            "regularizer": codeword_regularizer(self.model.quantizer.unit_codewords()),
        }
        loss = terms["contrastive"] + config.regularizer_weight * terms["regularizer"]
        if config.entropy_weight:
            terms["entropy"] = soft_code_entropy(quantized.soft_codes)
            loss = loss + config.entropy_weight * terms["entropy"]
        return {"loss": loss, **terms}, quantized

    def _distill(
        self, x: torch.Tensor, distillation: RankingDistillation
    ) -> tuple[dict[str, torch.Tensor], Quantized]:
        quantizer = self.model.quantizer
        z = self._embed(x)
        quantized: Quantized = quantizer(z)
        decoded = straight_through(quantized, quantizer.unit_codewords())
        unit = F.normalize(z.view(len(z), self.config.num_codebooks, -1), dim=-1).flatten(1)
        return {"loss": distillation(x.to(z), unit, decoded)}, quantized

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
        if self.config.codebooks == "learned":
            self.model.quantizer.renormalize()

    def _memory_in_use(self) -> bool:
        return self.memory is not None and self.epoch >= self.config.memory_start_epoch

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
        """What tells this training set from another one."""
        identity = {"items": len(self.source)}
        fingerprint = getattr(self.source, "fingerprint", None)
        return identity if fingerprint is None else {**identity, "fingerprint": fingerprint}

    def provenance(self) -> dict[str, Any]:
        """How these codebooks are made."""
        return {
            "config": self.config.to_dict(),
            "source": self.source_identity(),
            "versions": {"mecoq-index": __version__, "torch": str(torch.__version__)},
            "device": self.device.type,
        }

    def codebooks(self, provenance: Mapping[str, Any]) -> Codebooks:
        """The codebooks as they are now."""
        return self.model.to_codebooks(
            backbone=self._backbone_record(), provenance={"epochs_done": self.epoch, **provenance}
        )

    def _backbone_record(self) -> Backbone | None:
        if self.backbone is None:
            return None
        trained = self.config.trainable_layers != 0
        return backbone_record(self.backbone, trained=trained)

    def state(self) -> dict[str, Any]:
        """Everything a checkpoint needs beside the codebooks."""
        return {
            "config": self.config.to_dict(),
            "source": self.source_identity(),
            "epoch": self.epoch,
            "projection": self.model.projection.state_dict(),
            "quantizer": self.model.quantizer.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "memory": None if self.memory is None else self.memory.state_dict(),
            "distillation": self.distillation and self.distillation.state_dict(),
            "stopping": self.stopping and self.stopping.state_dict(),
            "graph": None if self.graph is None else torch.from_numpy(self.graph),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up the state of a checkpoint."""
        self.model.projection.load_state_dict(state["projection"])
        self.model.quantizer.load_state_dict(state["quantizer"])
        if self.backbone is not None and state["backbone_state"] is not None:
            module = self.backbone.module  # a checkpoint keeps the weights that training changed
            module.load_state_dict({**module.state_dict(), **state["backbone_state"]})
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        if self.memory is not None:
            self.memory.load_state_dict(state["memory"])
        if self.stopping is not None:
            self.stopping.load_state_dict(state["stopping"])
        if self.distillation is not None:
            self.distillation.load_state_dict(state["distillation"])
        if state["graph"] is not None:
            self.graph = state["graph"].numpy()
        self.epoch = state["epoch"]


def _autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The narrower type of matrix products and convolutions; None keeps float32."""
    if precision == "auto":
        return torch.float16 if device.type == "cuda" else None
    if precision != "bfloat16":
        return None
    if device.type == "cpu" and not cpu_multiplies_bfloat16():
        logger.warning("this CPU has no products of bfloat16: float32 would be much faster.")
    return torch.bfloat16


@contextmanager
def _seeded(seed: int, part: int) -> Iterator[None]:
    """Run a block on its own random stream and leave the caller's as it was."""
    with torch.random.fork_rng():
        torch.manual_seed((seed << 20) + part)
        yield
