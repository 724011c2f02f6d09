"""The schema of a collection: an id, a vector field, and the user's scalar columns.

A collection carries, as properties, what its codes belong to, so that other codebooks are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import InvalidInputError
from .connection import Connection, import_pymilvus
from .profile import Profile

ID, VECTOR = "id", "vector"
UNFINISHED = "_unfinished"
"""What the name of a collection ends in while it is being filled."""

_PROPERTY_PROFILE, _PROPERTY_OPTIONS = "mecoq.profile", "mecoq.profile_options"
_PROPERTY_BELONGS, _PROPERTY_CONTENT = "mecoq.belongs_to", "mecoq.content"
_LARGEST_INTEGER = 2**63 - 1
_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,254}"
LONGEST_TEXT = 65535  # Milvus's limit, in bytes; only what is stored takes room

Columns = Mapping[str, Any]
"""Scalar fields by name: a list or an array of n values each."""


def check_name(name: str, what: str = "a collection") -> str:
    """A name, if Milvus takes it; milvus-lite takes others too.

    Raises:
        InvalidInputError: If it does not.
    """
    if not re.fullmatch(_NAME, name):
        raise InvalidInputError(
            f"{what} must be called by letters, digits and underscores, 255 at most and no digit "
            f"first, got {name!r}."
        )
    return name


def check_target(name: str) -> None:
    """Refuse the name of a collection that is kept for those that are being filled.

    Raises:
        InvalidInputError: If it is such a name.
    """
    if name.endswith(UNFINISHED):
        raise InvalidInputError(
            f"a collection whose name ends in {UNFINISHED!r} is one that is being filled, got "
            f"{name!r}. Choose another name, or go on with filling it by --resume."
        )


def check_columns(columns: Columns | None, n: int) -> dict[str, npt.NDArray[Any]]:
    """Columns as arrays of int64, float64, bool or text, of n values each.

    Raises:
        InvalidInputError: If a column has another length or type, takes a name that is used, or
            holds text that Milvus does not take.
    """
    checked = {}
    for name, values in (columns or {}).items():
        if name in (ID, VECTOR) or not re.fullmatch(_NAME, name):
            raise InvalidInputError(
                f"columns must be called by identifiers other than {ID!r} and {VECTOR!r}, got "
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
                f"column {name!r} must be text that UTF-8 can hold, as Milvus's is, got "
                f"{value!r}. Rename such items."
            ) from exc
        if size > LONGEST_TEXT:
            raise InvalidInputError(
                f"column {name!r} must hold at most {LONGEST_TEXT} bytes a value, Milvus's limit, "
                f"got one of {size}. Shorten it."
            )


def _stored_type(name: str, column: npt.NDArray[Any]) -> tuple[Any, str]:
    """The dtype that a column is sent in, and Milvus's name for it."""
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
    content: str = "",
) -> None:
    """Make an empty collection.

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
        properties={**properties(profile), **({_PROPERTY_CONTENT: content} if content else {})},
    )


def fields(profile: Profile, columns: Mapping[str, npt.NDArray[Any]]) -> list[dict[str, Any]]:
    """The fields of a collection as plain values: name, type, and what the type is limited to."""
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
    """A ``pymilvus.CollectionSchema`` of `fields`; no server is asked.

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
    """What tells a collection of this package, and what its codes belong to."""
    return {
        _PROPERTY_PROFILE: profile.name,
        _PROPERTY_OPTIONS: json.dumps(dict(profile.options)),
        _PROPERTY_BELONGS: profile.belongs_to,
    }


def describe(connection: Connection, name: str) -> dict[str, Any]:
    """What Milvus says of a collection.

    Raises:
        InvalidInputError: If there is none of this name.
        ServerError: If the server fails.
    """
    if not connection.call("has_collection", name):
        raise InvalidInputError(f"there is no collection {name!r} at {connection.uri}.")
    found: dict[str, Any] = connection.call("describe_collection", name)
    return found


def check_made_here(description: Mapping[str, Any]) -> str:
    """The name of the profile of a collection that this package made.

    Raises:
        InvalidInputError: If it did not.
    """
    profile: str | None = description["properties"].get(_PROPERTY_PROFILE)
    if profile is None or not {ID, VECTOR} <= {field["name"] for field in description["fields"]}:
        raise InvalidInputError(
            f"collection {description['collection_name']!r} was not made by this package: it has "
            "no fields or no properties of ours. Choose another name."
        )
    return profile


def profile_options(description: Mapping[str, Any]) -> dict[str, Any]:
    """The options that the profile of a collection of ours was made with.

    Raises:
        InvalidInputError: If they are not readable.
    """
    text = description["properties"].get(_PROPERTY_OPTIONS, "{}")
    try:
        options = json.loads(text)
    except ValueError:
        options = None
    if not isinstance(options, dict):
        raise InvalidInputError(
            f"collection {description['collection_name']!r} has properties of ours that are "
            f"damaged: {text!r}. Build it again under another name."
        )
    return options


def content(description: Mapping[str, Any]) -> str:
    """The digest of what a collection was made to hold; empty if it is not known."""
    return str(description["properties"].get(_PROPERTY_CONTENT, ""))


def scalar_fields(description: Mapping[str, Any]) -> list[str]:
    """Names of the scalar fields beside the id."""
    return [f["name"] for f in description["fields"] if f["name"] not in (ID, VECTOR)]


def check(description: Mapping[str, Any], profile: Profile) -> None:
    """Refuse a collection that cannot be searched by a profile.

    Raises:
        InvalidInputError: If it is foreign, of another profile, width, or other codebooks.
    """
    name, found = description["collection_name"], check_made_here(description)
    fields = {field["name"]: field for field in description["fields"]}
    if found != profile.name:
        raise InvalidInputError(
            f"collection {name!r} is of profile {found!r}, not {profile.name!r}. Use that one, or "
            "another name."
        )
    width = fields[VECTOR]["params"].get("dim")
    kind = fields[VECTOR]["type"].name
    if kind != profile.field_type or (profile.width is not None and int(width) != profile.width):
        raise InvalidInputError(
            f"collection {name!r} holds {kind} of width {width}, but {profile.field_type} of width "
            f"{profile.width} is needed. Use the codebooks that it was made with, or another name."
        )
    if description["properties"].get(_PROPERTY_BELONGS, "") != profile.belongs_to:
        raise InvalidInputError(
            f"collection {name!r} was made with other codebooks, or bits of another hasher. Use "
            "those, or another name."
        )
    if (made_with := profile_options(description)) != profile.options:
        raise InvalidInputError(
            f"collection {name!r} was made with the profile's options {made_with}, not "
            f"{dict(profile.options)}. Use those, or another name."
        )
