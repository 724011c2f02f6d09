"""Addresses of collections: a server or a file, with the database and the collection in it.

| address | meaning |
|---|---|
| ``http://host:19530`` | a server |
| ``http://host:19530/photos`` | the collection ``photos`` of its default database |
| ``http://host:19530/shop/photos`` | the collection ``photos`` of its database ``shop`` |
| ``photos.db`` | a milvus-lite file |
| ``photos.db/photos`` | the collection ``photos`` in that file |

Where the collection is named separately, a single name after the server is the database.

An address may carry credentials, as ``http://user:password@host``. They are taken out here, before
anything else sees the address, and no message repeats an address that may still hold some. Of what
is left, only forms pass that every parser reads alike: pymilvus and gRPC parse it again.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from ..._addresses import HIDDEN, is_like_address, without_credentials
from ...errors import InvalidInputError

URI_VARIABLE = "MILVUS_URI"

_SCHEMES = ("http", "https", "tcp", "grpc")
_FILE = re.compile(r"(?P<file>.*\.db)(?:[/\\](?P<collection>[^/\\]*))?", re.DOTALL)
_HOST = re.compile(r"[\w.-]+")
_NAME = re.compile(r"[A-Za-z_]\w{0,254}", re.ASCII)  # of a collection or a database
# gRPC takes these, before a colon, for the way to find a server.
_NO_HOSTS = ("dns", "google-c2p", "ipv4", "ipv6", "unix", "unix-abstract", "vsock", "xds")
_BAD_ADDRESS = (
    "the address of a Milvus server must be like http://host:19530/photos. In "
    "http://user:password@host:19530, percent-encode all characters of the password but letters "
    "and digits; better, pass the password as the token."
)


@dataclass(frozen=True)
class Place:
    """The place of a collection.

    Attributes:
        uri: The server's address without credentials and names, or the path of a file.
        token: The credentials that the address carried; empty if none.
        database: The database on the server; empty for the default one.
        collection: The collection; empty if it was not named.
        named_by: The file that named the server; empty if the person did.
    """

    uri: str
    token: str = field(default="", repr=False)
    database: str = ""
    collection: str = ""
    named_by: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.uri, self.database, self.collection) if part)


def is_file(uri: str) -> bool:
    """Whether a uri is the path of a milvus-lite file, not the address of a server."""
    return "://" not in uri and uri.endswith(".db")


def is_address(text: str) -> bool:
    """Whether a text has the form of an address of a Milvus server or file."""
    scheme, colon, _ = text.partition("://")
    return scheme.lower() in _SCHEMES if colon else _FILE.fullmatch(text) is not None


def locate(
    address: str | Path | None, *, collection: str | None = None, database: str | None = None
) -> Place:
    """Read an address.

    Args:
        address: See the head of this module; None for the environment's ``MILVUS_URI``.
        collection: The collection. A single name after the server is then the database.
        database: The database on the server.

    Raises:
        InvalidInputError: If there is no address, it is malformed, or it contradicts the other
            arguments.
    """
    text = str(address or os.environ.get(URI_VARIABLE, ""))
    if not text:
        raise InvalidInputError(
            "uri must be the address of a Milvus server (http://host:19530) or a file that ends "
            f"in .db, got none. Pass it, or set {URI_VARIABLE}."
        )
    if (found := _FILE.fullmatch(text)) and "://" not in text:
        if is_like_address(found["file"]):
            raise InvalidInputError(_BAD_ADDRESS)
        if found["collection"]:
            _check_names([found["collection"]])
        if database:
            raise _no_databases(database)
        return Place(
            found["file"], collection=_one(found["collection"] or "", collection, "collection")
        )
    uri, token, names = _split(text)
    in_database, name = names if len(names) == 2 else ("", *names, "")[:2]
    if collection and len(names) == 1:
        in_database, name = name, ""
    return Place(
        uri,
        token,
        _one(in_database, database, "database"),
        _one(name, collection, "collection"),
    )


def locate_database(address: str | Path | None, database: str | None = None) -> Place:
    """Read an address in which a single name after the server is the database.

    Raises:
        InvalidInputError: If the address is malformed, names a collection, or names another
            database.
    """
    place = locate(address)
    if place.collection and (place.database or is_file(place.uri)):
        raise InvalidInputError(
            f"the address must not name a collection here, got {place.collection!r}. Leave it out."
        )
    if database and is_file(place.uri):
        raise _no_databases(database)
    return Place(place.uri, place.token, _one(place.collection, database, "database"))


def _no_databases(database: str) -> InvalidInputError:
    return InvalidInputError(f"a Milvus in a file has no databases, got {database!r}.")


def _one(in_address: str, given: str | None, what: str) -> str:
    """The one of two names that is there."""
    if in_address and given and in_address != given:
        raise InvalidInputError(
            f"the address names the {what} {in_address!r}, but {what} is {given!r}. Name one."
        )
    return given or in_address


def _split(text: str) -> tuple[str, str, list[str]]:
    """The address of a server alone, the credentials in it as a token, and the names after it."""
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018  # raises an error if the port is no number
    except ValueError:
        parts = None
    # Not while handling the error, which repeats the address. A password that contains / ? or #
    # ends the host too early, and urlsplit drops some characters without a word.
    if (
        parts is None
        or "@" in f"{parts.path}{parts.query}{parts.fragment}"
        or re.search(r"[\s\x00-\x1f\x7f\\]", text)
    ):
        raise InvalidInputError(_BAD_ADDRESS)
    if parts.scheme not in _SCHEMES or not parts.hostname:
        kept = without_credentials(text)
        raise InvalidInputError(
            "uri must be like http://host:19530, or a file that ends in .db, got "
            f"{HIDDEN if kept is None else repr(kept)}."
        )
    _check_host(parts.hostname)
    names = [name for name in parts.path.split("/") if name]
    if parts.query or parts.fragment or len(names) > 2:
        raise InvalidInputError(
            "the address of a Milvus server may end in /collection or /database/collection and "
            "nothing else, such as ?token=. Pass credentials as the token."
        )
    _check_names(names)
    token = ""
    if parts.username is not None:
        token = unquote(parts.username)
        if parts.password is not None:
            token += ":" + unquote(parts.password)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, "", "", "")), token, names


def _check_host(host: str) -> None:
    if ":" in host:
        raise InvalidInputError(
            "the host of a Milvus server must be a name or an IPv4 address, because pymilvus "
            "reaches no IPv6 address. Give the server a name."
        )
    if not _HOST.fullmatch(host) or host.lower() in _NO_HOSTS:
        raise InvalidInputError(_BAD_ADDRESS)


def _check_names(names: list[str]) -> None:
    """Refuse names in an address that none can have; they may be misplaced passwords."""
    if not all(_NAME.fullmatch(name) for name in names):
        raise InvalidInputError(
            "the names of the database and the collection in an address must consist of at most "
            "255 letters, digits and underscores, and must not begin with a digit."
        )
