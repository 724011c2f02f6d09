"""A collection of codes in Milvus: rows in and out, and the life of its index.

Inserting a row twice makes two rows of one id, and Milvus does not say so. An insertion whose fate
is unknown (the connection broke) is therefore never repeated blindly: the server is asked which of
its ids are there, and the others are sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._arrays import Codes, Ids, check_ids, distinct_ids
from ...errors import InvalidInputError, ServerError
from . import schema
from .batches import Batch, split
from .connection import Connection, TransientError
from .indexing import Progress, wait_for_index
from .profile import Profile
from .schema import ID, VECTOR, Columns

_MAX_IDS = 5000  # named in one request
_DEFAULT_PARTITION = "_default"
_PAGE = 8192  # rows a page where all are listed; Milvus's limit is 16,384
_SLOW_SECONDS = 3600.0


class MilvusCollection:
    """Codes in one collection.

    Attributes:
        connection: The Milvus that it is in.
        name: The collection's name.
        profile: How codes are stored and searched.
    """

    def __init__(self, connection: Connection, name: str, profile: Profile) -> None:
        self.connection, self.profile = connection, profile
        self.name = schema.check_name(name)

    def renamed(self, name: str) -> MilvusCollection:
        """The same profile at the same server under another name."""
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
    ) -> None:
        """Make the collection, empty and without an index.

        Args:
            columns: The scalar fields, as arrays of the right types; may be empty.
            consistency_level: What searches see unless they say otherwise.
            content: A digest of what it is to hold.

        Raises:
            InvalidInputError: If the server cannot hold the profile.
            ServerError: If the server refuses or fails, or there is such a collection.
        """
        self.profile.check_server(self.connection.server)
        schema.create(
            self.connection, self.name, self.profile, columns or {}, consistency_level, content
        )

    def content(self) -> str:
        """The digest that `create` was told; empty if none."""
        return schema.content(schema.describe(self.connection, self.name))

    def check(self) -> None:
        """Refuse a collection that does not fit the profile.

        Raises:
            InvalidInputError: If there is none, or it is foreign, of another profile or codebooks.
        """
        schema.check(schema.describe(self.connection, self.name), self.profile)

    # Rows in.

    def insert(
        self,
        codes: Codes,
        ids: Ids,
        columns: Columns | None = None,
        *,
        partition: str = "",
        skip_present: bool = False,
        on_progress: Progress | None = None,
    ) -> int:
        """Send rows in batches, each of which the server has taken before the next one goes.

        Args:
            codes: uint8, shape (n, width of a code).
            ids: int64, shape (n,).
            columns: The scalar fields of the rows.
            partition: The partition to put them into; made if it is not there.
            skip_present: Leave out rows whose ids are there already.
            on_progress: Told "inserting", rows done and rows in all.

        Returns:
            How many rows were sent.

        Raises:
            InvalidInputError: If arguments are malformed.
            ServerError: If the server fails.
        """
        batches = split(self.profile, codes, ids, columns)
        self._check_columns(columns)
        self._make_partition(partition)
        sent = done = 0
        for batch in batches:
            rows = self._absent(batch) if skip_present else batch.rows()
            if rows:
                self._send(batch, rows, partition)
            sent += len(rows)
            done += len(batch.ids)
            if on_progress is not None:
                on_progress("inserting", done, len(ids))
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

        Looking for that lists all ids. Of two programs that add at once, each must give its own.

        Raises:
            InvalidInputError: If arguments are malformed, or an id is taken.
            ServerError: If the server fails.
        """
        if ids is None:
            held = self.ids()
            first = int(held[-1]) + 1 if len(held) else 0
            ids = np.arange(first, first + len(codes), dtype=np.int64)
        else:
            ids = check_ids(ids, len(codes))
            if len(taken := self.held(ids)):
                raise InvalidInputError(
                    f"ids must be new, but {len(taken)} are held already, for instance "
                    f"{taken[0]}. upsert() replaces."
                )
        self.insert(codes, ids, columns, partition=partition)

    def upsert(
        self, codes: Codes, ids: Ids, columns: Columns | None = None, *, partition: str = ""
    ) -> None:
        """Put rows in the place of those with their ids, or add them.

        Raises:
            InvalidInputError: If arguments are malformed, the index cannot do without rows, or an
                id is held by another partition, where Milvus would leave it.
            ServerError: If the server fails.
        """
        self.profile.check_skipping(self.connection.server, "replacing rows")
        batches = split(self.profile, codes, ids, columns)
        self._check_columns(columns)
        self._make_partition(partition)
        own = partition or _DEFAULT_PARTITION
        others = [p for p in self.connection.call("list_partitions", self.name) if p != own]
        if others and len(elsewhere := self.held(ids, partitions=others)):
            raise InvalidInputError(
                f"ids must be new or held by partition {own!r}, but {len(elsewhere)} are held by "
                f"others, for instance {elsewhere[0]}. Name their partition, or remove them first."
            )
        for batch in batches:
            self.connection.call("upsert", self.name, batch.rows(), partition_name=partition)

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

    def _send(self, batch: Batch, rows: list[dict[str, Any]], partition: str) -> None:
        try:
            self._insert_once(rows, partition)
        except TransientError:

            def complete() -> None:
                if absent := self._absent(batch):
                    self._insert_once(absent, partition)

            self.connection.persist(complete)

    def _insert_once(self, rows: list[dict[str, Any]], partition: str) -> None:
        where = {"partition_name": partition} if partition else {}
        result = self.connection.call_once("insert", self.name, rows, **where)
        if result["insert_count"] != len(rows):
            raise ServerError(
                f"Milvus at {self.connection.uri} took {result['insert_count']} of {len(rows)} "
                "rows."
            )

    def _absent(self, batch: Batch) -> list[dict[str, Any]]:
        """The rows of a batch whose ids the server does not have."""
        present = np.isin(batch.ids, self.held(batch.ids))
        return [row for row, there in zip(batch.rows(), present, strict=True) if not there]

    # Rows out.

    def __len__(self) -> int:
        return int(self._query("", ["count(*)"])[0]["count(*)"])

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
                found += [row[ID] for row in page]
        finally:
            iterator.close()
        return np.unique(np.array(found, np.int64))

    def codes(self, ids: Ids) -> Codes:
        """The codes of the rows with these ids, which may repeat, in their order.

        Raises:
            InvalidInputError: If ids are malformed, or one is not held.
        """
        wanted, places = distinct_ids(ids)
        return np.ascontiguousarray(self.profile.codes(self.values(wanted))[places])

    def values(self, ids: Ids) -> list[Any]:
        """What is stored in the vector field under these distinct ids, in their order.

        Raises:
            InvalidInputError: If one is not held.
        """
        stored = {row[ID]: row[VECTOR] for row in self._rows_of(ids, [ID, VECTOR])}
        missing = [i for i in ids.tolist() if i not in stored]
        if missing:
            raise InvalidInputError(
                f"ids must be held, but {len(missing)} are not, for instance {missing[0]}."
            )
        return [stored[i] for i in ids.tolist()]

    def held(self, ids: Ids, *, partitions: Sequence[str] = ()) -> Ids:
        """Those of these distinct ids that are held, by some partitions or any, ascending."""
        rows = self._rows_of(ids, [ID], partitions)
        return np.unique(np.array([row[ID] for row in rows], np.int64))

    def fields(self, ids: Ids, names: Sequence[str]) -> list[dict[str, Any]]:
        """Scalar fields of the rows with these distinct ids, in no particular order."""
        return self._rows_of(check_ids(ids, len(ids)), [ID, *names])

    def remove(self, ids: Ids) -> int:
        """Remove the rows with these ids; return how many there were.

        Raises:
            InvalidInputError: If ids are malformed, or the index cannot do without rows.
            ServerError: If the server fails.
        """
        self.profile.check_skipping(self.connection.server, "removing rows")
        held = self.held(check_ids(ids, np.size(ids)))
        for at in range(0, len(held), _MAX_IDS):
            self.connection.call("delete", self.name, ids=held[at : at + _MAX_IDS].tolist())
        return len(held)

    def remove_where(self, filter: str) -> None:
        """Remove the rows for which a filter expression holds; raises as `remove`."""
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
        return list(
            self.connection.call(
                "query",
                self.name,
                filter=filter,
                output_fields=fields,
                consistency_level="Strong",
                **where,
            )
        )

    # The life of the index.

    def finish(self, on_progress: Progress | None = None) -> None:
        """Make all rows durable, wait until the index covers them, and load it.

        Raises:
            ServerError: If the index is not built.
        """
        self.connection.call("flush", self.name, timeout=_SLOW_SECONDS)
        self._index()
        wait_for_index(self, on_progress)
        self.load()

    def index_state(self) -> dict[str, Any]:
        """What Milvus says of the index: its type, and rows indexed, pending and in all.

        Raises:
            InvalidInputError: If there is no index.
        """
        if VECTOR not in self.connection.call("list_indexes", self.name):
            raise InvalidInputError(f"collection {self.name!r} has no index; finish() builds it.")
        state: dict[str, Any] = self.connection.call("describe_index", self.name, VECTOR)
        return state

    def make_searchable(self) -> None:
        """Create the index where there is none, and load the collection unless it is loaded."""
        if self.is_loaded():
            return
        self._index()
        self.load()

    def is_loaded(self) -> bool:
        """Whether the collection is in memory and can be searched."""
        state = self.connection.call("get_load_state", self.name)["state"]
        return getattr(state, "name", str(state)) == "Loaded"

    def load(self) -> None:
        """Load the collection into the server's memory."""
        self.connection.call("load_collection", self.name, timeout=_SLOW_SECONDS)

    def release(self) -> None:
        """Release the collection from the server's memory; it stays on disk."""
        self.connection.call("release_collection", self.name)

    def drop(self) -> None:
        """Remove the collection with all its rows."""
        self.connection.call("drop_collection", self.name)

    def _index(self) -> None:
        if VECTOR in self.connection.call("list_indexes", self.name):
            return
        params = self.profile.index_params()
        index = self.connection.client.prepare_index_params()
        index.add_index(
            VECTOR,
            index_type=self.profile.index_type,
            metric_type=self.profile.metric_type,
            # pymilvus 3 flattens what it is given here, and milvus-lite reads the nested form only.
            params={"params": params} if self.connection.server.is_lite else params,
        )
        self.connection.call("create_index", self.name, index, sync=False)
