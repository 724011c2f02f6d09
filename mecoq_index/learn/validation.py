"""Checks of settings: types by annotation, and ranges by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, get_args, get_type_hints

import numpy as np

from ..errors import InvalidInputError


def check_values(
    settings: Any,
    *,
    lowest: Mapping[str, float] | None = None,
    highest: Mapping[str, float] | None = None,
    positive: Sequence[str] = (),
    below_one: Sequence[str] = (),
    shares: Sequence[str] = (),
) -> None:
    """Refuse values that are not of the annotated type or out of range.

    NumPy scalars are replaced by plain ones.

    Args:
        settings: A frozen dataclass whose fields are numbers or literals.
        lowest: The lowest value of some fields.
        highest: The highest value of some fields.
        positive: Fields that must be above 0.
        below_one: Fields that must lie in [0, 1).
        shares: Fields that must lie in [0, 1].

    Raises:
        InvalidInputError: If a value does not fit.
    """
    hints = get_type_hints(type(settings))
    for field in fields(settings):
        kind, value = hints[field.name], getattr(settings, field.name)
        if isinstance(value, np.generic):
            value = value.item()
            object.__setattr__(settings, field.name, value)
        _check_kind(field.name, kind, value)
    for name, least in (lowest or {}).items():
        if getattr(settings, name) < least:
            raise InvalidInputError(
                f"{name} must be at least {least}, got {getattr(settings, name)}."
            )
    for name, most in (highest or {}).items():
        if getattr(settings, name) > most:
            raise InvalidInputError(
                f"{name} must be at most {most}, got {getattr(settings, name)}."
            )
    for name in positive:
        if getattr(settings, name) <= 0:
            raise InvalidInputError(f"{name} must be above 0, got {getattr(settings, name)}.")
    for name in below_one:
        if not 0 <= getattr(settings, name) < 1:
            raise InvalidInputError(f"{name} must lie in [0, 1), got {getattr(settings, name)}.")
    for name in shares:
        if not 0 <= getattr(settings, name) <= 1:
            raise InvalidInputError(f"{name} must lie in [0, 1], got {getattr(settings, name)}.")


def _check_kind(name: str, kind: Any, value: Any) -> None:
    choices = get_args(kind)
    if choices and all(isinstance(choice, type) for choice in choices):
        if not isinstance(value, kind):
            raise InvalidInputError(f"{name} must be one of the settings' classes, got {value!r}.")
    elif choices:
        if not isinstance(value, str) or value not in choices:
            raise InvalidInputError(f"{name} must be one of {list(choices)}, got {value!r}.")
    elif isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
        raise InvalidInputError(f"{name} must be {kind.__name__}, got {value!r}.")
    elif not math.isfinite(value):
        raise InvalidInputError(f"{name} must be finite, got {value}.")
