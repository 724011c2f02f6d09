"""What options and arguments several commands share, each in one spelling with one meaning."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from .._addresses import is_like_address, shown

Command = TypeVar("Command", bound=Callable[..., Any])


class _PathType(click.Path):
    """A path, whose errors repeat no password of an address that was given instead."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path if it exists, or, for one to write, if it is no address."""
        if self.exists and not os.path.lexists(value):
            self.fail(f"Path {shown(value)!r} does not exist.", param, ctx)
        if not self.exists and is_like_address(value):
            self.fail(f"must be a path, got {shown(value)!r}.", param, ctx)
        return super().convert(value, param, ctx)


PATH = _PathType(path_type=Path)
EXISTING = _PathType(exists=True, path_type=Path)


def is_given(value: object) -> bool:
    """Whether an option was given; 0 is a value, unlike the False of a flag."""
    return value is not None and value is not False and value != ()


class RenamedOption(click.Option):
    """An option that help shows under its new spelling only.

    Args:
        old: The spelling of earlier releases, which is still accepted.
    """

    def __init__(self, declarations: Sequence[str], *, old: str, **attributes: Any) -> None:
        super().__init__([*declarations, old], **attributes)
        self.old = old

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The spelling and the help text, as a line of ``--help``."""
        every, self.opts = self.opts, [opt for opt in self.opts if opt != self.old]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = every


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
quiet_option = click.option("--quiet", is_flag=True, help="Print results and errors only.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace an existing output.")
resume_option = click.option(
    "--resume", is_flag=True, help="Go on where an interrupted run of this command stopped."
)
seed_option = click.option(
    "--seed", type=click.IntRange(0, 2**31 - 2), help="Seed of everything random."
)
codebooks_option = click.option(
    "--codebooks", type=EXISTING, required=True, help="The codebook file, .pt or .safetensors."
)
vector_column_option = click.option(
    "--vector-column",
    "vector_column",
    cls=RenamedOption,
    old="--column",
    help="For tables: the column of vectors.",
    metavar="NAME",
)
given_option = click.option(
    "--given",
    type=click.Choice(["features", "embeddings"]),
    help="What vectors are; needed only where features and embeddings have one width.",
)


def positional(name: str, *, old: str, type: Any = EXISTING) -> Callable[[Command], Command]:
    """An argument that an earlier release took as an option, which stays as a hidden alias.

    Args:
        name: Name of the argument; the command takes a parameter of this name.
        old: The option's spelling, for instance ``--input``.
        type: The click type of the value.
    """
    alias = f"old_{name}"

    def decorate(command: Command) -> Command:
        @wraps(command)
        def with_alias(*args: Any, **options: Any) -> Any:
            given = [v for v in (options.pop(name), options.pop(alias)) if v is not None]
            if len(given) != 1:
                problem = "is missing" if not given else f"and {old} are the same: give one"
                raise click.UsageError(f"{name.upper()} {problem}.")
            return command(*args, **{name: given[0]}, **options)

        wrapped = click.option(old, alias, type=type, hidden=True)(with_alias)
        return click.argument(name, type=type, required=False, metavar=name.upper())(wrapped)  # type: ignore[return-value]

    return decorate


def bundled(name: str, *options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Options that a command takes together, as one dictionary called ``name``.

    Values that were not given are left out of it.
    """

    def decorate(command: Command) -> Command:
        probe = lambda: None  # noqa: E731
        for option in options:
            option(probe)
        names = [parameter.name for parameter in probe.__click_params__]  # type: ignore[attr-defined]

        @wraps(command)
        def with_bundle(*args: Any, **given: Any) -> Any:
            values = {n: given.pop(n) for n in names if n is not None}
            kept = {n: v for n, v in values.items() if is_given(v)}
            return command(*args, **{name: kept}, **given)

        wrapped: Any = with_bundle
        for option in reversed(options):
            wrapped = option(wrapped)
        return wrapped  # type: ignore[no-any-return]

    return decorate


def _names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if value else ()


_id_column_option = click.option(
    "--id-column", help="For tables: the column of ids or names.", metavar="NAME"
)
_ids_option = click.option(
    "--ids",
    type=EXISTING,
    help="What rows are called: .npy of integers, .txt of one name a line, or .parquet. "
    "[default: their numbers]",
)
# To find items that are known already, which keep their columns.
finding_options = bundled("reading", vector_column_option, _id_column_option, _ids_option)
reading_options = bundled(
    "reading",
    vector_column_option,
    _id_column_option,
    click.option(
        "--columns",
        callback=_names,
        help="For tables: columns to keep beside the items, for instance year,label.",
        metavar="NAMES",
    ),
    _ids_option,
)
_network_options = (
    click.option(
        "--backbone",
        help="For images: torchvision:NAME[:WEIGHTS], timm:NAME, or MODULE:ATTRIBUTE. Needed to "
        "search with codebooks whose file names a MODULE:ATTRIBUTE or a file of WEIGHTS.",
    ),
    click.option("--device", help="cpu, cuda, ... [default: CUDA where there is one]"),
    click.option("--workers", type=click.IntRange(0, 256), help="Processes that load images."),
)
image_options = bundled(
    "images",
    *_network_options,
    click.option("--strict", is_flag=True, help="Refuse unreadable images instead of skipping."),
)
# Where no image may be missing, so that there is nothing to skip.
all_images_options = bundled("images", *_network_options)


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--json`` and ``--quiet``, which the command takes as one `Output` called ``output``."""
    from ._output import Output

    @wraps(command)
    def with_output(*args: Any, as_json: bool, quiet: bool, **options: Any) -> Any:
        return command(*args, output=Output(as_json=as_json, quiet=quiet), **options)

    wrapped: Callable[..., Any] = json_option(quiet_option(with_output))
    return wrapped
