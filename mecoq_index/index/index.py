"""An index as one object: built from a source, searched, changed, saved, opened again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import Ids, check_ids
from .._progress import Progress, reported, silent
from ..codebooks import Codebooks, VectorKind
from ..data.metadata import Metadata
from ..data.source import Source
from ..embed.embedder import Embedder
from ..engines.abilities import Tunable, Tuned
from ..engines.registry import DEFAULT_ENGINE, options_of
from ..errors import InvalidInputError
from .build import BuildOptions
from .bundle import Bundle
from .columns import Columns
from .contents import Contents
from .inputs import open_items
from .making import encode_again, make_index
from .merge import merge_bundles
from .opened import OpenedIndex
from .opening import attach, is_address
from .pickling import from_bytes, to_bytes
from .queries import as_rows
from .shard import Shard, as_shard
from .stored import check_place, open_bundle, save_bundle, save_changes


class Index(OpenedIndex):
    """Items that are found by AQS, with their names and columns.

    Make one with `Index.build`, or open one with `open_index`. Threads may share an index: searches
    run side by side, and a change waits until they are done.

    Example:
        >>> import numpy as np
        >>> from mecoq_index import Codebooks, Index
        >>> books = Codebooks(np.eye(2)[None].repeat(2, axis=0))
        >>> index = Index.build(np.eye(4), books, engine="numpy", names=["a", "b", "c", "d"])
        >>> [hit.name for hit in index.search([0.9, 0.1, 0.0, 1.0], k=1)[0]]
        ['d']
    """

    @classmethod
    def build(
        cls,
        source: Source,
        codebooks: Codebooks | str | Path,
        *,
        out: str | Path | None = None,
        engine: str = DEFAULT_ENGINE,
        ids: npt.ArrayLike | str | Path | None = None,
        names: Sequence[str] | None = None,
        columns: Sequence[str] | Columns = (),
        vector_column: str | None = None,
        id_column: str | None = None,
        given: VectorKind | None = None,
        backbone: str | None = None,
        device: str | None = None,
        workers: int = 0,
        strict: bool = False,
        shard: Shard | tuple[int, int] | None = None,
        resume: bool = False,
        overwrite: bool = False,
        progress: Progress | bool = False,
        **options: Any,
    ) -> Index:
        """Encode a source and make an index of it.

        Args:
            source: Vectors or codes (n, width) as an array; a path of images, vectors or a table;
                a list of paths or PIL images; or anything else that `open_source` takes.
            codebooks: The codebooks, or the path of their file.
            out: The folder to make. None keeps the index in memory; `save` writes it.
            engine: Name of the engine.
            ids: Integer ids (n,), or a file of them; row numbers if None.
            names: Names of the items, n distinct strings. Images are called by their paths.
            columns: Values that items carry: names of columns of a table, or values by name.
            vector_column: For tables: the column of vectors.
            id_column: For tables: the column of ids (integers) or names (text).
            given: Whether vectors are features or embeddings; told apart by their width if None.
            backbone: Allows a ``module:attribute`` that the codebooks name as their network.
            device: Where the network for images runs, and an engine that has a choice; CUDA where
                there is one if None.
            workers: Processes that load images.
            strict: Refuse unreadable images instead of skipping them.
            shard: Part i of n, to be joined by `merge` later.
            resume: Go on from what an interrupted build of the same job has left.
            overwrite: Replace an existing index.
            progress: Called with (text, done, total); True shows a bar.
            options: Options of the engine for building: for FAISS ``factory``, ``nprobe`` and
                ``seed``.

        Raises:
            InvalidInputError: If arguments do not fit together, or the output may not be written.
            ArtifactError: If a file is damaged, or another program builds this output.
            ServerError: If a server is out of reach, refuses, or fails.
        """
        codebooks = load_codebooks(codebooks)
        if device is not None and any(o.name == "device" for o in options_of(engine)):
            options["device"] = device
        wanted = BuildOptions(engine=engine, options=options, shard=as_shard(shard), given=given)
        embedder = Embedder(
            codebooks, given=given, device=device, workers=workers, strict=strict, backbone=backbone
        )
        items = open_items(
            source,
            ids=ids,
            names=names,
            columns=columns,
            vector_column=vector_column,
            id_column=id_column,
        )
        with reported(progress, "building") as on_progress:
            made = make_index(
                items,
                embedder,
                None if out is None else Path(out),
                wanted,
                resume=resume,
                overwrite=overwrite,
                on_progress=on_progress,
            )
        index = cls(made.engine, contents=made.contents, bundle=made.bundle)
        index.skipped = made.skipped
        return index

    def add(
        self,
        source: Source,
        *,
        ids: npt.ArrayLike | str | Path | None = None,
        names: Sequence[str] | None = None,
        columns: Sequence[str] | Columns = (),
        vector_column: str | None = None,
        id_column: str | None = None,
        given: VectorKind | None = None,
        backbone: str | None = None,
        device: str | None = None,
        workers: int = 0,
        strict: bool = False,
        progress: Progress = silent,
    ) -> Ids:
        """Add items. `save` writes them; an engine that keeps items elsewhere has them at once.

        Takes a source and its ids, names and columns as `build` does. Items of an index with names
        or columns need theirs.

        Returns:
            int64, shape (n,): the ids of the new items.

        Raises:
            InvalidInputError: If something does not fit, or an id or a name is taken.
        """
        embedder = self._embedders.get(given, backbone, device, workers, strict)
        items = open_items(
            source,
            ids=ids,
            names=names,
            columns=columns,
            vector_column=vector_column,
            id_column=id_column,
        )
        encoded = embedder.encode(items, on_progress=progress)
        self.skipped, new = encoded.skipped, encoded.metadata
        with self._lock.writing():
            numbers = self._ids_of_new(new, len(encoded.codes))
            if self._engine.stores_columns:
                named = {} if new.names is None else {"name": new.names}
                self._engine.add(encoded.codes, numbers, columns={**new.columns, **named})
                return numbers
            if len(self._engine):
                self._contents.check_new(new)
            contents = self._contents.added(new, numbers)
            self._engine.add(encoded.codes, numbers)
            self._contents, self._is_changed = contents, True
            return numbers

    def _ids_of_new(self, new: Metadata, n: int) -> Ids:
        if new.ids is not None:
            return check_ids(new.ids, n)
        first = int(self._engine.ids().max(initial=-1)) + 1
        return np.arange(first, first + n, dtype=np.int64)

    def remove(self, items: Sequence[str] | npt.ArrayLike) -> int:
        """Remove items by their names or ids; return how many there were.

        `save` writes the change; an engine that keeps items elsewhere makes it at once. Ids that no
        item has are passed over; unknown names are refused.

        Raises:
            InvalidInputError: If a name is unknown, or the engine, as it was built, cannot remove.
        """
        with self._lock.writing():
            numbers = self._contents.ids_of(items)
            removed = self._engine.remove(numbers)
            if self._engine.holds_items and removed:
                self._contents, self._is_changed = self._contents.without(numbers), True
            return removed

    def reencode(
        self,
        codebooks: Codebooks | str | Path,
        source: Source,
        *,
        out: str | Path | None = None,
        ids: npt.ArrayLike | str | Path | None = None,
        vector_column: str | None = None,
        id_column: str | None = None,
        given: VectorKind | None = None,
        backbone: str | None = None,
        device: str | None = None,
        workers: int = 0,
        overwrite: bool = False,
        progress: Progress = silent,
    ) -> Index:
        """An index of the same items, encoded by other codebooks.

        Ids, names, columns, layout and settings stay; lists are made anew.

        Args:
            codebooks: The other codebooks.
            source: The items' images or vectors, found by their names or ids. Rows without
                either are those of an index whose items have no names and the ids 0..n-1.
            out: The folder to make; None keeps the new index in memory.
            ids, vector_column, id_column: As for `build`.
            given, backbone, device, workers, overwrite, progress: As for `build`.

        Raises:
            InvalidInputError: If an item is not in the source, or the engine keeps items elsewhere.
        """
        if not self._engine.holds_items:
            raise InvalidInputError(
                f"the {self._engine.name} engine keeps its items elsewhere. Build a new index from "
                "the source instead."
            )
        if out is not None:
            check_place(Path(out), overwrite=overwrite)
        codebooks = load_codebooks(codebooks)
        embedder = Embedder(
            codebooks, given=given, device=device, workers=workers, strict=False, backbone=backbone
        )
        items = open_items(source, ids=ids, vector_column=vector_column, id_column=id_column)
        with self._lock.reading():
            contents = self._contents
            engine = encode_again(self._engine, contents, items, embedder, progress)
        made = Index(engine, contents=contents)
        if out is not None:
            made.save(out, overwrite=overwrite)
        return made

    def merge(
        self,
        *others: Index | str | Path,
        out: str | Path,
        overwrite: bool = False,
        progress: Progress = silent,
    ) -> Index:
        """Write an index with the items of this one and others; all of them stay as they are.

        Raises:
            InvalidInputError: If they do not fit together, or one is not a folder as it was saved.
            ArtifactError: If one is damaged.
        """
        parts = [_saved_folder(part) for part in (self, *others)]
        merge_bundles(parts, out, overwrite=overwrite, on_progress=progress)
        return open_index(out)

    def save(self, path: str | Path | None = None, *, overwrite: bool = False) -> None:
        """Write the index to a folder; the folder changes as a whole or not at all.

        Args:
            path: The folder. None writes changes back to where the index was opened; an engine
                that keeps items elsewhere has them there already.
            overwrite: Whether an existing index at ``path`` may be replaced.

        Raises:
            InvalidInputError: If there is no path, or it exists and may not be replaced.
            ArtifactError: If somebody else has changed the folder since it was opened.
        """
        with self._lock.writing():
            if path is not None:
                names, columns = self._contents.names, self._contents.columns
                save_bundle(self._engine, path, names=names, columns=columns, overwrite=overwrite)
                self._bundle = Bundle.open(path)
            elif self._bundle is not None and self._engine.holds_items:
                if self._is_changed:
                    names, columns = self._contents.names, self._contents.columns
                    self._bundle = save_changes(self._engine, self._bundle, names, columns)
            elif self._engine.holds_items:
                raise InvalidInputError("path must name the folder to write, got none.")
            self._is_changed = False

    def tune(
        self,
        queries: Source,
        *,
        recall: float = 0.95,
        k: int = 10,
        save: bool = False,
        given: VectorKind | None = None,
        backbone: str | None = None,
        device: str | None = None,
        workers: int = 0,
        strict: bool = False,
    ) -> Tuned:
        """Find the setting with which a recall is reached fastest, such as the nprobe of IVF.

        Args:
            queries: As for `search`, like those to come; not the ones to report results on.
            recall: The share of the exact k best items to find, ties counted as found.
            k: Results per query that count.
            save: Make the setting found the index's own, and write it to its folder.
            given, backbone, device, workers, strict: As for `search`.

        Raises:
            InvalidInputError: If the index has no such setting, or cannot reach the recall.
        """
        embedder = self._embedders.get(given, backbone, device, workers, strict)
        z = embedder.embed(as_rows(queries)).z
        if not isinstance(self._engine, Tunable):
            raise InvalidInputError(f"an index of {self._engine.name} has no setting to tune.")
        with self._lock.writing():
            tuned = self._engine.tune(z, recall=recall, k=k)
            if save:
                self._engine.set_default(tuned.setting, tuned.value)
                self._is_changed = True
        if save and self._bundle is not None:
            self.save()
        return tuned

    def __reduce__(self) -> tuple[Any, ...]:
        if self._address is not None:
            return open_index, (self._address, self.codebooks)
        if self._bundle is not None and not self._is_changed:
            return open_index, (self._bundle.path.resolve(),)
        with self._lock.reading():
            return _restored, (*to_bytes(self._engine), self.codebooks, self._contents)


def open_index(
    path: str | Path, codebooks: Codebooks | str | Path | None = None, **options: Any
) -> Index:
    """Open an index: a folder, or an address of an engine that keeps items elsewhere.

    Args:
        path: A folder that `Index.build` or `Index.save` wrote; ``http://host:19530/photos``; or a
            file of milvus-lite, ``photos.db``.
        codebooks: Refuse the index unless it was built with these. Needed at an address only if the
            codebooks are not there.
        options: Options of the engine for opening, such as ``token``.

    Raises:
        ArtifactError: If the folder is no index, damaged, of a newer version, or was built with
            other codebooks.
        InvalidInputError: If nothing is at the address, or codebooks are needed.
        ServerError: If a server is out of reach, refuses, or fails.
    """
    expected = None if codebooks is None else load_codebooks(codebooks)
    if is_address(path):
        attached = attach(str(path), expected, options)
        # As the engine tells it: the text that was given may hold a password.
        return Index(attached, address=attached.address)
    engine, bundle = open_bundle(path, **options)
    if expected is not None:
        bundle.check_codebooks(expected)
    contents = Contents(bundle.names, bundle.columns)
    return Index(engine, contents=contents, bundle=bundle)


def load_codebooks(codebooks: Codebooks | str | Path) -> Codebooks:
    """The codebooks, read from their file if a path is given."""
    return codebooks if isinstance(codebooks, Codebooks) else Codebooks.load(codebooks)


def _restored(engine: str, content: bytes, codebooks: Codebooks, contents: Contents) -> Index:
    """The index in memory that was pickled."""
    return Index(from_bytes(engine, content, codebooks), contents=contents)


def _saved_folder(part: Index | str | Path) -> Path:
    """The folder of an index that is on disk as it is in memory."""
    if not isinstance(part, Index):
        return Path(part)
    if part.path is None or part._is_changed:
        raise InvalidInputError("an index must be saved to a folder before it is merged.")
    return part.path
