"""The one place where any source becomes embeddings or codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .._arrays import Codes, Vectors
from .._progress import Progress, silent
from .._workspace import Workspace
from ..codebooks import Codebooks, VectorKind
from ..data.items import ImageItems, VectorItems
from ..data.metadata import Described, Metadata
from ..data.source import Source, open_source
from ..errors import InvalidInputError
from ..scoring import encode
from .rows import RowEncoder

if TYPE_CHECKING:
    from .backbones import BackboneModel


@dataclass(frozen=True, eq=False)
class _Outcome(Described):
    """The part that embeddings and codes share.

    Attributes:
        kept: Numbers of the items that could be read, int64 (n,), ascending.
        skipped: Number and reason of the others.
        metadata: Ids, names, columns and labels of the kept items.
    """

    kept: npt.NDArray[np.int64]
    skipped: list[tuple[int, str]]
    metadata: Metadata


@dataclass(frozen=True, eq=False)
class Embedded(_Outcome):
    """Embeddings of items.

    Attributes:
        z: float32, shape (n, D), one row for each of ``kept``.
    """

    z: Vectors


@dataclass(frozen=True, eq=False)
class Encoded(_Outcome):
    """Codes of items.

    Attributes:
        codes: uint8, shape (n, M), one row for each of ``kept``.
    """

    codes: Codes


class Embedder:
    """Turns sources into embeddings or codes. The network for images is built once and kept.

    Args:
        codebooks: The codebooks.
        given: Whether vectors are ``features`` or ``embeddings``; decided by their width if None.
        device: The device of the network; CUDA if available, else the CPU, if None.
        batch_size: Images in a forward pass.
        workers: Processes that load images.
        strict: Refuse an unreadable image instead of skipping it.
        backbone: The name of the backbone. It must be given if the codebooks come from a file and
            the backbone's code is none of this package, torchvision or timm.

    Attributes:
        codebooks: As given.

    Raises:
        InvalidInputError: If ``given`` has another value.

    Example:
        >>> books = Codebooks(np.eye(2, dtype=np.float32)[None].repeat(2, axis=0))
        >>> Embedder(books).encode([[0.9, 0.2, 0.1, 3.0]]).codes
        array([[0, 1]], dtype=uint8)
    """

    def __init__(
        self,
        codebooks: Codebooks,
        *,
        given: VectorKind | None = None,
        device: str | None = None,
        batch_size: int = 64,
        workers: int = 0,
        strict: bool = False,
        backbone: str | None = None,
    ) -> None:
        if given not in (None, "features", "embeddings"):
            raise InvalidInputError(f"given must be 'features' or 'embeddings', got {given!r}.")
        self.codebooks = codebooks
        self._given: VectorKind | None = given
        self._device, self._batch_size = device, batch_size
        self._workers, self._strict, self._backbone = workers, strict, backbone
        self._network: BackboneModel | None = None

    def embed(
        self,
        source: Source | VectorItems | ImageItems,
        *,
        store: Workspace | None = None,
        on_progress: Progress = silent,
    ) -> Embedded:
        """Return the embeddings of a source.

        Args:
            source: Anything that `open_source` takes, or what it returned.
            store: A workspace, locked, in which work on images goes on where it was interrupted;
                see `extract_features`.
            on_progress: Called with (text, items done, items in all).

        Raises:
            InvalidInputError: If vectors do not fit the codebooks, are not finite, or are codes; if
                the codebooks cannot embed images; if no image can be read, or with ``strict`` one
                cannot.
            ArtifactError: If a file is damaged, or the backbone's weights are not those of
                training.
            MissingDependencyError: If a package is needed that is not installed.
        """
        items = open_source(source)
        if isinstance(items, ImageItems):
            return self._embed_images(items, store, on_progress)
        z = self.rows(items).embed_all(on_progress)
        return Embedded(np.arange(items.n), [], items.metadata, z)

    def encode(
        self,
        source: Source | VectorItems | ImageItems,
        *,
        store: Workspace | None = None,
        on_progress: Progress = silent,
    ) -> Encoded:
        """Return the codes of a source, in memory; arguments and errors as for `embed`.

        Rows of uint8 and of width M are codes already, unless ``given`` says otherwise; they are
        checked and returned.
        """
        items = open_source(source)
        if isinstance(items, ImageItems):
            found = self._embed_images(items, store, on_progress)
            codes = encode(found.z, self.codebooks)
            return Encoded(found.kept, found.skipped, found.metadata, codes)
        codes = self.rows(items).encode_all(on_progress)
        return Encoded(np.arange(items.n), [], items.metadata, codes)

    def rows(self, items: VectorItems | ImageItems) -> RowEncoder:
        """Return an encoder of ranges of rows, for work that must not hold all of them.

        Raises:
            InvalidInputError: If the rows do not fit the codebooks, or are images.
            ArtifactError: If the rows on disk are damaged.
        """
        if isinstance(items, ImageItems):
            raise InvalidInputError(
                "ranges of rows must be vectors or codes, but these are images. Encode them first."
            )
        return RowEncoder(items, self.codebooks, self._given)

    def _embed_images(
        self, items: ImageItems, store: Workspace | None, on_progress: Progress
    ) -> Embedded:
        from .encoder import embed_images

        found = embed_images(
            items.images,
            self.codebooks,
            backbone=self._restored(),
            device=self._device,
            batch_size=self._batch_size,
            workers=self._workers,
            strict=self._strict,
            store=store,
            on_progress=on_progress,
        )
        metadata = items.metadata.take(found.kept) if found.skipped else items.metadata
        return Embedded(found.kept, found.skipped, metadata, found.z)

    def _restored(self) -> BackboneModel | None:
        """Return the network, built at the first call; None if the codebooks know none."""
        from .backbones import restore_backbone

        record = self.codebooks.backbone
        if self._network is None and record is not None:
            self._network = restore_backbone(record, backbone=self._backbone)
        return self._network
