"""Plain values: null, booleans, numbers, strings, lists and dictionaries, as JSON has them.

Codebooks carry such values (how they were trained, how images are transformed), and every file
format keeps them exactly. They are frozen when they come in, so that nobody can change them later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import PurePath
from typing import Any, NoReturn, TypeVar

import numpy as np

from .errors import InvalidInputError

_Class = TypeVar("_Class", bound=type)

_DEEPEST = 40
_LARGEST = 2**64 - 1


def _refuse(self: object, *args: object, **options: object) -> NoReturn:
    raise TypeError(f"a {type(self).__name__} cannot be changed; change a copy of it")


def _without(*methods: str) -> Callable[[_Class], _Class]:
    """Replace the methods that change an object by ones that refuse to."""

    def decorate(cls: _Class) -> _Class:
        for method in methods:
            setattr(cls, method, _refuse)
        return cls

    return decorate


@_without("__setitem__", "__delitem__", "__ior__", "clear", "pop", "popitem", "setdefault")
@_without("update")
class FrozenDict(dict[str, Any]):
    """A dictionary that cannot be changed. ``json`` writes it, and it equals a plain one."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


@_without("__setitem__", "__delitem__", "__iadd__", "__imul__", "append", "clear", "extend")
@_without("insert", "pop", "remove", "reverse", "sort")
class FrozenList(list[Any]):
    """A list that cannot be changed. ``json`` writes it, and it equals a plain one."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (list(self),)


def plain(value: object, name: str) -> Any:
    """Return a frozen copy of ``value`` that holds plain values only.

    NumPy scalars, arrays and paths become numbers, lists and strings; tuples become lists.

    Args:
        value: The value.
        name: Its name in error messages.

    Raises:
        InvalidInputError: If a value in it is of another kind, a key is no string, a number is not
            finite or has more than 64 bits, or values are nested more than 40 deep.
    """
    return _plain(value, name, _DEEPEST)


def _plain(value: object, name: str, depth: int) -> Any:
    if depth < 0:
        raise InvalidInputError(f"{name[:60]}... must be nested at most {_DEEPEST} deep, got more.")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, np.generic):
        item = value.item()
        if isinstance(item, np.generic):  # more precise than any plain number
            raise _no_plain_value(value, name)
        return _plain(item, name, depth)
    if isinstance(value, np.ndarray):
        return _plain(value.tolist(), name, depth)
    if isinstance(value, PurePath):
        value = str(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        if abs(int(value)) > _LARGEST:
            raise InvalidInputError(f"{name} must be an integer of at most 64 bits, got more.")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInputError(
                f"{name} must be finite, since JSON knows no other numbers, got {float(value)}. "
                "Use None for what is unknown."
            )
        return float(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InvalidInputError(
                    f"the keys of {name} must be strings, got {key!r}. Use str({key!r}) instead."
                )
        items = ((str(k), _plain(v, f"{name}[{k!r}]", depth - 1)) for k, v in value.items())
        return FrozenDict(items)
    if isinstance(value, (list, tuple)):
        return FrozenList(_plain(v, f"{name}[{i}]", depth - 1) for i, v in enumerate(value))
    raise _no_plain_value(value, name)


def _no_plain_value(value: object, name: str) -> InvalidInputError:
    return InvalidInputError(
        f"{name} must be a plain value (None, a bool, number, string, list or dictionary), got "
        f"{type(value).__name__}. Convert it first, for instance with str()."
    )


def plain_dict(value: object, name: str) -> FrozenDict:
    """Return a frozen copy of a dictionary of plain values.

    Raises:
        InvalidInputError: If ``value`` is no dictionary, or holds values that are not plain.
    """
    if not isinstance(value, Mapping):
        raise InvalidInputError(f"{name} must be a dictionary, got {type(value).__name__}.")
    frozen: FrozenDict = plain(value, name)
    return frozen


def without_infinities(value: Any) -> Any:
    """Return a copy of a plain value in which None stands for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {key: without_infinities(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_infinities(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def thaw(value: Any) -> Any:
    """Return a copy of a plain value made of ordinary lists and dictionaries."""
    if isinstance(value, dict):
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, list):
        return [thaw(item) for item in value]
    return value


class FrozenValue:
    """Makes copies and pickles of a frozen dataclass through its constructor.

    A copy has passed the same checks, and its arrays and dictionaries are read-only as well.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        values = (getattr(self, f.name) for f in fields(self))  # type: ignore[arg-type]
        return type(self), tuple(values)
