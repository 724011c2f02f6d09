"""Credentials: which of them go to which server.

| credentials | go to |
|---|---|
| ``token=``, ``--token``, and those in an address that the person gives | the server of that call |
| ``MILVUS_TOKEN`` | the server of an address that the person gives, or of ``MILVUS_URI`` |

An index folder names its server, and folders come from anybody. The credentials of the environment
therefore go to a server that only a folder names if it is the server of ``MILVUS_URI``, and nowhere
else. Two addresses are those of one server if scheme, host and port are the same.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ...errors import InvalidInputError
from .address import URI_VARIABLE, Place, is_file, locate_database

TOKEN_VARIABLE = "MILVUS_TOKEN"

_DEFAULT_PORT, _DEFAULT_PORT_OF_HTTPS = 19530, 443  # pymilvus's


@dataclass(frozen=True)
class Credentials:
    """Credentials for one server.

    Attributes:
        token: ``user:password`` or an API key; empty for none.
        advice: What to do if the server refuses them, one or two sentences.
    """

    token: str = field(default="", repr=False)
    advice: str = (
        f"Give a valid token, user:password or an API key, or set {TOKEN_VARIABLE} to one."
    )


def credentials_for(place: Place, token: str | None = None) -> Credentials:
    """The credentials that go to the server of a place.

    Args:
        place: The place; its own credentials come after ``token``, and before those of the
            environment.
        token: What the person gave for this call.

    Raises:
        InvalidInputError: If they cannot be sent, because UTF-8 cannot encode them.
    """
    if given := token or place.token:
        return Credentials(_sendable(given))
    in_environment = os.environ.get(TOKEN_VARIABLE, "")
    if not place.named_by:
        return Credentials(_sendable(in_environment))
    named = _place_in_environment()
    if named is not None and server_of(named.uri) == server_of(place.uri):
        return Credentials(_sendable(named.token or in_environment))
    if not (in_environment or (named is not None and named.token)):
        return Credentials()
    return Credentials(
        advice=f"The credentials in the environment were not sent, because only {place.named_by} "
        f"names this server. If you trust it, name it yourself, with --uri {place.uri} (in Python "
        "uri=...), or give a token."
    )


def server_of(uri: str) -> tuple[str, str, int]:
    """Scheme, host and port of the address of a server, by which servers are told apart."""
    parts = urlsplit(uri)
    usual = _DEFAULT_PORT_OF_HTTPS if parts.scheme == "https" else _DEFAULT_PORT
    return parts.scheme, (parts.hostname or "").lower(), parts.port or usual


def _place_in_environment() -> Place | None:
    """The server of the environment; None if there is none."""
    text = os.environ.get(URI_VARIABLE, "")
    try:
        place = locate_database(text) if text else None
    except InvalidInputError:
        return None
    return None if place is None or is_file(place.uri) else place


def _sendable(token: str) -> str:
    try:
        token.encode()
    except UnicodeEncodeError:
        unsendable = True
    else:
        unsendable = False
    if unsendable:  # not while handling the error, which holds the token
        raise InvalidInputError("a token must be text that UTF-8 can encode. Type it again.")
    return token
