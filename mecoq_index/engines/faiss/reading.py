"""The one door through which an index file comes in: it is checked before FAISS sees it."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ..._files import check_readable
from ..._optional import import_faiss
from ...codebooks import Codebooks
from ...errors import ArtifactError, InvalidInputError
from .file_format import check_file

if TYPE_CHECKING:
    from faiss import IOReader

_AT_ONCE = 1 << 20


def read_checked(
    file: str | os.PathLike[str] | BinaryIO | IOReader,
    io_flags: int = 0,
    *,
    codebooks: Codebooks | None = None,
) -> Any:
    """Read a ``faiss.Index`` after `file_format.check_file`.

    Args:
        file: The path of a file, an open binary file, or a ``faiss.IOReader``; the latter two are
            read to their end, into memory.
        io_flags: FAISS's flags for reading.
        codebooks: The codebooks that it must hold; any if None.

    Raises:
        ArtifactError: If the file is missing, damaged, of a kind that this package does not write,
            holds other codebooks, or does not fit into memory.
        InvalidInputError: If ``file`` is of another type.
    """
    faiss = import_faiss()
    if isinstance(file, (str, os.PathLike)):
        path = check_readable(Path(file))
        with path.open("rb", buffering=_AT_ONCE) as stream:
            check_file(stream, str(path), codebooks)
        source, name = str(path), str(path)
        if os.fsencode(path) != str(path).encode("utf-8", "ignore"):
            # FAISS takes names in UTF-8 only.
            source = faiss.PyCallbackIOReader(io.BytesIO(path.read_bytes()).read)
    else:
        content, name = _content(file)
        check_file(io.BytesIO(content), name, codebooks)
        source = faiss.PyCallbackIOReader(io.BytesIO(content).read)
    try:
        return faiss.read_index(source, io_flags)
    except RuntimeError as exc:
        raise ArtifactError(
            f"FAISS {faiss.__version__} cannot read {name}. Upgrade FAISS, or build the index "
            "again with this version."
        ) from exc
    except MemoryError as exc:
        raise ArtifactError(f"{name} does not fit into memory. Close other programs.") from exc


def _content(file: BinaryIO | IOReader) -> tuple[bytes, str]:
    """All bytes of an open file or a reader of FAISS, and what to call it."""
    faiss = import_faiss()
    if isinstance(file, faiss.IOReader):
        parts, part = list[bytes](), np.empty(_AT_ONCE, np.uint8)
        while n := file(faiss.swig_ptr(part), 1, part.size):
            parts.append(part[:n].tobytes())
        return b"".join(parts), "the reader"
    if callable(read := getattr(file, "read", None)):
        content = read()
        if isinstance(content, bytes):
            return content, str(getattr(file, "name", "the file"))
    raise InvalidInputError(
        f"file must be a path, an open binary file or a faiss.IOReader, got {type(file).__name__}."
    )
