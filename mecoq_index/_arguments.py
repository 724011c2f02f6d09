"""Names of keyword arguments and settings: unknown ones are refused, with the nearest known one."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches

from .errors import InvalidInputError


def check_known(given: Iterable[str], known: Collection[str], *, what: str) -> None:
    """Refuse names that are not known.

    Args:
        given: The names that came.
        known: The names that are accepted.
        what: What the names are, as the message says it: ``"search option"``.

    Raises:
        InvalidInputError: If a name is unknown. The message suggests the nearest known name, or
            lists all of them where none is near.
    """
    for name in given:
        if name in known:
            continue
        near = get_close_matches(name, known, n=1)
        if near:
            advice = f"did you mean {near[0]!r}?"
        elif known:
            advice = f"the {what}s are {sorted(known)}."
        else:
            advice = f"there are no {what}s here."
        raise InvalidInputError(f"unknown {what} {name!r}; {advice}")
