"""The command line: one module a command, each of which parses, calls the library, and prints."""

from __future__ import annotations

import errno
from typing import Any

import click

from .._addresses import shown
from ..errors import MecoqError
from ._output import shown_warnings, visible_errors
from ._system import explained
from .add import add
from .bench import bench
from .build import build
from .demo import demo
from .embed import embed
from .export import export
from .inspect import inspect
from .merge import merge
from .reencode import reencode
from .remove import remove
from .search import search
from .train import train
from .tune import tune

_ARGUMENTS = "mecoq_index.arguments"
_SHORT = 5  # characters of an argument that is no password


class _Group(click.Group):
    """Say our own errors, those of the system, and Ctrl-C; others keep their traceback.

    Errors of the system and Ctrl-C are followed by how to go on, see `after_interrupt`.
    """

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        """Read the command line up to the name of the command."""
        with visible_errors():
            return super().make_context(*args, **options)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the arguments, for messages that must not repeat some of them."""
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run a command."""
        with visible_errors():
            return self._invoke(ctx)

    def _invoke(self, ctx: click.Context) -> object:
        try:
            with shown_warnings():
                return super().invoke(ctx)
        except click.UsageError as exc:
            message = said = exc.format_message()  # "unexpected extra argument" repeats it
            for text in ctx.meta[_ARGUMENTS]:
                if len(text) > _SHORT and shown(text) != text:
                    for repeated in (text, repr(text)[1:-1]):
                        message = message.replace(repeated, shown(text))
            if message == said:
                raise
            raise click.UsageError(message, exc.ctx) from None
        except MecoqError as exc:
            raise click.ClickException(str(exc)) from exc
        except KeyboardInterrupt as exc:
            raise click.ClickException(f"interrupted. {_how_to_go_on(ctx)}") from exc
        except (OSError, MemoryError, RuntimeError) as exc:
            # Whoever reads our output has stopped: click is silent then.
            is_pipe = isinstance(exc, OSError) and exc.errno == errno.EPIPE
            if is_pipe or (reason := explained(exc)) is None:
                raise
            raise click.ClickException(f"{reason} {_how_to_go_on(ctx)}") from exc


def _how_to_go_on(ctx: click.Context) -> str:
    advice = ctx.find_root().meta.get("after_interrupt")
    return advice() if advice else "Nothing was changed; run the command again."


@click.group(cls=_Group, context_settings={"max_content_width": 100})
@click.version_option(package_name="mecoq-index")
def main() -> None:
    """Learn MeCoQ codebooks and search by them inside FAISS and Milvus.

    \b
    Three commands go from a folder of images, or a matrix, to an answer:
        mecoq-index train photos/ --bits 64 --out c.pt
        mecoq-index build photos/ --codebooks c.pt --out photos.mecoq
        mecoq-index search photos.mecoq query.jpg

    A first look, without any data of your own: mecoq-index demo
    """


for command in (
    *(train, embed, build, search, add, remove, reencode, merge, tune, bench),
    *(export, inspect, demo),
):
    main.add_command(command)
