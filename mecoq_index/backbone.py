"""The record of a backbone: what codebooks keep of the network that turns images into features."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ._plain import FrozenValue, plain_dict
from ._tensor_file import digest, is_storable
from .errors import InvalidInputError

LARGEST_SIDE = 4096
"""The longest side of images that a network may ask for, in pixels."""


@dataclass(frozen=True, eq=False, repr=False)
class Backbone(FrozenValue):
    """The network that turns an image into the features that the projection expects.

    Attributes:
        name: As given to training, for instance ``torchvision:vgg16``.
        weights_sha256: Digest of the weights that the codebooks were learned on; a backbone that
            is built again is checked against it.
        transform: Plain values describing resize, crop and normalization. Read-only.
        state: The weights that training changed, by name, as read-only arrays; None if the
            weights that the name stands for are meant. Types that NumPy lacks are records of one
            integer: bfloat16 has the dtype ``[("bfloat16", "<u2")]``.
        base_sha256: Digest of the weights that the name stands for, on which ``state`` is put;
            None if ``state`` holds all weights, or is None.

    Raises:
        InvalidInputError: If a value is of another kind, or could not be kept in a file.
    """

    name: str
    weights_sha256: str
    transform: Mapping[str, Any]
    state: Mapping[str, npt.NDArray[Any]] | None = None
    base_sha256: str | None = None

    def __post_init__(self) -> None:
        for key in ("name", "weights_sha256", "base_sha256"):
            value = getattr(self, key)
            if not isinstance(value, str) and not (value is None and key == "base_sha256"):
                raise InvalidInputError(
                    f"{key} of a backbone must be a string, got {type(value).__name__}."
                )
        object.__setattr__(self, "transform", plain_dict(self.transform, "transform"))
        if self.state is not None:
            object.__setattr__(self, "state", _FrozenWeights(self.state))

    def __repr__(self) -> str:
        weights = ""
        if self.state is not None:
            size = sum(array.nbytes for array in self.state.values()) / 1e6
            weights = f", state={len(self.state)} arrays of {size:.1f} MB"
        return f"Backbone({self.name!r}, weights_sha256={self.weights_sha256[:12]}{weights})"

    @cached_property
    def state_sha256(self) -> str | None:
        """SHA-256 over names, types, shapes and bytes of ``state``; None without."""
        return None if self.state is None else digest(self.state)


def check_transform(transform: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Return the description of the images that a network takes, as plain values.

    Args:
        transform: ``resize`` and ``crop`` in pixels, ``mean`` and ``std`` of the three channels.
        owner: Whose it is, in messages.

    Raises:
        InvalidInputError: If a size is not 1 to 4,096 pixels, or there are not three finite
            numbers for each measure, those of ``std`` above 0.
    """
    found: dict[str, Any] = {}
    for name in ("resize", "crop"):
        size = transform.get(name)
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)):
            raise InvalidInputError(f"{name} of {owner} must be a number of pixels, got {size!r}.")
        if not 1 <= size <= LARGEST_SIDE:
            raise InvalidInputError(
                f"{name} of {owner} must be 1 to {LARGEST_SIDE} pixels, got {size}."
            )
        found[name] = int(size)
    for name in ("mean", "std"):
        try:  # arrays and tensors too
            values = [float(value) for value in transform[name]]
        except (KeyError, TypeError, ValueError, OverflowError) as exc:
            raise InvalidInputError(f"{name} of {owner} must be three numbers.") from exc
        if len(values) != 3 or not all(map(math.isfinite, values)):
            raise InvalidInputError(
                f"{name} of {owner} must be three finite numbers, got {len(values)} values."
            )
        if name == "std" and min(values) <= 0:
            raise InvalidInputError(f"std of {owner} must be above 0, got {values}.")
        found[name] = values
    return found


class _FrozenWeights(Mapping[str, npt.NDArray[Any]]):
    """Read-only arrays by name; an array that nobody can change any more is not copied."""

    def __init__(self, arrays: Mapping[str, npt.ArrayLike]) -> None:
        self._arrays: dict[str, npt.NDArray[Any]] = {}
        if not isinstance(arrays, Mapping):
            raise InvalidInputError(
                f"state of a backbone must be a dictionary of arrays, got {type(arrays).__name__}."
            )
        for name, value in arrays.items():
            array = np.asarray(value)
            if not isinstance(name, str) or not is_storable(array.dtype):
                raise InvalidInputError(
                    "state of a backbone must hold booleans, integers or floats of at most 8 bytes "
                    f"under names, got {array.dtype} under {name!r}."
                )
            if not _is_read_only(array) or not array.flags.c_contiguous:
                array = np.array(array, order="C")
                array.flags.writeable = False
            self._arrays[name] = array

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._arrays,)


def _is_read_only(array: npt.NDArray[Any]) -> bool:
    """Whether neither the array nor an array that it is a view of can be written to."""
    base: object = array
    while isinstance(base, np.ndarray):
        if base.flags.writeable:
            return False
        base = base.base
    return base is None or isinstance(base, bytes)
