"""Indexes as arguments of commands: a folder, or an address of an engine that keeps items."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._engine_options import check_engine_options, declared_options
from ._options import EXISTING
from ._output import after_interrupt

if TYPE_CHECKING:
    from ..index.index import Index


class _IndexType(click.ParamType):  # type: ignore[type-arg]
    """An index folder that exists, or an address that an engine accepts."""

    name = "index"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        from ..index.opening import is_address

        text = str(value)
        return text if is_address(text) else str(EXISTING.convert(text, param, ctx))


INDEX = _IndexType()


def open_index(
    index: str,
    options: dict[str, Any],
    codebooks: Path | None = None,
    *,
    changes: bool = False,
) -> tuple[Index, dict[str, Any]]:
    """The index, opened with those options that are for opening, and the other options.

    Args:
        index: A folder, or an address.
        options: Options of the engine.
        codebooks: Refuse an index of other codebooks than these.
        changes: Whether its folder is going to be changed, which is refused at once if it cannot.

    Raises:
        click.UsageError: If an option for opening is another engine's.
        MecoqError: If it cannot be opened, or was built with other codebooks.
        OSError: If the system lets nobody write where ``changes`` are to be made.
    """
    from .._files import check_writable
    from ..index.index import open_index
    from ..index.manifest import read_manifest
    from ..index.opening import is_address

    if not is_address(index):
        check_engine_options(options, read_manifest(Path(index))["engine"], "open")
    opening = {name: options[name] for name in declared_options("open") if name in options}
    rest = {name: value for name, value in options.items() if name not in opening}
    opened = open_index(index, codebooks=codebooks, **opening)
    if changes and opened.path is not None and opened.engine.holds_items:
        check_writable(opened.path)
    elif changes:
        place = opened.path or opened.address
        after_interrupt(lambda: f"A part may be done: see what mecoq-index inspect {place} counts.")
    return opened, rest
