"""Which engines there are: built in, and plug-ins by entry point."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInputError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .base import Option

ENTRY_POINT_GROUP = "mecoq_index.engines"
DEFAULT_ENGINE = "faiss"

_BUILTIN = {
    "numpy": "mecoq_index.engines.numpy:NumpyEngine",
    "torch": "mecoq_index.engines.torch:TorchEngine",
    "faiss": "mecoq_index.engines.faiss.engine:FaissEngine",
    "milvus": "mecoq_index.engines.milvus.engine:MilvusEngine",
}
# Where built-in engines declare their options, without loading what they are built on.
_OPTIONS = {
    "numpy": "",
    "torch": "mecoq_index.engines.torch_options:OPTIONS",
    "faiss": "mecoq_index.engines.faiss.options:OPTIONS",
    "milvus": "mecoq_index.engines.milvus.options:OPTIONS",
}
_WITHOUT_ADDRESSES = frozenset({"numpy", "torch", "faiss"})


def plugin_file(name: str) -> str | None:
    """The name of the file that a plug-in engine writes; None if there is no such plug-in."""
    if name in _BUILTIN:
        return None
    try:
        return str(get_engine(name).file_name)
    except (InvalidInputError, MissingDependencyError):
        return None


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
    place = _BUILTIN.get(name) or available_engines().get(name)  # looking for plug-ins takes time
    if place is None:
        known = sorted(available_engines())
        raise InvalidInputError(f"unknown engine {name!r}; choose one of {known}.")
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)


def options_of(name: str) -> Sequence[Option]:
    """The options that an engine declares; for a built-in one, its library is not loaded.

    Raises:
        InvalidInputError: If there is no such engine.
        MissingDependencyError: If a plug-in's library is not installed.
    """
    if name not in _OPTIONS:
        declared: Sequence[Option] = get_engine(name).options
        return declared
    module, _, attribute = _OPTIONS[name].partition(":")
    found: Sequence[Option] = getattr(import_module(module), attribute) if module else ()
    return found


def addressed_engines() -> list[str]:
    """Names of the engines that may keep items at an address."""
    return [name for name in available_engines() if name not in _WITHOUT_ADDRESSES]
