"""``mecoq-index export``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import InvalidInputError
from ._milvus import open_index
from ._shared import EXISTING, PATH, check_output, overwrite_option, progress, say

if TYPE_CHECKING:
    from ..codebooks import VectorKind


@click.command()
@click.argument("index", type=EXISTING, required=False)
@click.option("--codebooks", type=EXISTING, help="Instead of INDEX: a codebook file.")
@click.option(
    "--to",
    "target",
    type=click.Choice(["faiss", "milvus", "npy"]),
    required=True,
    help="faiss: a file for faiss.read_index. milvus: a folder of parquet files for its bulk "
    "import. npy: the codewords (M, K, Ds).",
)
@click.option("--out", type=PATH, required=True, help="The file, or folder, to write.")
@click.option("--factory", help="With --codebooks: layout of the empty index. [default: MeCoQ]")
@click.option(
    "--takes",
    type=click.Choice(["features", "embeddings"]),
    help="For faiss: what will go in. [default: features where there is a projection]",
)
@click.option(
    "--profile",
    help="For milvus: the form that codes are stored in: exact, graph and compact (decoded "
    "vectors) or sparse. [default: exact]",
)
@overwrite_option
def export(
    index: Path | None,
    codebooks: Path | None,
    target: str,
    out: Path,
    factory: str | None,
    takes: VectorKind | None,
    profile: str | None,
    overwrite: bool,
) -> None:
    """Hand INDEX, or codebooks, over to programs that do not use this package.

    A FAISS file takes vectors as they come and scores raw AQS, without normalising queries; a note
    beside it, a .json, says so and what goes in. A folder for Milvus holds rows of id, vector and,
    where items have names, name; its schema.json says how to make the collection and to import.

    \b
    Example:
        mecoq-index export photos.mecoq --to faiss --out photos.faiss
        mecoq-index export --codebooks c.pt --to faiss --factory IVF1024,MeCoQ8x8 --out empty.faiss
        mecoq-index export --codebooks c.pt --to npy --out codewords.npy
        mecoq-index export photos.mecoq --to milvus --profile sparse --out rows
    """
    if (index is None) == (codebooks is None):
        raise click.UsageError("give INDEX or --codebooks, one of the two.")
    if factory is not None and (index is not None or target != "faiss"):
        raise click.UsageError("--factory is for an empty FAISS index, with --codebooks.")
    if target == "milvus" and index is None:
        raise click.UsageError("to milvus the items of an INDEX are exported, not codebooks.")
    if profile is not None and target != "milvus":
        raise click.UsageError("--profile is for milvus.")
    if takes is not None and target == "milvus":
        raise click.UsageError("--takes is for faiss.")
    check_output(out, overwrite)
    if target == "milvus" and index is not None:
        _export_rows(index, out, profile or "exact", overwrite)
        return
    if target == "npy":
        _export_codewords(index, codebooks, out)
        return
    _export_faiss(index, codebooks, out, factory, takes)


def _export_codewords(index: Path | None, codebooks: Path | None, out: Path) -> None:
    import numpy as np

    from .._files import atomic_file
    from ..codebooks import Codebooks
    from ..index.bundle import Bundle

    books = Codebooks.load(codebooks) if codebooks else Bundle.open(index or "").codebooks
    with atomic_file(out) as partial, partial.open("wb") as stream:
        np.save(stream, books.codewords)
    say(f"wrote {out}: codewords of shape {books.codewords.shape}")


def _export_rows(index: Path, out: Path, profile: str, overwrite: bool) -> None:
    from ..engines.milvus.engine import MilvusEngine

    engine, bundle = open_index(index)
    with progress("writing") as update:
        names = [bundle.names[i] for i in bundle.names.ids.tolist()]
        note = MilvusEngine.export(
            out,
            engine.codebooks,
            engine,
            {"name": names} if names else {},
            profile=profile,
            overwrite=overwrite,
            on_progress=lambda text, done, total: update(done, total, text),
        )
    say(f"wrote {out}: {note['items']} items in {len(note['files'])} files; see schema.json there")


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

    if index is None:
        books = Codebooks.load(codebooks or "")
        note = export_index(out, books, factory=factory, takes=takes)
    else:
        engine, bundle = open_index(index)
        if not isinstance(engine, FaissEngine):
            raise InvalidInputError(
                f"only indexes of faiss are exported to it, but {index} is of {bundle.engine}. "
                "Build it with --engine faiss."
            )
        note = export_index(out, bundle.codebooks, engine=engine, takes=takes)
    say(f"wrote {out}: takes {note['takes']}; {note['metric']}")
