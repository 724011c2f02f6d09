"""``mecoq-index remove``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import InvalidInputError
from ._shared import EXISTING, ids_option, json_option, load_ids_option, report_bundle, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._arrays import Ids


@click.command()
@click.argument("index", type=EXISTING)
@click.argument("items", nargs=-1)
@ids_option
@json_option
def remove(index: Path, items: tuple[str, ...], ids: Path | None, as_json: bool) -> None:
    """Remove ITEMS from INDEX, an index folder: by their names, or by ids if they have none.

    \b
    Example:
        mecoq-index remove photos.mecoq cats/01.jpg cats/02.jpg
        mecoq-index remove vectors.mecoq --ids gone.npy
    """
    from ..index.bundle import Bundle
    from ..index.stored import check_holds_items
    from ..index.update import remove_items

    if bool(items) == (ids is not None):
        raise click.UsageError("name the items to remove, or a file of them with --ids.")
    check_holds_items(index)
    wanted: Ids | Sequence[str] | None = load_ids_option(ids) if ids is not None else items
    if ids is None and not len(Bundle.open(index).names):
        wanted = _numbers(items)
    removed = remove_items(index, wanted if wanted is not None else ())
    say(f"removed {removed} items")
    report_bundle(index, as_json)


def _numbers(items: tuple[str, ...]) -> Ids:
    import numpy as np

    if odd := [item for item in items if not item.isdigit()]:
        raise InvalidInputError(
            f"items without names are removed by their ids, which are integers, got {odd[0]!r}."
        )
    return np.unique(np.array([int(item) for item in items], np.int64))
