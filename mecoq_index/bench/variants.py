"""The rows of a bench that are about learned codes: an engine with some of its options each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from .._arguments import check_known
from .._arrays import Codes, Vectors
from ..baselines.hashing import ITQ
from ..codebooks import Codebooks
from ..engines.abilities import Benchable, BitsVariant, Measured, Variant
from ..engines.base import Engine
from ..engines.filling import fill
from ..engines.hits import Hits
from ..engines.registry import get_engine
from ..errors import InvalidInputError

_SUPPOSED_ITEMS = 1 << 20


def engine_variants(
    engine: str,
    codebooks: Codebooks,
    options: Sequence[Mapping[str, Any]] = ({},),
    *,
    items: int = _SUPPOSED_ITEMS,
    seed: int = 0,
) -> dict[str, Variant | BitsVariant]:
    """The variants of an engine to measure, by the names of their rows.

    A `Benchable` engine says what its options stand for. Any other one is built in this process
    once for each set of options; options that are only for searching go to every search.

    Args:
        engine: Name of the engine.
        codebooks: The learned codebooks.
        options: Sets of options of the stage ``bench``, by name.
        items: How many items there will be.
        seed: The value of an option called ``seed``, unless a set gives it.

    Raises:
        InvalidInputError: If a name is unknown, the engine cannot hold so many codes of these
            codebooks, or two rows would have one name.
        ServerError: If a server is out of reach or refuses the credentials.
    """
    kind = get_engine(engine)
    declared = {option.name: option for option in kind.options if "bench" in option.stages}
    found: dict[str, Variant | BitsVariant] = {}
    for given in options:
        check_known(given, declared, what=f"bench option of the {engine} engine")
        complete = {"seed": seed, **given} if "seed" in declared else dict(given)
        made: Mapping[str, Variant | BitsVariant]
        if isinstance(kind, Benchable):
            made = kind.bench_variants(codebooks, **complete)
        else:
            made = {_label(kind, given): _in_process(kind, codebooks, complete, items)}
        for label, variant in made.items():
            method = ITQ.name if isinstance(variant, BitsVariant) else "MeCoQ"
            name = f"{method} ({engine}, {label})" if label else f"{method} ({engine})"
            if name in found:
                raise InvalidInputError(
                    f"the sets of options must give rows of different names, but two give {name!r}."
                    " Leave one out."
                )
            found[name] = variant
    return found


def _label(kind: Any, options: Mapping[str, Any]) -> str:
    """Options as the name of a row tells them: texts by their values alone, secrets not at all."""
    secret = {option.name for option in kind.options if option.is_secret}
    return ", ".join(
        value if isinstance(value, str) else f"{name}={value}"
        for name, value in options.items()
        if name not in secret
    )


def _in_process(
    kind: Any, codebooks: Codebooks, options: Mapping[str, Any], items: int
) -> InProcess:
    """The variant of an engine that holds its items in this process.

    Raises:
        InvalidInputError: If it holds them elsewhere, or cannot represent what is asked for.
    """
    if not kind.holds_items:
        raise InvalidInputError(
            f"the {kind.name} engine keeps items elsewhere and does not say how to measure it there"
            " (bench_variants), so it cannot be measured. Choose another engine."
        )
    building = {option.name for option in kind.options if "build" in option.stages}
    variant = InProcess(
        kind,
        {name: value for name, value in options.items() if name in building},
        {name: value for name, value in options.items() if name not in building},
    )
    kind.builder(codebooks, items, **variant.build_options).rows_to_train_on(items)
    return variant


@dataclass(frozen=True, eq=False)
class InProcess:
    """An engine that holds its items in this process; a `Variant`.

    Attributes:
        kind: The class of the engine.
        build_options: Given to its builder.
        search_options: Given to every search.
    """

    kind: Any
    build_options: Mapping[str, Any]
    search_options: Mapping[str, Any]

    def __call__(self, codebooks: Codebooks, codes: Codes, /) -> AbstractContextManager[Measured]:
        """The engine with codes (n, M) under the ids 0..n-1."""
        return self._engine(codebooks, codes)

    @contextmanager
    def _engine(self, codebooks: Codebooks, codes: Codes) -> Iterator[Measured]:
        builder = self.kind.builder(codebooks, len(codes), **self.build_options)
        engine = fill(builder, codes, range(len(codes)))
        yield _WithOptions(engine, self.search_options) if self.search_options else engine


@dataclass(frozen=True, eq=False)
class _WithOptions:
    """An engine whose searches all have the same options."""

    engine: Engine
    options: Mapping[str, Any]

    @property
    def bytes_per_vector(self) -> float:
        return self.engine.bytes_per_vector

    def search(self, z: Vectors, k: int) -> Hits:
        return self.engine.search(z, k, **self.options)

    def describe(self) -> dict[str, Any]:
        return {**self.engine.describe(), **self.options}
