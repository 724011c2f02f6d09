"""A collection of codes in Milvus: rows in and out, and the life of its index.

Inserting a row twice makes two rows with one id, without an error. After an insertion of unknown
outcome, because the connection broke, the server is therefore asked which of the ids it has, and
only the other rows are sent again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._arrays import Codes, Ids, as_ids, distinct_ids
from ..._progress import Progress, silent
from ...errors import InvalidInputError
from ..base import Columns
from . import indexing, schema
from .answers import COUNT, check_rows_of, reading
from .batches import Rows, as_entities, check_rows, split
from .connection import Connection, TransientError
from .profile import Profile
from .schema import ID, VECTOR

_MAX_IDS = 5000  # named in one request
_STATE = ("index_type", "metric_type", "total_rows", "indexed_rows", "pending_index_rows", "state")
_DEFAULT_PARTITION = "_default"
_PAGE = 8192  # ids per page when all are listed; Milvus's limit is 16,384


class MilvusCollection:
    """Codes in one collection.

    Attributes:
        connection: The connection to its Milvus.
        name: The collection's name.
        profile: How codes are stored and searched.
    """

    def __init__(self, connection: Connection, name: str, profile: Profile) -> None:
        self.connection, self.profile = connection, profile
        self.name = schema.check_name(name)

    def renamed(self, name: str) -> MilvusCollection:
        """A collection of another name with the same profile at the same server."""
        return MilvusCollection(self.connection, name, self.profile)

    def rename(self, name: str) -> None:
        """Give the collection another name, which must be free."""
        self.connection.call("rename_collection", self.name, name)
        self.name = name

    def exists(self) -> bool:
        """Whether there is a collection of this name."""
        return bool(self.connection.call("has_collection", self.name))

    def create(
        self,
        columns: Mapping[str, npt.NDArray[Any]] | None = None,
        *,
        consistency_level: str = "Session",
        content: str = "",
        has_codebooks: bool = False,
    ) -> None:
        """Make the collection, empty and without an index.

        Args:
            columns: The scalar fields, as arrays of the right types; may be empty.
            consistency_level: Which changes by other clients searches see unless they say
                otherwise.
            content: A digest of the rows that it is going to hold.
            has_codebooks: Whether its codebooks are going to be stored beside it.

        Raises:
            InvalidInputError: If the server cannot hold the profile.
            ServerError: If the server refuses or fails, or the collection exists.
        """
        schema.create(
            self.connection,
            self.name,
            self.profile,
            columns or {},
            consistency_level,
            content=content,
            has_codebooks=has_codebooks,
        )

    def content(self) -> str:
        """The digest that was passed to `create`; empty if none."""
        return schema.content(schema.describe(self.connection, self.name))

    def check(self) -> None:
        """Refuse a collection that does not fit the profile; see `schema.check` for the errors."""
        schema.check(schema.describe(self.connection, self.name), self.profile)

    def insert(
        self,
        codes: Codes,
        ids: Ids,
        columns: Columns | None = None,
        *,
        partition: str = "",
        skip_present: bool = False,
        on_progress: Progress = silent,
    ) -> int:
        """Send rows in requests, each after the server has accepted the one before.

        Args:
            codes: uint8, shape (n, width of a code).
            ids: int64, shape (n,).
            columns: The scalar fields of the rows.
            partition: The partition to put them into; made if it does not exist.
            skip_present: Leave out rows whose ids are there already.
            on_progress: Called with ("inserting", rows done, rows in all).

        Returns:
            The number of rows that were sent.

        Raises:
            InvalidInputError: If arguments are malformed.
            ServerError: If the server fails.
        """
        rows = check_rows(self.profile, codes, ids, columns)
        self._check_columns(columns)
        self._make_partition(partition)
        sent = done = 0
        for request in split(self.profile, rows):
            entities = self._absent(request) if skip_present else self._entities(request)
            if entities:
                self._send(request, entities, partition)
            sent += len(entities)
            done += len(request.ids)
            on_progress("inserting", done, len(rows.ids))
        return sent

    def add(
        self,
        codes: Codes,
        ids: Ids | None = None,
        columns: Columns | None = None,
        *,
        partition: str = "",
    ) -> None:
        """Insert rows under new ids, or under the numbers after the largest id.

        Finding that number lists all ids. Programs that add rows at the same time must pass ids.

        Raises:
            InvalidInputError: If arguments are malformed, or an id is taken.
            ServerError: If the server fails.
        """
        if ids is None:
            taken = self.ids()
            first = int(taken[-1]) + 1 if len(taken) else 0
            ids = np.arange(first, first + len(codes), dtype=np.int64)
        else:
            ids = as_ids(ids, len(codes))
            if len(taken := self.present(ids)):
                raise InvalidInputError(
                    f"ids must be new, but {len(taken)} are taken already, for instance "
                    f"{taken[0]}. Replace those rows with collection.upsert."
                )
        self.insert(codes, ids, columns, partition=partition)

    def upsert(
        self, codes: Codes, ids: Ids, columns: Columns | None = None, *, partition: str = ""
    ) -> None:
        """Add rows, replacing those that have their ids.

        Raises:
            InvalidInputError: If arguments are malformed, the index cannot leave out replaced rows,
                or an id is in another partition, where Milvus would keep its old row.
            ServerError: If the server fails.
        """
        self.profile.check_skipping(self.connection.server, "replacing rows")
        rows = check_rows(self.profile, codes, ids, columns)
        self._check_columns(columns)
        self._make_partition(partition)
        own = partition or _DEFAULT_PARTITION
        others = [p for p in self.connection.call("list_partitions", self.name) if p != own]
        if others and len(elsewhere := self.present(ids, partitions=others)):
            raise InvalidInputError(
                f"ids must be new or in partition {own!r}, but {len(elsewhere)} are in others, for "
                f"instance {elsewhere[0]}. Name their partition, or remove them first."
            )
        for request in split(self.profile, rows):
            entities = self._entities(request)
            self.connection.call("upsert", self.name, entities, partition_name=partition)

    def _make_partition(self, partition: str) -> None:
        if not partition:
            return
        schema.check_name(partition, "a partition")
        if not self.connection.call("has_partition", self.name, partition):
            self.connection.call("create_partition", self.name, partition)

    def columns(self) -> list[str]:
        """Names of the scalar fields that every row has."""
        return schema.scalar_fields(schema.describe(self.connection, self.name))

    def _check_columns(self, columns: Columns | None) -> None:
        needed = self.columns()
        if set(needed) != set(columns or ()):
            raise InvalidInputError(
                f"rows of collection {self.name!r} must have the columns {sorted(needed)}, got "
                f"{sorted(columns or ())}."
            )

    def _send(self, request: Rows, entities: list[dict[str, Any]], partition: str) -> None:
        try:
            self._insert_once(entities, partition)
        except TransientError:

            def complete() -> None:
                if absent := self._absent(request):
                    self._insert_once(absent, partition)

            self.connection.persist(complete)

    def _insert_once(self, entities: list[dict[str, Any]], partition: str) -> None:
        where = {"partition_name": partition} if partition else {}
        result = self.connection.call_once("insert", self.name, entities, **where)
        with reading(self.connection, f"a count of {len(entities)} inserted rows"):
            if (count := result["insert_count"]) != len(entities):
                raise ValueError(f"it counts {count}")

    def _entities(self, request: Rows) -> list[dict[str, Any]]:
        return as_entities(self.profile, request)

    def _absent(self, request: Rows) -> list[dict[str, Any]]:
        """The entities of a request whose ids the server does not have."""
        present = np.isin(request.ids, self.present(request.ids))
        return [e for e, there in zip(self._entities(request), present, strict=True) if not there]

    def __len__(self) -> int:
        with reading(self.connection, "the number of rows"):
            return int(self._query("", [COUNT])[0][COUNT])

    def ids(self) -> Ids:
        """The ids (n,) of all rows, ascending."""
        self.make_searchable()
        iterator = self.connection.call(
            "query_iterator",
            self.name,
            batch_size=_PAGE,
            output_fields=[ID],
            consistency_level="Strong",
        )
        found: list[int] = []
        try:
            while page := self.connection.persist(iterator.next):
                found += [row[ID] for row in check_rows_of(self.connection, page, [ID])]
        finally:
            iterator.close()
        return np.unique(np.array(found, np.int64))

    def codes(self, ids: Ids) -> Codes:
        """The codes of the rows with these ids, which may repeat, in their order.

        Raises:
            InvalidInputError: If ids are malformed, or no row has one of them.
        """
        wanted, places = distinct_ids(ids)
        return np.ascontiguousarray(self._codes(self.values(wanted))[places])

    def values(self, ids: Ids) -> list[Any]:
        """The vector fields of the rows with these distinct ids, in their order.

        Raises:
            InvalidInputError: If no row has one of them.
        """
        return [row[VECTOR] for row in self._found(ids, [VECTOR])]

    def present(self, ids: Ids, *, partitions: Sequence[str] = ()) -> Ids:
        """Those of these distinct ids that rows have, in some partitions or in any, ascending."""
        rows = self._rows_of(ids, [ID], partitions)
        return np.unique(np.array([row[ID] for row in rows], np.int64))

    def fields(self, ids: Ids, names: Sequence[str]) -> list[dict[str, Any]]:
        """Scalar fields of the rows with these distinct ids, in no particular order."""
        return self._rows_of(as_ids(ids), [ID, *names])

    def rows(self, ids: Ids) -> tuple[Codes, dict[str, list[Any]]]:
        """Codes and columns of the rows with these distinct ids, in their order.

        Raises:
            InvalidInputError: If no row has one of them.
            ServerError: If the server fails.
        """
        columns = self.columns()
        found = self._found(ids, [VECTOR, *columns])
        codes = self._codes([row[VECTOR] for row in found])
        return codes, {name: [row[name] for row in found] for name in columns}

    def _codes(self, values: list[Any]) -> Codes:
        with reading(self.connection, "vectors of the width of the collection"):
            codes = self.profile.codes(values)
            if len(codes) != len(values):
                raise ValueError(f"{len(codes)} vectors for {len(values)} rows")
            return codes

    def _found(self, ids: Ids, fields: list[str]) -> list[dict[str, Any]]:
        rows = {row[ID]: row for row in self._rows_of(ids, [ID, *fields])}
        if missing := [i for i in ids.tolist() if i not in rows]:
            raise InvalidInputError(
                f"ids must be those of items, but {len(missing)} are not, for instance "
                f"{missing[0]}."
            )
        return [rows[i] for i in ids.tolist()]

    def remove(self, ids: Ids) -> int:
        """Remove the rows with these ids; return how many there were.

        Raises:
            InvalidInputError: If ids are malformed, or the index cannot leave out removed rows.
            ServerError: If the server fails.
        """
        self.profile.check_skipping(self.connection.server, "removing rows")
        present = self.present(as_ids(ids))
        for at in range(0, len(present), _MAX_IDS):
            self.connection.call("delete", self.name, ids=present[at : at + _MAX_IDS].tolist())
        return len(present)

    def remove_where(self, filter: str) -> None:
        """Remove the rows that satisfy a filter expression; see `remove` for the errors."""
        self.profile.check_skipping(self.connection.server, "removing rows")
        self.connection.call("delete", self.name, filter=filter)

    def _rows_of(
        self, ids: Ids, fields: list[str], partitions: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        found = []
        for at in range(0, len(ids), _MAX_IDS):
            wanted = f"{ID} in {ids[at : at + _MAX_IDS].tolist()}"
            found += self._query(wanted, fields, partitions)
        return found

    def _query(
        self, filter: str, fields: list[str], partitions: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        self.make_searchable()
        where = {"partition_names": list(partitions)} if partitions else {}
        rows = self.connection.call(
            "query",
            self.name,
            filter=filter,
            output_fields=fields,
            consistency_level="Strong",
            **where,
        )
        return check_rows_of(self.connection, rows, fields)

    def finish(self, on_progress: Progress = silent) -> None:
        """Make all rows durable, wait until the index covers them, and load it.

        Raises:
            ServerError: If the index is not built.
        """
        self.connection.call("flush", self.name, timeout=indexing.SLOW_SECONDS)
        indexing.create(self.connection, self.name, self._index())
        indexing.wait(self, on_progress)
        indexing.load(self.connection, self.name)

    def index_state(self) -> dict[str, Any]:
        """Milvus's description of the index: its type, and rows indexed, pending and in all.

        Raises:
            InvalidInputError: If there is no index.
        """
        if VECTOR not in self.connection.call("list_indexes", self.name):
            raise InvalidInputError(
                f"collection {self.name!r} must have an index, but has none. Build it with "
                "collection.finish()."
            )
        state = self.connection.call("describe_index", self.name, VECTOR)
        return check_rows_of(self.connection, [state], _STATE)[0]

    def make_searchable(self) -> None:
        """Create the index if it is missing, and load the collection unless it is loaded."""
        indexing.make_searchable(self.connection, self.name, self._index())

    def is_loaded(self) -> bool:
        """Whether the collection is in memory and can be searched."""
        return indexing.is_loaded(self.connection, self.name)

    def release(self) -> None:
        """Release the collection from the server's memory; it stays on disk."""
        self.connection.call("release_collection", self.name)

    def drop(self) -> None:
        """Remove the collection with all its rows."""
        self.connection.call("drop_collection", self.name)

    def _index(self) -> indexing.Index:
        profile = self.profile
        return indexing.Index(profile.index_type, profile.metric_type, profile.index_params())
