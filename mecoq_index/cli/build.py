"""``mecoq-index build``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._milvus import Target, build_in_milvus, target_options
from ._shared import (
    EXISTING,
    PATH,
    Source,
    chunk_store,
    column_option,
    device_option,
    given_option,
    ids_option,
    is_images,
    load_ids_option,
    load_inputs,
    overwrite_option,
    progress,
    report_bundle,
    strict_option,
    workers_option,
)
from ._shared import json_option as json_flag

if TYPE_CHECKING:
    from ..codebooks import Codebooks, VectorKind
    from ..index.build import BuildOptions


class _ShardType(click.ParamType):  # type: ignore[type-arg]
    name = "i/n"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        number, slash, count = str(value).partition("/")
        if not slash or not number.isdigit() or not count.isdigit():
            self.fail(f"{value!r} is no part of a whole; write 1/4, 2/4, ...", param, ctx)
        return int(number), int(count)


@click.command()
@click.option("--codebooks", "codebooks_path", type=EXISTING, required=True)
@click.option(
    "--input",
    "source",
    type=EXISTING,
    required=True,
    help="A folder of images; or vectors, or uint8 codes, in a file (.npy, .fvecs, .bvecs, .fbin, "
    ".u8bin, .parquet) or a folder of such files.",
)
@click.option(
    "--out",
    type=PATH,
    help="The index folder to write. For milvus it is optional, and points to the collection.",
)
@click.option("--engine", default="faiss", show_default=True, help="faiss, milvus, numpy or torch.")
@click.option(
    "--factory",
    help="For faiss: a factory string, IVF1024,MeCoQ8x8, or IVF,MeCoQ8x8 to choose the number of "
    "lists by that of the items. [default: MeCoQ]",
)
@click.option("--nprobe", type=click.IntRange(min=1), help="For IVF: lists that a search visits.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@target_options
@ids_option
@column_option
@click.option(
    "--shards", "shard", type=_ShardType(), help="Build part i of n only; merge joins them."
)
@click.option("--resume", is_flag=True, help="Go on where an interrupted build has stopped.")
@given_option
@device_option
@workers_option
@strict_option
@overwrite_option
@json_flag
def build(
    codebooks_path: Path,
    source: Path,
    out: Path | None,
    engine: str,
    factory: str | None,
    nprobe: int | None,
    seed: int,
    target: Target,
    ids: Path | None,
    column: str | None,
    shard: tuple[int, int] | None,
    resume: bool,
    given: VectorKind | None,
    device: str | None,
    workers: int,
    strict: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Encode vectors or images and write an index that search and plain FAISS can read.

    With --engine milvus they go into a collection, whose rows and results are then compared with
    exact scores. Names become its column name.

    \b
    Example:
        mecoq-index build --codebooks c.pt --input photos/ --factory IVF1024,MeCoQ8x8 \\
            --out photos.mecoq
        mecoq-index build --codebooks c.pt --input photos/ --engine milvus \\
            --uri http://localhost:19530 --collection photos --profile compact
    """
    from ..codebooks import Codebooks
    from ..data.reader import ArrayRows
    from ..index.build import BuildOptions, Shard, build_bundle, check_output_bundle

    if engine != "faiss" and (factory is not None or nprobe is not None):
        raise click.UsageError("--factory and --nprobe are for the faiss engine.")
    codebooks = Codebooks.load(codebooks_path)
    if engine == "milvus":
        if shard is not None:
            raise click.UsageError("--shards is not for the milvus engine.")
        wanted = Source(
            path=source,
            ids=ids,
            column=column,
            given=given,
            device=device,
            workers=workers,
            strict=strict,
        )
        build_in_milvus(
            target,
            codebooks,
            wanted,
            out,
            resume=resume,
            overwrite=overwrite,
            as_json=as_json,
        )
        return
    target.check_unused()
    if out is None:
        raise click.UsageError("--out is missing, the index folder to write.")
    options = BuildOptions(
        engine=engine,
        factory=factory,
        nprobe=nprobe,
        seed=seed,
        shard=None if shard is None else Shard(*shard),
        given=given,
    )
    if is_images(source):
        if ids is not None or column is not None or shard is not None:
            raise click.UsageError(
                "--ids, --column and --shards are for vectors: images are called by their paths. "
                "Embed them first (mecoq-index embed) to build in shards."
            )
        check_output_bundle(out, options, codebooks, overwrite=overwrite)
        with chunk_store(out, resume) as store:
            inputs = load_inputs(
                source,
                codebooks,
                device=device,
                workers=workers,
                strict=strict,
                store=store if source.is_dir() else None,
            )
            build_bundle(
                ArrayRows(inputs.z),
                codebooks,
                out,
                options,
                ids=inputs.names,
                source={"source": str(source.resolve())},
                resume=resume,
                overwrite=overwrite,
            )
    else:
        _build_from_file(source, codebooks, out, options, ids, column, resume, overwrite)
    report_bundle(out, as_json)


def _build_from_file(
    source: Path,
    codebooks: Codebooks,
    out: Path,
    options: BuildOptions,
    ids: Path | None,
    column: str | None,
    resume: bool,
    overwrite: bool,
) -> None:
    from ..data.vectors import open_vectors
    from ..index.build import build_bundle

    with progress("building") as update:
        build_bundle(
            open_vectors(source, column=column),
            codebooks,
            out,
            options,
            ids=load_ids_option(ids),
            source={
                "source": str(source.resolve()),
                "changed": source.stat().st_mtime_ns,
                "ids": None if ids is None else [str(ids.resolve()), ids.stat().st_mtime_ns],
            },
            resume=resume,
            overwrite=overwrite,
            on_progress=lambda text, done, total: update(done, total, text),
        )
