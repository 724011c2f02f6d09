"""Codebooks beside the collections that were made with them, so that an address is enough.

One collection of the database, ``mecoq_codebooks``, holds the codebooks of all others, keyed by
fingerprint: the bytes of a codebook file, in base64, in rows of at most 60 KB of text. Milvus wants
a vector in every row, so there is one of zeros.

Dropping a collection leaves its codebooks there, because other collections may use them.

What a server returns is not trusted: the number of rows and the length of each are limited before
anything is decoded, the file is read without running code, and the codebooks must have the
fingerprint that was asked for.
"""

from __future__ import annotations

import base64
import binascii
import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...codebooks import Codebooks
from ...errors import ArtifactError, InvalidInputError, ServerError
from .answers import check_rows_of
from .connection import Connection
from .indexing import Index, make_searchable
from .libraries import import_pymilvus
from .schema import CODEBOOKS, ID, VECTOR

_SUFFIX = ".safetensors"
_CHUNK = 60_000  # characters of base64 a row; Milvus's limit is 65,535
_MOST_BYTES = 256 << 20  # of a codebook file
_MOST_ROWS = -(-_MOST_BYTES * 4 // (3 * _CHUNK)) + 1
_MOST_WEIGHT_BYTES = 16 << 20
_MOST_ARRAY_BYTES = _MOST_BYTES - (32 << 20)  # of codewords and projection, without the rest
_PAGE = 64  # rows a request, 4 MB
_FINGERPRINT, _ROW, _ROWS, _TEXT = "fingerprint", "row", "row_count", "content"
_ZERO = [0.0, 0.0]
_INDEX = Index("FLAT", "IP")


def store(connection: Connection, codebooks: Codebooks) -> None:
    """Store codebooks in the database of a connection.

    Codebooks of the same fingerprint that are there already are kept, unless only the new ones
    know their backbone.

    The weights of a backbone are left out if they exceed 16 MB: such codebooks search by features
    and embeddings, while images need the codebook file.

    Raises:
        InvalidInputError: If the codebooks are too large; see `check_size`.
        ServerError: If the server fails.
    """
    found = _find(connection, codebooks.fingerprint)
    if found is not None and (found.backbone or not codebooks.backbone):
        return
    check_size(codebooks)
    data = _to_bytes(_without_large_weights(codebooks))
    if len(data) > _MOST_BYTES:  # of which a reader would take no more
        raise InvalidInputError(
            f"codebooks that are stored in Milvus must take at most {_MOST_BYTES} bytes, got "
            f"{len(data)}. Use a smaller projection, or a shorter report."
        )
    text = base64.b64encode(data).decode()
    chunks = [text[at : at + _CHUNK] for at in range(0, len(text), _CHUNK)]
    if not connection.call("has_collection", CODEBOOKS):
        _create(connection)
    for at in range(0, len(chunks), _PAGE):
        rows = [
            {
                ID: _key(codebooks.fingerprint, row),
                _FINGERPRINT: codebooks.fingerprint,
                _ROW: row,
                _ROWS: len(chunks),
                _TEXT: chunk,
                VECTOR: _ZERO,
            }
            for row, chunk in enumerate(chunks[at : at + _PAGE], at)
        ]
        connection.call("upsert", CODEBOOKS, rows)


def check_size(codebooks: Codebooks) -> None:
    """Refuse codebooks that are too large to be stored, before anything is made.

    Raises:
        InvalidInputError: If codewords and projection take more than 224 MB.
    """
    layers = [part for layer in codebooks.projection for part in (layer.weight, layer.bias)]
    size = sum(part.nbytes for part in (codebooks.codewords, *layers))
    if size > _MOST_ARRAY_BYTES:
        raise InvalidInputError(
            f"codebooks that are stored in Milvus must take at most {_MOST_ARRAY_BYTES} bytes, got "
            f"{size}. Use a smaller projection."
        )


def fetch(connection: Connection, fingerprint: str) -> Codebooks:
    """Return the codebooks with this fingerprint from the database of a connection.

    Raises:
        InvalidInputError: If they are not there, incomplete, damaged, or others.
        ServerError: If the server fails.
    """
    if not re.fullmatch(r"[0-9a-f]{64}", fingerprint):
        raise InvalidInputError(
            f"a fingerprint of codebooks must be 64 hexadecimal digits, got {fingerprint[:80]!r}."
        )
    if not connection.call("has_collection", CODEBOOKS):
        raise _absent(connection, fingerprint)
    make_searchable(connection, CODEBOOKS, _INDEX)
    chunks: list[str] = []
    count = _count(connection, fingerprint)
    for at in range(0, count, _PAGE):
        chunks += _read(connection, fingerprint, range(at, min(at + _PAGE, count)))
    try:
        found = _from_bytes(base64.b64decode("".join(chunks), validate=True))
    except (binascii.Error, ValueError, ArtifactError) as exc:
        raise _damaged(connection, fingerprint, "its rows are no codebook file") from exc
    if found.fingerprint != fingerprint:
        raise _damaged(connection, fingerprint, f"their own is {found.fingerprint[:12]}")
    return found


def _find(connection: Connection, fingerprint: str) -> Codebooks | None:
    """The codebooks with this fingerprint; None if they are not there, or not whole."""
    try:
        return fetch(connection, fingerprint)
    except InvalidInputError:
        return None


def _count(connection: Connection, fingerprint: str) -> int:
    """The number of rows that the codebooks take, as their first row tells it."""
    first = _query(connection, [_key(fingerprint, 0)], [_ROWS])
    if not first:
        raise _absent(connection, fingerprint)
    count = first[0].get(_ROWS)
    if type(count) is not int or not 1 <= count <= _MOST_ROWS:
        raise _damaged(connection, fingerprint, f"they take {count} rows")
    return count


def _read(connection: Connection, fingerprint: str, rows: Sequence[int]) -> list[str]:
    """The texts of some rows, in their order."""
    keys = [_key(fingerprint, row) for row in rows]
    found = {row.get(ID): row.get(_TEXT) for row in _query(connection, keys, [_TEXT])}
    texts = [found.get(key) for key in keys]
    if any(not isinstance(text, str) or len(text) > _CHUNK for text in texts):
        raise _damaged(connection, fingerprint, "rows are missing or too long")
    return [str(text) for text in texts]


def _query(connection: Connection, keys: Sequence[str], fields: list[str]) -> list[dict[str, Any]]:
    listed = ", ".join(f'"{key}"' for key in keys)
    rows = connection.call(
        "query",
        CODEBOOKS,
        filter=f"{ID} in [{listed}]",
        output_fields=[ID, *fields],
        consistency_level="Strong",
    )
    return check_rows_of(connection, rows, [*fields])


def _key(fingerprint: str, row: int) -> str:
    return f"{fingerprint}/{row}"


def _create(connection: Connection) -> None:
    pymilvus = import_pymilvus()
    kind = pymilvus.DataType
    schema = pymilvus.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(ID, kind.VARCHAR, is_primary=True, max_length=80)
    schema.add_field(_FINGERPRINT, kind.VARCHAR, max_length=64)
    schema.add_field(_ROW, kind.INT64)
    schema.add_field(_ROWS, kind.INT64)
    schema.add_field(_TEXT, kind.VARCHAR, max_length=_CHUNK)
    schema.add_field(VECTOR, kind.FLOAT_VECTOR, dim=len(_ZERO))
    try:
        connection.call("create_collection", CODEBOOKS, schema=schema, consistency_level="Strong")
    except ServerError:
        if not connection.call("has_collection", CODEBOOKS):  # else another program was first
            raise
    make_searchable(connection, CODEBOOKS, _INDEX)


def _without_large_weights(codebooks: Codebooks) -> Codebooks:
    backbone = codebooks.backbone
    if backbone is None or backbone.state is None:
        return codebooks
    if sum(weight.nbytes for weight in backbone.state.values()) <= _MOST_WEIGHT_BYTES:
        return codebooks
    return replace(codebooks, backbone=replace(backbone, state=None))


def _to_bytes(codebooks: Codebooks) -> bytes:
    """The bytes of a codebook file, which `Codebooks.save` writes to files only."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"codebooks{_SUFFIX}")
        codebooks.save(path)
        return path.read_bytes()


def _from_bytes(data: bytes) -> Codebooks:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"codebooks{_SUFFIX}")
        path.write_bytes(data)
        return Codebooks.load(path)


def _absent(connection: Connection, fingerprint: str) -> InvalidInputError:
    return InvalidInputError(
        f"the codebooks {fingerprint[:12]} are not in collection {CODEBOOKS!r} at "
        f"{connection.uri}. Pass the codebooks that the collection was made with."
    )


def _damaged(connection: Connection, fingerprint: str, problem: str) -> InvalidInputError:
    return InvalidInputError(
        f"the codebooks {fingerprint[:12]} in collection {CODEBOOKS!r} at {connection.uri} are "
        f"damaged: {problem}. Pass the codebooks that the collection was made with."
    )
