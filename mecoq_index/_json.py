"""JSON from files that somebody else may have written: the one place that reads it.

Such text may be nested so deeply that every function that walks over it fails, hold numbers that no
64 bits can hold, or NaN, which is no JSON. Whatever comes out of `parse_json` has none of these.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ._reading import check_readable
from .errors import ArtifactError, first_line

# Files of ours are nested six deep.
_DEEPEST = 50
_LARGEST = 2**64 - 1
_LONGEST = 16 << 20


def parse_json(text: str | bytes, *, finite: bool = True) -> Any:
    """Return the value of a JSON text.

    Args:
        text: The text; bytes are UTF-8.
        finite: Whether to refuse NaN and infinities, which Python writes although JSON has none.

    Raises:
        ValueError: If it is no JSON, nested more than 50 deep, or holds a number that is not
            finite, or an integer of more than 64 bits.
    """
    try:
        value = json.loads(text if isinstance(text, str) else text.decode("utf-8"))
    except RecursionError as exc:
        raise ValueError(f"it is nested more than {_DEEPEST} deep") from exc
    level = [value]
    for _ in range(_DEEPEST):
        deeper: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                deeper.extend(item.values())
            elif isinstance(item, list):
                deeper.extend(item)
            elif type(item) is int and abs(item) > _LARGEST:
                raise ValueError("it holds an integer of more than 64 bits")
            elif finite and type(item) is float and not math.isfinite(item):
                raise ValueError(f"it holds the number {item}, which is not finite")
        if not deeper:
            return value
        level = deeper
    raise ValueError(f"it is nested more than {_DEEPEST} deep")


def read_json(path: Path, *, links: bool = True, longest: int = _LONGEST) -> Any:
    """Return the value of a JSON file.

    Args:
        path: The file.
        links: Whether a link to it will do, see `check_readable`.
        longest: The most bytes that are read.

    Raises:
        ArtifactError: If the file is missing, longer, or what `parse_json` refuses.
    """
    size = check_readable(path, links=links).stat().st_size
    if size > longest:
        raise ArtifactError(f"{path} must be at most {longest:,} bytes long, got {size:,}.")
    try:
        return parse_json(path.read_bytes())
    except ValueError as exc:
        raise ArtifactError(f"{path} is damaged, or no JSON file: {first_line(exc)}.") from exc
