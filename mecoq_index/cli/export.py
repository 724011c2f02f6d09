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
    type=click.Choice(["faiss", "milvus", "npy", "safetensors", "pt"]),
    required=True,
    help="faiss: a file for faiss.read_index. milvus: a folder of parquet files for its bulk "
    "import. npy: the codewords (M, K, Ds). safetensors, pt: the codebooks with all they know.",
)
@click.option("--out", type=PATH, required=True, help="The file, or folder, to write.")
@click.option("--factory", help="With --codebooks: layout of the empty index. [default: MeCoQ]")
@click.option(
    "--takes",
    type=click.Choice(["features", "embeddings"]),
    help="For faiss: what will go in. [default: features if the projection is linear]",
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
    """Write INDEX, or codebooks, for programs that do not use this package.

    For faiss, an index that takes vectors as they are and scores raw AQS: it does not normalize
    queries. Beside it lie a note (.json), the names of items by id (.names.json) and, if
    embeddings go in, the projection that makes them from features, for NumPy (.projection.npz).
    A folder for Milvus holds rows of id, vector and name; its schema.json says how to make the
    collection and to import.

    \b
    Example:
        mecoq-index export photos.mecoq --to faiss --out photos.faiss
        mecoq-index export --codebooks c.pt --to faiss --factory IVF1024,MeCoQ8x8 --out empty.faiss
        mecoq-index export --codebooks c.pt --to safetensors --out c.safetensors
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
    if target != "faiss":
        _export_codebooks(index, codebooks, out, target)
        return
    _export_faiss(index, codebooks, out, factory, takes, overwrite)


def _export_codebooks(index: Path | None, codebooks: Path | None, out: Path, target: str) -> None:
    import numpy as np

    from .._files import atomic_file
    from ..codebooks import Codebooks
    from ..index.bundle import Bundle

    if out.suffix != f".{target}":
        raise InvalidInputError(f"--out must end in .{target} for --to {target}, got {out.name}.")
    books = Codebooks.load(codebooks) if codebooks else Bundle.open(index or "").codebooks
    if target != "npy":
        books.save(out)
        say(f"wrote {out}: {books}")
        return
    with atomic_file(out) as partial, partial.open("wb") as stream:
        np.save(stream, books.codewords)
    say(f"wrote {out}: codewords of shape {books.codewords.shape}, without the projection")


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
    overwrite: bool,
) -> None:
    from ..codebooks import Codebooks
    from ..engines.faiss.engine import FaissEngine
    from ..engines.faiss.plain import export_index

    if index is None:
        books = Codebooks.load(codebooks or "")
        note = export_index(out, books, factory=factory, takes=takes, overwrite=overwrite)
    else:
        engine, bundle = open_index(index)
        if not isinstance(engine, FaissEngine):
            raise InvalidInputError(
                f"only an index of engine faiss can be exported to FAISS, but {index} is of "
                f"{bundle.engine}. Build it with --engine faiss."
            )
        note = export_index(
            out,
            bundle.codebooks,
            engine=engine,
            takes=takes,
            names=bundle.names,
            overwrite=overwrite,
        )
    say(f"wrote {out}: {note['items']} items; takes {note['takes']}; {note['metric']}")
    if note["names"]:
        say(f"wrote {out.with_name(note['names'])}: names by id")
    if note["projection"]:
        say(
            f"wrote {out.with_name(note['projection'])}: the projection, which FAISS cannot apply; "
            "apply it to features with NumPy (docs/faiss.md) before they go in"
        )
