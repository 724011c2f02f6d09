"""What an engine is, what a search returns, and which engines there are.

An engine holds codes and ranks them by AQS. It is built from codebooks and codes and never
re-encodes; it takes raw embeddings as queries and normalises them itself. ``Engine`` is a protocol:
a plug-in registers a class of this shape under the entry-point group ``mecoq_index.engines`` and
need not import this package.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from .._arrays import Codes, Ids, Scores, Vectors
from ..codebooks import Codebooks
from ..errors import InvalidInputError

ENTRY_POINT_GROUP = "mecoq_index.engines"

_BUILTIN = {
    "numpy": "mecoq_index.engines.numpy:NumpyEngine",
    "torch": "mecoq_index.engines.torch:TorchEngine",
    "faiss": "mecoq_index.engines.faiss.engine:FaissEngine",
    "milvus": "mecoq_index.engines.milvus.engine:MilvusEngine",
}


@dataclass(frozen=True, eq=False)
class Hits:
    """Search results, best first.

    Attributes:
        scores: float32, shape (nq, k), AQS; larger is better, -inf where a result is missing.
        ids: int64, shape (nq, k), -1 where a result is missing.
    """

    scores: Scores
    ids: Ids

    @classmethod
    def empty(cls, nq: int, k: int) -> Hits:
        """Hits in which every result is missing."""
        return cls(np.full((nq, k), -np.inf, np.float32), np.full((nq, k), -1, np.int64))


@dataclass(frozen=True, eq=False)
class RangeHits:
    """All items above a threshold: those of query i are ``limits[i]:limits[i + 1]``, best first.

    Attributes:
        limits: int64, shape (nq + 1,).
        scores: float32, shape (limits[-1],), AQS.
        ids: int64, shape (limits[-1],).
    """

    limits: Ids
    scores: Scores
    ids: Ids


class Engine(Protocol):
    """Codes held for search by AQS."""

    name: ClassVar[str]
    file_name: ClassVar[str]
    """The name that a bundle gives to the file that `save` writes."""

    @property
    def codebooks(self) -> Codebooks:
        """The codebooks that the codes belong to."""
        ...

    @classmethod
    def build(cls, codebooks: Codebooks, codes: Codes, ids: Ids | None = None) -> Engine:
        """An engine that holds ``codes`` (n, M), under ``ids`` (n,) or 0..n-1.

        An engine may take more, by keyword: what it is made of.

        Raises:
            InvalidInputError: If the engine cannot represent the codebooks or the options.
        """
        ...

    def add(self, codes: Codes, ids: Ids | None = None) -> None:
        """Add codes (n, M) under ``ids``, or under the next free row numbers."""
        ...

    def search(self, z: Vectors, k: int) -> Hits:
        """The k best items for each raw query (nq, D); missing results are -1 and -inf.

        An engine may take more, by keyword: settings of this call.
        """
        ...

    def ids(self) -> Ids:
        """The ids (n,) of all items held, in no particular order."""
        ...

    def codes(self, ids: Ids) -> Codes:
        """The codes (n, M) of the items with these ids."""
        ...

    def remove(self, ids: Ids) -> int:
        """Remove the items with these ids; return how many there were."""
        ...

    def save(self, path: Path) -> None:
        """Write the index to one file."""
        ...

    @classmethod
    def open(cls, path: Path, codebooks: Codebooks) -> Engine:
        """Read an index that `save` wrote for the same codebooks."""
        ...

    @property
    def bytes_per_vector(self) -> float:
        """Bytes of index memory per item, ids included, tables shared by all items left out."""
        ...

    def describe(self) -> dict[str, Any]:
        """Plain values for people and logs: engine, layout, size, settings."""
        ...

    def __len__(self) -> int:
        """Number of items held."""
        ...


def available_engines() -> dict[str, str]:
    """Name and import path of every engine: built in first, then plug-ins. Imports none of them.

    Raises:
        InvalidInputError: If a plug-in takes the name of a built-in engine.
    """
    plugins = {entry.name: entry.value for entry in entry_points(group=ENTRY_POINT_GROUP)}
    if clash := sorted(_BUILTIN.keys() & plugins.keys()):
        raise InvalidInputError(f"plug-in engines may not replace built-in ones: {clash}")
    return _BUILTIN | plugins


def get_engine(name: str) -> Any:
    """The class, an `Engine`, that is called ``name``.

    Raises:
        InvalidInputError: If there is no such engine.
        MissingDependencyError: If the engine's library is not installed.
    """
    engines = available_engines()
    if name not in engines:
        raise InvalidInputError(f"unknown engine {name!r}; choose one of {sorted(engines)}.")
    module, _, attribute = engines[name].partition(":")
    return getattr(import_module(module), attribute)
