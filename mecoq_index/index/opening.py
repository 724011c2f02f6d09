"""Addresses: which engine keeps items there, and attaching to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._addresses import exists, shown
from .._arguments import check_known
from ..codebooks import Codebooks
from ..engines.abilities import Attachable
from ..engines.base import Engine
from ..engines.registry import addressed_engines, get_engine
from ..errors import InvalidInputError, MissingDependencyError
from .manifest import MANIFEST


def is_address(path: str | Path) -> bool:
    """Whether an engine takes this for an address; a folder that holds an index is none."""
    return not exists(Path(path, MANIFEST)) and _engine_at(str(path)) is not None


def attach(address: str, codebooks: Codebooks | None, options: Mapping[str, Any]) -> Any:
    """The engine at an address.

    Raises:
        InvalidInputError: If no engine takes the address, an option is unknown, nothing is there,
            it belongs to other codebooks, or codebooks are needed.
        ServerError: If a server is out of reach, refuses, or fails.
    """
    kind = _engine_at(address)
    if kind is None:
        raise InvalidInputError(
            f"{shown(address)!r} is neither an index folder nor a known address."
        )
    check_opening_options(options, kind)
    engine: Engine = kind.attach(codebooks, address, **options)
    return engine


def check_opening_options(options: Mapping[str, Any], kind: type[Engine]) -> None:
    """Refuse options that an engine does not take for opening.

    Raises:
        InvalidInputError: If there is one; the message names those that there are.
    """
    known = [option.name for option in kind.options if "open" in option.stages]
    check_known(options, known, what=f"{kind.name} opening option")


def _engine_at(address: str) -> Any:
    """The class of the engine that accepts an address; None if there is none."""
    for name in addressed_engines():
        try:
            kind = get_engine(name)
        except MissingDependencyError:
            continue
        if isinstance(kind, Attachable) and kind.accepts(address):
            return kind
    return None
