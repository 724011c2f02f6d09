"""``mecoq-index export``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import InvalidInputError
from ._shared import EXISTING, PATH, check_output, overwrite_option, say

if TYPE_CHECKING:
    from ..codebooks import VectorKind


@click.command()
@click.argument("index", type=EXISTING, required=False)
@click.option("--codebooks", type=EXISTING, help="Instead of INDEX: a codebook file.")
@click.option(
    "--to",
    "target",
    type=click.Choice(["faiss", "npy"]),
    required=True,
    help="faiss: a file for faiss.read_index. npy: the codewords (M, K, Ds).",
)
@click.option("--out", type=PATH, required=True, help="The file to write.")
@click.option("--factory", help="With --codebooks: layout of the empty index. [default: MeCoQ]")
@click.option(
    "--takes",
    type=click.Choice(["features", "embeddings"]),
    help="For faiss: what will go in. [default: features where there is a projection]",
)
@overwrite_option
def export(
    index: Path | None,
    codebooks: Path | None,
    target: str,
    out: Path,
    factory: str | None,
    takes: VectorKind | None,
    overwrite: bool,
) -> None:
    """Hand INDEX, or codebooks, over to programs that do not use this package.

    A FAISS file takes vectors as they come and scores raw AQS, without normalising queries; a note
    beside it, a .json, says so and what goes in.

    \b
    Example:
        mecoq-index export photos.mecoq --to faiss --out photos.faiss
        mecoq-index export --codebooks c.pt --to faiss --factory IVF1024,MeCoQ8x8 --out empty.faiss
        mecoq-index export --codebooks c.pt --to npy --out codewords.npy
    """
    if (index is None) == (codebooks is None):
        raise click.UsageError("give INDEX or --codebooks, one of the two.")
    if factory is not None and (index is not None or target != "faiss"):
        raise click.UsageError("--factory is for an empty FAISS index, with --codebooks.")
    check_output(out, overwrite)
    if target == "npy":
        _export_codewords(index, codebooks, out)
        return
    _export_faiss(index, codebooks, out, factory, takes)


def _export_codewords(index: Path | None, codebooks: Path | None, out: Path) -> None:
    import numpy as np

    from .._files import atomic_file
    from ..bundle import Bundle
    from ..codebooks import Codebooks

    books = Codebooks.load(codebooks) if codebooks else Bundle.open(index or "").codebooks
    with atomic_file(out) as partial, partial.open("wb") as stream:
        np.save(stream, books.codewords)
    say(f"wrote {out}: codewords of shape {books.codewords.shape}")


def _export_faiss(
    index: Path | None,
    codebooks: Path | None,
    out: Path,
    factory: str | None,
    takes: VectorKind | None,
) -> None:
    from ..codebooks import Codebooks
    from ..engines.faiss.engine import FaissEngine
    from ..engines.faiss.plain import export_index
    from ..engines.stored import open_bundle

    if index is None:
        books = Codebooks.load(codebooks or "")
        note = export_index(out, books, factory=factory, takes=takes)
    else:
        engine, bundle = open_bundle(index)
        if not isinstance(engine, FaissEngine):
            raise InvalidInputError(
                f"only indexes of faiss are exported to it, but {index} is of {bundle.engine}. "
                "Build it with --engine faiss."
            )
        note = export_index(out, bundle.codebooks, engine=engine, takes=takes)
    say(f"wrote {out}: takes {note['takes']}; {note['metric']}")
