"""Learn MeCoQ codebooks from images or embeddings, and search by them inside FAISS and Milvus.

Everything listed in ``__all__`` is loaded when it is first used: importing this package loads
neither torch nor faiss nor pymilvus.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .codebooks import Backbone, Codebooks, Layer
    from .data.features import FeatureViews
    from .data.vectors import open_vectors
    from .embedding_function import MeCoQEmbeddingFunction
    from .engines.base import Engine
    from .engines.faiss.factory import index_factory, read_index
    from .engines.faiss.gpu import to_gpu
    from .engines.hits import Hits, RangeHits
    from .engines.registry import available_engines, get_engine
    from .errors import (
        ArtifactError,
        InvalidInputError,
        MecoqError,
        MissingDependencyError,
        ServerError,
        TrainingError,
    )
    from .index.build import BuildOptions, build_bundle
    from .index.bundle import Bundle
    from .index.merge import merge_bundles
    from .index.names import Names
    from .index.stored import open_bundle, save_bundle
    from .index.update import add_items, remove_items
    from .learn.config import TrainConfig
    from .learn.presets import preset
    from .learn.trainer import train
    from .scoring import aqs, block_normalize, decode, encode, lookup_tables, sqs

try:
    __version__ = version("mecoq-index")
except PackageNotFoundError:  # a checkout on the path that was never installed
    __version__ = "0+unknown"

# The module has the name aqs; the score itself is mecoq_index.scoring.aqs.
_HOMES = {
    "ArtifactError": "errors",
    "Backbone": "codebooks",
    "BuildOptions": "index.build",
    "Bundle": "index.bundle",
    "Codebooks": "codebooks",
    "Engine": "engines.base",
    "FeatureViews": "data.features",
    "Hits": "engines.hits",
    "InvalidInputError": "errors",
    "Layer": "codebooks",
    "MeCoQEmbeddingFunction": "embedding_function",
    "MecoqError": "errors",
    "MissingDependencyError": "errors",
    "Names": "index.names",
    "RangeHits": "engines.hits",
    "ServerError": "errors",
    "TrainConfig": "learn.config",
    "TrainingError": "errors",
    "add_items": "index.update",
    "aqs": "scoring",
    "available_engines": "engines.registry",
    "block_normalize": "scoring",
    "build_bundle": "index.build",
    "decode": "scoring",
    "encode": "scoring",
    "get_engine": "engines.registry",
    "index_factory": "engines.faiss.factory",
    "lookup_tables": "scoring",
    "merge_bundles": "index.merge",
    "open_bundle": "index.stored",
    "open_vectors": "data.vectors",
    "preset": "learn.presets",
    "read_index": "engines.faiss.factory",
    "remove_items": "index.update",
    "save_bundle": "index.stored",
    "sqs": "scoring",
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
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
