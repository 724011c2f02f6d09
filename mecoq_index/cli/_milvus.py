"""Milvus on the command line: its options, silence, and the building of collections."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._shared import (
    EXISTING,
    Source,
    chunk_store,
    is_images,
    print_json,
    progress,
    report_bundle,
    say,
)

if TYPE_CHECKING:
    from ..codebooks import Codebooks
    from ..engines.base import Engine
    from ..index.bundle import Bundle

uri_option = click.option(
    "--uri",
    help="For milvus: a server, http://host:19530, or a database of it, http://host:19530/NAME, "
    "or a file of milvus-lite, photos.db. "
    "[default: the environment's MILVUS_URI]",
)
token_option = click.option(
    "--token",
    help="For milvus: user:password or an API key. [default: the environment's MILVUS_TOKEN]",
)
collection_option = click.option("--collection", help="For milvus: the collection's name.")


class _IndexType(click.ParamType):  # type: ignore[type-arg]
    """An index folder, as a path, or the address of a Milvus, as a string."""

    name = "index"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        from ..engines.milvus.address import is_file

        text = str(value)
        if "://" in text or (is_file(text) and not Path(text, "manifest.json").exists()):
            return text
        return EXISTING.convert(text, param, ctx)


INDEX = _IndexType()


def open_index(path: Path, token: str | None = None) -> tuple[Engine, Bundle]:
    """As `mecoq_index.open_bundle`, quietly, and with credentials where they are needed."""
    from ..index.bundle import Bundle
    from ..index.stored import open_bundle

    if Bundle.read_manifest(path)["engine"] == "milvus":
        return open_bundle(path, token=token)
    if token is not None:
        raise click.UsageError(f"--token is for milvus, but {path} needs none.")
    return open_bundle(path)


@dataclass(frozen=True)
class Target:
    """What a build for Milvus was told of it; None is: not told."""

    uri: str | None = field(repr=False)  # it may carry credentials, as the token does
    token: str | None = field(repr=False)
    collection: str | None
    profile: str | None
    precision: str | None
    nbits: int | None

    def check_unused(self) -> None:
        """Refuse these options beside another engine."""
        if given := [name for name, value in vars(self).items() if value is not None]:
            raise click.UsageError(f"--{given[0]} is for the milvus engine.")

    def arguments(self) -> dict[str, Any]:
        """What `MilvusEngine.build` takes of them."""
        if self.collection is None:
            raise click.UsageError("the milvus engine needs --collection, a name.")
        return {
            "collection": self.collection,
            "uri": self.uri,
            "token": self.token,
            "profile": self.profile or "exact",
            "precision": self.precision,
            "nbits": self.nbits,
        }


def target_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a `Target`, which the command takes as one argument ``target``."""

    @wraps(command)
    def with_target(
        uri: str | None,
        token: str | None,
        collection: str | None,
        profile: str | None,
        precision: str | None,
        nbits: int | None,
        **others: Any,
    ) -> None:
        target = Target(uri, token, collection, profile, precision, nbits)
        command(target=target, **others)

    options = (
        uri_option,
        token_option,
        collection_option,
        click.option(
            "--profile",
            help="For milvus: how it stores codes and scans them: exact, graph, compact or "
            "sparse. [default: exact]",
        ),
        click.option(
            "--precision",
            type=click.Choice(["float32", "float16"]),
            help="For exact and graph: of stored vectors. [default: float32]",
        ),
        click.option(
            "--nbits",
            type=click.IntRange(1, 16),
            help="For compact: bits of Milvus's codes for a codebook. [default: log2 K + 2]",
        ),
    )
    for option in reversed(options):
        with_target = option(with_target)
    return with_target


def build_in_milvus(
    target: Target,
    codebooks: Codebooks,
    source: Source,
    out: Path | None,
    *,
    resume: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Fill a collection and verify it; with ``out``, write a bundle that points to it.

    Raises:
        MecoqError: If it cannot be filled, or what Milvus then returns is not what it should.
    """
    from ..engines.milvus.engine import MilvusEngine
    from ..engines.milvus.schema import NAME
    from ..index.names import Names
    from ..index.stored import check_place, save_bundle

    arguments: dict[str, Any] = {**target.arguments(), "resume": resume, "overwrite": overwrite}
    if out is not None:
        check_place(out, overwrite=overwrite)
    MilvusEngine.builder(codebooks, 1, **arguments)
    with _chunks(source, out, resume) as store:
        codes, ids = source.load(codebooks, store)
        columns: dict[str, Any] = {}
        if isinstance(ids, list):
            Names.from_strings(ids)  # refuses equal names
            ids, columns = None, {NAME: ids}
        with progress("loading") as update:
            engine = MilvusEngine.build(
                codebooks,
                codes,
                ids,
                columns=columns,
                on_progress=lambda text, done, total: update(done, total, text),
                **arguments,
            )
    found = engine.verification or engine.verify()
    say(str(found))
    if out is not None:
        save_bundle(engine, out, overwrite=overwrite)
    if as_json:
        compared = {"recall": found.recall, "score_error": found.score_error}
        print_json({**engine.describe(), "verified": compared})
    elif out is not None:
        report_bundle(out, as_json=False)


@contextmanager
def _chunks(source: Source, out: Path | None, resume: bool) -> Iterator[Path | None]:
    """Where to keep embeddings of images until they are loaded: beside ``out``, or nowhere."""
    if out is None or not source.path.is_dir() or not is_images(source.path):
        yield None
        return
    with chunk_store(out, resume) as store:
        yield store
