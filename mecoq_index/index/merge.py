"""Join bundles into one: the shards of one build, or bundles whose items have ids of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from .._arrays import Codes, Ids
from .._progress import Progress
from ..engines.base import Engine
from ..engines.registry import get_engine
from ..errors import InvalidInputError
from .bundle import Bundle
from .names import Names
from .stored import check_holds_items, check_place, open_bundle, save_bundle


def merge_bundles(
    parts: Sequence[str | Path],
    out: str | Path,
    *,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> Engine:
    """Write one bundle with the items of several; the parts stay as they are.

    All shards of a build, in any order, give byte for byte what a build of the whole gives. (HNSW
    graphs are built anew. Vectors, other than codes, are encoded by products of matrices, which in
    a small shard may be rounded otherwise, see `Shard.bounds`: that decides between codewords that
    are equally near but for the last bit.) Other bundles keep the ids of their items, which must
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
    check_place(out, overwrite=overwrite)
    if len(parts) < 2:
        raise InvalidInputError(f"two or more bundles are needed to merge, got {len(parts)}.")
    for part in parts:
        check_holds_items(Path(part))
    paths = _in_order([Path(part) for part in parts])
    merger = _Merger(paths[0])
    for path in paths:  # before the work
        merger.check(path, Bundle.read_manifest(path))
    for place, path in enumerate(paths):
        merger.add(path)
        if on_progress:
            on_progress("merging", place + 1, len(paths))
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


_ALIKE = ("factory", "of_rows", "sample")


class _Merger:
    """Takes in one bundle after the other."""

    def __init__(self, first: Path) -> None:
        self._path, self._manifest = first, Bundle.read_manifest(first)
        self._are_shards = "shard" in self._manifest["description"]
        self._target: _ArrayTarget | _FaissTarget | None = None
        self._names: list[Names] = []
        self._ids: list[Ids] = []
        self._count = 0

    def check(self, path: Path, manifest: Mapping[str, Any]) -> None:
        """Compare a bundle with the first one.

        Raises:
            InvalidInputError: If it does not fit to it.
        """
        pairs = [
            ("codebooks", self._manifest["fingerprint"][:12], manifest["fingerprint"][:12]),
            ("engine", self._manifest["engine"], manifest["engine"]),
        ]
        for key in _ALIKE:
            what = "layout" if key == "factory" else "source"
            pairs.append((what, *(m["description"].get(key) for m in (self._manifest, manifest))))
        for what, mine, other in pairs:
            if mine != other:
                raise InvalidInputError(
                    f"{path} has another {what} than {self._path}: {other} instead of {mine}. "
                    "Build both alike to merge them."
                )
        if (manifest.get("names_file") is None) != (self._manifest.get("names_file") is None):
            raise InvalidInputError("either all of the bundles must have names, or none.")

    def add(self, path: Path) -> None:
        """Take in the items of a bundle.

        Raises:
            InvalidInputError: If it does not fit to the first one.
            ArtifactError: If it is damaged.
        """
        engine, bundle = open_bundle(path)
        self.check(path, bundle.manifest)
        keeps_ids = getattr(engine, "keeps_ids", True)
        if not keeps_ids and not self._are_shards:
            raise InvalidInputError(
                f"{path} numbers its items from 0, as the others do, so that ids would meet. "
                "Build with IVF or IDMap2 to merge, or as shards of one build."
            )
        shift = 0 if keeps_ids else self._count
        self._count += len(engine)
        self._ids.append(engine.ids() + shift)
        if len(names := bundle.names):
            self._names.append(Names(names.ids + shift, names.offsets, names.text))
        if self._target is None:
            self._target = _FaissTarget(engine) if engine.name == "faiss" else _ArrayTarget(engine)
        self._target.add(engine)

    def finish(self) -> tuple[Engine, Names]:
        """The engine with all items, and their names.

        Raises:
            InvalidInputError: If two bundles hold items with one id, or one name.
        """
        ids, times = np.unique(np.concatenate(self._ids), return_counts=True)
        if len(twice := ids[times > 1]):
            raise InvalidInputError(
                f"the bundles must hold different ids, but {len(twice)} occur more than once, for "
                f"instance {twice[0]}."
            )
        target = cast("_ArrayTarget | _FaissTarget", self._target)
        return target.finish(), _joined(self._names)


def _joined(names: list[Names]) -> Names:
    """All names; two by two, so that each is moved only as often as their number has bits."""
    while len(names) > 1:
        pairs = [names[i : i + 2] for i in range(0, len(names), 2)]
        names = [pair[0].added(pair[1]) if len(pair) == 2 else pair[0] for pair in pairs]
    return names[0] if names else Names.from_strings([])


class _ArrayTarget:
    """For engines that keep codes in plain arrays."""

    def __init__(self, first: Engine) -> None:
        self._name, self._codebooks = first.name, first.codebooks
        self._codes: list[Codes] = []
        self._ids: list[Ids] = []

    def add(self, engine: Engine) -> None:
        """Take in an engine's items."""
        self._ids.append(engine.ids())
        self._codes.append(engine.codes(self._ids[-1]))

    def finish(self) -> Engine:
        """The engine with all items."""
        codes, ids = np.concatenate(self._codes), np.concatenate(self._ids)
        return cast(Engine, get_engine(self._name).build(self._codebooks, codes, ids))


class _FaissTarget:
    """For FAISS: codes move from list to list as they are."""

    def __init__(self, first: Any) -> None:
        from ..engines.faiss.coarse import centroids_of, set_centroids
        from ..engines.faiss.engine import FaissEngine
        from ..engines.faiss.items import Adder

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
        from ..engines.faiss.coarse import centroids_of
        from ..engines.faiss.items import items_to_add

        if self._centroids is not None and not np.array_equal(
            centroids_of(engine.layers.core), self._centroids
        ):
            raise InvalidInputError(
                "the bundles must have the same lists to merge, but these were made from "
                "different items. Build them as shards of one build."
            )
        for codes, ids, lists in items_to_add(engine.layers):
            self._adder.add(codes, ids, lists=lists)

    def finish(self) -> Engine:
        """The engine with all items."""
        self._adder.finish()
        return self._engine
