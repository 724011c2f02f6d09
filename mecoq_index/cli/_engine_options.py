"""Options that engines declare, as options of commands."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ._options import is_given

if TYPE_CHECKING:
    from ..engines.base import Option, Stage

Command = TypeVar("Command", bound=Callable[..., Any])

# Options that commands have themselves; the library hands their values to engines too.
_SHARED = frozenset({"device"})
_KINDS: dict[Any, Any] = {int: click.INT, float: click.FLOAT, str: click.STRING}


def declared_options(stage: Stage) -> dict[str, dict[str, Option]]:
    """The options of a stage by their name, then by the engine that declares them."""
    from ..engines.registry import available_engines, options_of
    from ..errors import MissingDependencyError

    found: dict[str, dict[str, Option]] = {}
    for engine in available_engines():
        try:
            options = options_of(engine)
        except MissingDependencyError:
            continue  # an engine without its library takes no options
        for option in options:
            if stage in option.stages and option.name not in _SHARED:
                found.setdefault(option.name, {})[engine] = option
    return found


def engine_options(*stages: Stage, many: bool = False) -> Callable[[Command], Command]:
    """Add the engines' options of some stages; the command takes them as ``options``.

    Values that were not given are left out. `check_engine_options` refuses those of other engines.

    Args:
        stages: The stages.
        many: Whether an option may be repeated. ``options`` is then a list with one dictionary for
            each combination of the values.
    """

    def decorate(command: Command) -> Command:
        declared = {name: by for stage in stages for name, by in declared_options(stage).items()}

        @wraps(command)
        def with_options(*args: Any, **given: Any) -> Any:
            values = {name: given.pop(name) for name in declared}
            kept = {name: value for name, value in values.items() if is_given(value)}
            options: Any = kept
            if many:
                lists = [v if isinstance(v, tuple) else (v,) for v in kept.values()]
                options = [dict(zip(kept, one, strict=True)) for one in itertools.product(*lists)]
            return command(*args, options=options, **given)

        wrapped: Any = with_options
        for name, by_engine in reversed(declared.items()):
            wrapped = _click_option(name, by_engine, many)(wrapped)
        return wrapped  # type: ignore[no-any-return]

    return decorate


def _click_option(name: str, by_engine: Mapping[str, Option], many: bool) -> Callable[[Any], Any]:
    first = next(iter(by_engine.values()))
    text = " ".join(f"For {engine}: {option.help}" for engine, option in by_engine.items())
    if first.kind is bool:
        return click.option(_spelled(name), name, is_flag=True, help=text)
    kind = click.Choice(first.kind) if isinstance(first.kind, tuple) else _KINDS[first.kind]
    if first.minimum is not None:
        ranged = click.IntRange if first.kind is int else click.FloatRange
        kind = ranged(min=first.minimum)  # type: ignore[arg-type]
    return click.option(_spelled(name), name, type=kind, help=text, multiple=many)


def _spelled(name: str) -> str:
    return "--" + name.replace("_", "-")


def check_engine_options(options: Mapping[str, Any], engine: str, *stages: Stage) -> None:
    """Refuse options that an engine does not take.

    Raises:
        click.UsageError: If one was given; the message says whose it is.
    """
    for stage in stages:
        for name, by_engine in declared_options(stage).items():
            if name in options and engine not in by_engine:
                owners = " and ".join(sorted(by_engine))
                raise click.UsageError(
                    f"{_spelled(name)} is for {owners}, but this index is of {engine}."
                )
