"""Engines to and from bundles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..bundle import Bundle, write_bundle
from ..errors import InvalidInputError
from .base import Engine, get_engine


def save_bundle(
    engine: Engine, path: str | Path, *, names: Sequence[str] = (), overwrite: bool = False
) -> None:
    """Write an engine's index with its codebooks to a folder.

    Args:
        engine: The engine.
        path: The folder to make.
        names: What each item is called, by id 0..n-1; empty for items without names.
        overwrite: Whether an existing bundle may be replaced.

    Raises:
        InvalidInputError: If the folder exists and must not be replaced, or there are names but
            not one for each id 0..n-1.
    """
    if len(names) not in (0, len(engine)):
        raise InvalidInputError(
            f"names must be one an item, {len(engine)} in all, got {len(names)}."
        )
    if len(names) and not np.array_equal(np.sort(engine.ids()), np.arange(len(names))):
        raise InvalidInputError(
            f"names are kept by id, so ids must be 0..{len(names) - 1}, but the engine holds "
            "others (items were removed, or ids given). Build it anew from the items left, or "
            "leave names out and keep them by id yourself."
        )
    write_bundle(
        path,
        engine=engine.name,
        index_file=engine.file_name,
        save_index=engine.save,
        codebooks=engine.codebooks,
        description=engine.describe(),
        names=names,
        overwrite=overwrite,
    )


def open_bundle(path: str | Path) -> tuple[Engine, Bundle]:
    """The engine in a folder that `save_bundle` wrote, and the folder's other content.

    Raises:
        ArtifactError: If the folder is no bundle, damaged, or of a newer version.
        InvalidInputError: If it was written by an engine that is not installed.
    """
    bundle = Bundle.open(path)
    engine = get_engine(bundle.engine).open(bundle.index_path, bundle.codebooks)
    return engine, bundle
