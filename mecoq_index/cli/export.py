"""``mecoq-index export``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InvalidInputError
from ._engine_options import check_engine_options, engine_options
from ._index import INDEX, open_index
from ._options import EXISTING, PATH, output_options, overwrite_option
from ._output import Output

if TYPE_CHECKING:
    from ..codebooks import Codebooks
    from ..index.index import Index

_CODEBOOK_FORMS = ("safetensors", "pt", "npy")


@click.command()
@click.argument("index", type=INDEX, required=False)
@click.option("--codebooks", type=EXISTING, help="Instead of INDEX: a codebook file.")
@click.option(
    "--to",
    "target",
    required=True,
    help="faiss: a file for faiss.read_index. milvus: a folder of parquet files for its bulk "
    "import. safetensors, pt: the codebooks with all they know. npy: the codewords (M, K, Ds).",
)
@click.option("--out", type=PATH, required=True, help="The file, or folder, to write.")
@engine_options("export", "open")
@overwrite_option
@output_options
def export(
    index: str | None,
    codebooks: Path | None,
    target: str,
    out: Path,
    options: dict[str, Any],
    overwrite: bool,
    output: Output,
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
        mecoq-index export --codebooks c.pt --to faiss \\
            --factory IVF1024,MeCoQ8x8 --out empty.faiss
        mecoq-index export --codebooks c.pt --to safetensors --out c.safetensors
        mecoq-index export photos.mecoq --to milvus --profile sparse --out rows
    """
    from ..codebooks import Codebooks

    if (index is None) == (codebooks is None):
        raise click.UsageError("give INDEX or --codebooks, one of the two.")
    opened, opening = None, dict(options)
    if index is not None:
        opened, opening = open_index(index, options)
    books = Codebooks.load(codebooks or "") if opened is None else opened.codebooks
    if target in _CODEBOOK_FORMS:
        if opening:
            raise click.UsageError(f"--to {target} takes no options of engines.")
        _export_codebooks(books, out, target, overwrite, output)
        return
    _export_items(opened, books, out, target, opening, overwrite, output)


def _export_codebooks(
    books: Codebooks, out: Path, target: str, overwrite: bool, output: Output
) -> None:
    import numpy as np

    from .._files import atomic_file, check_output

    if out.suffix != f".{target}":
        raise InvalidInputError(f"--out must end in .{target} for --to {target}, got {out.name}.")
    check_output(out, overwrite=overwrite)
    if target != "npy":
        books.save(out)
        output.done(f"wrote {out}: {books}", {"out": str(out)})
        return
    with atomic_file(out) as partial, partial.open("wb") as stream:
        np.save(stream, books.codewords)
    shape = list(books.codewords.shape)
    output.done(
        f"wrote {out}: codewords of shape {tuple(shape)}, without the projection",
        {"out": str(out), "shape": shape},
    )


def _export_items(
    opened: Index | None,
    books: Codebooks,
    out: Path,
    target: str,
    options: dict[str, Any],
    overwrite: bool,
    output: Output,
) -> None:
    from ..engines.abilities import Exporter
    from ..engines.registry import available_engines, get_engine

    if target not in available_engines() or not isinstance(get_engine(target), Exporter):
        raise click.UsageError(
            f"--to must be faiss, milvus, {', '.join(_CODEBOOK_FORMS)}, or a plug-in engine that "
            f"exports, got {target!r}."
        )
    check_engine_options(options, target, "export")
    with output.progress("writing") as update:
        note = get_engine(target).export(
            out,
            books,
            None if opened is None else opened.engine,
            {} if opened is None else opened.values(),
            overwrite=overwrite,
            on_progress=update,
            **options,
        )
    said = ", ".join(f"{key} {value}" for key, value in note.items() if _is_short(value))
    output.done(f"wrote {out}: {said}", {"out": str(out), **note})


def _is_short(value: object) -> bool:
    return value is not None and len(str(value)) <= 40
