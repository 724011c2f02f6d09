"""The FAISS engine: codes in, AQS out, by way of one FAISS index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..._arguments import check_known
from ..._arrays import Codes, Ids, Vectors, check_codes, check_ids, check_k, distinct_ids
from ..._files import atomic_file
from ..._progress import Progress, silent
from ...codebooks import Codebooks
from ...errors import InvalidInputError
from ...scoring import decode
from ..abilities import Tuned
from ..base import Batch, Columns, Engine, Option
from ..hits import Hits, RangeHits
from .builder import FaissBuilder
from .coarse import centroids_of, check_enough, set_centroids, train_coarse_quantizer
from .factory import make_index
from .grammar import parse
from .inject import layers_of
from .items import Adder, batches, codes_at, item_ids, locate
from .layout import Lists, bytes_per_vector
from .numbering import Numbering
from .opening import open_index
from .options import OPTIONS
from .reading import write_index
from .search import Searcher
from .spec import FactorySpec
from .tuning import tune_nprobe


class FaissEngine:
    """Codes in a FAISS index.

    A flat index of 8-bit or 4-bit codes is exact. FastScan (``fs``) rounds its lookup tables to 8
    bits, so its scores are off by up to M / 2 steps of span / 255, span being the widest table's;
    re-ranking makes them exact again. IVF looks into ``nprobe`` of its lists only, and HNSW at
    about ``ef_search`` items.

    Searches change nothing in the engine, so threads may share it as long as none adds or removes;
    `Index` keeps them apart. After a fork of a thread that has searched, FAISS works in one thread.

    Attributes:
        index: The ``faiss.Index``. It takes block-normalized queries.
        spec: What the index is made of.
    """

    name: ClassVar[str] = "faiss"
    file_name: ClassVar[str] = "index.faiss"
    options: ClassVar[Sequence[Option]] = OPTIONS
    holds_items: ClassVar[bool] = True
    stores_columns: ClassVar[bool] = False

    def __init__(self, index: Any, spec: FactorySpec, codebooks: Codebooks) -> None:
        self.index = index
        self.spec = spec
        self.layers = layers_of(index)
        self._codebooks = codebooks
        self._searcher = Searcher(index, self.layers, spec, codebooks)
        self._numbering = Numbering(self.layers, spec)

    @property
    def codebooks(self) -> Codebooks:
        """The codebooks that the codes belong to."""
        return self._codebooks

    @classmethod
    def empty(
        cls, codebooks: Codebooks, factory: str, *, items: int, nprobe: int | None = None
    ) -> FaissEngine:
        """An engine without items, and without lists where it is to have them.

        Args:
            codebooks: The codebooks; K must be a power of two.
            factory: A factory string, see `grammar`.
            items: How many items there will be, which ``IVF`` without a number goes by.
            nprobe: As in `build`.

        Raises:
            InvalidInputError: If FAISS cannot represent what is asked for, or the string is for
                plain FAISS only.
            MissingDependencyError: If FAISS is not installed.
        """
        spec = parse(factory, codebooks, items=items)
        if spec.projection or spec.refine == "Flat":
            what = "Projection takes features" if spec.projection else "RFlat keeps vectors"
            raise InvalidInputError(
                f"{factory!r} is for mecoq_index.index_factory: {what}, but the engine is given "
                "codes and embeddings. Leave that part out"
                + (", or use Refine(MeCoQ)." if spec.fast_scan and not spec.projection else ".")
            )
        engine = cls(make_index(spec, codebooks), spec, codebooks)
        if spec.nlist:
            default = max(1, round(spec.nlist**0.5))
            nprobe = default if nprobe is None else nprobe
            engine.layers.core.nprobe = engine._searcher.check_nprobe(nprobe)
        elif nprobe is not None:
            raise InvalidInputError(f"nprobe is for IVF indexes, but the string is {factory!r}.")
        return engine

    @classmethod
    def build(
        cls,
        codebooks: Codebooks,
        codes: Codes,
        ids: Ids | None = None,
        *,
        factory: str = "MeCoQ",
        nprobe: int | None = None,
        seed: int = 0,
    ) -> FaissEngine:
        """An engine that holds ``codes`` under ``ids``.

        Args:
            codebooks: The codebooks; K must be a power of two.
            codes: uint8, shape (n, M); may be a memory map. IVF trains its lists on them.
            ids: int64, shape (n,); None for 0..n-1. An index without IVF or IDMap2 can hold only
                the latter.
            factory: A factory string, see `grammar`.
            nprobe: Lists that a search looks into unless told otherwise; about sqrt(nlist) if None.
            seed: Seed of the lists' k-means.

        Raises:
            InvalidInputError: If FAISS cannot represent what is asked for.
            MissingDependencyError: If FAISS is not installed.
        """
        codes = check_codes(codes, codebooks.M, codebooks.K)
        check_enough(len(codes), parse(factory, codebooks, items=len(codes)).nlist)
        engine = cls.empty(codebooks, factory, items=len(codes), nprobe=nprobe)
        if engine.spec.nlist:
            train_coarse_quantizer(engine.index, codes, codebooks, seed=seed)
        engine.add(codes, ids)
        return engine

    @classmethod
    def builder(
        cls,
        codebooks: Codebooks,
        items: int,
        *,
        factory: str = "MeCoQ",
        nprobe: int | None = None,
        seed: int = 0,
    ) -> FaissBuilder:
        """A builder of an engine, see `build` for its options.

        Raises:
            InvalidInputError: If FAISS cannot represent what is asked for.
            MissingDependencyError: If FAISS is not installed.
        """
        check_enough(items, parse(factory, codebooks, items=items).nlist)
        return cls.empty(codebooks, factory, items=items, nprobe=nprobe)._builder(seed)

    def _builder(self, seed: int = 0) -> FaissBuilder:
        parts = (self.index, self.layers, self.spec, self._codebooks)
        return FaissBuilder(*parts, seed=seed, finished=lambda: self)

    def builder_alike(self) -> FaissBuilder:
        """A builder of an empty engine with the same layout, lists and nprobe."""
        nprobe = int(self.layers.core.nprobe) if self.spec.nlist else None
        made = self.empty(self._codebooks, str(self.spec), items=len(self), nprobe=nprobe)
        if self.spec.nlist:
            set_centroids(made.index, centroids_of(self.layers.core))
        return made._builder()

    def merge_obstacle(self, other: Engine) -> str:
        """What keeps the other engine's items from being merged into this one's; empty if nothing.

        Layouts must be the same, and so must the lists.
        """
        if not isinstance(other, FaissEngine) or str(other.spec) != str(self.spec):
            layout = other.describe().get("factory", other.name)
            return f"layout ({layout} instead of {self.spec})"
        if self.spec.nlist and not np.array_equal(
            centroids_of(other.layers.core), centroids_of(self.layers.core)
        ):
            return "lists (made from other items; shards of one build have the same)"
        return ""

    def items(self) -> Iterator[Batch]:
        """All items with their lists, in an order in which `builder_alike` makes the same index.

        Where IDMap or Refine is around lists, all items come at once, in the memory of all codes.
        """
        return batches(self.layers)

    def tune(self, z: Vectors, *, recall: float = 0.95, k: int = 10) -> Tuned:
        """Find the smallest nprobe that reaches a recall, see `tuning.tune_nprobe`."""
        return tune_nprobe(self, z, recall=recall, k=k)

    def set_default(self, setting: str, value: int) -> None:
        """Make an nprobe the one that searches use unless told otherwise.

        Raises:
            InvalidInputError: If the setting is another one, or does not fit the index.
        """
        check_known([setting], ["nprobe"], what="setting with a default")
        self.layers.core.nprobe = self._searcher.check_nprobe(value)

    @classmethod
    def export(
        cls,
        out: Path,
        codebooks: Codebooks,
        source: Engine | None,
        columns: Columns,
        *,
        on_progress: Progress = silent,
        **options: Any,
    ) -> Mapping[str, Any]:
        """Write files for plain FAISS, see `plain.export_index` for options.

        Raises:
            InvalidInputError: If the items are of another engine, or something does not fit.
        """
        from .plain import export_index

        if source is not None and not isinstance(source, FaissEngine):
            raise InvalidInputError(
                f"only an index of engine {cls.name} can be exported to FAISS, but this one is of "
                f"{source.name}. Build it with that engine."
            )
        names = {}
        if source is not None and "name" in columns:
            names = dict(zip(np.sort(source.ids()).tolist(), columns["name"], strict=True))
        return export_index(out, codebooks, engine=source, names=names, **options)

    def add(
        self,
        codes: Codes,
        ids: Ids | range | None = None,
        *,
        lists: Lists | None = None,
        on_progress: Progress = silent,
    ) -> None:
        """Add codes under ids.

        Args:
            codes: uint8, shape (n, M); may be a memory map.
            ids: int64, shape (n,), or a range of n; None for the next free numbers.
            lists: For IVF: the list of each code, shape (n,), where it is known already.
            on_progress: Called with (text, codes added, codes in all).

        Raises:
            InvalidInputError: If codes, ids or lists are malformed, an id is taken, the index
                cannot keep ids of one's own, or it is IVF and has no lists yet.
        """
        codes = check_codes(codes, self._codebooks.M, self._codebooks.K)
        found = self._numbering.of_new(ids, len(codes), len(self))
        adder = Adder(self.layers, self._codebooks)
        adder.add(codes, found, lists=lists, on_progress=on_progress)
        adder.finish()
        self._numbering.note(found)

    @property
    def keeps_ids(self) -> bool:
        """Whether items can have ids of one's own; otherwise they are numbered 0..n-1."""
        return self.spec.keeps_ids

    def ids(self) -> Ids:
        """The ids of all items, in no particular order."""
        return item_ids(self.layers)

    def search(
        self,
        z: Vectors,
        k: int,
        *,
        nprobe: int | None = None,
        k_factor: int | None = None,
        ef_search: int | None = None,
        allowed: Ids | None = None,
    ) -> Hits:
        """The k best items for each raw query. All settings are for this call only.

        Args:
            z: float32, shape (nq, D); normalized per subvector here.
            k: Results per query.
            nprobe: For IVF: lists to look into; the index's setting if None.
            k_factor: For FastScan, flat or with Refine: fetch k_factor * k items by rounded tables
                and rank them again by exact AQS. None for the index's setting with Refine, and for
                no re-ranking without.
            ef_search: For HNSW: items to keep in view, of the allowed ones; the index's setting if
                None.
            allowed: Look among the items with these ids only; int64, shape (m,). Ids that are not
                held are passed over. Without IVF this scans just those items, exactly (with HNSW
                only if they are few); IVF looks for them in nprobe lists.

        Returns:
            Hits (nq, k); missing results are id -1 and score -inf.

        Raises:
            InvalidInputError: If an argument is malformed, or a setting is not for this index.
        """
        k = check_k(k)
        return self._searcher.search(
            z, k, nprobe=nprobe, k_factor=k_factor, ef_search=ef_search, allowed=allowed
        )

    def range_search(
        self,
        z: Vectors,
        threshold: float,
        *,
        nprobe: int | None = None,
        allowed: Ids | None = None,
    ) -> RangeHits:
        """All items whose AQS is above a threshold, for each raw query.

        Args:
            z: float32, shape (nq, D).
            threshold: A score in [-M, M]. FastScan compares its rounded scores with it.
            nprobe: For IVF: lists to look into, for this call only.
            allowed: For IVF: look among the items with these ids only; int64, shape (m,).

        Raises:
            InvalidInputError: If an argument is malformed, or FAISS has no range search for this
                index: flat FastScan, Refine and HNSW.
        """
        return self._searcher.range_search(z, threshold, nprobe=nprobe, allowed=allowed)

    def codes(self, ids: Ids) -> Codes:
        """The codes (n, M) of the items with these ids, which may repeat.

        Raises:
            InvalidInputError: If ids are malformed, or no item has one of them.
        """
        wanted, places = distinct_ids(ids)
        out = np.empty((len(wanted), self._codebooks.M), np.uint8)
        for number, rows, found in locate(self.layers, wanted):
            out[found] = codes_at(self.layers, rows, number)
        return out[places]

    def reconstruct(self, ids: Ids) -> Vectors:
        """The decoded vectors (n, D) of the items with these ids, which may repeat.

        Raises:
            InvalidInputError: If ids are malformed, or no item has one of them.
        """
        return decode(self.codes(ids), self._codebooks)

    def remove(self, ids: Ids) -> int:
        """Remove the items with these ids; return how many there were.

        Raises:
            InvalidInputError: If the index cannot remove: a flat one without IDMap2 would renumber
                its items, IDMap over IVF would confuse them (IDMap closes the gap in its table,
                IVF keeps its numbers), and FastScan's packed blocks, Refine and HNSW do not
                support it.
        """
        ids, spec = check_ids(ids, np.size(ids)), self.spec
        if spec.fast_scan or spec.graph or bool(spec.nlist) == bool(spec.id_map):
            id_map = "" if spec.nlist else "IDMap2"
            able = FactorySpec(spec.M, spec.nbits, spec.nlist, spec.coarse, id_map=id_map)
            raise InvalidInputError(f"{spec} cannot remove items. Build with '{able}' to do that.")
        self._numbering.free()  # before they are gone: an id is not given twice
        return int(self.index.remove_ids(ids))

    def save(self, path: Path) -> None:
        """Write the index to one file that plain ``faiss.read_index`` reads."""
        with atomic_file(Path(path)) as partial:
            write_index(self.index, partial)

    @classmethod
    def open(cls, path: Path, codebooks: Codebooks) -> FaissEngine:
        """Read an index that holds exactly these codebooks.

        Raises:
            ArtifactError: If the file is damaged, of another kind, or holds other codebooks.
        """
        index, spec = open_index(Path(path), codebooks)
        return cls(index, spec, codebooks)

    @property
    def bytes_per_vector(self) -> float:
        """Bytes of packed code, of 8-byte ids for IVF and IDMap, and of the links of a graph."""
        return bytes_per_vector(self.layers, self.spec, len(self))

    def describe(self) -> dict[str, Any]:
        """Plain values for people and logs."""
        spec = self.spec
        described = {
            "engine": self.name,
            "factory": str(spec),
            "items": len(self),
            "exact": not (spec.nlist or spec.fast_scan or spec.graph),
            "bytes_per_vector": self.bytes_per_vector,
        }
        if spec.nlist:
            described |= {"nlist": spec.nlist, "nprobe": int(self.layers.core.nprobe)}
        return described

    def __len__(self) -> int:
        return int(self.index.ntotal)
