"""Statistics of the vectors that codebooks were trained on, and a check of other vectors by them.

Codes are learned for vectors of one kind. Vectors of another length, or shifted by a constant, are
encoded without an error, but into few and wrong codes, so they are compared with these statistics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ._arrays import Vectors, as_vectors
from .errors import InvalidInputError

_QUANTILES = (0.01, 0.5, 0.99)
_FACTOR = 2
# Spreads are at most 1, and near 0 a factor alone would be too strict.
_SPREAD_SLACK = 0.05
_WARN_ABOVE, _REFUSE_ABOVE = 0.5, 0.9
# Evenly spaced rows tell the quantiles well enough, and cost little however many rows there are.
_ROWS_MEASURED, _ROWS_CHECKED = 65_536, 4_096
_CHUNK = 4_096


@dataclass(frozen=True)
class VectorStatistics:
    """Lengths and spread of the rows of a matrix.

    Attributes:
        count: Number of rows.
        lengths: The 1 %, 50 % and 99 % quantiles of the rows' Euclidean lengths.
        spread: The same quantiles of the rows' spread: the standard deviation of the values of a
            row divided by their root mean square, from 0 (all values equal) to 1 (mean 0). It does
            not depend on the length.

    Raises:
        InvalidInputError: If the values are not a count and two ascending triples, none below 0.
    """

    count: int
    lengths: tuple[float, float, float]
    spread: tuple[float, float, float]

    def __post_init__(self) -> None:
        try:
            count = int(self.count)
            lengths = tuple(float(value) for value in self.lengths)
            spread = tuple(float(value) for value in self.spread)
        except (TypeError, ValueError, OverflowError) as exc:
            raise InvalidInputError(f"statistics of vectors must be numbers ({exc}).") from exc
        for quantiles in (lengths, spread):
            ascending = len(quantiles) == 3 and 0 <= quantiles[0] <= quantiles[1] <= quantiles[2]
            if not 1 <= count < 2**63 or not ascending or not np.isfinite(quantiles[2]):
                raise InvalidInputError(
                    "statistics of vectors must be a count above 0 and three ascending numbers for "
                    f"each measure, got {count}, {lengths} and {spread}."
                )
        object.__setattr__(self, "count", count)
        object.__setattr__(self, "lengths", lengths)
        object.__setattr__(self, "spread", spread)

    @classmethod
    def of(cls, x: npt.ArrayLike) -> VectorStatistics:
        """Measure the rows of a matrix (n, width) of any float or integer dtype.

        Of more than 65,536 rows, that many evenly spaced ones are measured.

        Raises:
            InvalidInputError: If ``x`` has no row, another shape, or values that are not finite.
        """
        x = as_vectors(x)
        if not len(x):
            raise InvalidInputError("x must have at least one row to be measured, got none.")
        lengths, spread = _measure(x, _ROWS_MEASURED)
        return cls(len(x), _quantiles(lengths), _quantiles(spread))

    def to_plain(self) -> dict[str, Any]:
        """Return the attributes as plain values, which the constructor takes back."""
        return {"count": self.count, "lengths": [*self.lengths], "spread": [*self.spread]}

    def check(self, x: Vectors, name: str = "x", *, lengths: bool = True) -> str | None:
        """Compare vectors with the ones measured.

        A row fits if its length and spread are within a factor of 2 of the measured range, from
        the 1 % to the 99 % quantile. Of more than 4,096 rows, evenly spaced ones are looked at.

        Args:
            x: float32, shape (n, width).
            name: The argument's name, the first word of the message.
            lengths: Whether lengths matter; otherwise only the spread is compared.

        Returns:
            A sentence that names both ranges if more than half of the rows do not fit, else None.

        Raises:
            InvalidInputError: If more than nine tenths of the rows do not fit.
        """
        if not len(x):
            return None
        found = _measure(x, _ROWS_CHECKED)
        ranges = [
            ("lengths", self.lengths, found[0], 0.0),
            ("a spread (standard deviation over root mean square)", self.spread, found[1],
             _SPREAD_SLACK),
        ]  # fmt: skip
        for what, (low, _, high), values, slack in ranges if lengths else ranges[1:]:
            outside = (values < low / _FACTOR - slack) | (values > high * _FACTOR + slack)
            share = float(outside.mean())
            if share <= _WARN_ABOVE:
                continue
            sentence = (
                f"{name} must have {what} as in training, {low:.3g} to {high:.3g}, but "
                f"{outside.sum()} of {len(outside)} rows are off by more than a factor of "
                f"{_FACTOR}: their median is {np.median(values[outside]):.3g}. Prepare them as for "
                "training, or give up this check with "
                "dataclasses.replace(codebooks, statistics=None)."
            )
            if share > _REFUSE_ABOVE:
                raise InvalidInputError(sentence)
            return sentence
        return None


def _measure(x: Vectors, most: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return length and spread of at most ``most`` evenly spaced rows."""
    x = x[:: -(-len(x) // most)]
    lengths, spread = np.empty(len(x)), np.empty(len(x))
    for start in range(0, len(x), _CHUNK):
        rows = x[start : start + _CHUNK].astype(np.float64)
        mean_squares = np.square(rows).mean(axis=1)
        lengths[start : start + _CHUNK] = np.sqrt(mean_squares * x.shape[1])
        # A row of zeros has spread 0.
        relative = rows.var(axis=1) / np.where(mean_squares > 0, mean_squares, 1)
        spread[start : start + _CHUNK] = np.sqrt(relative)
    return lengths, spread


def _quantiles(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    low, middle, high = np.quantile(values, _QUANTILES).tolist()
    return low, middle, high
