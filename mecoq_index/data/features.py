"""Cached features as training data: several augmented views of each item, computed once.

Training on two random ones of V views per step is contrastive training without the backbone's
forward pass, so it takes minutes on a CPU.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .._array_file import load_npy
from .._arrays import Ids, Vectors, unit_rows
from .._reading import check_readable
from ..backbone import Backbone
from ..errors import ArtifactError, InvalidInputError
from .batching import check_batch_size, count_steps, shuffled_batches
from .feature_file import FeatureFile
from .reader import RowReader

if TYPE_CHECKING:
    import torch

_KEPT_DTYPES = (np.uint8, np.float16, np.float32)
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
        views: Shape (V, n, P), or (n, P) for one view. uint8, float16 and float32 are kept as they
            are and not copied; other floats and integers are converted to float32. With V = 1
            both views of a pair are the same vector, unless ``dropout`` or neighbors make them
            differ.
        scale: Features are ``views / scale``.
        dropout: Fraction of entries zeroed independently in each view, in [0, 1); the others are
            scaled up to keep the expectation.
        features: The items themselves, shape (n, P), on the scale of the views: one more view to
            train on, and the vectors by which neighbors are found.
        backbone: The record of the network that made the features.

    Attributes:
        backbone: As given.

    Raises:
        InvalidInputError: If shape or dtype is wrong, or a value is NaN or Inf.
    """

    def __init__(
        self,
        views: npt.ArrayLike,
        *,
        scale: float = 1.0,
        dropout: float = 0.0,
        features: npt.ArrayLike | None = None,
        backbone: Backbone | None = None,
    ) -> None:
        views = _as_stack(views, "views", "(V, n, P)")
        if views.ndim == 2:
            views = views[None]
        if views.ndim != 3:
            raise InvalidInputError(
                f"views must have shape (V, n, P), or (n, P) for one view, got {views.shape}."
            )
        if not views.shape[0]:
            raise InvalidInputError(f"there must be at least one view, got {views.shape}.")
        if views.shape[1] < 2 or views.shape[2] < 1:
            raise InvalidInputError(f"views must hold at least 2 items, got {views.shape}.")
        if not _is_number(scale) or not scale > 0:
            raise InvalidInputError(f"scale must be a number above 0, got {scale!r}.")
        _check_dropout(dropout)
        if features is not None:
            features = _as_stack(features, "features", "(n, P)")
            if features.shape != views.shape[1:]:
                raise InvalidInputError(
                    f"features must have shape {views.shape[1:]}, one row an item, got "
                    f"{features.shape}."
                )
        if backbone is not None and not isinstance(backbone, Backbone):
            raise InvalidInputError(f"backbone must be a Backbone, got {type(backbone).__name__}.")
        _check_finite(views, "the vectors of view {}")
        if features is not None:
            _check_finite(features[None], "those of the items")
        self._views = views
        self._features = features
        self._scale = float(scale)
        self._dropout = float(dropout)
        self.backbone = backbone

    @classmethod
    def load(cls, path: str | Path, *, dropout: float = 0.0) -> FeatureViews:
        """Read views from a file.

        Args:
            path: An ``.npz`` as `mecoq_index.data.feature_file` describes it, or an ``.npy`` of
                shape (V, n, P), or (n, P) for one view.
            dropout: As in the constructor.

        Raises:
            ArtifactError: If the file is missing, damaged or holds no views.
            InvalidInputError: If the arrays do not fit together.
        """
        path = check_readable(Path(path))
        file = FeatureFile(path) if path.suffix == ".npz" else None
        try:
            if file is None:
                return cls(load_npy(path), dropout=dropout)
            return cls(
                _stacked_views(file),
                scale=file.scale,
                dropout=dropout,
                features=file.array("features") if "features" in file else None,
                backbone=file.backbone,
            )
        except InvalidInputError as exc:
            raise InvalidInputError(f"{path}: {exc}") from exc

    def __repr__(self) -> str:
        views, (n, width) = self._views, self._views.shape[1:]
        return f"FeatureViews({self.num_views} views of {n} items, width {width}, {views.dtype})"

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
        """Return the number of batches an epoch."""
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
        """Return the same vectors with another dropout.

        Raises:
            InvalidInputError: If it does not lie in [0, 1).
        """
        return FeatureViews(
            self._views,
            scale=self._scale,
            dropout=dropout,
            features=self._features,
            backbone=self.backbone,
        )

    def take(self, rows: npt.NDArray[np.integer[Any]]) -> FeatureViews:
        """Return the items with these numbers, in this order, copied."""
        return FeatureViews(
            np.take(self._views, rows, axis=1),
            scale=self._scale,
            dropout=self._dropout,
            features=None if self._features is None else self._features[rows],
            backbone=self.backbone,
        )

    def normalized(self) -> FeatureViews:
        """Return the same views with every vector divided by its length, as float32 copies."""
        views = np.stack([unit_rows(view.astype(np.float32)) for view in self._views])
        features = self._features
        if features is not None:
            features = unit_rows(features.astype(np.float32))
        return FeatureViews(views, dropout=self._dropout, features=features, backbone=self.backbone)

    def items(self) -> Vectors:
        """Return one vector an item as it came, float32 (n, P): the features, or the first view."""
        plain = self._views[0] if self._features is None else self._features
        unscaled: Vectors = plain.astype(np.float32)
        if self._scale != 1:
            unscaled /= np.float32(self._scale)
        return unscaled

    def frozen_features(self) -> Vectors:
        """Return one vector an item, float32 (n, P), by which neighbors are found.

        The features if there are any; else a single view unchanged; else the mean of the views,
        each divided by its length.
        """
        if self._features is not None or len(self._views) == 1:
            return self.items()
        mean = np.zeros(self._views.shape[1:], np.float32)
        for view in self._views:
            for start in range(0, len(self), _BLOCK_ROWS):
                rows = view[start : start + _BLOCK_ROWS].astype(np.float32)
                norms = np.linalg.norm(rows, axis=1, keepdims=True)
                np.divide(rows, norms, out=rows, where=norms > 0)
                mean[start : start + _BLOCK_ROWS] += rows / np.float32(len(self._views))
        return mean

    def hold_out(self, count: int, seed: int) -> tuple[FeatureViews, HeldOut]:
        """Keep some items out of training, to measure by.

        Args:
            count: The number of items, chosen at random.
            seed: Seed of the choice.

        Returns:
            The other items, copied; and two stored views of the items kept out, with a sample of
            the other items.

        Raises:
            InvalidInputError: If there are no two stored views, or too few items would be left.
        """
        if self.num_views < 2:
            raise InvalidInputError(
                "held-out items are judged by two views of each, but there is one: leave "
                "patience and held_out at 0, or give (V, n, P) with V of at least 2."
            )
        if not 1 <= count <= len(self) - 2:
            raise InvalidInputError(
                f"held_out must leave at least 2 of {len(self)} items to train on, and be at least "
                f"1, got {count}."
            )
        order = np.random.default_rng([seed, 3]).permutation(len(self))
        left_out, kept = order[:count], np.sort(order[count:])
        others = self.take(kept)
        sample = order[count : count + _SEARCHED_ROWS]
        # If there are features, the last view is the items themselves.
        return others, HeldOut(
            self._stored(np.zeros_like(left_out), left_out),
            self._stored(np.ones_like(left_out), left_out),
            self._stored(np.full_like(sample, self.num_views - 1), sample),
        )

    def batches(
        self, epoch: int, batch_size: int, seed: int, partners: Ids | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield two views (B, P) float32 of each item of a shuffled batch, fixed by seed and epoch.

        Args:
            epoch: The epoch, from 0.
            batch_size: B; the last batch may be smaller.
            seed: Seed of order and views.
            partners: The item that gives the second view of item i, (n,); the same one if None.

        Raises:
            InvalidInputError: If ``batch_size`` is below 2.
        """
        check_batch_size(batch_size)
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
        import torch

        return torch.from_numpy(x)

    def _stored(self, view: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> Vectors:
        """Return the vectors of these views of these rows, divided by the scale, as a copy."""
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


class ViewRows(RowReader):
    """One row an item of `FeatureViews`, made at the first read."""

    def __init__(self, views: FeatureViews, *, path: Path | None = None) -> None:
        super().__init__(len(views), views.width, np.dtype(np.float32), path=path, name="views")
        self._views = views
        self._array: Vectors | None = None

    def _read(self, start: int, stop: int) -> Vectors:
        if self._array is None:
            self._array = self._views.items()
        return self._array[start:stop]

    def _release(self) -> None:
        self._array = None


def _as_stack(x: npt.ArrayLike, name: str, shape: str) -> npt.NDArray[Any]:
    try:
        array = np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as exc:  # ragged lists, tensors on a GPU
        raise InvalidInputError(
            f"{name} must be an array {shape}, got {type(x).__name__}."
        ) from exc
    if array.dtype.kind not in "fiu":
        advice = " Read a file with FeatureViews.load." if isinstance(x, (str, Path)) else ""
        got = array.dtype if isinstance(x, np.ndarray) else type(x).__name__
        raise InvalidInputError(
            f"{name} must be an array {shape} of floats or integers, got {got}.{advice}"
        )
    if array.dtype not in _KEPT_DTYPES:
        with np.errstate(over="ignore"):  # infinities are refused later
            array = array.astype(np.float32)
    return array


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _check_dropout(dropout: float) -> None:
    if not _is_number(dropout) or not 0 <= dropout < 1:
        raise InvalidInputError(f"dropout must be a number in [0, 1), got {dropout!r}.")


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


def _stacked_views(file: FeatureFile) -> npt.NDArray[Any]:
    names = file.view_names
    if not names:
        raise ArtifactError(
            f"{file.path} must hold the arrays view0, view1, ... of shape (n, P), but it holds "
            f"{sorted(file.headers)}."
        )
    kinds = {(file.headers[name].shape, file.headers[name].dtype) for name in names}
    if len(kinds) != 1 or len(file.headers[names[0]].shape) != 2:
        raise ArtifactError(
            f"{file.path}: all views must have one shape (n, P) and one dtype, got "
            f"{', '.join(f'{dtype} {shape}' for shape, dtype in kinds)}."
        )
    return np.stack([file.array(name) for name in names])
