"""Join bundles into one: the shards of one build, or bundles whose items have ids of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle import Bundle, check_replaceable
from ..errors import InvalidInputError
from ..names import Names
from .base import Engine, get_engine
from .encoding import Progress
from .stored import open_bundle, save_bundle


def merge_bundles(
    parts: Sequence[str | Path],
    out: str | Path,
    *,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> Engine:
    """Write one bundle with the items of several; the parts stay as they are.

    All shards of a build, in any order, give byte for byte what a build of the whole gives (except
    for HNSW graphs, which are built anew). Other bundles keep the ids of their items, which must
    not meet, and must share codebooks, engine, layout and lists.

    Args:
        parts: The folders, two or more.
        out: The folder to make.
        overwrite: Whether an existing bundle may be replaced.
        on_progress: Told how many parts are joined.

    Returns:
        The engine with all items.

    Raises:
        InvalidInputError: If the parts do not fit together, or the output may not be written.
        ArtifactError: If a part is no bundle, or damaged.
    """
    out = Path(out)
    if out.exists():
        if not overwrite:
            raise InvalidInputError(
                f"{out} exists already. Choose another name, or allow replacing it with "
                "--overwrite."
            )
        check_replaceable(out)
    if len(parts) < 2:
        raise InvalidInputError(f"two or more bundles are needed to merge, got {len(parts)}.")
    first, *others = _in_order([Path(part) for part in parts])
    merger = _Merger(*open_bundle(first), path=first)
    for place, path in enumerate(others):
        if on_progress:
            on_progress("merging", place + 1, len(parts))
        merger.add(*open_bundle(path), path=path)
    merged, names = merger.finish()
    save_bundle(merged, out, names=names, overwrite=overwrite)
    return merged


def _in_order(parts: list[Path]) -> list[Path]:
    """Shards by their numbers, other bundles as they come.

    Raises:
        InvalidInputError: If some parts are shards and others not, or a shard is missing or twice.
    """
    shards = [Bundle.read_manifest(part)["description"].get("shard") for part in parts]
    if not any(shards):
        return parts
    if not all(shards):
        odd = parts[[bool(shard) for shard in shards].index(False)]
        raise InvalidInputError(f"{odd} is no shard, but others are. Merge the shards first.")
    numbers, counts = zip(*shards, strict=True)
    missing = sorted(set(range(1, counts[0] + 1)) - set(numbers))
    if len(set(counts)) > 1 or len(set(numbers)) < len(numbers) or missing:
        raise InvalidInputError(
            f"the shards must be 1 to {counts[0]} of one build, each once, got "
            f"{', '.join(f'{number}/{count}' for number, count in shards)}."
        )
    return [part for _, part in sorted(zip(numbers, parts, strict=True))]


class _Merger:
    """Takes in one bundle after the other."""

    def __init__(self, engine: Engine, bundle: Bundle, *, path: Path) -> None:
        self._first, self._bundle = engine, bundle
        self._are_shards = "shard" in bundle.manifest["description"]
        self._keeps_ids = getattr(engine, "keeps_ids", True)
        if not self._keeps_ids and not self._are_shards:
            raise InvalidInputError(
                f"{path} numbers its items from 0, as the others do, so that ids would meet. "
                "Build with IVF or IDMap2 to merge, or as shards of one build."
            )
        self._target = _target(engine)
        self._names = Names.from_strings([])
        self._count = 0
        self._ids = [np.empty(0, np.int64)]
        self.add(engine, bundle, path=path)

    def add(self, engine: Engine, bundle: Bundle, *, path: Path) -> None:
        """Take in the items of a bundle.

        Raises:
            InvalidInputError: If it does not fit to the first one.
        """
        for what, mine, other in (
            ("codebooks", self._bundle.codebooks.fingerprint, bundle.codebooks.fingerprint),
            ("engine", self._bundle.engine, bundle.engine),
            ("layout", getattr(self._first, "spec", ""), getattr(engine, "spec", "")),
            (
                "source",
                self._bundle.manifest["description"].get("of_rows"),
                bundle.manifest["description"].get("of_rows"),
            ),
        ):
            if mine != other:
                raise InvalidInputError(
                    f"{path} has another {what} than {self._bundle.path}: {other} instead of "
                    f"{mine}. Build both alike to merge them."
                )
        if bool(len(bundle.names)) != bool(len(self._bundle.names)):
            raise InvalidInputError("either all of the bundles must have names, or none.")
        shift = 0 if self._keeps_ids else self._count
        self._count += len(engine)
        self._ids.append(engine.ids() + shift)
        if len(bundle.names):
            moved = Names(bundle.names.ids + shift, bundle.names.offsets, bundle.names.text)
            self._names = self._names.added(moved)
        self._target.add(engine)

    def finish(self) -> tuple[Engine, Names]:
        """The engine with all items, and their names.

        Raises:
            InvalidInputError: If two bundles hold items with one id.
        """
        ids, times = np.unique(np.concatenate(self._ids), return_counts=True)
        if len(twice := ids[times > 1]):
            raise InvalidInputError(
                f"the bundles must hold different ids, but {len(twice)} occur more than once, for "
                f"instance {twice[0]}."
            )
        return self._target.finish(), self._names


class _ArrayTarget:
    """For engines that keep codes in plain arrays."""

    def __init__(self, first: Any) -> None:
        self._engine = get_engine(first.name).build(
            first.codebooks, np.empty((0, first.codebooks.M), np.uint8)
        )

    def add(self, engine: Any) -> None:
        self._engine.add(engine.codes(engine.ids()), engine.ids())

    def finish(self) -> Any:
        return self._engine


class _FaissTarget:
    """For FAISS: codes move from list to list as they are."""

    def __init__(self, first: Any) -> None:
        from .faiss.coarse import centroids_of, set_centroids
        from .faiss.engine import FaissEngine
        from .faiss.items import Adder

        nprobe = first.describe().get("nprobe")
        self._engine = FaissEngine.empty(
            first.codebooks, str(first.spec), items=len(first), nprobe=nprobe
        )
        self._centroids = None
        if first.spec.nlist:
            self._centroids = centroids_of(first.layers.core)
            set_centroids(self._engine.index, self._centroids)
        self._adder = Adder(self._engine.layers, first.codebooks)

    def add(self, engine: Any) -> None:
        """Take in an engine's items.

        Raises:
            InvalidInputError: If its lists are others.
        """
        from .faiss.coarse import centroids_of
        from .faiss.items import read_items

        if self._centroids is not None and not np.array_equal(
            centroids_of(engine.layers.core), self._centroids
        ):
            raise InvalidInputError(
                "the bundles must have the same lists to merge, but these were made from "
                "different items. Build them as shards of one build."
            )
        for part in read_items(engine.layers):
            lists = part.lists if engine.spec.nlist else None
            self._adder.add(part.codes, part.ids, lists=lists)

    def finish(self) -> Engine:
        """The engine with all items."""
        self._adder.finish()
        return self._engine


def _target(first: Engine) -> _ArrayTarget | _FaissTarget:
    return _FaissTarget(first) if first.name == "faiss" else _ArrayTarget(first)
