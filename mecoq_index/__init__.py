"""Learn MeCoQ codebooks from images or embeddings, and search by them inside FAISS and Milvus.

Everything listed in ``__all__`` is loaded when it is first used: importing this package loads
neither torch nor faiss nor pymilvus.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backbone import Backbone
    from .codebooks import Codebooks, Layer
    from .data.features import FeatureViews
    from .data.source import open_source
    from .embed.embedder import Embedder
    from .embedding_function import MeCoQEmbeddingFunction
    from .engines.base import Builder, Engine, Option
    from .engines.faiss.factory import index_factory, read_index
    from .engines.faiss.gpu import to_gpu
    from .engines.hits import Hits
    from .engines.registry import available_engines, get_engine
    from .errors import (
        ArtifactError,
        InvalidInputError,
        MecoqError,
        MissingDependencyError,
        ServerError,
        TrainingError,
    )
    from .index.index import Index, open_index
    from .index.results import Hit, SearchResults
    from .learn.config import TrainConfig
    from .learn.objective.settings import ContrastSettings, DistillationSettings, SignsSettings
    from .learn.presets import preset, recommended
    from .learn.training import train
    from .scoring import aqs, block_normalize, decode, encode, lookup_tables, sqs
    from .vector_statistics import VectorStatistics

try:
    __version__ = version("mecoq-index")
except PackageNotFoundError:  # a checkout on the path that was never installed
    __version__ = "0+unknown"

# The module has the name aqs; the score itself is mecoq_index.scoring.aqs.
_HOMES = {
    "ArtifactError": "errors",
    "Backbone": "backbone",
    "Builder": "engines.base",
    "Codebooks": "codebooks",
    "ContrastSettings": "learn.objective.settings",
    "DistillationSettings": "learn.objective.settings",
    "Embedder": "embed.embedder",
    "Engine": "engines.base",
    "FeatureViews": "data.features",
    "Hit": "index.results",
    "Hits": "engines.hits",
    "Index": "index.index",
    "InvalidInputError": "errors",
    "Layer": "codebooks",
    "MeCoQEmbeddingFunction": "embedding_function",
    "MecoqError": "errors",
    "MissingDependencyError": "errors",
    "Option": "engines.base",
    "SearchResults": "index.results",
    "ServerError": "errors",
    "SignsSettings": "learn.objective.settings",
    "TrainConfig": "learn.config",
    "TrainingError": "errors",
    "VectorStatistics": "vector_statistics",
    "aqs": "scoring",
    "available_engines": "engines.registry",
    "block_normalize": "scoring",
    "decode": "scoring",
    "encode": "scoring",
    "get_engine": "engines.registry",
    "index_factory": "engines.faiss.factory",
    "lookup_tables": "scoring",
    "open_index": "index.index",
    "open_source": "data.source",
    "preset": "learn.presets",
    "read_index": "engines.faiss.factory",
    "recommended": "learn.presets",
    "sqs": "scoring",
    "to_gpu": "engines.faiss.gpu",
    "train": "learn.training",
}

__all__ = [
    "ArtifactError",
    "Backbone",
    "Builder",
    "Codebooks",
    "ContrastSettings",
    "DistillationSettings",
    "Embedder",
    "Engine",
    "FeatureViews",
    "Hit",
    "Hits",
    "Index",
    "InvalidInputError",
    "Layer",
    "MeCoQEmbeddingFunction",
    "MecoqError",
    "MissingDependencyError",
    "Option",
    "SearchResults",
    "ServerError",
    "SignsSettings",
    "TrainConfig",
    "TrainingError",
    "VectorStatistics",
    "aqs",
    "available_engines",
    "block_normalize",
    "decode",
    "encode",
    "get_engine",
    "index_factory",
    "lookup_tables",
    "open_index",
    "open_source",
    "preset",
    "read_index",
    "recommended",
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
