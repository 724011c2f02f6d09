"""What a table is, whatever file or library it comes from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from .._optional import require
from ..errors import ArtifactError


def pyarrow() -> ModuleType:
    """Return the pyarrow package.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    return require("pyarrow", extra="parquet", purpose="reading a table")


@contextmanager
def readable_names(table: str) -> Iterator[None]:
    """Refuse names of columns that cannot be read, which pyarrow decodes when it is asked for them.

    Raises:
        ArtifactError: If the block meets one.
    """
    try:
        yield
    except UnicodeDecodeError as exc:
        raise ArtifactError(f"{table} is damaged: a column's name is not UTF-8.") from exc


class Table(ABC):
    """Named columns of n rows.

    Attributes:
        path: The file; None for a table of another library.
        name: Names the table in messages.
        schema: The Arrow schema.
        n: Number of rows.

    Raises:
        ArtifactError: If names of columns cannot be read.
    """

    def __init__(self, name: str, schema: Any, n: int, path: Path | None = None) -> None:
        self.name, self.schema, self.n, self.path = name, schema, n, path
        with readable_names(name):
            schema.names, str(schema)  # decodes all names, also those inside of types

    @abstractmethod
    def part(self, row: int) -> int:
        """Return the number of the part that holds a row; reading can start where a part does."""

    @abstractmethod
    def batches(self, column: str, row: int, size: int) -> Iterator[tuple[int, Any]]:
        """Yield Arrow arrays of up to ``size`` rows from the part that holds ``row`` to the end.

        Each comes after the number of its first row. The file is open until the iterator ends or
        is dropped.

        Raises:
            ArtifactError: If the file is damaged.
        """
