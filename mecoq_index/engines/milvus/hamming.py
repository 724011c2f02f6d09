"""Packed bits in a Milvus collection, by Hamming distance: the baseline of learned codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..._arrays import Codes, Ids
from ...errors import InvalidInputError
from ..hits import Hits
from . import schema
from .batches import check_rows
from .collection import MilvusCollection
from .connection import connect
from .description import describe
from .filling import fill
from .profiles import Hamming
from .searching import search


class MilvusHamming:
    """Packed bits in a Milvus collection.

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
        database: str | None = None,
        hasher: str = "",
        patience: float = 60.0,
        **options: Any,
    ) -> MilvusHamming:
        """A collection that holds packed bits (n, bits / 8).

        Args:
            bits: uint8, shape (n, bits / 8), as of ``np.packbits`` or a baseline's ``encode``.
            ids: Integers, shape (n,); None for 0..n-1.
            collection: The collection's name.
            uri: A server's address; see `connect`.
            token: Credentials; see `connect`.
            database: The database on the server.
            hasher: A name of the method that made the bits, so that those of others are refused.
            patience: Seconds for which calls that fail transiently are repeated.
            options: Further arguments of `mecoq_index.engines.milvus.filling.fill`.

        Raises:
            InvalidInputError: If arguments are malformed, or the server has no binary vectors.
            ServerError: If the server is out of reach, refuses, or fails.
        """
        if getattr(bits, "ndim", 0) != 2:
            raise InvalidInputError(
                "bits must be a uint8 array of shape (n, bits / 8), got "
                f"{getattr(bits, 'shape', type(bits).__name__)}."
            )
        profile = Hamming(8 * bits.shape[1], hasher=hasher)
        schema.check_name(collection)
        check_rows(profile, bits, ids, options.get("columns"))
        connection = connect(
            uri, token=token, database=database, patience=patience, check=profile.check_server
        )
        filled = MilvusCollection(connection, collection, profile)
        fill(filled, bits, ids, **options)
        return cls(filled)

    def search(self, q: Codes, k: int, **options: Any) -> Hits:
        """The k nearest rows for packed bits (nq, bits / 8); scores are numbers of equal bits.

        Raises:
            InvalidInputError: If arguments are malformed.
            ServerError: If the server fails.
        """
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
