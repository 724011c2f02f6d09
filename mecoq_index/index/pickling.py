"""Engines as bytes, by way of the files that they write: for pickles of an index in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..codebooks import Codebooks
from ..engines.base import Engine
from ..engines.registry import get_engine


def to_bytes(engine: Engine) -> tuple[str, bytes]:
    """The name of an engine, and the content of its file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / engine.file_name
        engine.save(file)
        return engine.name, file.read_bytes()


def from_bytes(name: str, content: bytes, codebooks: Codebooks) -> Engine:
    """The engine that `to_bytes` made bytes of.

    Raises:
        ArtifactError: If the bytes are damaged, or belong to other codebooks.
    """
    kind = get_engine(name)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / kind.file_name
        file.write_bytes(content)
        engine: Engine = kind.open(file, codebooks)
        return engine
