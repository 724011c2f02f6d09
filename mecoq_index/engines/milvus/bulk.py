"""Parquet files for Milvus's bulk import, which reads them directly from storage.

A folder holds ``part-00000.parquet`` and so on, and ``schema.json``, which describes the collection
to import them into. Milvus 2.3 reads only the first file of an import, so each file must be
imported separately; later versions take a list of lists of one file each.

Columns have the types that pymilvus's ``LocalBulkWriter`` writes. `write_parquet` is faster, and
its compression finds the codewords that decoded vectors repeat: at D = 128 and M = 8 a vector takes
46 bytes instead of 249.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._arrays import Codes, Ids
from ..._files import (
    LOCKS,
    atomic_directory,
    beside,
    check_output,
    check_place,
    move_directory,
    remove,
)
from ..._json import read_json
from ..._optional import require
from ...errors import ArtifactError, InvalidInputError, MissingDependencyError, first_line
from ..base import Batch, Columns
from . import schema
from .batches import Rows, as_entities, check_rows, split
from .profile import Profile, Values
from .schema import VECTOR

NOTE = "schema.json"
FORMAT = "mecoq-index Milvus export"

_PURPOSE = "writing .parquet files"
# Of vectors in a row group, as in pymilvus, because the server reads a whole group into memory.
_GROUP_BYTES = 32 << 20
_GROUP_ROWS = (1000, 1_000_000)
_FILE_BYTES = 512 << 20  # of vectors in a file, before compression
_BYTES_PER_VALUE = {"FLOAT_VECTOR": 4.0, "FLOAT16_VECTOR": 2.0, "BINARY_VECTOR": 1 / 8}
_IMPORT = (
    "create a collection with these fields and properties, put the files where the server reads "
    "imports from (its bucket; with local storage any folder), import them one by one with "
    "pymilvus.bulk_writer.bulk_import(url, collection, files=[[path]]), or for Milvus 2.3 with "
    "pymilvus.utility.do_bulk_insert(collection, [path]), then create the index and load the "
    "collection: one that is loaded already shows imported rows only some time later"
)
_QUERIES = (
    "embed queries with mecoq_index.MeCoQEmbeddingFunction(codebooks, profile), whose "
    "encode_queries differs from encode_documents"
)


def write_parquet(
    folder: str | Path,
    profile: Profile,
    codes: Codes,
    ids: Ids,
    columns: Columns | None = None,
    *,
    rows_per_file: int | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write codes, in the form in which a profile stores them, as parquet files.

    Args:
        folder: The folder to make; it appears when all files are complete.
        profile: How codes are stored.
        codes: uint8, shape (n, width of a code).
        ids: Integers, shape (n,).
        columns: Scalar fields.
        rows_per_file: None for as many as make 512 MB of vectors.
        overwrite: Whether a folder that this function wrote may be replaced.

    Returns:
        The note in the folder, ``schema.json``.

    Raises:
        InvalidInputError: If arguments are malformed, or the folder must not be replaced.
        MissingDependencyError: If pyarrow is not installed.
    """
    batch = Batch(codes, ids, None, columns or {})
    return write_rows(folder, profile, [batch], rows_per_file=rows_per_file, overwrite=overwrite)


def write_rows(
    folder: str | Path,
    profile: Profile,
    batches: Iterable[Batch],
    *,
    rows_per_file: int | None = None,
    overwrite: bool = False,
    on_written: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Write rows as `write_parquet` does, batch by batch.

    Ids must also differ between batches, which is not checked. ``on_written`` is called with the
    number of rows written so far.

    Raises:
        InvalidInputError: If a batch is malformed or its columns differ from those of the first.
        MissingDependencyError: If pyarrow is not installed.
    """
    require("pyarrow", extra="parquet", purpose=_PURPOSE)
    per_file, per_group = _rows_per_file(profile, rows_per_file), rows_per_group(profile)
    with _new_folder(Path(folder), overwrite) as partial:
        with _Writer(partial, profile, per_file) as writer:
            for batch in batches:
                checked = check_rows(profile, batch.codes, batch.ids, batch.columns)
                for at in range(0, len(checked.ids), per_group):
                    writer.write(checked.part(at, at + per_group))
                    if on_written is not None:
                        on_written(writer.items)
        return _write_note(partial, profile, writer.fields, writer.items)


def write_with_bulk_writer(
    folder: str | Path,
    profile: Profile,
    codes: Codes,
    ids: Ids,
    columns: Columns | None = None,
    *,
    rows_per_file: int | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write rows as `write_parquet` does, with the ``LocalBulkWriter`` of the installed pymilvus.

    Slow; meant for a Milvus that is newer than this package and reads other files.

    Raises:
        InvalidInputError: If arguments are malformed, or pymilvus refuses a row.
        MissingDependencyError: If pymilvus, or what its bulk writer needs, is not installed.
    """
    bulk_writer, pymilvus = _import_bulk_writer()
    parquet = require("pyarrow.parquet", extra="parquet", purpose=_PURPOSE)
    rows = check_rows(profile, codes, ids, columns or {})
    per_file = _rows_per_file(profile, rows_per_file)
    with _new_folder(Path(folder), overwrite) as partial:
        # Files must end only at our commits. Files that the writer ends itself are written by a
        # thread that reads counters after the main thread has set them to 0, and fails silently.
        with bulk_writer.LocalBulkWriter(
            schema.build_schema(profile, rows.columns), str(partial), chunk_size=1 << 62
        ) as writer:
            for number, at in enumerate(range(0, len(rows.ids), per_file)):
                part = rows.part(at, at + per_file)
                try:
                    for request in split(profile, part):
                        for entity in as_entities(profile, request):
                            writer.append_row(entity)
                except pymilvus.exceptions.MilvusException as exc:
                    raise InvalidInputError(
                        f"pymilvus refuses a row: {first_line(Exception(exc.message))}"
                    ) from exc
                writer.commit()
                written = [Path(file) for files in writer.batch_files[number:] for file in files]
                if [parquet.read_metadata(path).num_rows for path in written] != [len(part.ids)]:
                    raise InvalidInputError(
                        f"pymilvus must write all rows, but did not write those from {at} on. Use "
                        "write_parquet."
                    )
                written[0].rename(partial / _file_name(number))
        return _write_note(partial, profile, schema.fields(profile, rows.columns), len(rows.ids))


class _Writer:
    """Writes rows to one file after the other."""

    def __init__(self, folder: Path, profile: Profile, rows_per_file: int) -> None:
        self._folder, self._profile, self._rows_per_file = folder, profile, rows_per_file
        self._file: Any = None
        self._sink: Any = None
        self._in_file = 0
        self._files = 0
        self.items = 0
        self.fields = schema.fields(profile, {})

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def write(self, rows: Rows) -> None:
        fields = schema.fields(self._profile, rows.columns)
        if not self.items:
            self.fields = fields
        elif fields != self.fields:
            raise InvalidInputError(
                f"all rows must have the columns of the first, {_names(self.fields)}, and values "
                f"of the same types, got {_names(fields)}."
            )
        at = 0
        while at < len(rows.ids):
            part = rows.part(at, at + self._rows_per_file - self._in_file)
            table = _table(self._profile, part, self.fields)
            self._open(table.schema).write_table(table, row_group_size=len(part.ids))
            at += len(part.ids)
            self.items += len(part.ids)
            self._in_file += len(part.ids)
            if self._in_file == self._rows_per_file:
                self._close()

    def _open(self, arrow_schema: Any) -> Any:
        if self._file is None:
            parquet = require("pyarrow.parquet", extra="parquet", purpose=_PURPOSE)
            arrow = require("pyarrow", extra="parquet", purpose=_PURPOSE)
            path = self._folder / _file_name(self._files)
            self._sink = arrow.OSFile(os.fsencode(path), "wb")  # bytes: not all names are UTF-8
            self._file = parquet.ParquetWriter(self._sink, arrow_schema, compression="zstd")
            self._files += 1
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            with self._sink:
                self._file.close()
        self._file, self._in_file = None, 0


def _row_bytes(profile: Profile) -> float:
    if profile.width is None:
        return profile.bytes_per_vector
    return profile.width * _BYTES_PER_VALUE[profile.field_type]


def _rows_per_file(profile: Profile, wanted: int | None) -> int:
    if wanted is None:
        return max(1, int(_FILE_BYTES / _row_bytes(profile)))
    if wanted < 1:
        raise InvalidInputError(f"rows_per_file must be at least 1, got {wanted}.")
    return wanted


def rows_per_group(profile: Profile) -> int:
    """The number of rows in a row group, which Milvus reads as a whole."""
    least, most = _GROUP_ROWS
    return min(most, max(least, int(_GROUP_BYTES / _row_bytes(profile))))


_FILE_NAME = r"part-\d{5,}\.parquet"


def _file_name(number: int) -> str:
    return f"part-{number:05}.parquet"


def _names(fields: Sequence[Mapping[str, Any]]) -> list[str]:
    return [field["name"] for field in fields[2:]]


def _table(profile: Profile, rows: Rows, fields: Sequence[Mapping[str, Any]]) -> Any:
    """An Arrow table of rows, in the types that Milvus reads."""
    arrow = require("pyarrow", extra="parquet", purpose=_PURPOSE)
    types = {"INT64": arrow.int64(), "DOUBLE": arrow.float64(), "BOOL": arrow.bool_()}
    arrays = [rows.ids, _vectors(arrow, profile, profile.documents(rows.codes))]
    for field in fields[2:]:
        values = rows.columns[field["name"]]
        if field["type"] == "VARCHAR":
            arrays.append(arrow.array(values.tolist(), arrow.string()))
        else:
            arrays.append(arrow.array(values, types[field["type"]]))
    return arrow.table(arrays, names=[field["name"] for field in fields])


def _vectors(arrow: Any, profile: Profile, values: Values) -> Any:
    if profile.field_type == "SPARSE_FLOAT_VECTOR":
        return arrow.array([json.dumps(row) for row in values], arrow.string())
    if profile.field_type == "BINARY_VECTOR":
        flat: npt.NDArray[Any] = np.frombuffer(b"".join(values), np.uint8)
    elif profile.field_type == "FLOAT16_VECTOR":
        flat = np.ascontiguousarray(values).astype("<f2", copy=False).reshape(-1).view(np.uint8)
    else:
        flat = np.ascontiguousarray(values).reshape(-1)
    offsets = np.arange(len(values) + 1, dtype=np.int32) * np.int32(len(flat) // len(values))
    # Milvus 2.3 reads lists of any length only, not Arrow's lists of a fixed length.
    return arrow.ListArray.from_arrays(offsets, flat)


def _write_note(
    folder: Path, profile: Profile, fields: Sequence[Mapping[str, Any]], items: int
) -> dict[str, Any]:
    half = (2, 4) if profile.field_type == "FLOAT16_VECTOR" else (2, 3)
    note = {
        "format": FORMAT,
        "profile": profile.name,
        "items": items,
        "files": sorted(path.name for path in folder.glob("*.parquet")),
        "fields": list(fields),
        "index": {
            "field_name": VECTOR,
            "index_type": profile.index_type,
            "metric_type": profile.metric_type,
            "params": profile.index_params(),
        },
        "properties": schema.properties(profile),
        "least_version": ".".join(map(str, max(profile.least_version, half))),
        "import": _IMPORT,
        "queries": _QUERIES,
    }
    (folder / NOTE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    return note


@contextmanager
def _new_folder(path: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a folder as `atomic_directory` does, which may replace an older export."""
    check_place(path)
    fresh, old = beside(path, ".new"), beside(path, ".old")
    if not os.path.lexists(path) and old.is_dir() and not old.is_symlink():
        move_directory(old, path)  # a run before was killed between the last two steps
    check_output(path, overwrite=overwrite, folder=True)
    if not path.exists():
        with atomic_directory(path) as partial:
            yield partial
        return
    _check_ours(path)
    for left in (fresh, old):
        if left.is_dir() and not left.is_symlink():
            _check_names(left)
        remove(left)
    with atomic_directory(fresh) as partial:
        yield partial
    move_directory(path, old)
    move_directory(fresh, path)
    shutil.rmtree(old, ignore_errors=True)


def _check_ours(path: Path) -> None:
    """Refuse to replace anything but a folder of plain files with the names of an export.

    Raises:
        InvalidInputError: If it is something else.
    """
    try:
        ours = read_json(path / NOTE, links=False)["format"] == FORMAT
    except (ArtifactError, LookupError, TypeError):
        ours = False
    if not ours:
        raise _not_ours(path)
    _check_names(path)


def _check_names(path: Path) -> None:
    """Refuse a folder that holds anything but plain files with the names of an export.

    Raises:
        InvalidInputError: If so.
    """
    for file in path.iterdir():
        # A writer that was killed right after the folder got its name has left its lock.
        fits = file.name in (NOTE, *LOCKS) or re.fullmatch(_FILE_NAME, file.name)
        if not fits or file.is_symlink() or not file.is_file():
            raise _not_ours(path)


def _not_ours(path: Path) -> InvalidInputError:
    return InvalidInputError(
        f"{path} must hold only the files of an earlier export to be overwritten, but holds "
        "others. Choose another name, or remove it yourself."
    )


def _import_bulk_writer() -> tuple[Any, Any]:
    require("pymilvus", extra="milvus", purpose="pymilvus's bulk writer")
    try:
        import pymilvus
        from pymilvus import bulk_writer
    except ModuleNotFoundError as exc:
        raise MissingDependencyError(
            "pymilvus's bulk writer needs packages that are not installed. Install them with: "
            f"pip install 'pymilvus[bulk_writer]' ({first_line(exc)})"
        ) from exc
    return bulk_writer, pymilvus
