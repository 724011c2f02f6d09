"""Cached features as training data: several augmented views of each item, computed once.

Training on two random ones of V views per step is contrastive training without the backbone's
forward pass, which makes it a matter of minutes on a CPU.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .._arrays import Ids, Vectors
from .._files import check_readable, load_npy
from ..errors import ArtifactError, InvalidInputError
from .batching import count_steps, shuffled_batches

_DTYPES = (np.uint8, np.float16, np.float32)
_BLOCK_ROWS = 65536
_SEARCHED_ROWS = 20_000


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Items that training does not see, and items to search in.

    Attributes:
        first: float32, (m, P), one view of each held-out item.
        second: float32, (m, P), another view of the same items.
        database: float32, (n, P), items of the training set.
    """

    first: Vectors
    second: Vectors
    database: Vectors


class FeatureViews:
    """V views of n items as feature vectors; a source of pairs for the trainer.

    Args:
        views: Shape (V, n, P), uint8, float16 or float32; not copied. With V = 1 both views of
            a pair are the same vector, unless ``dropout`` or neighbours make them differ.
        scale: Features are ``views / scale``.
        dropout: Fraction of entries zeroed independently in each view, in [0, 1); the others are
            scaled up to keep the expectation.
        features: The items as they are, shape (n, P), on the scale of the views: one more view to
            train on, and what neighbours are found by.

    Raises:
        InvalidInputError: If shape or dtype is wrong, or a value is NaN or Inf.
    """

    def __init__(
        self,
        views: npt.NDArray[Any],
        *,
        scale: float = 1.0,
        dropout: float = 0.0,
        features: npt.NDArray[Any] | None = None,
    ) -> None:
        if views.ndim != 3 or views.dtype not in _DTYPES:
            raise InvalidInputError(
                "views must have shape (V, n, P) and dtype uint8, float16 or float32, "
                f"got {views.shape} {views.dtype}. Convert other numbers by x.astype(np.float32)."
            )
        if views.shape[1] < 2 or views.shape[2] < 1:
            raise InvalidInputError(f"views must hold at least 2 items, got {views.shape}.")
        if not scale > 0:
            raise InvalidInputError(f"scale must be above 0, got {scale}.")
        if not 0 <= dropout < 1:
            raise InvalidInputError(f"dropout must lie in [0, 1), got {dropout}.")
        if features is not None and (
            features.shape != views.shape[1:] or features.dtype not in _DTYPES
        ):
            raise InvalidInputError(
                f"features must have shape {views.shape[1:]}, one row an item, and dtype uint8, "
                f"float16 or float32, got {features.shape} {features.dtype}."
            )
        _check_finite(views, "the vectors of view {}")
        if features is not None:
            _check_finite(features[None], "those of the items")
        self._views = views
        self._features = features
        self._scale = float(scale)
        self._dropout = float(dropout)

    @classmethod
    def load(cls, path: Path, *, dropout: float = 0.0) -> FeatureViews:
        """Read views from a file.

        Args:
            path: An ``.npz`` with the arrays ``view0``, ``view1``, ... of shape (n, P) each,
                perhaps ``features`` (n, P) of the items as they are and, if all were scaled, a
                number ``scale``; or an ``.npy`` of shape (V, n, P),
                or (n, P) for one view.
            dropout: As in the constructor.

        Raises:
            ArtifactError: If the file is missing, damaged or holds no views.
            InvalidInputError: If the arrays do not fit together.
        """
        path = check_readable(path)
        features = None
        if path.suffix == ".npz":
            views, scale, features = _load_npz(path)
        else:
            views, scale = load_npy(path), 1.0
            if views.ndim == 2:
                views = views[None]
        try:
            return cls(views, scale=scale, dropout=dropout, features=features)
        except InvalidInputError as exc:
            raise InvalidInputError(f"{path}: {exc}") from exc

    def __len__(self) -> int:
        return int(self._views.shape[1])

    @property
    def width(self) -> int:
        """P, the width of a feature vector."""
        return int(self._views.shape[2])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over shape, dtype, scale and every 997th vector: tells data sets apart."""
        rows = self._views.reshape(-1, self.width)[::997]
        digest = hashlib.sha256(repr((self._views.shape, str(rows.dtype), self._scale)).encode())
        digest.update(np.ascontiguousarray(rows).tobytes())
        if self._features is not None:
            digest.update(np.ascontiguousarray(self._features[::997]).tobytes())
        return digest.hexdigest()

    @property
    def num_views(self) -> int:
        """V, the vectors stored of each item, ``features`` included."""
        return int(self._views.shape[0]) + (self._features is not None)

    def steps(self, batch_size: int) -> int:
        """Batches an epoch."""
        return count_steps(len(self), batch_size)

    @property
    def dropout(self) -> float:
        """Fraction of entries zeroed in each view."""
        return self._dropout

    @property
    def has_two_views(self) -> bool:
        """Whether two views of one item differ."""
        return self.num_views > 1 or self._dropout > 0

    def with_dropout(self, dropout: float) -> FeatureViews:
        """The same vectors, with another dropout."""
        return FeatureViews(
            self._views, scale=self._scale, dropout=dropout, features=self._features
        )

    def frozen_features(self) -> Vectors:
        """What neighbours are found by, float32 (n, P).

        The features if there are any; a single view as it is; or the means of unit views.
        """
        plain = self._features
        if plain is None and len(self._views) == 1:
            plain = self._views[0]
        if plain is not None:
            unscaled: Vectors = plain.astype(np.float32)
            if self._scale != 1:
                unscaled /= np.float32(self._scale)
            return unscaled
        mean = np.zeros(self._views.shape[1:], np.float32)
        for view in self._views:
            for start in range(0, len(self), _BLOCK_ROWS):
                rows = view[start : start + _BLOCK_ROWS].astype(np.float32)
                norms = np.linalg.norm(rows, axis=1, keepdims=True)
                np.divide(rows, norms, out=rows, where=norms > 0)
                mean[start : start + _BLOCK_ROWS] += rows / np.float32(len(self._views))
        return mean

    def hold_out(self, count: int, seed: int) -> tuple[FeatureViews, HeldOut]:
        """Keep some items out of training, to judge by.

        Args:
            count: How many, at random.
            seed: Seed of the choice.

        Returns:
            The others, copied; and two stored views of those kept out, with a sample of the others.

        Raises:
            InvalidInputError: If there are no two stored views, or too few items would be left.
        """
        if self.num_views < 2:
            raise InvalidInputError(
                "held-out items are judged by two views of each, but there is one: leave patience "
                "and held_out at 0, or give (V, n, P) with V of at least 2."
            )
        if count > len(self) - 2:
            raise InvalidInputError(
                f"held_out must leave at least 2 of {len(self)} items to train on, got {count}."
            )
        order = np.random.default_rng([seed, 3]).permutation(len(self))
        held, kept = order[:count], np.sort(order[count:])
        features = None if self._features is None else self._features[kept]
        others = FeatureViews(
            np.take(self._views, kept, axis=1),
            scale=self._scale,
            dropout=self._dropout,
            features=features,
        )
        sample = order[count : count + _SEARCHED_ROWS]
        # the last view is the items as they are, where there are features
        return others, HeldOut(
            self._stored(np.zeros_like(held), held),
            self._stored(np.ones_like(held), held),
            self._stored(np.full_like(sample, self.num_views - 1), sample),
        )

    def batches(
        self, epoch: int, batch_size: int, seed: int, partners: Ids | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Two views (B, P) float32 for each item of a shuffled batch, fixed by seed and epoch.

        Args:
            epoch: The epoch, from 0.
            batch_size: B; the last batch may be smaller.
            seed: Seed of order and views.
            partners: The item that gives the second view of item i, (n,); the same one if None.
        """
        rng = np.random.default_rng([seed, epoch])
        for rows in shuffled_batches(len(self), batch_size, rng):
            first = rng.integers(self.num_views, size=len(rows))
            # A second view different from the first wherever there is one.
            offset = rng.integers(1, max(2, self.num_views), size=len(rows))
            second = (first + offset) % self.num_views
            others = rows if partners is None else partners[rows]
            yield self._gather(first, rows, rng), self._gather(second, others, rng)

    def _gather(
        self, view: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], rng: np.random.Generator
    ) -> torch.Tensor:
        x = self._stored(view, rows)
        if self._dropout:
            keep = rng.random(x.shape, dtype=np.float32) >= self._dropout
            x *= keep / np.float32(1 - self._dropout)
        return torch.from_numpy(x)

    def _stored(self, view: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> Vectors:
        """The vectors of these views of these rows, unscaled, as a copy."""
        if self._features is None:
            x: Vectors = self._views[view, rows].astype(np.float32)
        else:
            is_view = view < len(self._views)
            x = np.empty((len(rows), self.width), np.float32)
            x[is_view] = self._views[view[is_view], rows[is_view]]
            x[~is_view] = self._features[rows[~is_view]]
        if self._scale != 1:
            x /= self._scale
        return x


def _check_finite(stack: npt.NDArray[Any], name: str) -> None:
    if stack.dtype == np.uint8:
        return
    for v, rows in enumerate(stack):
        for start in range(0, len(rows), _BLOCK_ROWS):
            finite = np.isfinite(rows[start : start + _BLOCK_ROWS]).all(axis=1)
            if not finite.all():
                row = start + int(np.flatnonzero(~finite)[0])
                raise InvalidInputError(
                    f"features must be finite, but {name.format(v)} hold NaN or Inf, first in row "
                    f"{row}."
                )


def _load_npz(path: Path) -> tuple[npt.NDArray[Any], float, npt.NDArray[Any] | None]:
    try:
        # NumPy leaves a file open when it fails to read one that it opened itself.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            names: list[str] = []
            while f"view{len(names)}" in archive.files:
                names.append(f"view{len(names)}")
            if not names:
                raise ArtifactError(
                    f"{path} must hold the arrays view0, view1, ... of shape (n, P), but it holds "
                    f"{sorted(archive.files)}."
                )
            arrays = [archive[name] for name in names]
            scale = float(archive["scale"]) if "scale" in archive.files else 1.0
            features = archive["features"] if "features" in archive.files else None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as exc:
        raise ArtifactError(f"{path} is no readable .npz file: {exc}") from exc
    if len({(a.shape, a.dtype) for a in arrays}) != 1 or arrays[0].ndim != 2:
        raise ArtifactError(
            f"{path}: all views must have one shape (n, P) and one dtype, got "
            f"{[(a.shape, str(a.dtype)) for a in arrays]}."
        )
    return np.stack(arrays), scale, features
