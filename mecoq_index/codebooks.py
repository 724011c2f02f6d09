"""Codebooks: the one artifact that the trainer writes and every engine reads."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from . import codebook_file
from ._arrays import Vectors, as_vectors, unit_rows
from ._plain import FrozenValue, plain_dict, thaw
from .backbone import Backbone
from .errors import ArtifactError, InvalidInputError
from .vector_statistics import VectorStatistics

__all__ = ["Backbone", "Codebooks", "Layer", "VectorKind", "VectorStatistics"]

VectorKind = Literal["features", "embeddings"]

_log = logging.getLogger("mecoq_index")

# Storing codewords as float16 changes a norm by up to 5e-4; more was never a unit codeword.
_STORED_NORM_TOLERANCE = 1e-3
_NORM_TOLERANCE = 1e-6
_PROJECT_CHUNK = 16384


@dataclass(frozen=True, eq=False, repr=False)
class Layer(FrozenValue):
    """One affine map ``x @ weight.T + bias``.

    Attributes:
        weight: float32, shape (out, in), as a read-only copy.
        bias: float32, shape (out,), as a read-only copy.

    Raises:
        InvalidInputError: If the shapes do not fit together, or a value is not finite.
    """

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        weight = np.array(self.weight, dtype=np.float32, order="C")
        bias = np.array(self.bias, dtype=np.float32, order="C")
        if weight.ndim != 2 or bias.shape != weight.shape[:1]:
            raise InvalidInputError(
                "a projection layer must have weight (out, in) and bias (out,), "
                f"got {weight.shape} and {bias.shape}."
            )
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise InvalidInputError("a projection layer must be finite, but it holds NaN or Inf.")
        for name, array in (("weight", weight), ("bias", bias)):
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def __repr__(self) -> str:
        return f"Layer({self.weight.shape[1]} -> {self.weight.shape[0]})"


@dataclass(frozen=True, eq=False, repr=False)
class Codebooks(FrozenValue):
    """M learned codebooks of K codewords each, and all that makes embeddings for them.

    Codebooks cannot be changed; ``dataclasses.replace`` makes others from them. They can be
    pickled and copied.

    Attributes:
        codewords: float32, shape (M, K, Ds). ``codewords[m, k]`` is codeword k of subquantizer m,
            of unit length within 1e-6. A read-only copy.
        projection: Affine layers from features (n, P) to embeddings (n, D), with ReLU between
            them. Empty if the input already is the embedding.
        backbone: Turns an image into features; None for codebooks learned from vectors.
        provenance: Plain values: training settings, versions. Read-only, as is ``report``.
        normalize: Whether features are divided by their length before the projection.
        statistics: Lengths and spread of the vectors that the codebooks were trained on: features,
            or embeddings if there is no projection. `embed` compares others with them.
        report: Plain values measured on held-out items at the end of training.

    Raises:
        InvalidInputError: If shapes do not fit together, K is not in 2..256, a value is not
            finite, a codeword's length is off by more than 1e-3, or a value is not plain.
    """

    codewords: npt.NDArray[np.float32]
    projection: Sequence[Layer] = ()
    backbone: Backbone | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    normalize: bool = False
    statistics: VectorStatistics | None = None
    report: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        codewords = _unit_codewords(np.asarray(self.codewords))
        codewords.flags.writeable = False
        layers = tuple(self.projection)
        _check_kinds(layers, self.backbone, self.statistics)
        for before, after in itertools.pairwise(layers):
            if len(before.bias) != after.weight.shape[1]:
                raise InvalidInputError(
                    f"a projection layer gives {len(before.bias)} values, but the next one takes "
                    f"{after.weight.shape[1]}."
                )
        width = codewords.shape[0] * codewords.shape[2]
        if layers and len(layers[-1].bias) != width:
            raise InvalidInputError(
                f"the projection must give D = M * Ds = {width} values, got {len(layers[-1].bias)}."
            )
        object.__setattr__(self, "codewords", codewords)
        object.__setattr__(self, "projection", layers)
        if not isinstance(self.normalize, (bool, np.bool_)):
            raise InvalidInputError(f"normalize must be True or False, got {self.normalize!r}.")
        object.__setattr__(self, "normalize", bool(self.normalize))
        for name in ("provenance", "report"):
            object.__setattr__(self, name, plain_dict(getattr(self, name), name))

    def __repr__(self) -> str:
        more = "" if not self.projection else f", P={self.P}"
        more += ", normalize=True" if self.normalize else ""
        more += f", backbone={self.backbone.name!r}" if self.backbone else ""
        return (
            f"Codebooks(M={self.M}, K={self.K}, Ds={self.Ds}{more}, "
            f"fingerprint={self.fingerprint[:12]})"
        )

    @property
    def M(self) -> int:
        """Number of subquantizers."""
        return int(self.codewords.shape[0])

    @property
    def K(self) -> int:
        """Number of codewords per codebook."""
        return int(self.codewords.shape[1])

    @property
    def Ds(self) -> int:
        """Width of a subvector."""
        return int(self.codewords.shape[2])

    @property
    def D(self) -> int:
        """Width of an embedding, M * Ds."""
        return self.M * self.Ds

    @property
    def P(self) -> int:
        """Width of the features that `project` takes; D if there is no projection."""
        return int(self.projection[0].weight.shape[1]) if self.projection else self.D

    @property
    def bits(self) -> float:
        """Information in one code, M * log2 K bits."""
        return float(self.M * np.log2(self.K))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, over shape and bytes of codewords and projection.

        ``normalize`` is part of it only if it is True.
        """
        digest = hashlib.sha256()
        arrays = [self.codewords]
        for layer in self.projection:
            arrays += [layer.weight, layer.bias]
        for array in arrays:
            digest.update(repr(array.shape).encode())
            digest.update(array.astype("<f4").tobytes())
        if self.normalize:
            digest.update(b"normalize")
        return digest.hexdigest()

    def project(self, features: npt.ArrayLike) -> Vectors:
        """Turn features into embeddings, without comparing them with ``statistics``.

        Args:
            features: Shape (n, P), any float or integer dtype; converted to float32. They are
                divided by their lengths here if ``normalize`` is set.

        Returns:
            float32, shape (n, D); ``features`` itself if there is nothing to do.

        Raises:
            InvalidInputError: If ``features`` has another width, or is not finite.
        """
        return self._project(as_vectors(features, self.P, name="features"))

    def _project(self, features: Vectors) -> Vectors:
        if not self.projection and not self.normalize:
            return features
        out = np.empty((len(features), self.D), np.float32)
        for start in range(0, len(features), _PROJECT_CHUNK):
            x = features[start : start + _PROJECT_CHUNK]
            if self.normalize:
                x = unit_rows(x)
            with np.errstate(over="ignore", invalid="ignore"):  # refused below
                for i, layer in enumerate(self.projection):
                    if i:
                        x = np.maximum(x, 0)
                    x = x @ layer.weight.T + layer.bias
            out[start : start + len(x)] = x
        if not (finite := np.isfinite(out).all(axis=1)).all():
            raise InvalidInputError(
                "features must be small enough for their embeddings to be finite, but those of row "
                f"{int(finite.argmin())} are not. Scale them as for training."
            )
        return out

    def embed(self, x: npt.ArrayLike, given: VectorKind | None = None) -> Vectors:
        """Turn vectors, features (n, P) or embeddings (n, D), into embeddings.

        Features are compared with ``statistics``, if there are any, and a warning is logged if
        more than half of them do not fit. They are then divided by their lengths if ``normalize``
        is set, and projected. Embeddings are returned as they are if there is a projection.

        Args:
            x: Shape (n, P) or (n, D), any float or integer dtype; converted to float32.
            given: Which of the two ``x`` is; decided by its width if None.

        Returns:
            float32, shape (n, D).

        Raises:
            InvalidInputError: If the width fits neither, or both and ``given`` is None; if ``x`` is
                not finite; or if more than nine tenths of the rows do not fit the statistics.
        """
        if given not in (None, "features", "embeddings"):
            raise InvalidInputError(f"given must be 'features' or 'embeddings', got {given!r}.")
        if not self.projection or given == "features":
            x = as_vectors(x, self.P)
        elif given == "embeddings":
            return as_vectors(x, self.D)
        else:
            x = as_vectors(x)
            if self.P == self.D == x.shape[1]:
                raise InvalidInputError(
                    f"vectors of width {self.D} can be features or embeddings here: say which with "
                    "given='features' or given='embeddings'."
                )
            if x.shape[1] == self.D:
                return x
            if x.shape[1] != self.P:
                raise InvalidInputError(
                    f"vectors must be features of width P={self.P} or embeddings of width "
                    f"D={self.D}, got width {x.shape[1]}."
                )
        if self.statistics is not None:
            warning = self.statistics.check(x, "vectors", lengths=not self.normalize)
            if warning:
                _log.warning(warning)
        return self._project(x)

    def save(self, path: str | Path) -> None:
        """Write a codebook file; a file that is there is replaced when the new one is complete.

        The new file is read back and compared before it takes the name.

        Args:
            path: A name that ends in ``.safetensors``, which needs no torch, or in ``.pt``.

        Raises:
            InvalidInputError: If the name ends otherwise, or its folder does not exist.
            MissingDependencyError: If it ends in ``.pt`` and torch is not installed.
        """
        codebook_file.write(self.content(), Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Codebooks:
        """Read codebooks from a file.

        Args:
            path: Our ``.safetensors`` or ``.pt``; a bare (M, K, Ds) array as ``.npy`` or as a saved
                tensor; or an official MeCoQ ``model.cpt``, read by its keys ``pq_layer._C``,
                ``projection.weight`` and ``projection.bias``.

        Raises:
            ArtifactError: If the file is missing, damaged, foreign, of a newer version, or would
                have to run code to be read.
            MissingDependencyError: If it is a file of torch and torch is not installed.
        """
        path = Path(path)
        content = codebook_file.read(path)
        with codebook_file.named_malformed(path):
            codebooks = cls._from_content(content)
        if content["fingerprint"] not in (None, codebooks.fingerprint):
            raise ArtifactError(
                f"{path} is damaged: codewords or projection differ from the fingerprint written "
                "with them. Restore the file from a copy."
            )
        return codebooks

    def content(self) -> codebook_file.Content:
        """Return arrays and plain values as a codebook file holds them."""
        found, statistics = self.backbone, self.statistics
        backbone: codebook_file.BackboneContent | None = None
        if found is not None:
            backbone = {
                "name": found.name,
                "weights_sha256": found.weights_sha256,
                "base_sha256": found.base_sha256,
                "transform": thaw(found.transform),
                "state": found.state,
            }
        return {
            "codewords": self.codewords,
            "projection": [(layer.weight, layer.bias) for layer in self.projection],
            "normalize": self.normalize,
            "backbone": backbone,
            "statistics": None if statistics is None else statistics.to_plain(),
            "report": thaw(self.report),
            "provenance": thaw(self.provenance),
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def _from_content(cls, content: codebook_file.Content) -> Codebooks:
        backbone, statistics = content["backbone"], content["statistics"]
        return cls(
            content["codewords"],
            projection=[Layer(weight, bias) for weight, bias in content["projection"]],
            backbone=None if backbone is None else Backbone(**backbone),
            provenance=content["provenance"],
            normalize=content["normalize"],
            statistics=None if statistics is None else VectorStatistics(**statistics),
            report=content["report"],
        )


def _check_kinds(layers: tuple[object, ...], backbone: object, statistics: object) -> None:
    """Refuse arguments that are not instances of our classes."""
    wanted = [(Layer, "a projection layer", layer) for layer in layers]
    for kind, what, value in [
        *wanted,
        (Backbone, "backbone", backbone),
        (VectorStatistics, "statistics", statistics),
    ]:
        if not isinstance(value, kind) and (value is not None or kind is Layer):
            raise InvalidInputError(
                f"{what} must be a {kind.__name__}, got {type(value).__name__}."
            )


def _unit_codewords(codewords: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return a float32 copy with codewords of unit length; those that have it keep their bits."""
    if codewords.ndim != 3:
        raise InvalidInputError(
            f"codewords must have shape (M, K, Ds), got {codewords.ndim} axes: {codewords.shape}."
        )
    if codewords.dtype.kind != "f":
        raise InvalidInputError(f"codewords must be floating point, got {codewords.dtype}.")
    M, K, Ds = codewords.shape
    if M < 1 or Ds < 1 or not 2 <= K <= 256:
        raise InvalidInputError(
            "codewords must have shape (M, K, Ds) with M and Ds above 0 and K between 2 and 256 "
            f"(a code is one byte), got {codewords.shape}."
        )
    if not np.isfinite(codewords).all():
        raise InvalidInputError("codewords must be finite, but they hold NaN or Inf.")
    result = np.array(codewords, dtype=np.float32, order="C")
    norms = np.linalg.norm(result.astype(np.float64), axis=2)
    worst = float(np.abs(norms - 1).max())
    if worst > _STORED_NORM_TOLERANCE:
        raise InvalidInputError(
            f"codewords must have unit length, but one is off by {worst:.3g} (AQS is an inner "
            "product over unit codewords). Divide each by its norm first: "
            "c / np.linalg.norm(c, axis=2, keepdims=True)."
        )
    off = np.abs(norms - 1) > _NORM_TOLERANCE
    result[off] = (result[off].astype(np.float64) / norms[off][:, None]).astype(np.float32)
    return result
