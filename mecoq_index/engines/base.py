"""What an engine is, how it is built, and how it declares what it takes.

An engine holds codes and ranks them by AQS. It is built from codebooks and codes and never
re-encodes; it takes raw embeddings as queries and normalizes them itself. Engines are protocols: a
plug-in registers a class of this shape under the entry-point group ``mecoq_index.engines`` and need
not import this package. ``*args`` in a signature only says that keyword arguments may follow.

What is not common to all engines is *declared*: settings as `Option`, abilities as the protocols
of `mecoq_index.engines.abilities`. Code above the engines asks for these and never for an engine by
its name, so that a plug-in can do all that a built-in engine can.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt

from .._arrays import Codes, Ids, Vectors
from .._progress import Progress, silent
from ..codebooks import Codebooks
from .hits import Hits

Stage = Literal["build", "open", "search", "bench", "export"]
Columns = Mapping[str, Sequence[Any] | npt.NDArray[Any]]
"""Values that items carry beside their codes, by name: n of each."""


@dataclass(frozen=True)
class Option:
    """A setting of an engine: a keyword argument in Python, ``--name`` in the shell.

    Attributes:
        name: The keyword, for instance ``k_factor``; the shell writes ``--k-factor``.
        kind: ``int``, ``float``, ``str`` or ``bool``, or a tuple of the strings to choose from.
        help: One sentence for ``--help``, with the default in square brackets where there is one.
        stages: What it is for: ``build``, ``open`` (to reach an index that is elsewhere),
            ``search``, ``bench`` or ``export``.
        minimum: The least value of a number; None for any.
        is_secret: Whether the value must not be printed, logged or written to a file.
    """

    name: str
    kind: type[int] | type[float] | type[str] | type[bool] | tuple[str, ...]
    help: str
    stages: frozenset[Stage]
    minimum: float | None = None
    is_secret: bool = False


@dataclass(frozen=True, eq=False)
class Batch:
    """Some items on their way into an engine.

    Attributes:
        codes: uint8, shape (n, M).
        ids: int64, shape (n,), or a range of n.
        places: What `Builder.place` says of each, shape (n,); None where it says nothing.
        columns: Values that the items carry; empty for engines that store none.
    """

    codes: Codes
    ids: Ids | range
    places: npt.NDArray[np.int32] | None = None
    columns: Columns = field(default_factory=dict)


class Builder(Protocol):
    """Makes an engine from codes that come batch by batch.

    The caller keeps what `train` and `place` return, so that an interrupted build goes on from
    there. The order of calls: `check_ids`; `rows_to_train_on` and, if there are any, `train` with
    their codes or `restore`; then `place` and `add` for every batch; then `finish`.
    """

    @property
    def keeps_ids(self) -> bool:
        """Whether items can have ids of one's own; otherwise they are numbered 0..n-1."""
        ...

    def check_ids(self, ids: Ids | range) -> None:
        """Refuse ids that the engine could not keep.

        Raises:
            InvalidInputError: If so.
        """
        ...

    def rows_to_train_on(self, n: int) -> Sequence[tuple[int, int]]:
        """Which of n rows `train` wants, as ascending runs (first, after last); mostly none.

        Raises:
            InvalidInputError: If n rows are too few.
        """
        ...

    def train(self, codes: Codes, on_progress: Progress = silent) -> Mapping[str, npt.NDArray[Any]]:
        """Learn from the codes of those rows; what is returned can be kept for `restore`."""
        ...

    def restore(self, trained: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take up what `train` returned."""
        ...

    def place(self, codes: Codes) -> npt.NDArray[np.int32] | None:
        """Where items with these codes go, one number each; None if there is nothing to decide."""
        ...

    def add(self, batch: Batch) -> None:
        """Take in items."""
        ...

    def finish(self, on_progress: Progress = silent) -> Engine:
        """The engine with all items."""
        ...


class UntrainedBuilder:
    """The part of a `Builder` that keeps any ids, and has nothing to learn or to decide."""

    keeps_ids = True

    def check_ids(self, ids: Ids | range) -> None:
        """Accept any ids."""

    def rows_to_train_on(self, n: int) -> Sequence[tuple[int, int]]:
        """Return no rows."""
        return ()

    def train(self, codes: Codes, on_progress: Progress = silent) -> Mapping[str, npt.NDArray[Any]]:
        """Learn nothing."""
        return {}

    def restore(self, trained: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take up nothing."""

    def place(self, codes: Codes) -> None:
        """Decide nothing."""


class Engine(Protocol):
    """Codes held for search by AQS."""

    name: ClassVar[str]
    file_name: ClassVar[str]
    """The name that a bundle gives to the file that `save` writes."""
    options: ClassVar[Sequence[Option]]
    """The settings that `builder`, `open`, `search` and a bench take by keyword."""
    holds_items: ClassVar[bool]
    """Whether the file that `save` writes holds the items; otherwise it points to them, and
    changes take effect at once."""
    stores_columns: ClassVar[bool]
    """Whether the engine keeps columns of items; otherwise the bundle does."""

    @property
    def codebooks(self) -> Codebooks:
        """The codebooks that the codes belong to."""
        ...

    @classmethod
    def build(
        cls, codebooks: Codebooks, codes: Codes, ids: Ids | None = None, *args: Any, **options: Any
    ) -> Engine:
        """An engine that holds ``codes`` (n, M), under ``ids`` (n,) or 0..n-1.

        An engine may take its options of the stage ``build``, by keyword.

        Raises:
            InvalidInputError: If the engine cannot represent the codebooks or the options.
        """
        ...

    @classmethod
    def builder(cls, codebooks: Codebooks, items: int, *args: Any, **options: Any) -> Builder:
        """A builder of an engine with these options, for about so many items.

        Nothing is written before `Builder.finish`.

        Raises:
            InvalidInputError: If the engine cannot represent the codebooks or the options.
            ServerError: If what holds the items is out of reach, or refuses.
        """
        ...

    def builder_alike(self) -> Builder:
        """A builder of an empty engine with the layout, lists and settings of this one."""
        ...

    def merge_obstacle(self, other: Engine) -> str:
        """What keeps the other engine's items from `builder_alike`'s engine; empty if nothing.

        The words follow "differs in its", as in "layout (A instead of B)".
        """
        ...

    def items(self) -> Iterator[Batch]:
        """All items, in an order in which `builder_alike` makes the same engine again."""
        ...

    @property
    def keeps_ids(self) -> bool:
        """Whether items can have ids of one's own; otherwise they are numbered 0..n-1."""
        ...

    def add(self, codes: Codes, ids: Ids | None = None, *args: Any, **options: Any) -> None:
        """Add codes (n, M) under ``ids``, or under the next free numbers.

        An engine that stores columns takes ``columns`` by keyword.
        """
        ...

    def search(self, z: Vectors, k: int, *args: Any, **options: Any) -> Hits:
        """The k best items for each raw query (nq, D); missing results are -1 and -inf.

        Takes the engine's options of the stage ``search``, by keyword, for this call only.
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
    def open(cls, path: Path, codebooks: Codebooks, *args: Any, **options: Any) -> Engine:
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
