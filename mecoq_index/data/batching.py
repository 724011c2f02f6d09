"""Shuffled batches, fixed by seed and epoch: what every source of pairs shares."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def count_steps(n: int, batch_size: int) -> int:
    """Batches an epoch; a last batch of a single item is dropped, having no negatives."""
    full, rest = divmod(n, batch_size)
    return full + (rest >= 2)


def shuffled_batches(
    n: int, batch_size: int, rng: np.random.Generator
) -> list[npt.NDArray[np.int64]]:
    """Numbers of the items of each batch, every item at most once."""
    order = rng.permutation(n)
    return [
        order[step * batch_size : (step + 1) * batch_size]
        for step in range(count_steps(n, batch_size))
    ]
