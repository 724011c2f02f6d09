"""Learn MeCoQ codebooks from images or embeddings, and search by them inside FAISS and Milvus.

Everything listed in ``__all__`` is loaded when it is first used: importing this package loads
neither torch nor faiss nor pymilvus.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import aqs
    from .aqs import block_normalize, decode, encode, lookup_tables, sqs
    from .bundle import Bundle
    from .codebooks import Backbone, Codebooks, Layer
    from .engines.base import Engine, Hits, available_engines, get_engine
    from .engines.faiss.factory import index_factory
    from .engines.stored import open_bundle, save_bundle
    from .errors import (
        ArtifactError,
        InvalidInputError,
        MecoqError,
        MissingDependencyError,
        TrainingError,
    )
    from .learn.config import TrainConfig
    from .learn.features import FeatureViews
    from .learn.presets import preset
    from .learn.trainer import train

try:
    __version__ = version("mecoq-index")
except PackageNotFoundError:  # a checkout on the path that was never installed
    __version__ = "0+unknown"

# The module has the name aqs; the score itself is mecoq_index.aqs.aqs.
_HOMES = {
    "ArtifactError": "errors",
    "Backbone": "codebooks",
    "Bundle": "bundle",
    "Codebooks": "codebooks",
    "Engine": "engines.base",
    "FeatureViews": "learn.features",
    "Hits": "engines.base",
    "InvalidInputError": "errors",
    "Layer": "codebooks",
    "MecoqError": "errors",
    "MissingDependencyError": "errors",
    "TrainConfig": "learn.config",
    "TrainingError": "errors",
    "aqs": "aqs",
    "available_engines": "engines.base",
    "block_normalize": "aqs",
    "decode": "aqs",
    "encode": "aqs",
    "get_engine": "engines.base",
    "index_factory": "engines.faiss.factory",
    "lookup_tables": "aqs",
    "open_bundle": "engines.stored",
    "preset": "learn.presets",
    "save_bundle": "engines.stored",
    "sqs": "aqs",
    "train": "learn.trainer",
}

__all__ = [
    "ArtifactError",
    "Backbone",
    "Bundle",
    "Codebooks",
    "Engine",
    "FeatureViews",
    "Hits",
    "InvalidInputError",
    "Layer",
    "MecoqError",
    "MissingDependencyError",
    "TrainConfig",
    "TrainingError",
    "aqs",
    "available_engines",
    "block_normalize",
    "decode",
    "encode",
    "get_engine",
    "index_factory",
    "lookup_tables",
    "open_bundle",
    "preset",
    "save_bundle",
    "sqs",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(f".{_HOMES[name]}", __name__)
    return home if name == _HOMES[name] else getattr(home, name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
