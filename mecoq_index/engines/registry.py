"""Which engines there are: built in, and plug-ins by entry point."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from ..errors import InvalidInputError

ENTRY_POINT_GROUP = "mecoq_index.engines"
DEFAULT_ENGINE = "faiss"

_BUILTIN = {
    "numpy": "mecoq_index.engines.numpy:NumpyEngine",
    "torch": "mecoq_index.engines.torch:TorchEngine",
    "faiss": "mecoq_index.engines.faiss.engine:FaissEngine",
    "milvus": "mecoq_index.engines.milvus.engine:MilvusEngine",
}
BUILTIN_FILES = frozenset({"codes.npz", "index.faiss", "milvus.json"})
"""The names of the files that built-in engines write into a bundle."""


def available_engines() -> dict[str, str]:
    """Name and import path of every engine: built in first, then plug-ins. Imports none of them.

    Raises:
        InvalidInputError: If a plug-in takes the name of a built-in engine.
    """
    plugins = {entry.name: entry.value for entry in entry_points(group=ENTRY_POINT_GROUP)}
    if clash := sorted(_BUILTIN.keys() & plugins.keys()):
        raise InvalidInputError(f"plug-in engines may not replace built-in ones: {clash}")
    return _BUILTIN | plugins


def get_engine(name: str) -> Any:
    """The class, an `Engine`, that is called ``name``.

    Raises:
        InvalidInputError: If there is no such engine.
        MissingDependencyError: If the engine's library is not installed.
    """
    engines = available_engines()
    if name not in engines:
        raise InvalidInputError(f"unknown engine {name!r}; choose one of {sorted(engines)}.")
    module, _, attribute = engines[name].partition(":")
    return getattr(import_module(module), attribute)
