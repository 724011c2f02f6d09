"""What some engines can do and others cannot, as protocols that code above them asks for."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from .._arrays import Codes, Vectors
from .._progress import Progress, silent
from ..codebooks import Codebooks
from .base import Columns, Engine
from .hits import Hits


@dataclass(frozen=True)
class Tuned:
    """What tuning found: ``value`` of the option ``setting`` reaches ``recall``.

    Attributes:
        setting: Name of the option.
        value: The least value that reaches the recall asked for.
        recall: What it reaches.
        curve: All pairs (value, recall) that were measured, ascending.
    """

    setting: str
    value: int
    recall: float
    curve: tuple[tuple[int, float], ...]


@runtime_checkable
class Tunable(Protocol):
    """An engine with a setting that trades speed for recall."""

    def tune(self, z: Vectors, *, recall: float = 0.95, k: int = 10) -> Tuned:
        """Find the least value that reaches a recall for raw queries (nq, D); changes nothing.

        Raises:
            InvalidInputError: If the engine, as it was built, has no such setting.
        """
        ...

    def set_default(self, setting: str, value: int) -> None:
        """Make a value the one that searches use unless told otherwise."""
        ...


@runtime_checkable
class Attachable(Protocol):
    """An engine whose items may be elsewhere, at an address."""

    @property
    def address(self) -> str:
        """The address of the items."""
        ...

    @classmethod
    def accepts(cls, address: str) -> bool:
        """Whether an address is one of this engine's; decided by its form alone."""
        ...

    @classmethod
    def attach(
        cls, codebooks: Codebooks | None, address: str, *args: Any, **options: Any
    ) -> Engine:
        """The engine at an address, with its options of the stage ``open``.

        Args:
            codebooks: The codebooks of the items; None where the address itself holds them.
            address: For instance ``http://host:19530/photos``.
            options: By keyword.

        Raises:
            InvalidInputError: If nothing is there, it belongs to other codebooks, or codebooks
                are needed.
            ServerError: If the server is out of reach, refuses, or fails.
        """
        ...


@runtime_checkable
class Verifiable(Protocol):
    """An engine that can be compared with the reference as it stands."""

    def verify(self, *, expected_rows: int | None = None) -> Verification:
        """Compare what is held and returned with exact AQS."""
        ...


class Verification(Protocol):
    """What a comparison found; ``str()`` of it is one sentence for people."""

    @property
    def ok(self) -> bool:
        """Whether everything is as it should be."""
        ...


@runtime_checkable
class Exporter(Protocol):
    """An engine that can hand items over to programs that do not use this package."""

    @classmethod
    def export(
        cls,
        out: Path,
        codebooks: Codebooks,
        source: Engine | None,
        columns: Columns,
        *,
        on_progress: Progress = silent,
        **options: Any,
    ) -> Mapping[str, Any]:
        """Write files for the engine's own library.

        Args:
            out: What to write.
            codebooks: The codebooks.
            source: The engine whose items go out, of any kind; None for none.
            columns: Names (as ``name``) and columns of the items, in the order of ascending ids.
            on_progress: Called with (text, items done, items in all).
            options: By keyword.

        Returns:
            Plain values that say what was written.
        """
        ...


@runtime_checkable
class Benchable(Protocol):
    """An engine that is measured in more than one way, or beside others at the same place.

    Other engines are built once for each set of their options of the stage ``bench``.
    """

    @classmethod
    def bench_variants(
        cls, codebooks: Codebooks, **options: Any
    ) -> Mapping[str, Variant | BitsVariant]:
        """What to measure, by the name of the row, with its options of the stage ``bench``.

        A `Variant` is given learned codes, and its queries are embeddings. A `BitsVariant` is
        given the packed bits of a hashing method instead, so that both are measured at one place.
        """
        ...


class Measured(Protocol):
    """The part of an engine that a bench uses."""

    @property
    def bytes_per_vector(self) -> float:
        """Bytes of index memory per item, ids included."""
        ...

    def search(self, z: Vectors, k: int) -> Hits:
        """The k best items for each raw query (nq, D)."""
        ...

    def describe(self) -> dict[str, Any]:
        """Plain values for people and logs."""
        ...


class Variant(Protocol):
    """Makes an engine for as long as it is measured."""

    def __call__(self, codebooks: Codebooks, codes: Codes, /) -> AbstractContextManager[Measured]:
        """The engine with these codes; what was made for it is gone afterwards."""
        ...


@runtime_checkable
class BitsVariant(Protocol):
    """Stores packed bits of a hashing method at the same place, for as long as it is measured."""

    @property
    def takes_bits(self) -> bool:
        """True."""
        ...

    def __call__(self, bits: Codes, /) -> AbstractContextManager[BitsStore]:
        """A store of packed bits (n, bits / 8); what was made for it is gone afterwards."""
        ...


class BitsStore(Protocol):
    """Packed bits that are searched by Hamming distance."""

    @property
    def bytes_per_vector(self) -> float:
        """Bytes of index memory per item, ids included."""
        ...

    def search(self, q: Codes, k: int, /) -> Hits:
        """The k nearest items for packed bits (nq, bits / 8); scores are numbers of equal bits."""
        ...
