"""Join bundles into one: the shards of one build, or bundles whose items have ids of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .._arrays import Ids
from .._progress import Progress, silent
from ..engines.base import Engine
from ..engines.registry import get_engine
from ..errors import ArtifactError, InvalidInputError
from .bundle import Bundle
from .columns import ItemColumns
from .names import Names
from .shard import Shard
from .stored import check_holds_items, check_place, open_bundle, save_bundle


def merge_bundles(
    parts: Sequence[str | Path],
    out: str | Path,
    *,
    overwrite: bool = False,
    on_progress: Progress = silent,
) -> Engine:
    """Write one bundle with the items of several; the parts stay as they are.

    All shards of a build, in any order, give byte for byte what a build of the whole gives. (HNSW
    graphs are built anew. Vectors, other than codes, are encoded by products of matrices, which in
    a small shard may be rounded otherwise, see `Shard.bounds`: that decides between codewords that
    are equally near but for the last bit.) Other bundles keep the ids of their items, which must
    be different, and must share codebooks, engine, layout and lists.

    Args:
        parts: The folders, two or more.
        out: The folder to make.
        overwrite: Whether an existing bundle may be replaced.
        on_progress: Called with (text, parts joined, parts in all).

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
    first = Bundle.read_manifest(paths[0])
    for path in paths[1:]:  # before the work
        _check_alike(paths[0], first, path, Bundle.read_manifest(path))
    merger = _Merger(paths[0])
    for place, path in enumerate(paths):
        merger.add(path)
        on_progress("merging", place + 1, len(paths))
    merged, names, columns = merger.finish()
    save_bundle(merged, out, names=names, columns=columns, overwrite=overwrite)
    return merged


def _in_order(parts: list[Path]) -> list[Path]:
    """Shards by their numbers, other bundles as they come.

    Raises:
        InvalidInputError: If some parts are shards and others not, or a shard is missing or twice.
    """
    found = [_shard_of(part) for part in parts]
    shards = [shard for shard in found if shard is not None]
    if not shards:
        return parts
    if len(shards) < len(parts):
        odd = parts[found.index(None)]
        raise InvalidInputError(f"{odd} is no shard, but others are. Merge the shards first.")
    count = shards[0].count
    if sorted(shards, key=lambda shard: shard.number) != [
        Shard(number, len(parts)) for number in range(1, len(parts) + 1)
    ]:
        raise InvalidInputError(
            f"the shards must be 1 to {count} of one build, each once, got "
            f"{', '.join(f'{shard.number}/{shard.count}' for shard in shards)}."
        )
    numbers = [shard.number for shard in shards]
    return [part for _, part in sorted(zip(numbers, parts, strict=True))]


def _shard_of(part: Path) -> Shard | None:
    """Which part of a build a bundle is, by its manifest.

    Raises:
        ArtifactError: If the manifest says something impossible.
    """
    shard = Bundle.read_manifest(part)["description"].get("shard")
    if shard is None:
        return None
    if not isinstance(shard, list) or [type(number) for number in shard] != [int, int]:
        raise ArtifactError(f"{part} is damaged: a shard must be two numbers, got {shard!r:.40}.")
    try:
        return Shard(*shard)
    except InvalidInputError as exc:
        raise ArtifactError(f"{part} is damaged: {exc}") from exc


def _check_alike(
    first: Path, mine: Mapping[str, Any], path: Path, other: Mapping[str, Any]
) -> None:
    """Compare a bundle with the first one, by their manifests alone.

    Raises:
        InvalidInputError: If it does not fit to it.
    """
    pairs = [
        ("codebooks", mine["fingerprint"][:12], other["fingerprint"][:12]),
        ("engine", mine["engine"], other["engine"]),
    ]
    described = mine["description"], other["description"]
    for option in get_engine(mine["engine"]).options:
        # What a search may set anew need not be the same.
        if "build" in option.stages and "search" not in option.stages:
            pairs.append((option.name, *(d.get(option.name) for d in described)))
    pairs += [("source", *(d.get(key) for d in described)) for key in ("of_rows", "sample")]
    for what, here, there in pairs:
        if here != there:
            raise _misfit(first, path, f"{what} ({there} instead of {here})")
    for file, what in (("names_file", "names"), ("columns_file", "columns")):
        if (mine.get(file) is None) != (other.get(file) is None):
            raise InvalidInputError(f"either all of the bundles must have {what}, or none.")


def _misfit(first: Path, path: Path, obstacle: str) -> InvalidInputError:
    return InvalidInputError(
        f"{path} differs from {first} in its {obstacle}. Build both alike to merge them."
    )


class _Merger:
    """Takes in one bundle after the other."""

    def __init__(self, first: Path) -> None:
        self._path, self._manifest = first, Bundle.read_manifest(first)
        self._are_shards = "shard" in self._manifest["description"]
        # The first part stays open, so that the lists of the others can be compared with its.
        self._first, _ = open_bundle(first)
        self._builder = self._first.builder_alike()
        self._names: list[Names] = []
        self._columns: list[ItemColumns] = []
        self._ids: list[Ids] = []
        self._count = 0

    def add(self, path: Path) -> None:
        """Take in the items of a bundle.

        Raises:
            InvalidInputError: If it does not fit to the first one.
            ArtifactError: If it is damaged.
        """
        engine, bundle = open_bundle(path)
        _check_alike(self._path, self._manifest, path, bundle.manifest)
        if obstacle := self._first.merge_obstacle(engine):
            raise _misfit(self._path, path, obstacle)
        if not engine.keeps_ids and not self._are_shards:
            raise InvalidInputError(
                f"{path} numbers its items from 0, as the others do, so that ids would be the "
                "same. Build with IVF or IDMap2 to merge, or as shards of one build."
            )
        shift = 0 if engine.keeps_ids else self._count
        self._count += len(engine)
        self._ids.append(engine.ids() + shift)
        if len(names := bundle.names):
            self._names.append(Names(names.ids + shift, names.offsets, names.text))
        if len(columns := bundle.columns):
            self._columns.append(replace(columns, ids=columns.ids + shift))
        for batch in engine.items():
            self._builder.add(batch)

    def finish(self) -> tuple[Engine, Names, ItemColumns]:
        """The engine with all items, and their names and columns.

        Raises:
            InvalidInputError: If two bundles hold items with one id, or one name, or other columns.
        """
        ids, times = np.unique(np.concatenate(self._ids), return_counts=True)
        if len(twice := ids[times > 1]):
            raise InvalidInputError(
                f"the bundles must hold different ids, but {len(twice)} occur more than once, for "
                f"instance {twice[0]}."
            )
        names = _joined(self._names) or Names.from_strings([])
        return self._builder.finish(), names, _joined(self._columns) or ItemColumns.none()


def _joined(parts: list[Any]) -> Any:
    """All names or columns; two by two, so that each is moved only a few times. None of none."""
    while len(parts) > 1:
        pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
        parts = [pair[0].added(pair[1]) if len(pair) == 2 else pair[0] for pair in pairs]
    return parts[0] if parts else None
