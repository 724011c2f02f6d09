"""Add items to a bundle and remove them from it; the change is on disk as a whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .._arrays import Codes, Ids, check_codes, check_ids
from ..errors import InvalidInputError
from .bundle import Bundle
from .names import Names
from .stored import check_holds_items, open_bundle, save_changes


def add_items(path: str | Path, codes: Codes, ids: Ids | Sequence[str] | None = None) -> Ids:
    """Add codes to a bundle on disk.

    Args:
        path: The bundle.
        codes: uint8, shape (n, M), of the bundle's codebooks.
        ids: What they are called: n strings for a bundle with names, int64 (n,) or None, the next
            free numbers, for one without.

    Returns:
        int64, shape (n,), the ids that the items have now.

    Raises:
        InvalidInputError: If codes or ids are malformed, of the other kind, or taken already, or
            the bundle only points to its items.
        ArtifactError: If the bundle is damaged, or was changed meanwhile.
    """
    check_holds_items(Path(path))
    engine, bundle = open_bundle(path)
    codes = check_codes(codes, bundle.codebooks.M, bundle.codebooks.K)
    if len(engine) and bool(len(bundle.names)) != _are_strings(ids):
        if len(bundle.names):
            raise InvalidInputError(
                f"the items of {path} have names, so ids must be strings, one for each new item."
            )
        raise InvalidInputError(
            f"the items of {path} have no names, so ids must be an int64 array or left out."
        )
    first = int(engine.ids().max(initial=-1)) + 1
    numbers = np.arange(first, first + len(codes), dtype=np.int64)
    names = bundle.names
    if ids is not None and not isinstance(ids, np.ndarray):
        if len(ids) != len(codes):
            raise InvalidInputError(f"ids must be one an item, {len(codes)}, got {len(ids)}.")
        names = names.added(Names.from_strings(ids, numbers))
    elif ids is not None:
        numbers = check_ids(ids, len(codes))
    engine.add(codes, numbers)
    save_changes(engine, bundle, names, bundle.columns)
    return numbers


def _are_strings(ids: Ids | Sequence[str] | None) -> bool:
    return ids is not None and not isinstance(ids, np.ndarray)


def remove_items(path: str | Path, ids: Ids | Sequence[str]) -> int:
    """Remove items from a bundle on disk.

    Args:
        path: The bundle.
        ids: Their names, or int64 (n,); ids that are not held are passed over, unknown names not.

    Returns:
        How many items there were.

    Raises:
        InvalidInputError: If ids are malformed, a name is unknown, or the engine cannot remove, or
            the bundle only points to its items.
        ArtifactError: If the bundle is damaged, or was changed meanwhile.
    """
    check_holds_items(Path(path))
    engine, bundle = open_bundle(path)
    numbers = ids if isinstance(ids, np.ndarray) else _ids_of(bundle, ids)
    removed = engine.remove(numbers)
    if removed:
        save_changes(engine, bundle, bundle.names.without(numbers), bundle.columns.without(numbers))
    return removed


def _ids_of(bundle: Bundle, names: Sequence[str]) -> Ids:
    if not len(bundle.names):
        raise InvalidInputError(
            f"the items of {bundle.path} have no names. Give their ids as integers."
        )
    return np.unique(bundle.names.ids_of(names))
