"""Judge codebooks without labels: do two views of an unseen item find the same items?

A good code does not depend on augmentation, so two views of one item find the same items. Collapsed
codes find the same items for every query, so the agreement of two different items is subtracted.
benchmarks/selection_cifar10.py measures how well this follows mAP over many settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..codebooks import Codebooks
from ..data.features import HeldOut
from ..scoring import block_normalize, decode, encode

SHARE = 0.02
"""Length of the compared lists, as a share of the items searched in."""
_BLOCK = 512


def view_agreement(codebooks: Codebooks, held_out: HeldOut) -> float:
    """Mean share of results, by AQS, that two views of a held-out item have in common.

    Minus the same share of two *different* items, so that collapsed codes score 0. The results of
    a query are the best 2 % of the database.

    Args:
        codebooks: The codebooks to judge.
        held_out: The items to judge them by.

    Returns:
        A number of 1 at most, about 0 by chance.
    """
    M = codebooks.M
    decoded = torch.from_numpy(
        decode(encode(codebooks.project(held_out.database), codebooks), codebooks)
    )
    k = max(1, round(SHARE * len(decoded)))
    queries = [
        torch.from_numpy(block_normalize(codebooks.project(view), M))
        for view in (held_out.first, held_out.second)
    ]
    first, second = (
        torch.cat([(some @ decoded.T).topk(k, dim=1).indices for some in torch.split(q, _BLOCK)])
        for q in queries
    )
    n = len(decoded)
    common = _in_common(first, second, n) - _in_common(first, second.roll(1, dims=0), n)
    return common / (k * len(first))


def _in_common(first: torch.Tensor, second: torch.Tensor, n: int) -> int:
    """Count the numbers below n that a row (m, k) has in both, over all rows."""
    common = 0
    for a, b in zip(*(torch.split(lists, _BLOCK) for lists in (first, second)), strict=True):
        member = torch.zeros(len(a), n, dtype=torch.bool).scatter_(1, a, True)
        common += int(member.gather(1, b).sum())
    return common


class EarlyStopping:
    """Keep the best epoch so far by view agreement, and say when to stop.

    Args:
        patience: The number of epochs without a gain after which to stop.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._best = -np.inf
        self._since = 0
        self.best_epoch = 0
        """The number of epochs after which the weights were best."""
        self._weights: dict[str, torch.Tensor] = {}

    def judge(self, agreement: float, model: torch.nn.Module, epoch: int) -> None:
        """Compare an epoch with the best one, and keep its weights if they are better."""
        if agreement > self._best:
            self._best, self._since, self.best_epoch = agreement, 0, epoch
            self._weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
        else:
            self._since += 1

    @property
    def is_due(self) -> bool:
        """Whether ``patience`` epochs in a row brought no gain."""
        return self._since >= self._patience

    def restore_best(self, model: torch.nn.Module) -> None:
        """Load the weights of the best epoch into the model."""
        model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a checkpoint needs."""
        return {
            "best": float(self._best),
            "since": self._since,
            "best_epoch": self.best_epoch,
            "weights": self._weights,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self._best, self._since = state["best"], state["since"]
        self.best_epoch = state["best_epoch"]
        self._weights = dict(state["weights"])
