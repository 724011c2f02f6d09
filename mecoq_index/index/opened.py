"""An index that was built or opened: what it holds, and searching it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .._arguments import check_known
from .._arrays import check_k
from .._progress import Progress, silent
from ..codebooks import Codebooks, VectorKind
from ..data.source import Source
from ..engines.abilities import Verifiable, Verification
from ..engines.base import Engine, Stage
from ..errors import InvalidInputError
from ._lock import ReadersWriterLock
from .bundle import Bundle
from .contents import Contents
from .names import Names
from .queries import Embedders, as_rows
from .results import SearchResults

_ALL_FIELDS = "output_fields"


class OpenedIndex:
    """The part of `Index` that changes nothing.

    Args:
        engine: Holds the codes.
        contents: Names and columns of the items, unless the engine stores them.
        bundle: The folder that it was opened from; None for none.
        address: The address of the items; None for none.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        contents: Contents | None = None,
        bundle: Bundle | None = None,
        address: str | None = None,
    ) -> None:
        self._engine, self._contents = engine, contents or Contents()
        self._bundle, self._address = bundle, address
        self._is_changed = False
        self._lock = ReadersWriterLock()
        self._embedders = Embedders(engine.codebooks)
        self.skipped: Sequence[tuple[int, str]] = ()
        """Number and reason of the images that the last build or `add` could not read."""

    @property
    def engine(self) -> Engine:
        """The engine that holds the codes."""
        return self._engine

    @property
    def codebooks(self) -> Codebooks:
        """The codebooks of the items."""
        return self._engine.codebooks

    @property
    def names(self) -> Names:
        """The names of the items, by id; of length 0 if they have none, or the engine has them."""
        return self._contents.names

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that items carry."""
        stored = getattr(self._engine, "columns", None)
        return (
            tuple(stored())
            if self._engine.stores_columns and stored
            else self._contents.columns.names
        )

    @property
    def path(self) -> Path | None:
        """The folder of the index; None in memory and for an index at an address."""
        return None if self._bundle is None else self._bundle.path

    def __len__(self) -> int:
        """Number of items."""
        return len(self._engine)

    def __repr__(self) -> str:
        return f"Index({self._address or self.path or 'in memory'}: {self.summary()})"

    def summary(self) -> str:
        """A few words: how many items of how many bytes, and how they are laid out."""
        described = self._engine.describe()
        layout = described.get("factory", described.get("profile", ""))
        return (
            f"{len(self):,} items of {self._engine.bytes_per_vector:g} bytes, "
            f"{self._engine.name} {layout}"
        ).strip()

    @property
    def address(self) -> str | None:
        """The address of the items; None if they are in memory or in the index's folder."""
        return self._address or getattr(self._engine, "address", None)

    def values(self) -> dict[str, list[Any]]:
        """Names (as ``name``) and columns that the index keeps, in the order of ascending ids."""
        return self._contents.values()

    def describe(self) -> dict[str, Any]:
        """Plain values on the index, for people and logs."""
        return self._engine.describe()

    def search(
        self,
        query: Source,
        k: int = 10,
        *,
        given: VectorKind | None = None,
        backbone: str | None = None,
        device: str | None = None,
        workers: int = 0,
        strict: bool = True,
        progress: Progress = silent,
        **options: Any,
    ) -> SearchResults:
        """The k best items for each query.

        Args:
            query: One vector, or vectors (nq, D) or (nq, P), of any float or integer dtype; or an
                image, a folder, paths, a table, as for `build`.
            k: Results per query. Fewer items give fewer hits.
            given: Whether vectors are features or embeddings; told apart by their width if None.
            backbone, device, workers, strict: As for `build`.
            progress: Called with (text, done, total) while queries are embedded.
            options: Options of the engine for searching, of this call only: for FAISS ``nprobe``,
                ``k_factor``, ``ef_search``; for Milvus ``filter``, ``ef`` and others.

        Returns:
            `SearchResults`: ``scores, ids = results``; ``results[0]`` are the hits of query 0.

        Raises:
            InvalidInputError: If the query does not fit the codebooks, or an option is unknown.
            ServerError: If a server is out of reach, refuses, or fails.
        """
        k = check_k(k)
        self._check_options(options, "search")
        embedder = self._embedders.get(given, backbone, device, workers, strict)
        embedded = embedder.embed(as_rows(query), on_progress=progress)
        with self._lock.reading():
            if self._engine.stores_columns and self.columns:
                options.setdefault(_ALL_FIELDS, list(self.columns))
            hits = self._engine.search(embedded.z, k, **options)
            contents = self._contents
        queries = embedded.names or [str(row) for row in range(len(embedded.z))]
        return SearchResults(
            hits.scores, hits.ids, hits.fields, queries, contents.names, contents.columns
        )

    def verify(self) -> Verification:
        """Compare what the engine holds and returns with exact scores.

        Raises:
            InvalidInputError: If the engine cannot be verified: its results are exact, or say so.
        """
        if not isinstance(self._engine, Verifiable):
            raise InvalidInputError(
                f"an index of {self._engine.name} lies in its own file, which was checked when it "
                "was opened. Only engines that keep items elsewhere are verified."
            )
        return self._engine.verify()

    def _check_options(self, options: Mapping[str, Any], stage: Stage) -> None:
        known = [o.name for o in self._engine.options if stage in o.stages]
        check_known(options, known, what=f"{stage} option of the {self._engine.name} engine")
