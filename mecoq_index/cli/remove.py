"""``mecoq-index remove``"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .._arguments import whole_number
from ..errors import InvalidInputError
from ._engine_options import engine_options
from ._index import INDEX, open_index
from ._options import EXISTING, output_options
from ._output import Output, counted


@click.command()
@click.argument("index", type=INDEX)
@click.argument("items", nargs=-1)
@click.option("--ids", type=EXISTING, help="Instead of ITEMS: a file of names or ids.")
@engine_options("open")
@output_options
def remove(
    index: str, items: tuple[str, ...], ids: Path | None, options: dict[str, Any], output: Output
) -> None:
    """Remove ITEMS from INDEX: by their names, or by their ids if they have no names.

    \b
    Example:
        mecoq-index remove photos.mecoq cats/01.jpg cats/02.jpg
        mecoq-index remove vectors.mecoq --ids gone.npy
    """
    from ..data.metadata import as_ids_or_names

    if bool(items) == (ids is not None):
        raise click.UsageError("name the items to remove, or a file of them with --ids.")
    opened, _ = open_index(index, options, changes=True)
    wanted: Any = list(items)
    if ids is not None:
        numbers, names = as_ids_or_names(ids)
        wanted = numbers if names is None else names
    if ids is None and not opened.names:
        wanted = [_number(item) for item in items]
    removed = opened.remove(wanted)
    opened.save()
    place = opened.path or opened.address  # not INDEX, which may hold a password
    output.done(
        f"removed {counted(removed)}: {place} holds {len(opened):,} now",
        {"removed": removed, **opened.describe()},
    )


def _number(item: str) -> int:
    id = whole_number(item)
    if id is None or id < 0:
        raise InvalidInputError(
            "items without names are removed by their ids, which are integers of at most 18 "
            f"digits, got {item!r}. Give larger ones in a file with --ids."
        )
    return id
