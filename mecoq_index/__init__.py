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
    from .embedding import MeCoQEmbeddingFunction
    from .engines.base import Engine, Hits, RangeHits, available_engines, get_engine
    from .engines.building import BuildOptions, build_bundle
    from .engines.faiss.factory import index_factory, read_index
    from .engines.faiss.gpu import to_gpu
    from .engines.merging import merge_bundles
    from .engines.stored import open_bundle, save_bundle
    from .engines.updating import add_items, remove_items
    from .errors import (
        ArtifactError,
        InvalidInputError,
        MecoqError,
        MissingDependencyError,
        ServerError,
        TrainingError,
    )
    from .learn.config import TrainConfig
    from .learn.features import FeatureViews
    from .learn.presets import preset
    from .learn.trainer import train
    from .names import Names
    from .vector_files import open_vectors

try:
    __version__ = version("mecoq-index")
except PackageNotFoundError:  # a checkout on the path that was never installed
    __version__ = "0+unknown"

# The module has the name aqs; the score itself is mecoq_index.aqs.aqs.
_HOMES = {
    "ArtifactError": "errors",
    "Backbone": "codebooks",
    "BuildOptions": "engines.building",
    "Bundle": "bundle",
    "Codebooks": "codebooks",
    "Engine": "engines.base",
    "FeatureViews": "learn.features",
    "Hits": "engines.base",
    "InvalidInputError": "errors",
    "Layer": "codebooks",
    "MeCoQEmbeddingFunction": "embedding",
    "MecoqError": "errors",
    "MissingDependencyError": "errors",
    "Names": "names",
    "RangeHits": "engines.base",
    "ServerError": "errors",
    "TrainConfig": "learn.config",
    "TrainingError": "errors",
    "add_items": "engines.updating",
    "aqs": "aqs",
    "available_engines": "engines.base",
    "block_normalize": "aqs",
    "build_bundle": "engines.building",
    "decode": "aqs",
    "encode": "aqs",
    "get_engine": "engines.base",
    "index_factory": "engines.faiss.factory",
    "lookup_tables": "aqs",
    "merge_bundles": "engines.merging",
    "open_bundle": "engines.stored",
    "open_vectors": "vector_files",
    "preset": "learn.presets",
    "read_index": "engines.faiss.factory",
    "remove_items": "engines.updating",
    "save_bundle": "engines.stored",
    "sqs": "aqs",
    "to_gpu": "engines.faiss.gpu",
    "train": "learn.trainer",
}

__all__ = [
    "ArtifactError",
    "Backbone",
    "BuildOptions",
    "Bundle",
    "Codebooks",
    "Engine",
    "FeatureViews",
    "Hits",
    "InvalidInputError",
    "Layer",
    "MeCoQEmbeddingFunction",
    "MecoqError",
    "MissingDependencyError",
    "Names",
    "RangeHits",
    "ServerError",
    "TrainConfig",
    "TrainingError",
    "add_items",
    "aqs",
    "available_engines",
    "block_normalize",
    "build_bundle",
    "decode",
    "encode",
    "get_engine",
    "index_factory",
    "lookup_tables",
    "merge_bundles",
    "open_bundle",
    "open_vectors",
    "preset",
    "read_index",
    "remove_items",
    "save_bundle",
    "sqs",
    "to_gpu",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(f".{_HOMES[name]}", __name__)
    return home if name == _HOMES[name] else getattr(home, name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
