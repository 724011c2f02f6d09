"""The optimizer and the learning-rate schedule of a training run."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR

from ..embed.backbones import set_trainable
from .config import TrainConfig
from .model import MeCoQ


def make_optimizer(
    model: MeCoQ, config: TrainConfig, backbone: nn.Module | None, scales: list[nn.Parameter]
) -> torch.optim.Optimizer:
    """Make the optimizer, with a group each for projection, codebooks and backbone layers.

    Args:
        model: The model.
        config: The settings.
        backbone: The network whose last layers are trained; None if features are cached.
        scales: Single numbers that the loss learns, at five times the learning rate and without
            weight decay.
    """
    groups: list[dict[str, Any]] = [
        {"params": list(model.projection.parameters()), "lr": config.lr}
    ]
    if model.quantizer.codewords.requires_grad:
        groups.append(
            {
                "params": [model.quantizer.codewords],
                "lr": config.lr * config.codebook_lr_scale,
                "weight_decay": 0.0,
            }
        )
    if backbone is not None:
        trainable = set_trainable(backbone, config.trainable_layers)
        if trainable:
            groups.append({"params": trainable, "lr": config.lr * config.backbone_lr_scale})
    if scales:
        groups.append({"params": scales, "lr": 5 * config.lr, "weight_decay": 0.0})
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )


def make_scheduler(
    optimizer: torch.optim.Optimizer, config: TrainConfig, steps: int
) -> LRScheduler:
    """Make a schedule of linear growth over ``warmup_epochs``, then a cosine, step by step.

    Args:
        optimizer: The optimizer whose learning rates follow the schedule.
        config: The settings.
        steps: The number of steps in an epoch.
    """
    warmup = config.warmup_epochs * steps
    cosine = CosineAnnealingLR(
        optimizer, T_max=max(1, config.epochs * steps - warmup), eta_min=config.final_lr
    )
    if not warmup:
        return cosine
    linear = LinearLR(optimizer, start_factor=config.warmup_lr / config.lr, total_iters=warmup)
    return SequentialLR(optimizer, [linear, cosine], milestones=[warmup])
