"""Plain values that describe a collection."""

from __future__ import annotations

from typing import Any

from .collection import MilvusCollection


def describe(collection: MilvusCollection) -> dict[str, Any]:
    """Plain values on a collection, for people and logs."""
    profile, connection = collection.profile, collection.connection
    database = {"database": connection.database} if connection.database else {}
    return {
        "engine": "milvus",
        "server": str(connection.server),
        "uri": connection.uri,
        **database,
        "collection": collection.name,
        "profile": profile.name,
        "index": profile.index_type,
        "items": len(collection),
        "exact": profile.exact,
        "bytes_per_vector": profile.bytes_per_vector + 8.0,
    }
