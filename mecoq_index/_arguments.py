"""Names of keyword arguments and settings, of which unknown ones are refused; numbers in text."""

from __future__ import annotations

import re
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


def whole_number(text: str) -> int | None:
    """Return the integer that a text is: digits 0 to 9, at most 18, perhaps after a sign.

    Returns:
        None for any other text. Python's own tests of digits also accept superscripts, or the
        digits of other scripts, and ``int`` fails for more than 4,300 digits.
    """
    return int(text) if re.fullmatch("[+-]?[0-9]{1,18}", text) else None
