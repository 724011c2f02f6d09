"""Images to features and embeddings, in chunks that survive an interruption."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from .._arrays import Vectors
from .._devices import pick_device
from .._files import atomic_file
from ..codebooks import Codebooks
from ..data.images import Images, fingerprint
from ..data.views import Augmentation, plain_transform, seeded, view_transform
from ..errors import ArtifactError, InvalidInputError
from .backbones import BackboneModel, restore_backbone

_CHUNK = 1024
_Item = tuple[int, "torch.Tensor | None", str]


@dataclass(frozen=True, eq=False)
class Extracted:
    """Features of images.

    Attributes:
        features: float32, shape (n, P), of the images as they are.
        views: float32, shape (V, n, P), of V random views of each.
        kept: Numbers of the images that could be read, (n,).
        skipped: Number and reason of the others.
    """

    features: Vectors
    views: npt.NDArray[np.float32]
    kept: npt.NDArray[np.int64]
    skipped: list[tuple[int, str]]


class _Stacks(Dataset[_Item]):
    """Image i plain and under V views, stacked (1 + V, 3, H, W); or the reason why it is not."""

    def __init__(self, images: Images, rows: range, plain: Any, view: Any, views: int, seed: int):
        self._images, self._rows, self._plain, self._view = images, rows, plain, view
        self._views, self._seed = views, seed

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> _Item:
        i = self._rows[position]
        try:
            image = self._images.load(i)
        except InvalidInputError as exc:
            return i, None, str(exc)
        stack = [self._plain(image)]
        if self._views:
            with seeded(self._seed, i):
                stack += [self._view(image) for _ in range(self._views)]
        return i, torch.stack(stack), ""


def extract_features(
    images: Images,
    backbone: BackboneModel,
    *,
    views: int = 0,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    batch_size: int = 64,
    workers: int = 0,
    strict: bool = False,
    store: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Extracted:
    """Features of images, and of random views of them to train on.

    Args:
        images: The images.
        backbone: The network; put into evaluation mode.
        views: V, random views an image.
        augmentation: How views differ from their image.
        seed: Seed of the views.
        device: Where the network runs; CUDA where there is one if None.
        batch_size: Images a forward pass, views included.
        workers: Processes that load images.
        strict: Refuse an unreadable image instead of skipping it.
        store: A folder to keep finished chunks of 1,024 images in. A later call with the same
            images, network and settings goes on from them; remove the folder when all is done.
        on_progress: Called with images done and images in all.

    Raises:
        InvalidInputError: If no image can be read, or with ``strict`` one cannot; or ``store``
            belongs to other images or settings.
    """
    chosen = pick_device(device)
    augmentation = augmentation or Augmentation()
    module = backbone.module.to(chosen).eval()
    plain = plain_transform(backbone.transform)
    view = view_transform(backbone.transform, augmentation)
    chunks = _ChunkStore(store, _key(images, backbone, views, augmentation, seed))
    parts: list[dict[str, npt.NDArray[Any]]] = []
    skipped: list[tuple[int, str]] = []
    for start in range(0, len(images), _CHUNK):
        rows = range(start, min(start + _CHUNK, len(images)))
        chunk = chunks.read(start)
        if chunk is None:
            stacks = _Stacks(images, rows, plain, view, views, seed)
            chunk = _forward(module, stacks, chosen, max(1, batch_size // (1 + views)), workers)
            chunks.write(start, chunk)
        for i, reason in zip(chunk["skipped"].tolist(), chunk["reasons"].tolist(), strict=True):
            if strict:
                raise InvalidInputError(reason)
            skipped.append((i, reason))
        parts.append(chunk)
        if on_progress is not None:
            on_progress(rows.stop, len(images))
    kept = np.concatenate([part["kept"] for part in parts])
    if not len(kept):
        raise InvalidInputError(
            f"none of the {len(images)} images is readable; the first: {skipped[0][1]}"
        )
    stacked = np.concatenate([part["features"] for part in parts if len(part["kept"])])
    views_first = np.ascontiguousarray(stacked[:, 1:].transpose(1, 0, 2))
    return Extracted(np.ascontiguousarray(stacked[:, 0]), views_first, kept, skipped)


@torch.no_grad()
def _forward(
    module: torch.nn.Module, stacks: _Stacks, device: torch.device, batch_size: int, workers: int
) -> dict[str, npt.NDArray[Any]]:
    kept, features, skipped, reasons = [], [], [], []
    loader = DataLoader(
        stacks,
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=list,
        generator=torch.Generator(),
    )
    for batch in loader:
        good = [(i, stack) for i, stack, _ in batch if stack is not None]
        skipped += [i for i, stack, _ in batch if stack is None]
        reasons += [reason for _, stack, reason in batch if stack is None]
        if good:
            pixels = torch.cat([stack for _, stack in good]).to(device)
            output = module(pixels).float().cpu().numpy()
            features.append(output.reshape(len(good), -1, output.shape[1]))
            kept += [i for i, _ in good]
    return {
        "kept": np.array(kept, np.int64),
        "features": np.concatenate(features) if features else np.empty((0, 0, 0), np.float32),
        "skipped": np.array(skipped, np.int64),
        "reasons": np.array(reasons, np.str_),
    }


def _key(
    images: Images, backbone: BackboneModel, views: int, augmentation: Augmentation, seed: int
) -> str:
    digest = hashlib.sha256()
    settings = (backbone.weights_sha256, dict(backbone.transform), views, augmentation, seed)
    digest.update(repr(settings).encode())
    digest.update(fingerprint(images).encode())
    return digest.hexdigest()


class _ChunkStore:
    """Finished chunks in a folder, one ``.npz`` each, and the key of what they belong to."""

    def __init__(self, folder: Path | None, key: str) -> None:
        self._folder = folder
        if folder is None:
            return
        folder.mkdir(exist_ok=True)
        note = folder / "key.json"
        if note.exists() and json.loads(note.read_text(encoding="utf-8")) != {"key": key}:
            raise InvalidInputError(
                f"{folder} holds the unfinished work of a run with other images or settings. "
                "Remove it to start again, or repeat those settings to go on."
            )
        with atomic_file(note) as partial:
            partial.write_text(json.dumps({"key": key}), encoding="utf-8")

    def read(self, start: int) -> dict[str, npt.NDArray[Any]] | None:
        if self._folder is None or not (path := self._folder / f"{start:09d}.npz").exists():
            return None
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except (OSError, ValueError, EOFError) as exc:
            raise ArtifactError(f"{path} is damaged. Remove it to compute it again.") from exc

    def write(self, start: int, chunk: dict[str, npt.NDArray[Any]]) -> None:
        arrays: dict[str, Any] = chunk
        if self._folder is not None:
            with (
                atomic_file(self._folder / f"{start:09d}.npz") as partial,
                partial.open("wb") as stream,
            ):
                np.savez(stream, **arrays)


@dataclass(frozen=True, eq=False)
class Embedded:
    """Embeddings of images.

    Attributes:
        z: float32, shape (n, D).
        kept: Numbers of the images that could be read, (n,).
        skipped: Number and reason of the others.
    """

    z: Vectors
    kept: npt.NDArray[np.int64]
    skipped: list[tuple[int, str]]


def embed_images(
    images: Images,
    codebooks: Codebooks,
    *,
    backbone: BackboneModel | None = None,
    **options: Any,
) -> Embedded:
    """Embeddings of images for codebooks that were learned from images.

    Args:
        images: The images.
        codebooks: Codebooks with a backbone.
        backbone: What `restore_backbone` made of it, for callers who come often; made here if None.
        options: As for `extract_features`: device, batch_size, workers, strict, store, on_progress.

    Raises:
        InvalidInputError: If the codebooks were learned from vectors, or no image can be read.
        ArtifactError: If the backbone's weights are not those of training.
    """
    if codebooks.backbone is None:
        raise InvalidInputError(
            "these codebooks were learned from vectors, so they cannot embed images. Give vectors "
            f"(.npy, width {codebooks.P}), or codebooks trained on images."
        )
    backbone = backbone or restore_backbone(codebooks.backbone)
    extracted = extract_features(images, backbone, **options)
    return Embedded(codebooks.project(extracted.features), extracted.kept, extracted.skipped)
