"""The command line: one module a command, each of which parses, calls the library, and prints."""

from __future__ import annotations

import click

from ..errors import MecoqError
from .add import add
from .bench import bench
from .build import build
from .demo import demo
from .embed import embed
from .export import export
from .inspect import inspect
from .merge import merge
from .remove import remove
from .search import search
from .train import train
from .tune import tune


class _Group(click.Group):
    """Show our own errors as one sentence; let every other exception keep its traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except MecoqError as exc:
            raise click.ClickException(str(exc)) from exc


@click.group(cls=_Group)
@click.version_option(package_name="mecoq-index")
def main() -> None:
    """Learn MeCoQ codebooks and search by them inside FAISS and Milvus.

    A first look, without any data of your own: mecoq-index demo
    """


for command in (
    *(train, embed, build, add, remove, merge, tune, search, bench, export, inspect, demo),
):
    main.add_command(command)
