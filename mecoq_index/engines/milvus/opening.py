"""Reaching a collection that exists and its codebooks, by an address or a file that holds one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..._files import atomic_file
from ..._json import read_json
from ..._reading import named_damage
from ...codebooks import Codebooks
from ...errors import ArtifactError, InvalidInputError
from . import codebook_store, schema
from .address import Place, is_file, locate, locate_database
from .collection import MilvusCollection
from .connection import Connection, connect
from .lite import from_stored, to_stored
from .profiles import get_profile

_GLOBAL_CLUSTER = "global-cluster"  # in an address, for pymilvus


def open_collection(
    place: Place, codebooks: Codebooks | None, *, token: str | None, patience: float = 60.0
) -> tuple[MilvusCollection, Codebooks]:
    """Return the collection at a place, loaded, and its codebooks.

    Args:
        place: The place; without a collection, the only one of this package is meant.
        codebooks: The codebooks; None for those that are stored beside the collection.
        token: Credentials, see `connect`.
        patience: Seconds for which calls that fail transiently are repeated.

    Raises:
        InvalidInputError: If there is no such collection or more than one, another program made
            it, it was made with other codebooks, or its codebooks cannot be read.
        ServerError: If the server is out of reach, refuses, or fails.
    """
    if place.collection:
        schema.check_target(place.collection)
    connection = connect(place, token=token, patience=patience, new=False)
    name = place.collection or _only_collection(connection)
    description = schema.describe(connection, name)
    profile_name = schema.check_made_here(description)
    if codebooks is None:
        codebooks = _stored_codebooks(connection, description)
    profile = get_profile(profile_name, codebooks, **schema.profile_options(description))
    schema.check(description, profile)
    collection = MilvusCollection(connection, name, profile)
    collection.make_searchable()
    return collection, codebooks


def _only_collection(connection: Connection) -> str:
    """The only collection of this package in a database.

    Raises:
        InvalidInputError: If there is none, or more than one.
    """
    names = [
        name
        for name in sorted(map(str, connection.call("list_collections")))
        if not name.endswith(schema.UNFINISHED)
        and schema.is_made_here(schema.describe(connection, name))
    ]
    if not names:
        raise InvalidInputError(
            f"there is no collection of this package at {connection.uri}. Check the address."
        )
    if len(names) > 1:
        raise InvalidInputError(
            f"the address must name one of the collections at {connection.uri}, which are {names}, "
            f"for instance {connection.uri}/{names[0]}."
        )
    return names[0]


def _stored_codebooks(connection: Connection, description: Mapping[str, Any]) -> Codebooks:
    if not schema.has_codebooks(description):
        raise InvalidInputError(
            f"the codebooks of collection {description['collection_name']!r} are not stored beside "
            "it. Pass the codebooks that it was made with."
        )
    return codebook_store.fetch(connection, schema.fingerprint(description))


def write_place(path: Path, collection: MilvusCollection) -> None:
    """Write the place of a collection, without credentials, to a JSON file."""
    uri = collection.connection.uri
    where = {
        "uri": to_stored(Path(uri), path) if is_file(uri) else uri,
        "database": collection.connection.database,
        "collection": collection.name,
    }
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(where) + "\n", encoding="utf-8")


def find_place(
    path: Path,
    *,
    uri: str | Path | None = None,
    collection: str | None = None,
    database: str | None = None,
) -> Place:
    """The place that `write_place` wrote, or what the person names instead of its parts.

    Raises:
        ArtifactError: If the file is missing or damaged.
        InvalidInputError: If ``uri`` is malformed or does not fit ``database``, or the file names a
            milvus-lite file that must not be opened on its word.
    """
    place = read_place(path)
    if uri is not None:
        named = locate_database(uri, database)
        if not is_file(named.uri):
            named = replace(named, database=named.database or place.database)
        place = replace(named, collection=place.collection)
    elif is_file(place.uri):
        place = replace(place, uri=str(from_stored(place.uri, path)))
    return replace(
        place, collection=collection or place.collection, database=database or place.database
    )


def read_place(path: Path) -> Place:
    """Read the place that `write_place` wrote.

    Raises:
        ArtifactError: If the file is missing or damaged.
    """
    with named_damage(f"{path} is damaged"):
        where = read_json(path)
        # Releases up to 0.4 wrote db_name.
        database = where["database"] if "database" in where else where["db_name"]
        found = (where["uri"], database, where["collection"])
        if not all(isinstance(value, str) for value in found) or not where["uri"]:
            raise TypeError("uri, database and collection must be texts")
    if is_file(found[0]):
        return Place(found[0], collection=found[2], named_by=str(path))
    return _server(path, *found)


def _server(path: Path, uri: str, database: str, collection: str) -> Place:
    """The place on a server that a file names; the file may hold nothing but names.

    Credentials in it would be somebody else's, and pymilvus asks a global cluster for the address
    of another server.
    """
    try:
        place = locate(uri, collection=collection, database=database)
    except InvalidInputError as exc:
        raise ArtifactError(f"{path} is damaged: {exc}") from exc
    if place.token or _GLOBAL_CLUSTER in place.uri.lower():
        raise ArtifactError(
            f"{path} must name a server without credentials, and no global cluster, but does not. "
            "Name the server yourself, with --uri (in Python uri=...)."
        )
    return replace(place, named_by=str(path))
