"""Profiles: a form in which codes are stored in Milvus, and an index that scans it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..._arrays import Codes, Scores
from ...errors import InvalidInputError
from .connection import Server

Values = Any
"""Values of a vector field, one per row, as pymilvus takes them: an array (n, D), or a list."""


@dataclass(frozen=True, eq=False)
class Queries:
    """Queries in the form in which a field is searched.

    Attributes:
        values: One per query, as pymilvus takes them.
        offset: float32, shape (nq,) or (), the difference of our score and Milvus's.
    """

    values: Values
    offset: npt.NDArray[np.float32]


class Profile(ABC):
    """How codes are stored, indexed and searched."""

    name: ClassVar[str]
    index_type: ClassVar[str]
    metric_type: ClassVar[str] = "IP"
    exact: ClassVar[bool] = False
    """Whether scores and order are those of the reference, up to the rounding of floats."""
    search_options: ClassVar[frozenset[str]] = frozenset()
    """Names of the settings that a search takes."""
    least_version: ClassVar[tuple[int, ...]] = (2, 3)
    on_lite: ClassVar[bool] = False
    field_type: str = "FLOAT_VECTOR"
    """Milvus's name for the type of the vector field."""
    options: Mapping[str, Any] = MappingProxyType({})
    """The settings that it was made with, beside codebooks; plain values."""

    def check_server(self, server: Server) -> None:
        """Refuse a server that cannot hold this profile.

        Raises:
            InvalidInputError: If it is too old, or is milvus-lite and has no such index.
        """
        if server.is_lite and not self.on_lite:
            raise InvalidInputError(
                f"profile {self.name!r} needs {self.index_type}, which milvus-lite does not have "
                "(it would silently scan all vectors). Use a Milvus server, or profile exact."
            )
        if not server.is_lite and server.version < self.least_version:
            needed = ".".join(map(str, self.least_version))
            raise InvalidInputError(
                f"profile {self.name!r} needs Milvus {needed} or later, got {server}. "
                "Use a newer server or another profile."
            )

    def check_skipping(self, server: Server, what: str) -> None:  # noqa: B027
        """Refuse to leave rows out of a scan if the server then returns wrong scores.

        Args:
            server: The server.
            what: The cause for leaving rows out; the first words of the message.

        Raises:
            InvalidInputError: If the server's index cannot do it.
        """

    @property
    @abstractmethod
    def width(self) -> int | None:
        """The ``dim`` of the vector field; None if it has none."""

    @property
    @abstractmethod
    def bytes_per_vector(self) -> float:
        """Bytes of index memory per item, without its id."""

    @property
    @abstractmethod
    def belongs_to(self) -> str:
        """The fingerprint of the codebooks that stored codes can be compared for."""

    def index_params(self) -> dict[str, Any]:
        """Parameters of the index, without its type and metric."""
        return {}

    def search_params(self, k: int, options: Mapping[str, int]) -> dict[str, Any]:
        """Parameters of a search for k results; ``options`` are of `search_options`."""
        return {}

    @abstractmethod
    def check_codes(self, codes: Codes) -> Codes:
        """Return codes (n, width of a code) if they are well formed.

        Raises:
            InvalidInputError: If they are not.
        """

    @abstractmethod
    def documents(self, codes: Codes) -> Values:
        """The values to store for codes."""

    @abstractmethod
    def queries(self, q: Any) -> Queries:
        """The values to search with for raw queries.

        Raises:
            InvalidInputError: If the queries are malformed.
        """

    @abstractmethod
    def codes(self, values: Values) -> Codes:
        """The codes of values that `documents` made."""

    @abstractmethod
    def are_codes(self, values: Values) -> npt.NDArray[np.bool_]:
        """For each value (n,), whether `documents` can have made it."""

    def scores(self, found: Scores, offset: npt.NDArray[np.float32]) -> Scores:
        """Turn Milvus's scores (nq, k) into ours, which grow with similarity."""
        return found + offset[..., None] if offset.ndim else found
