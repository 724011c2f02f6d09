"""Judging codebooks without labels: do two views of an unseen item find the same items?

Augmentation changes what a good code should not depend on, so the lists of results of two views of
one item agree the more, the better the codes. Lists that are all alike agree too: what the lists of
two different items have in common is taken off. benchmarks/selection_cifar10.py measures how this
follows mAP over many settings.
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

    Less the share that views of two different items have in common, which is all if the codes have
    collapsed.

    Args:
        codebooks: What is judged.
        held_out: By what.

    Returns:
        A number of 1 at most, about 0 by chance. A list is the best 2 % of the database.
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
    """Numbers below n that are in the same row (m, k) of both, over all rows."""
    common = 0
    for a, b in zip(*(torch.split(lists, _BLOCK) for lists in (first, second)), strict=True):
        member = torch.zeros(len(a), n, dtype=torch.bool).scatter_(1, a, True)
        common += int(member.gather(1, b).sum())
    return common


class EarlyStopping:
    """The best epoch so far by view agreement, and whether it is time to stop.

    Args:
        patience: Epochs without a better one after which to stop.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._best = -np.inf
        self._since = 0
        self.best_epoch = 0
        """Epochs done when the best weights were there."""
        self._weights: dict[str, torch.Tensor] = {}

    def judge(self, agreement: float, model: torch.nn.Module, epoch: int) -> None:
        """Take in an epoch; the weights of the best are kept."""
        if agreement > self._best:
            self._best, self._since, self.best_epoch = agreement, 0, epoch
            self._weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
        else:
            self._since += 1

    @property
    def is_due(self) -> bool:
        """Whether ``patience`` epochs have brought nothing better."""
        return self._since >= self._patience

    def restore_best(self, model: torch.nn.Module) -> None:
        """Give the model the weights of the best epoch."""
        model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "best": float(self._best),
            "since": self._since,
            "best_epoch": self.best_epoch,
            "weights": self._weights,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the state of `state_dict`."""
        self._best, self._since = state["best"], state["since"]
        self.best_epoch = state["best_epoch"]
        self._weights = dict(state["weights"])
