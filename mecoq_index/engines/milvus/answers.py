"""Answers of a server, checked for what is read from them.

pymilvus decodes answers into lists and dictionaries, but a server decides what is in those.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ...errors import MecoqError, ServerError, first_line
from .connection import Connection
from .schema import ID

COUNT = "count(*)"

_INTEGERS = (ID, COUNT, "total_rows", "indexed_rows", "pending_index_rows")


@contextmanager
def reading(connection: Connection, what: str) -> Iterator[None]:
    """Turn failures to read an answer into errors that name the server.

    Args:
        connection: The connection that the answer came by.
        what: The thing that the server must return, after "must return".

    Raises:
        ServerError: If the block fails for what is in the answer.
    """
    try:
        yield
    except MecoqError:
        raise
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as exc:
        raise ServerError(
            f"Milvus at {connection.uri} must return {what}, but does not: "
            f"{type(exc).__name__}: {first_line(exc)}"
        ) from exc


def check_rows_of(connection: Connection, rows: Any, fields: Sequence[str]) -> list[dict[str, Any]]:
    """Return rows that have these fields.

    Raises:
        ServerError: If one has not, or ids and numbers are no integers.
    """
    with reading(connection, f"rows with the fields {list(fields)}"):
        found = list(rows)
        for row in found:
            for field in fields:
                value = row[field]
                if field in _INTEGERS and not (type(value) is int and abs(value) < 1 << 63):
                    raise ValueError(f"a {field} that is no integer of 64 bits")
    return found
