"""MeCoQ as an embedding function, for programs that fill and search a vector store themselves.

The class has the methods of LangChain's ``Embeddings`` and of pymilvus-model's
``BaseEmbeddingFunction``, and needs neither package. Unlike most embedding functions it treats
documents and queries differently: documents are quantized, queries are not. Their inner product
is AQS, so a store must search by inner product.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, Union, cast, get_args, overload

import numpy as np
import numpy.typing as npt

from . import sparse_codes
from ._arrays import Vectors, as_vectors
from .codebooks import Codebooks, VectorKind
from .errors import InvalidInputError
from .scoring import block_normalize, decode, encode

if TYPE_CHECKING:
    from PIL.Image import Image

    from .embed.backbones import BackboneModel

Form = Literal["dense", "sparse"]
Vector = npt.NDArray[np.float32]  # (D,)
Encoder = Callable[[list[str]], npt.ArrayLike]
"""Turns n texts into vectors (n, P) or (n, D)."""
Input = Union[str, "os.PathLike[str]", "Image", npt.NDArray[Any], Sequence[float]]
"""A text, an image (its path or a PIL image), or a vector (P,) or (D,)."""
Inputs = npt.NDArray[Any] | Sequence[Input]
"""Texts, images, or vectors one by one; or vectors as an array (n, P) or (n, D)."""

Plain = TypeVar("Plain", list[float], dict[int, float])


class MeCoQEmbeddingFunction(Generic[Plain]):
    """Embed documents as decoded codes, and queries as block-normalized embeddings.

    To derive from a class of another package, name that class second::

        class MeCoQEmbeddings(MeCoQEmbeddingFunction, Embeddings): ...

    A string is a text if there is an encoder. Without an encoder it is the path of an image, and is
    refused if the codebooks cannot embed images. Paths (``os.PathLike``) and PIL images are always
    images, numbers always vectors.

    Objects can be pickled if their encoder can.

    Args:
        codebooks: The codebooks, or the path of their file.
        encoder: Turns a list of n texts into vectors, an array or lists of shape (n, P) or (n, D),
            for instance ``SentenceTransformer(...).encode``. It should be the encoder of the
            vectors that the codebooks were trained on.
        form: ``dense`` for vectors of width D. ``sparse`` for dictionaries of entries by dimension,
            whose inner product is AQS minus `query_offsets`; see `mecoq_index.sparse_codes`.
        given: Whether vectors are ``features`` or ``embeddings``; decided by their width if None.
        device: Device of the network for images; CUDA if available, else the CPU, if None.
        batch_size: Images in a forward pass.
        backbone: The name of the backbone for images. It must be given if the codebooks come from
            a file and the name stands for code, or a file of weights, of its own.

    Raises:
        InvalidInputError: If an option has another value, or the encoder cannot be called.
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
        >>> lengths = MeCoQEmbeddingFunction(
        ...     books, encoder=lambda texts: [[len(text), 1, 1, 2] for text in texts]
        ... )
        >>> lengths.embed_documents(["some text"])
        [[1.0, 0.0, 0.0, 1.0]]
    """

    @overload
    def __init__(
        self: MeCoQEmbeddingFunction[list[float]],
        codebooks: Codebooks | str | Path,
        *,
        encoder: Encoder | None = None,
        form: Literal["dense"] = "dense",
        given: VectorKind | None = None,
        device: str | None = None,
        batch_size: int = 64,
        backbone: str | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self: MeCoQEmbeddingFunction[dict[int, float]],
        codebooks: Codebooks | str | Path,
        *,
        encoder: Encoder | None = None,
        form: Literal["sparse"],
        given: VectorKind | None = None,
        device: str | None = None,
        batch_size: int = 64,
        backbone: str | None = None,
    ) -> None: ...

    def __init__(
        self,
        codebooks: Codebooks | str | Path,
        *,
        encoder: Encoder | None = None,
        form: Form = "dense",
        given: VectorKind | None = None,
        device: str | None = None,
        batch_size: int = 64,
        backbone: str | None = None,
    ) -> None:
        if not isinstance(codebooks, Codebooks):
            codebooks = Codebooks.load(codebooks)
        if given not in (None, *get_args(VectorKind)):
            raise InvalidInputError(f"given must be 'features' or 'embeddings', got {given!r}.")
        if form not in get_args(Form):
            raise InvalidInputError(f"form must be 'dense' or 'sparse', got {form!r}.")
        if encoder is not None and not callable(encoder):
            raise InvalidInputError(
                "encoder must be a function that turns a list of texts into vectors (n, P), got "
                f"{type(encoder).__name__}."
            )
        self.codebooks = codebooks
        self.form: Form = form
        self._encoder = encoder
        self._given: VectorKind | None = given
        self._device, self._batch_size = device, batch_size
        self._backbone: BackboneModel | None = None
        self._backbone_name = backbone
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_backbone": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=Lock())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.codebooks!r}, form={self.form!r})"

    @property
    def model_name(self) -> str:
        """A name made from the fingerprint of the codebooks."""
        return f"mecoq:{self.codebooks.fingerprint[:12]}"

    @property
    def dim(self) -> int:
        """Width of the vectors: D, or M K if ``form`` is ``sparse``."""
        books = self.codebooks
        return books.D if self.form == "dense" else books.M * books.K

    def __call__(self, texts: Inputs) -> list[Vector] | list[dict[int, float]]:
        """Embed documents, as `encode_documents` does."""
        return self.encode_documents(texts)

    def encode_documents(self, documents: Inputs) -> list[Vector] | list[dict[int, float]]:
        """Return what to store.

        Args:
            documents: n texts, images or vectors.

        Returns:
            n decoded vectors, float32 (D,); for ``sparse`` n dictionaries ``{dimension: 1.0}``.

        Raises:
            InvalidInputError: If the inputs are malformed, an image cannot be read, or the encoder
                returns something else than n vectors of a known width.
        """
        codes = encode(self._embeddings(documents), self.codebooks)
        if self.form == "sparse":
            return sparse_codes.one_hot(codes, self.codebooks)
        return list(decode(codes, self.codebooks))

    def encode_queries(self, queries: Inputs) -> list[Vector] | list[dict[int, float]]:
        """Return vectors to search with.

        Args:
            queries: n texts, images or vectors.

        Returns:
            n block-normalized vectors, float32 (D,); for ``sparse`` n dictionaries of M K entries.

        Raises:
            InvalidInputError: As `encode_documents`.
        """
        z = self._embeddings(queries)
        if self.form == "sparse":
            return sparse_codes.shifted_tables(z, self.codebooks)[0]
        return list(block_normalize(z, self.codebooks.M))

    def query_offsets(self, queries: Inputs) -> npt.NDArray[np.float32]:
        """Return what to add to a store's scores of each query to get AQS.

        Args:
            queries: n texts, images or vectors.

        Returns:
            float32, shape (n,); zeros if ``form`` is ``dense``.

        Raises:
            InvalidInputError: As `encode_documents`.
        """
        z = self._embeddings(queries)
        if self.form == "sparse":
            return sparse_codes.shifted_tables(z, self.codebooks)[1]
        return np.zeros(len(z), np.float32)

    def embed_documents(self, texts: Inputs) -> list[Plain]:
        """Return what to store, as lists of Python floats; see `encode_documents`.

        The name and the argument are LangChain's; images and vectors are welcome as well.
        """
        return [_plain(value) for value in self.encode_documents(texts)]

    def embed_query(self, text: Input) -> Plain:
        """Return the vector to search with for one text, image or vector; see `encode_queries`."""
        return cast(Plain, _plain(self.encode_queries([text])[0]))

    async def aembed_documents(self, texts: Inputs) -> list[Plain]:
        """Run `embed_documents` in a thread."""
        import asyncio

        return await asyncio.to_thread(self.embed_documents, texts)

    async def aembed_query(self, text: Input) -> Plain:
        """Run `embed_query` in a thread."""
        import asyncio

        return await asyncio.to_thread(self.embed_query, text)

    def relevance_score(self, score: float) -> float:
        """Map AQS, which lies in [-M, M], to [0, 1]: ``(score / M + 1) / 2``.

        LangChain's vector stores take this method as their ``relevance_score_fn``. Values outside
        [-M, M], to which a store's rounding can lead, are clipped.
        """
        return min(1.0, max(0.0, (float(score) / self.codebooks.M + 1) / 2))

    def _embeddings(self, inputs: Inputs) -> Vectors:
        """Return embeddings (n, D) of texts, images or vectors."""
        if _is_image(inputs) or not (hasattr(inputs, "__array__") or isinstance(inputs, Sequence)):
            raise InvalidInputError(
                "inputs must be a list of texts, images or vectors, or an array of vectors, got "
                f"one {type(inputs).__name__}. Put a single input into a list."
            )
        if hasattr(inputs, "__array__"):
            return self.codebooks.embed(inputs, given=self._given)
        if not len(inputs):
            return np.empty((0, self.codebooks.D), np.float32)
        kinds = [self._kind(one) for one in inputs]
        if len(found := sorted(set(kinds))) > 1:
            counts = " and ".join(f"{kinds.count(kind)} {kind}s" for kind in found)
            raise InvalidInputError(f"inputs must be of one kind, got {counts}.")
        if found == ["text"]:
            return self._embed_texts(cast(Sequence[str], inputs))
        if found == ["image"]:
            return self._embed_images(cast(Sequence[Input], inputs))
        return self.codebooks.embed(cast(npt.ArrayLike, inputs), given=self._given)

    def _kind(self, one: object) -> str:
        """Return ``text``, ``image`` or ``vector``."""
        if not isinstance(one, str):
            return "image" if _is_image(one) else "vector"
        if self._encoder is not None:
            return "text"
        if self.codebooks.backbone is None:
            raise InvalidInputError(
                "texts need an encoder, but none was given, and these codebooks were learned from "
                "vectors, so a string is no image either. Pass encoder=, a function that turns a "
                "list of texts into vectors (n, P)."
            )
        return "image"

    def _embed_texts(self, texts: Sequence[str]) -> Vectors:
        if self._encoder is None:
            raise InvalidInputError("texts need an encoder.")
        vectors = as_vectors(self._encoder(list(texts)), name="the encoder's vectors")
        if len(vectors) != len(texts):
            raise InvalidInputError(
                f"the encoder must return one vector for each text, {len(texts)}, got "
                f"{len(vectors)}."
            )
        return self.codebooks.embed(vectors, given=self._given)

    def _embed_images(self, images: Sequence[Input]) -> Vectors:
        from .data.images import ImageList
        from .embed.encoder import embed_images

        return embed_images(
            ImageList([os.fspath(i) if isinstance(i, os.PathLike) else i for i in images]),
            self.codebooks,
            backbone=self._network(),
            device=self._device,
            batch_size=self._batch_size,
            strict=True,  # skipping an image would shift all that follow
        ).z

    def _network(self) -> BackboneModel | None:
        """Return the network for images, built at the first call; None without one."""
        from .embed.backbones import restore_backbone

        record = self.codebooks.backbone
        with self._lock:
            if self._backbone is None and record is not None:
                self._backbone = restore_backbone(record, backbone=self._backbone_name)
        return self._backbone


def _is_image(value: object) -> bool:
    """Return whether a value is a path, as a string or ``os.PathLike``, or a PIL image."""
    pil = sys.modules.get("PIL.Image")  # loaded by anybody who has a PIL image
    is_pil = pil is not None and isinstance(value, pil.Image)
    return is_pil or isinstance(value, (str, os.PathLike))


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
