"""The command line: one module a command, each of which parses, calls the library, and prints."""

from __future__ import annotations

from typing import Any

import click

from ..errors import MecoqError
from ._output import shown_warnings, visible_errors
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


class _Group(click.Group):
    """Show our own errors, and Ctrl-C, as one sentence; let other exceptions keep their traceback.

    A command that knows how to go on after Ctrl-C raises an error of ours that says so.
    """

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        """Read the command line up to the name of the command."""
        with visible_errors():
            return super().make_context(*args, **options)

    def invoke(self, ctx: click.Context) -> object:
        """Run a command."""
        with visible_errors():
            return self._invoke(ctx)

    def _invoke(self, ctx: click.Context) -> object:
        try:
            with shown_warnings():
                return super().invoke(ctx)
        except MecoqError as exc:
            raise click.ClickException(str(exc)) from exc
        except KeyboardInterrupt as exc:
            advice = getattr(ctx.find_root(), "meta", {}).get("after_interrupt")
            raise click.ClickException(
                "interrupted. "
                + (advice() if advice else "Nothing was changed; run the command again.")
            ) from exc


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
