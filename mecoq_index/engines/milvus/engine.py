"""The engine: learned codes in a Milvus collection, ranked by AQS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ..._arguments import check_known
from ..._arrays import Codes, Ids, Vectors, check_codes
from ..._progress import Progress, silent
from ...codebooks import Codebooks
from ...errors import InvalidInputError
from ..abilities import BitsVariant, Variant
from ..base import Batch, Columns, Engine, Option
from ..hits import Hits
from . import schema
from .address import is_address, is_file, locate
from .builder import MilvusBuilder
from .codebook_store import check_size
from .collection import MilvusCollection
from .connection import LITE, connect
from .description import describe
from .filling import check_fill, check_settings
from .lite import check_file
from .opening import find_place, open_collection, write_place
from .options import OPTIONS
from .profiles import get_profile
from .searching import search, split_names
from .verification import Verification, verify

_PAGE = 5000  # items at a time


class MilvusEngine:
    """Learned codes in a Milvus collection.

    Attributes:
        collection: The collection: upsert, fields, partitions, loading, dropping.
        codebooks: The codebooks that the codes belong to.
        verification: The result of verifying the collection when it was built; None for one that
            existed already.
    """

    name: ClassVar[str] = "milvus"
    file_name: ClassVar[str] = "milvus.json"
    options: ClassVar[Sequence[Option]] = OPTIONS
    holds_items: ClassVar[bool] = False
    stores_columns: ClassVar[bool] = True

    def __init__(
        self,
        collection: MilvusCollection,
        codebooks: Codebooks,
        verification: Verification | None = None,
    ) -> None:
        self.collection, self.codebooks = collection, codebooks
        self.verification = verification
        self._column_names: list[str] | None = None

    @classmethod
    def build(
        cls,
        codebooks: Codebooks,
        codes: Codes,
        ids: Ids | None = None,
        *,
        columns: Columns | None = None,
        on_progress: Progress = silent,
        **options: Any,
    ) -> MilvusEngine:
        """A collection that holds ``codes``, indexed, loaded and verified.

        Args:
            codebooks: The learned codebooks.
            codes: uint8, shape (n, M).
            ids: Integers, shape (n,); None for 0..n-1.
            columns: Scalar fields to filter by and to return with results, of n values each. Names
                of items are the column ``name``.
            on_progress: Called with (a few words, steps done, steps in all).
            options: As `builder` takes them.

        Raises:
            InvalidInputError: If arguments are malformed, the collection exists, or the server
                cannot hold the profile.
            ServerError: If the server is out of reach, refuses, or fails, or verifying finds
                problems.
        """
        codes = check_codes(codes, codebooks.M, codebooks.K)
        builder = cls.builder(codebooks, len(codes), **options)
        builder.add(Batch(codes, range(len(codes)) if ids is None else ids, None, columns or {}))
        engine: MilvusEngine = builder.finish(on_progress)
        return engine

    @classmethod
    def builder(
        cls,
        codebooks: Codebooks,
        items: int,
        *,
        uri: str | Path | None = None,
        token: str | None = None,
        database: str | None = None,
        collection: str | None = None,
        profile: str = "exact",
        partition: str = "",
        consistency_level: str = "Session",
        resume: bool = False,
        overwrite: bool = False,
        patience: float = 60.0,
        **profile_options: Any,
    ) -> MilvusBuilder:
        """A builder of a collection of any number of ``items``.

        Args:
            codebooks: The learned codebooks.
            uri: The address of a server or a ``.db`` file, with or without the collection; None for
                the environment's ``MILVUS_URI``. See `mecoq_index.engines.milvus.address`.
            token: Credentials; see `connect`.
            database: The database on the server.
            collection: The collection's name; a name in ``uri`` is then the database.
            profile: How codes are stored; see `mecoq_index.engines.milvus.profiles`.
            partition: The partition that the items go into.
            consistency_level: Which changes by other clients searches see unless they say
                otherwise.
            resume: Continue an earlier build of the same items that was interrupted.
            overwrite: Replace a collection of this name when the new one is complete.
            patience: Seconds for which calls that fail transiently are repeated; see `connect`.
            profile_options: Options of the profile: ``precision``, ``nbits``, ``links``,
                ``ef_construction``. None leaves them at their defaults.

        Raises:
            InvalidInputError: If arguments are malformed, the collection exists, or the server
                cannot hold the profile. Nothing is written before that is known, not even the
                file of a milvus-lite.
            ServerError: If the server is out of reach, refuses, or fails.
        """
        place = locate(uri, collection=collection, database=database)
        if not place.collection:
            raise InvalidInputError(
                "collection must be the name of the collection to make, got none. Pass it, or "
                "write it after the address."
            )
        schema.check_name(place.collection)
        schema.check_target(place.collection)
        check_settings(partition, consistency_level)
        check_size(codebooks)
        given = {name: value for name, value in profile_options.items() if value is not None}
        form = get_profile(profile, codebooks, **given)

        def target() -> MilvusCollection:
            connection = connect(place, token=token, patience=patience, check=form.check_server)
            return MilvusCollection(connection, place.collection, form)

        if is_file(place.uri) and not check_file(Path(place.uri)).exists():
            form.check_server(LITE)
        else:
            check_fill(target(), resume=resume, overwrite=overwrite)
        return MilvusBuilder(
            target,
            form,
            codebooks,
            lambda filled, verification: cls(filled, codebooks, verification),
            partition=partition,
            consistency_level=consistency_level,
            resume=resume,
            overwrite=overwrite,
        )

    def builder_alike(self) -> MilvusBuilder:
        """A builder whose collection takes the place of this one when it is complete."""
        return MilvusBuilder(
            lambda: self.collection.renamed(self.collection.name),
            self.collection.profile,
            self.codebooks,
            lambda filled, verification: type(self)(filled, self.codebooks, verification),
            overwrite=True,
        )

    def merge_obstacle(self, other: Engine) -> str:
        """The reason why other items cannot be merged into a copy of this index.

        The words follow "differs in its", as in "layout (A instead of B)".
        """
        return (
            f"place (collection {self.collection.name!r} at {self.collection.connection.uri}, "
            "where others are added with add)"
        )

    @classmethod
    def accepts(cls, address: str) -> bool:
        """Whether a text has the form of an address of a Milvus server or file."""
        return is_address(address)

    @classmethod
    def attach(
        cls,
        codebooks: Codebooks | None,
        address: str | Path,
        *,
        uri: None = None,
        token: str | None = None,
        collection: str | None = None,
        database: str | None = None,
        patience: float = 60.0,
    ) -> MilvusEngine:
        """An engine for a collection that exists; it is loaded if it was not.

        Args:
            codebooks: The codebooks that it was made with; None for those stored beside it. These
                lack the weights of a backbone that was trained, if they exceed 16 MB.
            address: A server or a file, as ``http://host:19530/photos``,
                ``http://host:19530/shop/photos`` or ``photos.db/photos``. The collection may be
                left out if it is the only one of this package there.
            uri: Not for addresses, which name the server.
            token: Credentials; see `connect`.
            collection: The collection; a single name in a server's address is then the database.
            database: The database on the server.
            patience: Seconds for which calls that fail transiently are repeated; see `connect`.

        Raises:
            InvalidInputError: If the address is malformed, there is no such collection or more
                than one, it was made with other codebooks or by another program, or its codebooks
                cannot be read.
            ServerError: If the server is out of reach, refuses, or fails.
        """
        if uri is not None:
            raise InvalidInputError("uri is for index folders; an address names the server itself.")
        place = locate(address, collection=collection, database=database)
        return cls(*open_collection(place, codebooks, token=token, patience=patience))

    @property
    def keeps_ids(self) -> bool:
        """True: items can have ids of one's own."""
        return True

    def add(
        self,
        codes: Codes,
        ids: Ids | None = None,
        *,
        columns: Columns | None = None,
        partition: str = "",
    ) -> None:
        """Add codes (n, M) under ``ids``, or under the next free numbers.

        Raises:
            InvalidInputError: If arguments are malformed, an id is taken, or the columns are not
                those of the collection.
            ServerError: If the server fails.
        """
        codes = check_codes(codes, self.codebooks.M, self.codebooks.K)
        self.collection.add(codes, ids, columns, partition=partition)

    def search(
        self, z: Vectors, k: int, *, output_fields: str | Sequence[str] = (), **options: Any
    ) -> Hits:
        """The k best items for each raw query (nq, D); missing results are -1 and -inf.

        Takes the options of `mecoq_index.engines.milvus.searching.search` by keyword.

        Raises:
            InvalidInputError: If arguments are malformed, or there is no such output field.
            ServerError: If the server fails, or refuses the filter.
        """
        names = split_names(output_fields)
        check_known(names, [schema.ID, *self.columns()] if names else [], what="column")
        return search(self.collection, z, k, output_fields=names, **options)

    def columns(self) -> Sequence[str]:
        """Names of the columns that every item has."""
        if self._column_names is None:  # they never change, and every search may ask for them
            self._column_names = self.collection.columns()
        return tuple(self._column_names)

    def verify(self, *, expected_rows: int | None = None, **options: Any) -> Verification:
        """Compare the rows and results of Milvus with the reference.

        Takes the options of `mecoq_index.engines.milvus.verification.verify` by keyword.

        Raises:
            InvalidInputError: If an option is malformed.
            ServerError: If the server is out of reach or fails.
        """
        return verify(self.collection, self.codebooks, expected_rows=expected_rows, **options)

    def items(self) -> Iterator[Batch]:
        """All items with their columns, by ascending ids."""
        ids = self.ids()
        for at in range(0, len(ids), _PAGE):
            some = ids[at : at + _PAGE]
            codes, columns = self.collection.rows(some)
            yield Batch(codes, some, None, columns)

    def ids(self) -> Ids:
        """The ids (n,) of all items, ascending."""
        return self.collection.ids()

    def codes(self, ids: Ids) -> Codes:
        """The codes (n, M) of the items with these ids, which may repeat.

        Raises:
            InvalidInputError: If ids are malformed, or no item has one of them.
        """
        return self.collection.codes(ids)

    def remove(self, ids: Ids) -> int:
        """Remove the items with these ids; return how many there were."""
        return self.collection.remove(ids)

    def save(self, path: Path) -> None:
        """Write the place of the collection, without credentials."""
        write_place(Path(path), self.collection)

    @classmethod
    def open(
        cls,
        path: Path,
        codebooks: Codebooks,
        *,
        uri: str | Path | None = None,
        token: str | None = None,
        collection: str | None = None,
        database: str | None = None,
    ) -> MilvusEngine:
        """Attach to the collection whose place `save` wrote; see `attach` for the errors.

        Args:
            path: The file.
            codebooks: The codebooks that the codes belong to.
            uri: The server or the ``.db`` file, instead of the one that ``path`` names; see
                `mecoq_index.engines.milvus.credentials`.
            token: Credentials; see `connect`.
            collection: A collection to open instead of the one in the file.
            database: A database to use instead of the one in the file.

        Raises:
            ArtifactError: If the file is damaged.
        """
        place = find_place(path, uri=uri, collection=collection, database=database)
        return cls(*open_collection(place, codebooks, token=token))

    @classmethod
    def export(
        cls,
        out: Path,
        codebooks: Codebooks,
        source: Engine | None,
        columns: Columns,
        *,
        on_progress: Progress = silent,
        **options: Any,
    ) -> Mapping[str, Any]:
        """Write the items of an engine as parquet files for Milvus's bulk import.

        Args:
            out: The folder to make.
            codebooks: The codebooks of the items.
            source: The engine that holds the items.
            columns: Names, as ``name``, and columns of the items, in the order of ascending ids.
                Items that are in Milvus keep their columns.
            on_progress: Called with ("writing", items written, items in all).
            options: As `mecoq_index.engines.milvus.export.export_items` takes them; it also says
                what is raised.

        Returns:
            The note in the folder, ``schema.json``.
        """
        from .export import export_items

        stored = source.collection if isinstance(source, MilvusEngine) else None
        return export_items(
            out, codebooks, source, columns, stored=stored, on_progress=on_progress, **options
        )

    @classmethod
    def bench_variants(
        cls, codebooks: Codebooks, **options: Any
    ) -> Mapping[str, Variant | BitsVariant]:
        """See `mecoq_index.engines.milvus.bench.bench_variants`, whose options it takes."""
        from .bench import bench_variants

        return bench_variants(codebooks, cls, **options)

    @property
    def address(self) -> str:
        """The address of the collection, by which `attach` finds it; without credentials."""
        return self.collection.connection.address_of(self.collection.name)

    @property
    def bytes_per_vector(self) -> float:
        """Bytes of index memory per item as the profile estimates them, 8 of id included."""
        return self.collection.profile.bytes_per_vector + 8.0

    def describe(self) -> dict[str, Any]:
        """Plain values for people and logs."""
        return describe(self.collection)

    def __len__(self) -> int:
        return len(self.collection)
