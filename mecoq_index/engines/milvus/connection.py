"""A connection to Milvus: which server it is, which errors pass, and how they all read.

Credentials come from the URI, from arguments or from the environment, are handed to pymilvus, and
go nowhere else: neither into files nor into messages.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from ..._files import first_line
from ..._optional import require
from ...errors import InvalidInputError, ServerError

URI_VARIABLE, TOKEN_VARIABLE = "MILVUS_URI", "MILVUS_TOKEN"

_BAD_ADDRESS = (
    "uri must be like http://host:19530 or http://user:password@host:19530, where a password with "
    "other characters than letters and digits is percent-encoded; better, give it as the token."
)
_CONNECT_SECONDS = 10.0
_LEAST_SECONDS = 10.0
_FIRST_DELAY, _LONGEST_DELAY = 0.2, 5.0
# Codes of pkg/util/merr/errors.go that say: not now. Unavailable, limited, still loading after a
# restart, channels and nodes that are being handed over. 1 is "not ready", and pymilvus's own code
# for whatever a caller did wrong.
_NOT_READY = 1
_TRANSIENT_CODES = frozenset({2, 4, 8, 9, 103, 401, *range(500, 505), *range(901, 906)})
# What Milvus 2.3 says, with the code of all unknown errors, when a part of it has just been started
# again.
_RESTARTED = "unrecoverable error"
_TRANSIENT_RPC = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED"})
_REFUSED_RPC = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})
_FORBIDDEN_CODES = frozenset({1400, 1401, 1405, 1410, 1413})


@dataclass(frozen=True)
class Server:
    """What is at the other end.

    Attributes:
        is_lite: Whether it is milvus-lite, a file.
        version: For instance (2, 3, 5).
    """

    is_lite: bool
    version: tuple[int, ...]

    def __str__(self) -> str:
        kind = "milvus-lite" if self.is_lite else "Milvus"
        return f"{kind} {'.'.join(map(str, self.version))}"


@dataclass(frozen=True, eq=False)
class Connection:
    """A client of one Milvus. Made by `connect`.

    Attributes:
        client: The ``pymilvus.MilvusClient``, for whatever this package does not cover.
        uri: The address, without credentials; of a file, its absolute path.
        db_name: The database on the server; empty for the default one.
        patience: Seconds for which a transient error is tried again, and one request may take.
    """

    client: Any = field(repr=False)
    uri: str
    db_name: str = ""
    patience: float = 60.0

    @cached_property
    def server(self) -> Server:
        """Which Milvus this is.

        Raises:
            ServerError: If it cannot be asked.
        """
        version = self.call("get_server_version")
        found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", str(version))
        if found is None:
            raise ServerError(f"the server at {self.uri} calls its version {version!r}.")
        return Server(is_file(self.uri), tuple(int(part) for part in found.groups() if part))

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the client that may be repeated without harm.

        Raises:
            ServerError: If it fails, for a transient reason for longer than `patience`.
        """
        if not self.is_lite_uri:
            # pymilvus takes this as the limit of an attempt and of its own attempts together.
            kwargs.setdefault("timeout", max(self.patience, _LEAST_SECONDS))
        return self.persist(lambda: getattr(self.client, method)(*args, **kwargs))

    def call_once(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the client that must not be repeated, not even by pymilvus.

        Raises:
            TransientError: If it failed in a way that leaves open whether it was done.
            ServerError: If it failed for good.
        """
        return self._plainly(lambda: getattr(self.client, method)(*args, retry_times=0, **kwargs))

    def close(self) -> None:
        """Close the connection; a milvus-lite file can then be opened by another process."""
        self.client.close()

    def persist(self, action: Callable[[], Any]) -> Any:
        """Run an action until it no longer fails transiently, with growing pauses.

        Raises:
            ServerError: If it fails for good, or for longer than `patience`.
        """
        started, delay = time.monotonic(), _FIRST_DELAY
        while True:
            try:
                return self._plainly(action)
            except TransientError:
                if time.monotonic() - started + delay > self.patience:
                    raise
                time.sleep(delay)
                delay = min(2 * delay, _LONGEST_DELAY)

    @property
    def is_lite_uri(self) -> bool:
        """Whether the address is a file."""
        return is_file(self.uri)

    def _plainly(self, action: Callable[[], Any]) -> Any:
        """Run an action; what pymilvus raises in it becomes an error of ours."""
        try:
            return action()
        except Exception as exc:
            of_pymilvus = isinstance(exc, import_pymilvus().exceptions.MilvusException)
            if not of_pymilvus and _rpc_status(exc) is None:
                raise
            raise _translated(exc, self.uri) from exc


class TransientError(ServerError):
    """A failure that may be gone at the next attempt."""


def connect(
    uri: str | Path | None = None,
    *,
    token: str | None = None,
    db_name: str = "",
    patience: float = 60.0,
    new: bool = True,
) -> Connection:
    """Connect to a Milvus server, or open a milvus-lite file.

    Args:
        uri: ``http://host:19530``, or a path that ends in ``.db``; the environment's
            ``MILVUS_URI`` if None, which pymilvus wants to be a server's address.
            ``http://user:password@host`` carries credentials.
        token: ``user:password`` or an API key; the environment's ``MILVUS_TOKEN`` if None.
        db_name: The database on the server.
        patience: Seconds for which transient errors are tried again, and which one request may
            take; 10 at least for that.
        new: Whether a file that is not there may be made.

    Raises:
        InvalidInputError: If ``uri`` is no such address, or the folder of a file is missing, or
            the file itself and it may not be made.
        ServerError: If the server is out of reach or refuses the credentials.
        MissingDependencyError: If pymilvus, or for a file milvus-lite, is not installed.
    """
    address = str(uri or os.environ.get(URI_VARIABLE, ""))
    if not address:
        raise InvalidInputError(
            "uri must be the address of a Milvus server (http://host:19530) or a file that ends "
            f"in .db, got none. Pass it, or set {URI_VARIABLE}."
        )
    pymilvus = import_pymilvus()
    if is_file(address):
        return _open_file(pymilvus, Path(address), patience, new)
    address, in_uri = _split_credentials(address)
    token = token or in_uri or os.environ.get(TOKEN_VARIABLE, "")
    try:
        client = pymilvus.MilvusClient(
            uri=address, token=token, db_name=db_name, timeout=_CONNECT_SECONDS
        )
    except pymilvus.exceptions.MilvusException as exc:
        raise _translated(exc, address) from exc
    return Connection(client, address, db_name, patience)


def import_pymilvus() -> ModuleType:
    """pymilvus, or an error that says how to install it.

    Raises:
        InvalidInputError: If the environment keeps it from being imported.
        MissingDependencyError: If it is not installed.
    """
    if is_file(os.environ.get(URI_VARIABLE, "")):
        # pymilvus reads the variable when it is imported, and fails.
        raise InvalidInputError(
            f"{URI_VARIABLE} must be the address of a server, which pymilvus takes it for, got a "
            "file. Unset it, and pass the file as the uri."
        )
    return require("pymilvus", extra="milvus", purpose="the milvus engine")


def is_file(uri: str) -> bool:
    """Whether an address names a milvus-lite file, not a server."""
    return "://" not in uri and uri.endswith(".db")


def check_file(path: Path) -> Path:
    """The absolute path of a milvus-lite file, which need not be there.

    Raises:
        InvalidInputError: If its folder is missing.
        MissingDependencyError: If milvus-lite is not installed.
    """
    require("milvus_lite", extra="milvus-lite", purpose="a Milvus in a file")
    path = path.absolute()
    if not path.parent.is_dir():
        raise InvalidInputError(f"the folder {path.parent} does not exist. Create it first.")
    return path


def _open_file(pymilvus: ModuleType, path: Path, patience: float, new: bool) -> Connection:
    path = check_file(path)
    if not new and not path.exists():
        raise InvalidInputError(f"there is no Milvus at {path}. Check the name of the file.")
    try:
        client = pymilvus.MilvusClient(uri=str(path))
    except pymilvus.exceptions.MilvusException as exc:
        cause = exc.__cause__ or exc.__context__ or exc
        raise ServerError(
            f"{path} cannot be opened by milvus-lite: {_reason(cause)}. Is it in use by another "
            "process, or damaged?"
        ) from exc
    return Connection(client, str(path), "", patience)


def _split_credentials(uri: str) -> tuple[str, str]:
    """An address without ``user:password@``, and these as a token."""
    try:
        parts = urlsplit(uri)
        parts.port  # noqa: B018  # raises where there is no such port
    except ValueError as exc:
        raise InvalidInputError(_BAD_ADDRESS) from exc
    # A password with / ? or # in it ends the host's part too early.
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        raise InvalidInputError(_BAD_ADDRESS)
    if parts.scheme not in ("http", "https", "tcp", "grpc") or not parts.hostname:
        raise InvalidInputError(
            "uri must be like http://host:19530, or a file that ends in .db, got "
            f"{uri.rpartition('@')[2]!r}."
        )
    host = parts.netloc.rpartition("@")[2]
    token = ""
    if parts.username is not None:
        token = unquote(parts.username)
        if parts.password is not None:
            token += ":" + unquote(parts.password)
    return urlunsplit((parts.scheme, host, parts.path, parts.query, parts.fragment)), token


def _translated(exc: BaseException, uri: str) -> ServerError:
    """One sentence for what pymilvus raised."""
    status = _rpc_status(exc)
    code = getattr(exc, "code", None)
    if status in _REFUSED_RPC or code in _FORBIDDEN_CODES:
        return ServerError(
            f"the Milvus server at {uri} refuses these credentials. Give a valid token, "
            f"user:password or an API key, or set {TOKEN_VARIABLE}."
        )
    if status == "UNAVAILABLE" and not is_file(uri):
        return TransientError(
            f"the Milvus server at {uri} is out of reach. Check the address, and that it runs."
        )
    reason = _reason(exc)
    message = f"Milvus at {uri} failed: {reason}"
    not_ready = code == _NOT_READY and "not ready" in reason
    retriable = (
        not_ready
        or _RESTARTED in reason
        or code in _TRANSIENT_CODES
        or getattr(exc, "retriable", False)
    )
    if not is_file(uri) and (status in _TRANSIENT_RPC or retriable):
        return TransientError(message)
    return ServerError(message)


def _reason(exc: BaseException) -> str:
    message = str(getattr(exc, "message", "") or exc)
    # What pymilvus puts before the message of an error that it was told not to retry.
    return first_line(Exception(re.sub(r"^\[\w+\] Retry .*?, message=", "", message)))


def _rpc_status(exc: BaseException | None) -> str | None:
    """The name of the gRPC status behind an exception, if there is one."""
    seen: set[int] = set()
    # pymilvus re-raises exceptions from themselves, so the chain may be a ring.
    while exc is not None and id(exc) not in seen:
        seen.add(id(exc))
        code: Any = getattr(exc, "code", None)
        if callable(code):
            code = code()
        if type(code).__name__ == "StatusCode":
            return str(code.name)
        exc = exc.__cause__ or exc.__context__
    return None
