"""``mecoq-index build``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .._arguments import whole_number
from ..engines.registry import DEFAULT_ENGINE, get_engine
from ._engine_options import check_engine_options, engine_options
from ._options import (
    PATH,
    codebooks_option,
    given_option,
    image_options,
    output_options,
    overwrite_option,
    positional,
    reading_options,
    resume_option,
)
from ._output import Output, after_interrupt, unfinished

if TYPE_CHECKING:
    from ..codebooks import VectorKind


class _ShardType(click.ParamType):  # type: ignore[type-arg]
    name = "i/n"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        part, _, whole = str(value).partition("/")
        number, count = whole_number(part), whole_number(whole)
        if number is None or count is None:
            self.fail(f"{value!r} is no part of a whole; write 1/4, 2/4, ...", param, ctx)
        return number, count


@click.command()
@positional("source", old="--input")
@codebooks_option
@click.option(
    "--out",
    type=PATH,
    help="The index folder to write. With an engine that keeps items elsewhere it is optional, "
    "and points to them.",
)
@click.option(
    "--engine", default=DEFAULT_ENGINE, show_default=True, help="The engine to build with."
)
@engine_options("build")
@reading_options
@given_option
@click.option(
    "--shards", "shard", type=_ShardType(), help="Build part i of n only; merge joins the parts."
)
@image_options
@resume_option
@overwrite_option
@output_options
def build(
    source: Path,
    codebooks: Path,
    out: Path | None,
    engine: str,
    options: dict[str, Any],
    reading: dict[str, Any],
    given: VectorKind | None,
    shard: tuple[int, int] | None,
    images: dict[str, Any],
    resume: bool,
    overwrite: bool,
    output: Output,
) -> None:
    """Encode SOURCE and write an index that search and plain FAISS can read.

    SOURCE is a folder of images; or vectors, or uint8 codes, in a file or a folder of files (.npy,
    .npz, .fvecs, .bvecs, .fbin, .u8bin, .hdf5, .parquet, .arrow).

    With --engine milvus the items go into a collection, whose rows and results are then compared
    with exact scores.

    \b
    Example:
        mecoq-index build photos/ --codebooks c.pt --factory IVF1024,MeCoQ \\
            --out photos.mecoq
        mecoq-index build items.parquet --codebooks c.pt --vector-column v \\
            --id-column id --columns year --out items.mecoq
        mecoq-index build photos/ --codebooks c.pt --engine milvus \\
            --uri http://localhost:19530 --collection photos --profile compact
    """
    from ..index.index import Index

    check_engine_options(options, engine, "build")
    after_interrupt(lambda: _how_to_go_on(out, engine))
    with output.progress("building") as update:
        index = Index.build(
            source,
            codebooks,
            out=out,
            engine=engine,
            given=given,
            shard=shard,
            resume=resume,
            overwrite=overwrite,
            progress=update,
            **reading,
            **images,
            **options,
        )
    output.report_skipped(index.skipped)
    described = dict(index.describe())
    place = str(out) if out is not None else index.address
    # An address, where there is one: credentials of the environment do not go where a folder says.
    output.done(
        f"wrote {place}: {index.summary()}",
        described,
        next_command=("mecoq-index", "search", str(index.address or place), "QUERY"),
    )


def _how_to_go_on(out: Path | None, engine: str) -> str:
    if out is not None and get_engine(engine).holds_items:
        return unfinished(out)
    return "Add --resume to go on from what is done."
