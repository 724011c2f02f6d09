"""Shuffled batches, fixed by seed and epoch, which every source of pairs shares."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInputError


def check_batch_size(batch_size: int) -> None:
    """Refuse batches without negatives.

    Raises:
        InvalidInputError: If ``batch_size`` is below 2.
    """
    if batch_size < 2:
        raise InvalidInputError(
            f"batch_size must be at least 2, since the other items of a batch are the negatives, "
            f"got {batch_size}."
        )


def count_steps(n: int, batch_size: int) -> int:
    """Return the number of batches an epoch; a last batch of one item has no negatives: dropped.

    Raises:
        InvalidInputError: If ``batch_size`` is below 2.
    """
    check_batch_size(batch_size)
    full, rest = divmod(n, batch_size)
    return full + (rest >= 2)


def shuffled_batches(
    n: int, batch_size: int, rng: np.random.Generator
) -> list[npt.NDArray[np.int64]]:
    """Return the numbers of the items of each batch, every item at most once."""
    order = rng.permutation(n)
    return [
        order[step * batch_size : (step + 1) * batch_size]
        for step in range(count_steps(n, batch_size))
    ]
