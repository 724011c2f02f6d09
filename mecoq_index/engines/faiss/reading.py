"""The one door through which index files come in and go out.

A file is checked before FAISS sees it. Python opens the files, because FAISS takes no names but
those in UTF-8, and prints by itself what the system says of a full disk.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ..._optional import import_faiss
from ..._reading import check_readable
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
            if io_flags:  # to map the file, FAISS must open it
                return _read(str(path), io_flags, str(path))
            stream.seek(0)
            return _read(faiss.PyCallbackIOReader(stream.read), 0, str(path))
    content, name = _content(file)
    check_file(io.BytesIO(content), name, codebooks)
    return _read(faiss.PyCallbackIOReader(io.BytesIO(content).read), io_flags, name)


def write_index(index: Any, path: Path) -> None:
    """Write a ``faiss.Index`` to a file, as ``faiss.write_index`` does.

    Raises:
        OSError: If the system refuses.
    """
    faiss = import_faiss()
    with path.open("wb") as stream:
        faiss.write_index(index, faiss.PyCallbackIOWriter(stream.write))


def _read(source: Any, io_flags: int, name: str) -> Any:
    faiss = import_faiss()
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
