"""Codebooks: the one artefact that the trainer writes and every engine reads."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ._arrays import Vectors, check_vectors
from .errors import InvalidInputError

VectorKind = Literal["features", "embeddings"]

# float16 storage moves a norm by up to 5e-4; anything further off was never a unit codeword.
_STORED_NORM_TOLERANCE = 1e-3
_NORM_TOLERANCE = 1e-6
_PROJECT_CHUNK = 16384


@dataclass(frozen=True, eq=False)
class Layer:
    """One affine map ``x @ weight.T + bias``.

    Attributes:
        weight: float32, shape (out, in). Held as a read-only copy.
        bias: float32, shape (out,). Held as a read-only copy.
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


@dataclass(frozen=True, eq=False)
class Backbone:
    """What it takes to compute the features that the projection expects from an image.

    Attributes:
        name: As given to training, for instance ``torchvision:vgg16``.
        weights_sha256: Digest of the weights that the codebooks were learned on; a backbone that
            is built again is checked against it.
        transform: Plain values describing resize, crop and normalisation.
        state: The weights by name, where training changed them; None where the named backbone's
            own weights are meant.
    """

    name: str
    weights_sha256: str
    transform: Mapping[str, Any]
    state: Mapping[str, npt.NDArray[Any]] | None = None


@dataclass(frozen=True, eq=False)
class Codebooks:
    """M learned codebooks of K codewords each, and what makes embeddings for them.

    Attributes:
        codewords: float32, shape (M, K, Ds). ``codewords[m, k]`` is codeword k of subquantizer m,
            of unit length within 1e-6. Held as a read-only copy.
        projection: Affine layers from features (n, P) to embeddings (n, D), with ReLU between
            them. Empty where the input already is the embedding.
        backbone: What turns an image into features; None for codebooks learned from vectors.
        provenance: Plain values: training settings, versions.

    Raises:
        InvalidInputError: If shapes do not fit together, K is not in 2..256, a value is not
            finite, or a codeword's length is off by more than 1e-3.
    """

    codewords: npt.NDArray[np.float32]
    projection: Sequence[Layer] = ()
    backbone: Backbone | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        codewords = _unit_codewords(np.asarray(self.codewords))
        codewords.flags.writeable = False
        layers = tuple(self.projection)
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
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))

    def __repr__(self) -> str:
        return (
            f"Codebooks(M={self.M}, K={self.K}, Ds={self.Ds}, fingerprint={self.fingerprint[:12]})"
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
        """Width of the features that `project` takes; D where there is no projection."""
        return int(self.projection[0].weight.shape[1]) if self.projection else self.D

    @property
    def bits(self) -> float:
        """Information in one code, M * log2 K bits."""
        return float(self.M * np.log2(self.K))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over shape and bytes of codewords and projection, in hexadecimal."""
        digest = hashlib.sha256()
        arrays = [self.codewords]
        for layer in self.projection:
            arrays += [layer.weight, layer.bias]
        for array in arrays:
            digest.update(repr(array.shape).encode())
            digest.update(array.astype("<f4").tobytes())
        return digest.hexdigest()

    def project(self, features: Vectors) -> Vectors:
        """Embeddings of backbone features.

        Args:
            features: float32, shape (n, P).

        Returns:
            float32, shape (n, D); ``features`` itself where there is no projection.

        Raises:
            InvalidInputError: If ``features`` has another dtype or width, or is not finite.
        """
        features = check_vectors(features, self.P, name="features")
        if not self.projection:
            return features
        out = np.empty((len(features), self.D), np.float32)
        for start in range(0, len(features), _PROJECT_CHUNK):
            x = features[start : start + _PROJECT_CHUNK]
            for i, layer in enumerate(self.projection):
                if i:
                    x = np.maximum(x, 0)
                x = x @ layer.weight.T + layer.bias
            out[start : start + len(x)] = x
        return out

    def embed(self, x: Vectors, *, given: VectorKind | None = None) -> Vectors:
        """Embeddings of vectors that are features (n, P) or embeddings (n, D) already.

        Args:
            x: float32, shape (n, P) or (n, D).
            given: Which of the two ``x`` is; told apart by its width if None.

        Returns:
            float32, shape (n, D).

        Raises:
            InvalidInputError: If the width fits neither, or both and ``given`` is None.
        """
        if given == "features":
            return self.project(x)
        if given == "embeddings" or not self.projection:
            return check_vectors(x, self.D)
        x = check_vectors(x)
        if self.P == self.D == x.shape[1]:
            raise InvalidInputError(
                f"vectors of width {self.D} can be features or embeddings here: say which."
            )
        if x.shape[1] == self.P:
            return self.project(x)
        if x.shape[1] == self.D:
            return x
        raise InvalidInputError(
            f"vectors must be features of width P={self.P} or embeddings of width D={self.D}, got "
            f"width {x.shape[1]}."
        )

    def save(self, path: str | Path) -> None:
        """Write a codebook file; one that is there is replaced only when the new one is whole."""
        from .codebook_file import write

        write(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Codebooks:
        """Read codebooks from a file.

        Args:
            path: Our ``.pt``; a bare (M, K, Ds) array as ``.npy`` or as a saved tensor; or an
                official MeCoQ ``model.cpt``, read by its keys ``pq_layer._C``,
                ``projection.weight`` and ``projection.bias``.

        Raises:
            ArtifactError: If the file is missing, damaged, foreign, of a newer version, or would
                have to run code to be read.
        """
        from .codebook_file import read

        return read(Path(path))


def _unit_codewords(codewords: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """A float32 copy whose codewords have unit length; those that already have keep their bits."""
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
