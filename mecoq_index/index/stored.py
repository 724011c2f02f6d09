"""Engines to and from bundles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._files import check_output
from ..engines.base import Engine
from ..engines.registry import get_engine
from ..errors import ArtifactError, InvalidInputError
from .bundle import Bundle, Content, check_replaceable, update_bundle, write_bundle
from .columns import ItemColumns
from .names import Names
from .opening import check_opening_options
from .stored_codebooks import without_generation


def check_place(path: Path, *, overwrite: bool) -> None:
    """Refuse a place that a bundle could not be written to, before any work is done for it.

    Raises:
        InvalidInputError: If its folder is missing, or it exists and may not be replaced.
    """
    check_output(path, overwrite=overwrite, folder=True)
    if path.exists():
        check_replaceable(path)


def save_bundle(
    engine: Engine,
    path: str | Path,
    *,
    names: Sequence[str] | Names = (),
    columns: ItemColumns | None = None,
    overwrite: bool = False,
    description: Mapping[str, Any] | None = None,
    on_written: Callable[[str], None] | None = None,
) -> None:
    """Write an engine's index with its codebooks to a folder.

    Args:
        engine: The engine.
        path: The folder to make.
        names: The names of the items: by id, or in the order of the ids 0..n-1; empty for items
            without names.
        columns: The items' columns; left out for an engine that stores them itself.
        overwrite: Whether an existing bundle may be replaced.
        description: Plain values for the manifest, beside what the engine says of itself.
        on_written: Called with the manifest's checksum when all but the manifest is on disk.

    Raises:
        InvalidInputError: If the folder exists and must not be replaced, or there are names but
            not one for each id.
        ArtifactError: If another program keeps writing it.
    """
    content = _content(engine, names, columns, description)
    write_bundle(path, content, overwrite=overwrite, on_written=on_written)


def save_changes(
    engine: Engine, bundle: Bundle, names: Names, columns: ItemColumns | None = None
) -> Bundle:
    """Write an engine that was opened from a bundle, and changed, back to it.

    Returns:
        The bundle as it is now.

    Raises:
        ArtifactError: If somebody else has changed the bundle since it was opened.
        InvalidInputError: If there are names or columns, but not of each id.
    """
    return update_bundle(bundle, _content(engine, names, columns, None))


def _content(
    engine: Engine,
    names: Sequence[str] | Names,
    columns: ItemColumns | None,
    description: Mapping[str, Any] | None,
) -> Content:
    if not isinstance(names, Names):
        names = Names.from_strings(names)
    if len(names) not in (0, len(engine)):
        raise InvalidInputError(
            f"names must be one an item, {len(engine)} in all, got {len(names)}."
        )
    if len(names) and not np.array_equal(np.sort(engine.ids()), names.ids):
        raise InvalidInputError(
            f"names are kept by id, but those given are for the ids {names.ids[0]}.."
            f"{names.ids[-1]}, and the engine holds others. Give Names.from_strings(names, ids)."
        )
    kept = ItemColumns.none() if columns is None or engine.stores_columns else columns
    if len(kept) and not np.array_equal(np.sort(engine.ids()), kept.ids):
        raise InvalidInputError(
            f"columns must be those of all {len(engine)} items, got {len(kept)} of them."
        )
    return Content(
        engine=engine.name,
        index_file=engine.file_name,
        save_index=engine.save,
        codebooks=engine.codebooks,
        description={**engine.describe(), **(description or {})},
        names=names,
        columns=kept,
    )


def check_holds_items(path: Path) -> None:
    """Refuse a bundle whose items are not in it.

    Raises:
        ArtifactError: If the folder is no bundle.
        InvalidInputError: If the bundle points to items that are elsewhere.
    """
    manifest = Bundle.read_manifest(path)
    if not get_engine(manifest["engine"]).holds_items:
        raise InvalidInputError(
            f"{path} must hold its items to be merged, but it points to items that the "
            f"{manifest['engine']} engine keeps elsewhere."
        )


def open_bundle(path: str | Path, **options: Any) -> tuple[Engine, Bundle]:
    """The engine in a folder that `save_bundle` wrote, and the folder's other content.

    Args:
        path: The folder.
        options: The engine's options of the stage ``open``, by keyword.

    Raises:
        ArtifactError: If the folder is no bundle, damaged, or of a newer version.
        InvalidInputError: If it was written by an engine that is not installed, or which does not
            take an option.
        ServerError: If it points to a server that is out of reach, refuses, or fails.
    """
    while True:
        bundle = Bundle.open(path)
        try:
            engine = get_engine(bundle.engine)
            if without_generation(bundle.index_path.name) != engine.file_name:
                raise ArtifactError(
                    f"{bundle.path} is damaged: the file of the {bundle.engine} engine is called "
                    f"{engine.file_name}, but the manifest names {bundle.index_path.name}."
                )
            check_opening_options(options, engine)
            return engine.open(bundle.index_path, bundle.codebooks, **options), bundle
        except (ArtifactError, FileNotFoundError) as exc:
            # A writer may have replaced the file after the others were read here.
            if bundle.is_current():
                raise ArtifactError(str(exc)) from exc
