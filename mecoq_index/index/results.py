"""What a search of an index returns: arrays for programs, hits with names for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from .._optional import require
from ..engines.hits import Hits
from .columns import ItemColumns
from .names import Names

if TYPE_CHECKING:
    import pandas as pd

_SHOWN_QUERIES = 3
_SHOWN_HITS = 10
_WIDTH = 80


@dataclass(frozen=True)
class Hit:
    """One result.

    Attributes:
        id: The item's id.
        score: AQS, larger is better.
        name: The item's name; None if items have no names.
        fields: The item's columns, by name.
    """

    id: int
    score: float
    name: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


class QueryHits(Sequence[Hit]):
    """The results of one query, best first, without those that are missing."""

    def __init__(self, query: str, hits: Sequence[Hit]) -> None:
        self.query = query
        """What the query is called: a path, or the number of its row."""
        self._hits = list(hits)

    @overload
    def __getitem__(self, place: int) -> Hit: ...

    @overload
    def __getitem__(self, place: slice) -> list[Hit]: ...

    def __getitem__(self, place: int | slice) -> Hit | list[Hit]:
        return self._hits[place]

    def __len__(self) -> int:
        return len(self._hits)

    def to_list(self) -> list[dict[str, Any]]:
        """One dictionary a hit: ``id``, ``score``, ``name`` if there is one, and the columns."""
        return [_plain(hit) for hit in self]

    def __repr__(self) -> str:
        lines = [f"query {self.query}: {len(self)} hits"]
        for rank, hit in enumerate(self[:_SHOWN_HITS], start=1):
            lines.append(_line(rank, hit))
        if len(self) > _SHOWN_HITS:
            lines.append(f"       ... and {len(self) - _SHOWN_HITS} more")
        return "\n".join(lines)


@dataclass(frozen=True, eq=False, repr=False)
class SearchResults(Hits):
    """The results of all queries: ``scores, ids = results``, or ``for hit in results[0]``.

    Iterating gives two arrays, scores and ids, as ``faiss.Index.search`` returns them. Indexing
    gives the hits of one query.

    Attributes:
        queries: What each query is called: a path, or the number of its row.
        names: The names of items, by id; of length 0 without names.
        columns: The columns of items, by id; of length 0 without columns.
    """

    queries: Sequence[str] = ()
    names: Names = field(default_factory=lambda: Names.from_strings([]))
    columns: ItemColumns = field(default_factory=ItemColumns.none)

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.ids)

    def __getitem__(self, query: int) -> QueryHits:
        """The hits of one query, by its number.

        Raises:
            IndexError: If there is no such query.
        """
        ids, scores = self.ids[query], self.scores[query]
        query = range(len(self))[query]
        found = np.flatnonzero(ids >= 0)
        carried = self.fields[query] if self.fields else [self.columns[int(i)] for i in ids[found]]
        hits = []
        for place, values in zip(found.tolist(), carried, strict=False):
            id, fields = int(ids[place]), dict(values)
            name = self.names[id] if len(self.names) else fields.pop("name", None)
            hits.append(Hit(id, float(scores[place]), name, fields))
        return QueryHits(self.queries[query] if self.queries else str(query), hits)

    def rows(self) -> Iterator[QueryHits]:
        """The hits of each query, in order."""
        return (self[query] for query in range(len(self)))

    def to_list(self) -> list[list[dict[str, Any]]]:
        """For each query a list of dictionaries, see `QueryHits.to_list`."""
        return [hits.to_list() for hits in self.rows()]

    def to_pandas(self) -> pd.DataFrame:
        """A ``pandas.DataFrame`` with a row a hit: query, rank (from 1), and what `to_list` has.

        Raises:
            MissingDependencyError: If pandas is not installed.
        """
        pandas = require("pandas", extra=None, purpose="results as a table")
        rows = [
            {"query": hits.query, "rank": rank, **_plain(hit)}
            for hits in self.rows()
            for rank, hit in enumerate(hits, start=1)
        ]
        frame: pd.DataFrame = pandas.DataFrame(rows)
        return frame

    def __repr__(self) -> str:
        shown = [repr(self[query]) for query in range(min(len(self), _SHOWN_QUERIES))]
        if len(self) > _SHOWN_QUERIES:
            shown.append(f"... and {len(self) - _SHOWN_QUERIES} more queries")
        return "\n".join(shown) or "no queries"

    def __reduce__(self) -> tuple[Any, ...]:
        # Only the names and columns of the items found are worth keeping.
        ids = np.unique(self.ids[self.ids >= 0])
        names, columns = self.names.of_ids(ids), self.columns.of_ids(ids)
        rest = (self.scores, self.ids, self.fields, self.queries)
        return type(self), (*rest, names, columns)


def _plain(hit: Hit) -> dict[str, Any]:
    named = {} if hit.name is None else {"name": hit.name}
    return {"id": hit.id, "score": hit.score, **named, **hit.fields}


def _line(rank: int, hit: Hit) -> str:
    called = str(hit.id) if hit.name is None else hit.name
    fields = "".join(f"  {name}={value}" for name, value in hit.fields.items())
    line = f"{rank:5d}  {hit.score:9.4f}  {called}{fields}"
    return line if len(line) <= _WIDTH else line[: _WIDTH - 3] + "..."
