"""A connection to Milvus: what is at the other end, which errors pass, and how they all read.

Credentials are handed to pymilvus, as `credentials` decides, and go nowhere else: neither into
files nor into messages.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ...errors import InvalidInputError, MecoqError, ServerError, first_line
from .address import Place, is_file, locate_database
from .credentials import Credentials, credentials_for
from .libraries import import_pymilvus, silenced
from .lite import check_file

_CONNECT_SECONDS = 10.0
_LEAST_SECONDS = 10.0
_FIRST_DELAY, _LONGEST_DELAY = 0.2, 5.0
_LARGEST_ANSWER = 512 << 20  # bytes; pymilvus itself accepts answers of any size
# Codes of pkg/util/merr/errors.go for "not now": unavailable, limited, still loading after a
# restart, channels and nodes that are being handed over. 1 is "not ready", and also pymilvus's own
# code for all mistakes of a caller.
_NOT_READY = 1
_TRANSIENT_CODES = frozenset({2, 4, 8, 9, 103, 401, *range(500, 505), *range(901, 906)})
# The text of Milvus 2.3, with the code of all unknown errors, right after a part of it restarted.
_RESTARTED = "unrecoverable error"
_TRANSIENT_RPC = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED"})
_REFUSED_RPC = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})
_FORBIDDEN_CODES = frozenset({1400, 1401, 1405, 1410, 1413})
# What pymilvus raises for an answer that lacks a part, or has one of another kind.
_UNREADABLE = (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError)


@dataclass(frozen=True)
class Server:
    """The kind and the version of a Milvus.

    Attributes:
        is_lite: Whether it is milvus-lite, a file.
        version: For instance (2, 3, 5).
    """

    is_lite: bool
    version: tuple[int, ...]

    def __str__(self) -> str:
        kind = "milvus-lite" if self.is_lite else "Milvus"
        return f"{kind} {'.'.join(map(str, self.version))}"


LITE = Server(is_lite=True, version=())
"""Any milvus-lite, before its file is opened."""


@dataclass(frozen=True, eq=False)
class Connection:
    """A client of one Milvus. Made by `connect`.

    Attributes:
        client: The ``pymilvus.MilvusClient``, for everything that this package does not cover.
        uri: The server's address without credentials, or the absolute path of a file.
        database: The database on the server; empty for the default one.
        patience: Seconds for which a call that fails transiently is repeated, and for which one
            request may take.
        advice: What to do if the server refuses the credentials.
    """

    client: Any = field(repr=False)
    uri: str
    database: str = ""
    patience: float = 60.0
    advice: str = Credentials().advice

    def address_of(self, collection: str) -> str:
        """The address of a collection here, without credentials."""
        return str(Place(self.uri, database=self.database, collection=collection))

    @cached_property
    def server(self) -> Server:
        """The kind and the version of this Milvus.

        Raises:
            ServerError: If it does not answer, or its version cannot be read.
        """
        version = self.call("get_server_version")
        found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", str(version))
        if found is None:
            told = str(version)[:80]
            raise ServerError(
                f"the server at {self.uri} must tell its version in numbers, got {told!r}."
            )
        return Server(is_file(self.uri), tuple(int(part) for part in found.groups() if part))

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the client that can be repeated without harm.

        Raises:
            ServerError: If it fails, for a transient reason for longer than `patience`.
        """
        if not self.is_lite_uri:
            # pymilvus uses it both for a single attempt and for all its own attempts together.
            kwargs.setdefault("timeout", max(self.patience, _LEAST_SECONDS))
        return self.persist(lambda: getattr(self.client, method)(*args, **kwargs))

    def call_once(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the client that must not be repeated, not even by pymilvus.

        Raises:
            TransientError: If it failed in a way that leaves open whether it took effect.
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
        """Run an action, and turn the errors of pymilvus into ours."""
        try:
            with silenced():
                return action()
        except MecoqError:
            raise
        except _UNREADABLE as exc:
            raise ServerError(
                f"Milvus at {self.uri} failed, or its answer cannot be read: "
                f"{type(exc).__name__}: {first_line(exc)}"
            ) from exc
        except Exception as exc:
            of_pymilvus = isinstance(exc, import_pymilvus().exceptions.MilvusException)
            if not of_pymilvus and _rpc_status(exc) is None:
                raise
            raise _translated(exc, self.uri, self.advice) from exc


class TransientError(ServerError):
    """A failure that may be gone at the next attempt."""


def connect(
    uri: str | Path | Place | None = None,
    *,
    token: str | None = None,
    database: str | None = None,
    patience: float = 60.0,
    new: bool = True,
    check: Callable[[Server], object] | None = None,
) -> Connection:
    """Connect to a Milvus server, or open a milvus-lite file.

    Args:
        uri: ``http://host:19530``, or with a database ``http://host:19530/shop``, or a path that
            ends in ``.db``; None for the environment's ``MILVUS_URI``, which must be the address of
            a server. ``http://user:password@host`` carries credentials. A `Place` is taken as it
            is, whatever its collection.
        token: ``user:password`` or an API key; None for those in ``uri``, or else, unless a file
            named the server, the environment's ``MILVUS_TOKEN``.
        database: The database on the server; None for the one in ``uri``, or else the default one.
        patience: Seconds for which calls that fail transiently are repeated, and for which one
            request may take; at least 10 for a request.
        new: Whether a file may be created.
        check: Called with what is at the other end, before a file is created; may raise an error.

    Raises:
        InvalidInputError: If ``uri`` is malformed; or if the folder of a file does not exist, or
            the file itself does not and may not be created, or is not of milvus-lite.
        ServerError: If the server is out of reach or refuses the credentials.
        MissingDependencyError: If pymilvus, or for a file milvus-lite, is not installed.
    """
    place = uri if isinstance(uri, Place) else locate_database(uri, database)
    if is_file(place.uri):
        if check is not None:
            check(LITE)
        return _open_file(Path(place.uri), patience, new)
    credentials = credentials_for(place, token)
    pymilvus = import_pymilvus()
    try:
        with silenced():
            client = pymilvus.MilvusClient(
                uri=place.uri,
                token=credentials.token,
                db_name=place.database,
                timeout=_CONNECT_SECONDS,
                grpc_options={"grpc.max_receive_message_length": _LARGEST_ANSWER},
            )
    except pymilvus.exceptions.MilvusException as exc:
        raise _translated(exc, place.uri, credentials.advice) from exc
    made = Connection(client, place.uri, place.database, patience, credentials.advice)
    if check is not None:
        check(made.server)
    return made


def _open_file(path: Path, patience: float, new: bool) -> Connection:
    path = check_file(path)
    if not new and not path.exists():
        raise InvalidInputError(f"there is no Milvus at {path}. Check the name of the file.")
    pymilvus = import_pymilvus()
    # Its server runs in threads of this process, whose errors reach the caller as well.
    if (logger := logging.getLogger("milvus_lite")).level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)
    try:
        with silenced():
            client = pymilvus.MilvusClient(uri=str(path))
    except pymilvus.exceptions.MilvusException as exc:
        cause = exc.__cause__ or exc.__context__ or exc
        raise ServerError(
            f"{path} cannot be opened by milvus-lite: {_reason(cause)}. Is it in use by another "
            "process, or damaged?"
        ) from exc
    return Connection(client, str(path), "", patience)


def _translated(exc: BaseException, uri: str, advice: str) -> ServerError:
    """An error of one sentence for an error of pymilvus."""
    status = _rpc_status(exc)
    code = getattr(exc, "code", None)
    if status in _REFUSED_RPC or code in _FORBIDDEN_CODES:
        return ServerError(f"the Milvus server at {uri} refuses these credentials. {advice}")
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
    # pymilvus puts this before the message of an error that it must not retry.
    return first_line(Exception(re.sub(r"^\[\w+\] Retry .*?, message=", "", message)))


def _rpc_status(exc: BaseException | None) -> str | None:
    """The name of the gRPC status that caused an exception; None if there is none."""
    seen: set[int] = set()
    # pymilvus raises exceptions from themselves again, so the chain may be a ring.
    while exc is not None and id(exc) not in seen:
        seen.add(id(exc))
        code: Any = getattr(exc, "code", None)
        if callable(code):
            code = code()
        if type(code).__name__ == "StatusCode":
            return str(code.name)
        exc = exc.__cause__ or exc.__context__
    return None
