"""Making an index from items: in memory, in a folder, or where the engine keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._progress import Progress
from .._workspace import Workspace
from ..data.reader import ArrayRows, RowReader
from ..data.source import ImageItems
from ..embed.embedder import Embedder, Encoded
from ..engines.base import Builder, Engine
from ..engines.filling import fill
from ..engines.registry import get_engine
from ..errors import InvalidInputError
from .build import BuildOptions, build_bundle, check_output_bundle, is_written
from .bundle import Bundle
from .columns import ItemColumns
from .contents import Contents
from .inputs import Items
from .names import Names
from .stored import check_place, open_bundle, save_bundle


@dataclass(frozen=True, eq=False)
class Made:
    """An index that was made.

    Attributes:
        engine: The engine with all items.
        contents: Names and columns of the items, by id.
        bundle: The folder; None in memory.
        skipped: Number and reason of the images that could not be read.
    """

    engine: Engine
    contents: Contents
    bundle: Bundle | None
    skipped: Sequence[tuple[int, str]]


def make_index(
    items: Items,
    embedder: Embedder,
    out: Path | None,
    options: BuildOptions,
    *,
    resume: bool,
    overwrite: bool,
    on_progress: Progress,
) -> Made:
    """Encode items, and build what ``options`` say.

    Args:
        items: The items.
        embedder: Makes codes of them.
        out: The folder to write; None keeps the index in memory, or where the engine keeps items.
        options: Engine, layout, shard.
        resume: Whether to go on from what an interrupted run has left.
        overwrite: Whether an existing index may be replaced.
        on_progress: Called with (text, items done, items in all).

    Raises:
        InvalidInputError: If something does not fit together, or may not be written.
        ArtifactError: If a file is damaged, or another program builds this output.
        ServerError: If a server is out of reach, refuses, or fails.
    """
    is_image = isinstance(items, ImageItems)
    if options.shard is not None and (out is None or is_image):
        raise InvalidInputError(
            "shards are of vectors, and are written to folders: embed images first (mecoq-index "
            "embed), and give out."
        )
    keeps_items = get_engine(options.engine).holds_items
    if out is None or not keeps_items:
        return _make_whole(items, embedder, out, options, resume, overwrite, on_progress)
    check_output_bundle(out, options, embedder.codebooks, overwrite=overwrite or resume)
    with Workspace.beside(out).locked(resume) as store:
        finished = is_written(store, out)
        if finished and isinstance(items, ImageItems):
            store.discard()  # their embeddings may be gone already
            finished = False
        check_place(out, overwrite=overwrite or finished)
        rows: RowReader
        if isinstance(items, ImageItems):  # embedded first, resumably
            embedded = embedder.embed(items, store=store, on_progress=on_progress)
            rows, metadata = ArrayRows(embedded.z), embedded.metadata
            skipped = embedded.skipped
        else:
            rows, metadata, skipped = items, items.metadata, []
        build_bundle(
            rows,
            embedder.codebooks,
            out,
            options,
            ids=metadata.ids,
            names=metadata.names,
            columns=metadata.columns,
            source={"source": None if items.path is None else str(items.path.resolve())},
            workspace=store,
            resume=resume,
            overwrite=overwrite,
            on_progress=on_progress,
        )
    engine, bundle = open_bundle(out)
    return Made(engine, Contents(bundle.names, bundle.columns), bundle, skipped)


def _make_whole(
    items: Items,
    embedder: Embedder,
    out: Path | None,
    options: BuildOptions,
    resume: bool,
    overwrite: bool,
    on_progress: Progress,
) -> Made:
    """Encode all items in memory, and hand them to the builder."""
    kind = get_engine(options.engine)
    if out is not None:
        check_place(out, overwrite=overwrite)
    more: dict[str, Any] = {}
    if not kind.holds_items:
        more = {"resume": resume, "overwrite": overwrite}
    builder = options.builder(embedder.codebooks, len(items), **more)
    # There what was embedded stays if the engine's server fails.
    work = Workspace.beside(out).locked(resume) if out is not None else nullcontext()
    with work as store:
        if out is not None:
            check_place(out, overwrite=overwrite)
        encoded = embedder.encode(items, store=store, on_progress=on_progress)
        return _filled(builder, encoded, kind, out, overwrite, on_progress)


def encode_again(
    engine: Engine, contents: Contents, items: Items, embedder: Embedder, on_progress: Progress
) -> Engine:
    """An engine with the layout, settings and ids of another, over other codebooks.

    Args:
        engine: The other engine.
        contents: The names of its items.
        items: The same items, and perhaps more, in any order.
        embedder: Makes codes of the other codebooks.
        on_progress: Called with (text, items done, items in all).

    Raises:
        InvalidInputError: If an item is not among ``items``, or the codebooks do not fit.
    """
    kind, described = type(engine), engine.describe()
    declared = [option.name for option in kind.options if "build" in option.stages]
    options = {name: described[name] for name in declared if name in described}
    ids = np.sort(engine.ids())
    contents.check_findable(ids, items.metadata)
    kind.builder(embedder.codebooks, len(ids), **options)  # refuses before anything is encoded
    encoded = embedder.encode(items, on_progress=on_progress)
    codes = encoded.codes[contents.rows_of(ids, encoded.metadata, len(encoded.codes))]
    return kind.build(embedder.codebooks, codes, ids if engine.keeps_ids else None, **options)


def _filled(
    builder: Builder,
    encoded: Encoded,
    kind: type[Engine],
    out: Path | None,
    overwrite: bool,
    on_progress: Progress,
) -> Made:
    """Hand codes to the builder, and write the folder if there is to be one."""
    metadata, n = encoded.metadata, len(encoded.codes)
    numbers = metadata.ids if metadata.ids is not None else np.arange(n, dtype=np.int64)
    builder.check_ids(numbers)
    names = Names.from_strings(metadata.names or [], numbers if metadata.names else None)
    columns = ItemColumns.from_values(metadata.columns, numbers)
    stored: dict[str, Any] = {}
    if kind.stores_columns:
        stored = dict(metadata.columns)
        if metadata.names is not None:
            stored["name"] = metadata.names
    engine = fill(builder, encoded.codes, numbers, stored, on_progress)
    bundle = None
    if out is not None:
        save_bundle(engine, out, overwrite=overwrite)
        bundle = Bundle.open(out)
    contents = Contents() if kind.stores_columns else Contents(names, columns)
    return Made(engine, contents, bundle, encoded.skipped)
