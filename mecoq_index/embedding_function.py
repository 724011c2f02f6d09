"""MeCoQ as an embedding function, for programs that fill and search Milvus themselves.

The class has the methods that pymilvus-model and LangChain ask of theirs, and needs neither. What
differs from most embedding functions is that documents and queries are embedded differently:
documents are quantized, queries are not. The inner product of the two is AQS.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from ._arrays import Vectors
from .codebooks import Codebooks, VectorKind
from .engines.milvus.profiles import get_profile
from .errors import InvalidInputError
from .scoring import encode

Inputs = Vectors | Sequence[Any]
"""Vectors (n, P) or (n, D), as an array or one by one; or images, as paths or PIL images."""


class MeCoQEmbeddingFunction:
    """Documents as decoded codes, queries as block-normalised embeddings.

    Search by inner product (``IP``). Where a class must be derived from another one, LangChain's
    ``Embeddings`` or pymilvus-model's ``BaseEmbeddingFunction``, name it second::

        class MeCoQEmbeddings(MeCoQEmbeddingFunction, Embeddings): ...

    Args:
        codebooks: The codebooks, or the file that they are in.
        profile: In which form vectors are stored, see `mecoq_index.engines.milvus.profiles`:
            ``exact``, ``graph`` and ``compact`` take the same vectors; for ``sparse`` they are
            dictionaries, and the scores lack `query_offsets`.
        given: What vectors are, ``features`` or ``embeddings``; told apart by their width if None.
        device: Where the network for images runs; CUDA where there is one if None.
        batch_size: Images a forward pass.
        options: Options of the profile: ``precision="float16"``.

    Raises:
        InvalidInputError: If an option is unknown.
        ArtifactError: If the file is missing or damaged.

    Example:
        >>> import numpy as np
        >>> from mecoq_index import Codebooks, MeCoQEmbeddingFunction
        >>> books = Codebooks(np.eye(2, dtype=np.float32)[None].repeat(2, axis=0))
        >>> embed = MeCoQEmbeddingFunction(books)
        >>> embed.embed_documents([[0.9, 0.2, 0.1, 3.0]])
        [[1.0, 0.0, 0.0, 1.0]]
        >>> embed.embed_query([2.0, 0.0, 0.0, 3.0])
        [1.0, 0.0, 0.0, 1.0]
    """

    def __init__(
        self,
        codebooks: Codebooks | str | Path,
        *,
        profile: str = "exact",
        given: VectorKind | None = None,
        device: str | None = None,
        batch_size: int = 64,
        **options: Any,
    ) -> None:
        if not isinstance(codebooks, Codebooks):
            codebooks = Codebooks.load(codebooks)
        if given not in (None, *get_args(VectorKind)):
            raise InvalidInputError(f"given must be 'features' or 'embeddings', got {given!r}.")
        self.codebooks = codebooks
        self.profile = get_profile(profile, codebooks, **options)
        self._given: VectorKind | None = given
        self._device, self._batch_size = device, batch_size
        self._backbone: Any = None

    @property
    def model_name(self) -> str:
        """Which codebooks these are."""
        return f"mecoq:{self.codebooks.fingerprint[:12]}"

    @property
    def dim(self) -> int:
        """Width of the vectors: D, or for ``sparse`` the M * K entries there can be."""
        width = self.profile.width
        return self.codebooks.M * self.codebooks.K if width is None else width

    def __call__(self, inputs: Inputs) -> list[Any]:
        """As `encode_documents`, which is what Milvus's own functions do."""
        return self.encode_documents(inputs)

    def encode_documents(self, inputs: Inputs) -> list[Any]:
        """What to store: decoded vectors (D,), or ``{index: 1.0}`` for ``sparse``.

        Raises:
            InvalidInputError: If inputs are malformed, or an image cannot be read.
        """
        return list(self.profile.documents(encode(self._embeddings(inputs), self.codebooks)))

    def encode_queries(self, inputs: Inputs) -> list[Any]:
        """What to search with: vectors (D,), or ``{index: value}`` for ``sparse``.

        Raises:
            InvalidInputError: If inputs are malformed, or an image cannot be read.
        """
        return list(self.profile.queries(self._embeddings(inputs)).values)

    def query_offsets(self, inputs: Inputs) -> npt.NDArray[np.float32]:
        """What to add to the scores of each query (nq,) to have AQS; 0 but for ``sparse``.

        Raises:
            InvalidInputError: If inputs are malformed, or an image cannot be read.
        """
        queries = self.profile.queries(self._embeddings(inputs))
        offsets: npt.NDArray[np.float32] = np.array(
            np.broadcast_to(queries.offset, (len(queries.values),))
        )
        return offsets

    def embed_documents(self, inputs: Inputs) -> list[Any]:
        """As `encode_documents`, in lists of floats: LangChain's name and form."""
        return [_plain(value) for value in self.encode_documents(inputs)]

    def embed_query(self, one: Any) -> Any:
        """As `encode_queries` for one image or vector, in a list of floats."""
        return _plain(self.encode_queries([one])[0])

    def _embeddings(self, inputs: Inputs) -> Vectors:
        if isinstance(inputs, np.ndarray):
            return self.codebooks.embed(inputs, given=self._given)
        if _is_image(inputs) or not isinstance(inputs, Sequence):
            raise InvalidInputError(
                "inputs must be a list of vectors or of images, or a float32 array, got one "
                f"{type(inputs).__name__}. Put a single input into a list."
            )
        if not len(inputs):
            return np.empty((0, self.codebooks.D), np.float32)
        images = sum(map(_is_image, inputs))
        if images == len(inputs):
            return self._embed_images(inputs)
        if images:
            raise InvalidInputError(
                f"inputs must be all images or all vectors, got {images} images and "
                f"{len(inputs) - images} others."
            )
        return self.codebooks.embed(_stacked(inputs), given=self._given)

    def _embed_images(self, images: Sequence[Any]) -> Vectors:
        from .data.images import ImageList
        from .embed.backbones import restore_backbone
        from .embed.encoder import embed_images

        record = self.codebooks.backbone
        if self._backbone is None and record is not None:
            self._backbone = restore_backbone(record)
        return embed_images(
            ImageList([os.fspath(i) if isinstance(i, os.PathLike) else i for i in images]),
            self.codebooks,
            backbone=self._backbone,
            device=self._device,
            batch_size=self._batch_size,
            strict=True,  # a skipped image would move all after it
        ).z


def _is_image(value: Any) -> bool:
    # Whoever holds a PIL image has loaded PIL.
    pil = sys.modules.get("PIL.Image")
    return isinstance(value, (str, os.PathLike)) or (pil and isinstance(value, pil.Image)) or False


def _stacked(vectors: Sequence[Any]) -> Vectors:
    """Vectors as one array. Python's floats are rounded to float32; arrays must be of it."""
    try:
        with np.errstate(over="ignore"):  # Inf is refused with the other values that are not finite
            rows = [v if hasattr(v, "dtype") else np.array(v, np.float32) for v in vectors]
        stacked = np.stack([np.asarray(row) for row in rows])
    except (TypeError, ValueError) as exc:
        raise InvalidInputError(
            f"inputs must be vectors of one width, but they cannot be put into an array: {exc}"
        ) from exc
    if stacked.ndim != 2 or stacked.dtype != np.float32:
        raise InvalidInputError(
            "inputs must be vectors, each a list of floats or a float32 array (P,) or (D,), got "
            f"{stacked.dtype} {stacked.shape[1:]}."
        )
    return stacked


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
