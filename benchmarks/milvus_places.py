"""A Milvus server and a milvus-lite file to measure on, which are deleted afterwards."""

from __future__ import annotations

import importlib.util
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common import REPOSITORY
from mecoq_index._arrays import Codes
from mecoq_index.engines.base import Columns
from mecoq_index.engines.milvus.collection import MilvusCollection
from mecoq_index.engines.milvus.connection import Connection, connect
from mecoq_index.engines.milvus.profile import Profile

SERVER, LITE = "server", "lite"

_numbers = itertools.count()


@dataclass(frozen=True, eq=False)
class Filled:
    """A filled collection, and the time that filling took.

    Attributes:
        collection: The collection, indexed and loaded.
        insert_seconds: Until Milvus had taken the last row.
        index_seconds: From then until all rows were indexed and loaded.
    """

    collection: MilvusCollection
    insert_seconds: float
    index_seconds: float


@contextmanager
def open_places(*, without_server: bool) -> Iterator[dict[str, Connection]]:
    """Yield a server and a file by name; exit with a message if there can be no server.

    Args:
        without_server: Whether to continue with the file alone.
    """
    server = _load_server_module()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        places = {LITE: connect(Path(folder, "lite.db"))}
        try:
            if why := server.unsupported():
                raise server.MilvusServerError(why)
            started = server.MilvusServer(Path(folder, "server"))
            # Stopping it in good order takes seconds, and its data are deleted anyway.
            running.callback(started.kill)
            started.start()
            places[SERVER] = connect(started.uri, token=started.token)
        except server.MilvusServerError as exc:
            if not without_server:
                print(f"skipped: no Milvus server here: {exc}")
                raise SystemExit(0) from exc
            print(f"without a server: {exc}", file=sys.stderr)
        try:
            yield places
        finally:
            for connection in places.values():
                connection.client.close()


def _load_server_module() -> Any:
    """The module of the tests that starts a server, loaded by its path."""
    path = REPOSITORY / "tests" / "milvus_server.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def new_collection(connection: Connection, profile: Profile) -> MilvusCollection:
    """A collection with an unused name, not created yet."""
    return MilvusCollection(connection, f"bm_{next(_numbers)}", profile)


def fill(
    connection: Connection, profile: Profile, codes: Codes, columns: Columns | None = None
) -> Filled:
    """A new collection that holds codes under ids 0..n-1."""
    collection = new_collection(connection, profile)
    collection.create({name: np.asarray(values) for name, values in (columns or {}).items()})
    started = time.perf_counter()
    collection.insert(codes, np.arange(len(codes), dtype=np.int64), columns)
    inserted = time.perf_counter()
    collection.finish()
    return Filled(collection, inserted - started, time.perf_counter() - inserted)
