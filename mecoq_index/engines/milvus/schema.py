"""The schema of a collection: an id, a vector field, and the user's scalar columns.

The properties of a collection name the codebooks of its codes, so that others are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._json import parse_json
from ...errors import InvalidInputError, ServerError
from ..base import Columns
from .connection import Connection
from .libraries import import_pymilvus
from .profile import Profile

ID, VECTOR, NAME = "id", "vector", "name"
UNFINISHED = "_unfinished"
"""The end of a collection's name while it is being filled."""
CODEBOOKS = "mecoq_codebooks"
"""The collection that holds the codebooks of the others, see `codebook_store`."""

_PROPERTY_PROFILE, _PROPERTY_OPTIONS = "mecoq.profile", "mecoq.profile_options"
_PROPERTY_BELONGS, _PROPERTY_CONTENT = "mecoq.belongs_to", "mecoq.content"
_PROPERTY_CODEBOOKS = "mecoq.codebooks"
_LARGEST_INTEGER = 2**63 - 1
_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,254}"
LONGEST_TEXT = 65535  # Milvus's limit, in bytes; shorter text takes less room


def check_name(name: str, what: str = "a collection") -> str:
    """Return a name that Milvus accepts; milvus-lite accepts others as well.

    Raises:
        InvalidInputError: If Milvus does not accept it.
    """
    if not re.fullmatch(_NAME, name):
        raise InvalidInputError(
            f"the name of {what} must consist of at most 255 letters, digits and underscores and "
            f"must not begin with a digit, got {name[:80]!r}."
        )
    return name


def check_target(name: str) -> None:
    """Refuse the names of collections that this package uses itself.

    Raises:
        InvalidInputError: If it is such a name.
    """
    if name.endswith(UNFINISHED):
        raise InvalidInputError(
            f"the name of a collection must not end in {UNFINISHED!r}, which marks one that is "
            f"being filled, got {name!r}. Choose another name, or continue filling it with "
            "--resume."
        )
    if name == CODEBOOKS:
        raise InvalidInputError(
            f"collection {CODEBOOKS!r} holds the codebooks of the others. Choose another name."
        )


def check_columns(columns: Columns | None, n: int) -> dict[str, npt.NDArray[Any]]:
    """Return columns as arrays of int64, float64, bool or text, of n values each.

    Raises:
        InvalidInputError: If a column has another length or type, a reserved name, or text that
            Milvus does not accept.
    """
    checked = {}
    for name, values in (columns or {}).items():
        if name in (ID, VECTOR) or not re.fullmatch(_NAME, name):
            raise InvalidInputError(
                f"names of columns must be identifiers other than {ID!r} and {VECTOR!r}, got "
                f"{name!r}."
            )
        array = np.asarray(values)
        if array.dtype.kind == "U" and not all(isinstance(value, str) for value in values):
            raise InvalidInputError(f"column {name!r} must hold values of one type, got a mixture.")
        if array.shape != (n,):
            raise InvalidInputError(
                f"column {name!r} must have one value an item, {n} in all, got shape {array.shape}."
            )
        dtype, kind = _stored_type(name, array)
        checked[name] = array.astype(dtype, copy=False)
        if kind == "VARCHAR":
            _check_text(name, checked[name].tolist())
    return checked


def _check_text(name: str, values: list[str]) -> None:
    for value in values:
        try:
            size = len(value.encode())
        except UnicodeEncodeError as exc:
            raise InvalidInputError(
                f"column {name!r} must hold text that UTF-8 can encode, as Milvus stores it, got "
                f"{value!r}. Rename such items."
            ) from exc
        if size > LONGEST_TEXT:
            raise InvalidInputError(
                f"column {name!r} must hold at most {LONGEST_TEXT} bytes a value, Milvus's limit, "
                f"got one of {size}. Shorten it."
            )


def _stored_type(name: str, column: npt.NDArray[Any]) -> tuple[Any, str]:
    """The dtype in which a column is sent, and Milvus's name for it."""
    kind = column.dtype.kind
    if kind == "u" and column.size and int(column.max()) > _LARGEST_INTEGER:
        raise InvalidInputError(
            f"column {name!r} must hold integers up to {_LARGEST_INTEGER}, Milvus's limit, got "
            f"{column.max()}. Store it as text, or view it as int64."
        )
    if kind in "iu":
        return np.int64, "INT64"
    if kind == "f":
        return np.float64, "DOUBLE"
    if kind == "b":
        return np.bool_, "BOOL"
    if kind in "UO" and all(isinstance(value, str) for value in column.tolist()):
        return object, "VARCHAR"
    raise InvalidInputError(
        f"column {name!r} must hold integers, floats, booleans or text, got {column.dtype}."
    )


def create(
    connection: Connection,
    name: str,
    profile: Profile,
    columns: Mapping[str, npt.NDArray[Any]],
    consistency_level: str,
    *,
    content: str = "",
    has_codebooks: bool = False,
) -> None:
    """Make an empty collection.

    Args:
        connection: The Milvus to make it in.
        name: Its name.
        profile: How codes are stored.
        columns: The scalar fields, as `check_columns` returns them.
        consistency_level: Which changes by other clients searches see unless they say otherwise.
        content: A digest of the rows that it is going to hold.
        has_codebooks: Whether its codebooks are going to be in `CODEBOOKS`.

    Raises:
        InvalidInputError: If the server cannot hold the profile.
        ServerError: If the server refuses the name, or fails.
    """
    profile.check_server(connection.server)
    connection.call(
        "create_collection",
        name,
        schema=build_schema(profile, columns),
        consistency_level=consistency_level,
        properties=properties(profile)
        | ({_PROPERTY_CONTENT: content} if content else {})
        | ({_PROPERTY_CODEBOOKS: CODEBOOKS} if has_codebooks else {}),
    )


def fields(profile: Profile, columns: Mapping[str, npt.NDArray[Any]]) -> list[dict[str, Any]]:
    """The fields of a collection as plain values: name, type, and the limits of the type."""
    width = {} if profile.width is None else {"dim": profile.width}
    found: list[dict[str, Any]] = [
        {"name": ID, "type": "INT64", "is_primary": True},
        {"name": VECTOR, "type": profile.field_type, **width},
    ]
    for column, values in columns.items():
        kind = _stored_type(column, values)[1]
        limit = {"max_length": LONGEST_TEXT} if kind == "VARCHAR" else {}
        found.append({"name": column, "type": kind, **limit})
    return found


def build_schema(profile: Profile, columns: Mapping[str, npt.NDArray[Any]]) -> Any:
    """Make a ``pymilvus.CollectionSchema`` of `fields`, without asking a server.

    Raises:
        MissingDependencyError: If pymilvus is not installed.
    """
    pymilvus = import_pymilvus()
    schema = pymilvus.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    for field in fields(profile, columns):
        limits = {key: value for key, value in field.items() if key not in ("name", "type")}
        schema.add_field(field["name"], pymilvus.DataType[field["type"]], **limits)
    return schema


def properties(profile: Profile) -> dict[str, str]:
    """The properties that mark a collection of this package and identify its codebooks."""
    return {
        _PROPERTY_PROFILE: profile.name,
        _PROPERTY_OPTIONS: json.dumps(dict(profile.options)),
        _PROPERTY_BELONGS: profile.belongs_to,
    }


def describe(connection: Connection, name: str) -> dict[str, Any]:
    """Return Milvus's description of a collection.

    Raises:
        InvalidInputError: If there is no collection of this name.
        ServerError: If the server fails, or describes no collection.
    """
    if not connection.call("has_collection", name):
        raise InvalidInputError(f"there is no collection {name[:255]!r} at {connection.uri}.")
    found: dict[str, Any] = connection.call("describe_collection", name)
    if not _is_description(found):
        raise ServerError(
            f"the server at {connection.uri} must describe collection {name[:255]!r} by its name, "
            "fields and properties, but does not."
        )
    return found


def _is_description(found: Any) -> bool:
    """Whether an answer has the parts that are read here, in the types that they must have."""
    try:
        return (
            isinstance(found["collection_name"], str)
            and all(isinstance(text, str) for text in found["properties"].values())
            and all(
                isinstance(field["name"], str)
                and isinstance(field["type"].name, str)
                and isinstance(int(field["params"].get("dim", 0)), int)
                for field in found["fields"]
            )
        )
    except (AttributeError, LookupError, TypeError, ValueError):
        return False


def is_made_here(description: Mapping[str, Any]) -> bool:
    """Whether this package made a collection."""
    names = {field["name"] for field in description["fields"]}
    return _PROPERTY_PROFILE in description["properties"] and {ID, VECTOR} <= names


def check_made_here(description: Mapping[str, Any]) -> str:
    """Return the name of the profile of a collection that this package made.

    Raises:
        InvalidInputError: If another program made it.
    """
    profile: str | None = description["properties"].get(_PROPERTY_PROFILE)
    if not is_made_here(description) or profile is None:
        raise InvalidInputError(
            f"collection {description['collection_name']!r} was not made by this package: it has "
            "no fields or no properties of ours. Choose another name."
        )
    return profile


def profile_options(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that the profile of a collection of ours was made with.

    Raises:
        InvalidInputError: If they cannot be read.
    """
    text = description["properties"].get(_PROPERTY_OPTIONS, "{}")
    try:
        options = parse_json(text)
    except ValueError:
        options = None
    if not isinstance(options, dict):
        raise InvalidInputError(
            f"the properties of collection {description['collection_name']!r} are damaged: "
            f"{text[:200]!r}. Build it again under another name."
        )
    return options


def content(description: Mapping[str, Any]) -> str:
    """The digest of the rows that a collection was made for; empty if it is not known."""
    return str(description["properties"].get(_PROPERTY_CONTENT, ""))


def fingerprint(description: Mapping[str, Any]) -> str:
    """The fingerprint of the codebooks of a collection of ours; empty if it is not known."""
    return str(description["properties"].get(_PROPERTY_BELONGS, ""))


def has_codebooks(description: Mapping[str, Any]) -> bool:
    """Whether the codebooks of a collection are stored beside it."""
    return bool(description["properties"].get(_PROPERTY_CODEBOOKS) == CODEBOOKS)


def scalar_fields(description: Mapping[str, Any]) -> list[str]:
    """Names of the scalar fields beside the id."""
    return [f["name"] for f in description["fields"] if f["name"] not in (ID, VECTOR)]


def check(description: Mapping[str, Any], profile: Profile) -> None:
    """Refuse a collection that cannot be searched by a profile.

    Raises:
        InvalidInputError: If another program made it, or its profile, width or codebooks differ.
    """
    name, found = description["collection_name"], check_made_here(description)
    fields = {field["name"]: field for field in description["fields"]}
    if found != profile.name:
        raise InvalidInputError(
            f"collection {name!r} is of profile {found!r}, not {profile.name!r}. Use {found!r}, or "
            "another name."
        )
    width = fields[VECTOR]["params"].get("dim")
    kind = fields[VECTOR]["type"].name
    if kind != profile.field_type or (profile.width is not None and int(width) != profile.width):
        raise InvalidInputError(
            f"collection {name!r} holds {kind} of width {width}, but {profile.field_type} of width "
            f"{profile.width} is needed. Use the codebooks that it was made with, or another name."
        )
    if fingerprint(description) != profile.belongs_to:
        raise InvalidInputError(
            f"collection {name!r} was made with other codebooks, or with bits of another hasher. "
            "Use those, or another name."
        )
    if (made_with := profile_options(description)) != profile.options:
        raise InvalidInputError(
            f"collection {name!r} was made with the profile's options {made_with}, not "
            f"{dict(profile.options)}. Use the former, or another name."
        )
