"""The engine: learned codes in a Milvus collection, ranked by AQS; and packed bits beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from ..._arrays import Codes, Ids, Vectors, check_codes
from ..._files import UNREADABLE, check_readable, first_line
from ...codebooks import Codebooks
from ...errors import ArtifactError, InvalidInputError
from . import schema
from .collection import MilvusCollection
from .connection import Server, check_file, connect, is_file
from .filling import check_fill, fill
from .indexing import Progress
from .profile import Profile
from .profiles import Hamming, get_profile
from .schema import Columns
from .searching import MilvusHits, search
from .verification import Verification, verify


class MilvusEngine:
    """Learned codes in a Milvus collection.

    Attributes:
        collection: The collection: upsert, fields, partitions, loading, dropping.
        codebooks: The codebooks that the codes belong to.
    """

    name: ClassVar[str] = "milvus"
    file_name: ClassVar[str] = "milvus.json"

    def __init__(self, collection: MilvusCollection, codebooks: Codebooks) -> None:
        self.collection, self.codebooks = collection, codebooks

    @classmethod
    def build(
        cls,
        codebooks: Codebooks,
        codes: Codes,
        ids: Ids | None = None,
        *,
        collection: str = "",
        uri: str | Path | None = None,
        profile: str = "exact",
        profile_options: Mapping[str, Any] | None = None,
        columns: Columns | None = None,
        token: str | None = None,
        db_name: str = "",
        partition: str = "",
        consistency_level: str = "Session",
        resume: bool = False,
        overwrite: bool = False,
        patience: float = 60.0,
        check: Callable[[MilvusEngine], None] | None = None,
        on_progress: Progress | None = None,
    ) -> MilvusEngine:
        """A collection that holds ``codes`` (n, M), indexed and loaded.

        Args:
            codebooks: The learned codebooks.
            codes: uint8, shape (n, M).
            ids: int64, shape (n,); 0..n-1 if None.
            collection: The collection's name; there must be one.
            uri: A server's address or a ``.db`` file; see `connect`.
            profile: How codes are stored; see `mecoq_index.engines.milvus.profiles`.
            profile_options: Options of the profile, such as ``precision`` or ``nbits``.
            columns: Scalar fields to filter by and to be given back, of n values each.
            token: Credentials; see `connect`.
            db_name: The database on the server.
            partition: The partition that the rows go into.
            consistency_level: What searches see unless they say otherwise.
            resume: Go on with what an earlier call with these rows left unfinished.
            overwrite: Replace a collection of this name, once the new one is whole.
            patience: Seconds for which transient errors are tried again; see `connect`.
            check: Looks at the new collection before it takes its name, for instance by `verify`;
                what it raises ends the call.
            on_progress: Told what is done, steps done and steps in all.

        Raises:
            InvalidInputError: If arguments are malformed, the collection exists, or the server
                cannot hold the profile.
            ServerError: If the server is out of reach, refuses, or fails.
        """
        made = _named_profile(collection, profile, codebooks, profile_options)
        connection = connect(uri, token=token, db_name=db_name, patience=patience)
        filled = MilvusCollection(connection, collection, made)
        fill(
            filled,
            codes,
            ids,
            columns,
            partition=partition,
            consistency_level=consistency_level,
            resume=resume,
            overwrite=overwrite,
            check=None if check is None else lambda new: check(cls(new, codebooks)),
            on_progress=on_progress,
        )
        return cls(filled, codebooks)

    @classmethod
    def check_build(
        cls,
        codebooks: Codebooks,
        *,
        collection: str = "",
        uri: str | Path | None = None,
        profile: str = "exact",
        profile_options: Mapping[str, Any] | None = None,
        token: str | None = None,
        db_name: str = "",
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        """Refuse what `build` would refuse, before any codes are made for it.

        Nothing is written, not even the file that a milvus-lite is to be.

        Raises:
            InvalidInputError: If arguments are malformed, the collection exists, or the server
                cannot hold the profile.
            ServerError: If the server is out of reach, refuses, or fails.
        """
        made = _named_profile(collection, profile, codebooks, profile_options)
        if uri is not None and is_file(str(uri)) and not check_file(Path(uri)).exists():
            made.check_server(Server(is_lite=True, version=()))
            return
        connection = connect(uri, token=token, db_name=db_name)
        target = MilvusCollection(connection, collection, made)
        check_fill(target, resume=resume, overwrite=overwrite)

    @classmethod
    def attach(
        cls,
        codebooks: Codebooks,
        collection: str,
        *,
        uri: str | Path | None = None,
        token: str | None = None,
        db_name: str = "",
        patience: float = 60.0,
    ) -> MilvusEngine:
        """An engine for a collection that is there, loaded if it was not.

        Raises:
            InvalidInputError: If there is none, or it was made with other codebooks, or not by
                this package.
            ServerError: If the server is out of reach, refuses, or fails.
        """
        schema.check_target(collection)
        connection = connect(uri, token=token, db_name=db_name, patience=patience, new=False)
        description = schema.describe(connection, collection)
        name = schema.check_made_here(description)
        profile = get_profile(name, codebooks, **schema.profile_options(description))
        schema.check(description, profile)
        found = MilvusCollection(connection, collection, profile)
        found.make_searchable()
        return cls(found, codebooks)

    def add(
        self,
        codes: Codes,
        ids: Ids | None = None,
        *,
        columns: Columns | None = None,
        partition: str = "",
    ) -> None:
        """Add codes (n, M) under ``ids``, or under the next free numbers.

        Raises:
            InvalidInputError: If arguments are malformed, or an id is taken.
            ServerError: If the server fails.
        """
        codes = check_codes(codes, self.codebooks.M, self.codebooks.K)
        self.collection.add(codes, ids, columns, partition=partition)

    def search(self, z: Vectors, k: int, **options: Any) -> MilvusHits:
        """The k best items for each raw query (nq, D), missing results -1 and -inf.

        Takes the options of `mecoq_index.engines.milvus.searching.search` by keyword.
        """
        return search(self.collection, z, k, **options)

    def verify(self, **options: Any) -> Verification:
        """Compare what Milvus holds and returns with the reference; see `verification.verify`."""
        return verify(self.collection, self.codebooks, **options)

    def ids(self) -> Ids:
        """The ids (n,) of all items, ascending."""
        return self.collection.ids()

    def codes(self, ids: Ids) -> Codes:
        """The codes (n, M) of the items with these ids."""
        return self.collection.codes(ids)

    def remove(self, ids: Ids) -> int:
        """Remove the items with these ids; return how many there were."""
        return self.collection.remove(ids)

    def save(self, path: Path) -> None:
        """Write where the collection is, without credentials."""
        where = {
            "uri": self.collection.connection.uri,
            "db_name": self.collection.connection.db_name,
            "collection": self.collection.name,
        }
        path.write_text(json.dumps(where) + "\n", encoding="utf-8")

    @classmethod
    def open(cls, path: Path, codebooks: Codebooks, *, token: str | None = None) -> MilvusEngine:
        """Attach to the collection that `save` wrote down.

        Args:
            path: The file.
            codebooks: The codebooks that the codes belong to.
            token: Credentials; see `connect`.

        Raises:
            ArtifactError: If the file is damaged.
            InvalidInputError: If the collection is gone, or was made with other codebooks.
            ServerError: If the server is out of reach, refuses, or fails.
        """
        try:
            where = json.loads(check_readable(path).read_text(encoding="utf-8"))
            collection, uri, db_name = where["collection"], where["uri"], where["db_name"]
        except UNREADABLE as exc:
            raise ArtifactError(f"{path} is damaged: {first_line(exc)}") from exc
        return cls.attach(codebooks, collection, uri=uri, token=token, db_name=db_name)

    @property
    def bytes_per_vector(self) -> float:
        """Bytes of index memory an item by the profile's reckoning, 8 of id included."""
        return self.collection.profile.bytes_per_vector + 8.0

    def describe(self) -> dict[str, Any]:
        """Plain values for people and logs."""
        return describe(self.collection)

    def __len__(self) -> int:
        return len(self.collection)


def _named_profile(
    collection: str, profile: str, codebooks: Codebooks, options: Mapping[str, Any] | None
) -> Profile:
    if not collection:
        raise InvalidInputError("collection must be the name of the collection to make, got none.")
    return get_profile(profile, codebooks, **(options or {}))


class MilvusHamming:
    """Packed bits in a Milvus collection, by Hamming distance: what AQS is compared with.

    Attributes:
        collection: The collection.
    """

    def __init__(self, collection: MilvusCollection) -> None:
        self.collection = collection

    @classmethod
    def build(
        cls,
        bits: Codes,
        ids: Ids | None = None,
        *,
        collection: str,
        uri: str | Path | None = None,
        token: str | None = None,
        db_name: str = "",
        hasher: str = "",
        patience: float = 60.0,
        **options: Any,
    ) -> MilvusHamming:
        """A collection that holds packed bits (n, bits / 8); options as of `filling.fill`.

        Args:
            bits: uint8, shape (n, bits / 8), as of ``np.packbits`` or a baseline's ``encode``.
            ids: int64, shape (n,); 0..n-1 if None.
            collection: The collection's name.
            uri: A server's address; see `connect`.
            token: Credentials; see `connect`.
            db_name: The database on the server.
            hasher: A name for what made the bits; a collection is only resumed by its own.
            patience: Seconds for which transient errors are tried again.
            options: Further arguments of `mecoq_index.engines.milvus.filling.fill`.

        Raises:
            InvalidInputError: If arguments are malformed, or the server has no binary vectors.
            ServerError: If the server is out of reach, refuses, or fails.
        """
        if getattr(bits, "ndim", 0) != 2:
            raise InvalidInputError("bits must be a uint8 array of shape (n, bits / 8).")
        profile: Profile = Hamming(8 * bits.shape[1], hasher=hasher)
        connection = connect(uri, token=token, db_name=db_name, patience=patience)
        filled = MilvusCollection(connection, collection, profile)
        fill(filled, bits, ids, **options)
        return cls(filled)

    def search(self, q: Codes, k: int, **options: Any) -> MilvusHits:
        """The k nearest rows for packed bits (nq, bits / 8); scores are numbers of equal bits."""
        return search(self.collection, q, k, **options)

    @property
    def bytes_per_vector(self) -> float:
        """Bits / 8, and 8 of id."""
        return self.collection.profile.bytes_per_vector + 8.0

    def describe(self) -> dict[str, Any]:
        """Plain values for people and logs."""
        return describe(self.collection)

    def __len__(self) -> int:
        return len(self.collection)


def describe(collection: MilvusCollection) -> dict[str, Any]:
    """Plain values on a collection, for people and logs."""
    profile = collection.profile
    return {
        "engine": "milvus",
        "server": str(collection.connection.server),
        "uri": collection.connection.uri,
        "collection": collection.name,
        "profile": profile.name,
        "index": profile.index_type,
        "items": len(collection),
        "exact": profile.exact,
        "bytes_per_vector": profile.bytes_per_vector + 8.0,
    }
