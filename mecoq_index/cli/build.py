"""``mecoq-index build``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._shared import (
    EXISTING,
    PATH,
    check_output,
    chunk_store,
    device_option,
    given_option,
    load_inputs,
    overwrite_option,
    print_json,
    say,
    strict_option,
    workers_option,
)
from ._shared import json_option as json_flag

if TYPE_CHECKING:
    from ..codebooks import VectorKind


@click.command()
@click.option("--codebooks", "codebooks_path", type=EXISTING, required=True)
@click.option(
    "--input",
    "source",
    type=EXISTING,
    required=True,
    help="Vectors (.npy, .fvecs, .fbin) or a folder of images.",
)
@click.option("--out", type=PATH, required=True, help="The index folder to write.")
@click.option("--engine", default="faiss", show_default=True, help="faiss, numpy or torch.")
@click.option("--factory", help="For faiss: a factory string, IVF1024,MeCoQ8x8. [default: MeCoQ]")
@click.option("--nprobe", type=click.IntRange(min=1), help="For IVF: lists that a search visits.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@click.option("--resume", is_flag=True, help="Go on where embedding the images was interrupted.")
@given_option
@device_option
@workers_option
@strict_option
@overwrite_option
@json_flag
def build(
    codebooks_path: Path,
    source: Path,
    out: Path,
    engine: str,
    factory: str | None,
    nprobe: int | None,
    seed: int,
    resume: bool,
    given: VectorKind | None,
    device: str | None,
    workers: int,
    strict: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Encode vectors or images and write an index that search and plain FAISS can read.

    \b
    Example:
        mecoq-index build --codebooks c.pt --input photos/ --factory IVF1024,MeCoQ8x8 \\
            --out photos.mecoq
    """
    from ..aqs import encode
    from ..bundle import check_replaceable
    from ..codebooks import Codebooks
    from ..engines.base import get_engine
    from ..engines.stored import save_bundle

    check_output(out, overwrite)
    if out.exists():
        check_replaceable(out)
    options: dict[str, Any] = {}
    if engine == "faiss":
        options = {"factory": factory or "MeCoQ", "nprobe": nprobe, "seed": seed}
        from ..engines.faiss.factory import parse
    elif factory is not None or nprobe is not None:
        raise click.UsageError("--factory and --nprobe are for the faiss engine.")
    make = get_engine(engine)
    codebooks = Codebooks.load(codebooks_path)
    if engine == "faiss":
        parse(options["factory"], codebooks)  # refuse before the long work
    with chunk_store(out, resume) as store:
        inputs = load_inputs(
            source,
            codebooks,
            given=given,
            device=device,
            workers=workers,
            strict=strict,
            store=store if source.is_dir() else None,
        )
        built = make.build(codebooks, encode(inputs.z, codebooks), **options)
        save_bundle(built, out, names=inputs.names, overwrite=overwrite)
    description = built.describe()
    if as_json:
        print_json(description)
    else:
        say(f"wrote {out}: " + ", ".join(f"{k} {v}" for k, v in description.items()))
