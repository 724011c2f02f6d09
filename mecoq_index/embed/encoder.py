"""Images to features and embeddings, in chunks that survive an interruption."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from .._arrays import Vectors
from .._devices import pick_device
from .._files import sync
from .._plain import thaw
from .._progress import Progress, silent
from .._workspace import Column, Job, Workspace
from ..codebooks import Codebooks
from ..data.images import Images, fingerprint, none_readable
from ..data.views import Augmentation, plain_transform, seeded, view_transform
from ..errors import InvalidInputError
from .backbones import BackboneModel, restore_backbone

_CHUNK = 1024
_Item = tuple[int, "torch.Tensor | None", str]
Skipped = list[tuple[int, str]]
"""Numbers of images that cannot be read, each with the reason."""
_Finish = Callable[[npt.NDArray[np.float32]], npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Extracted:
    """Features of images.

    Attributes:
        features: float32, shape (n, P), of the images themselves.
        views: float32, shape (V, n, P), of V random views of each.
        kept: Numbers of the images that could be read, int64 (n,), ascending.
        skipped: Number and reason of the others.
    """

    features: Vectors
    views: npt.NDArray[np.float32]
    kept: npt.NDArray[np.int64]
    skipped: Skipped


@dataclass(frozen=True, eq=False)
class EmbeddedImages:
    """Embeddings of images.

    Attributes:
        z: float32, shape (n, D).
        kept: Numbers of the images that could be read, int64 (n,), ascending.
        skipped: Number and reason of the others.
    """

    z: Vectors
    kept: npt.NDArray[np.int64]
    skipped: Skipped


class _Stacks(Dataset[_Item]):
    """Image i and V views of it, stacked (1 + V, 3, H, W); or the reason why it cannot be read."""

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


class _Network:
    """A backbone on its device, and the way from images to its features.

    Args:
        backbone: The network; put into evaluation mode.
        device: The device for it; CUDA if available, else the CPU, if None.
        batch_size: Images in a forward pass, views included.
        workers: Processes that load images.
        views: V, random views an image.
        augmentation: The random changes that make a view.
        seed: Seed of the views.
    """

    def __init__(
        self,
        backbone: BackboneModel,
        *,
        device: str | torch.device | None,
        batch_size: int,
        workers: int,
        views: int = 0,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        for name, value, least in (("batch_size", batch_size, 1), ("workers", workers, 0)):
            if value < least:
                raise InvalidInputError(f"{name} must be at least {least}, got {value}.")
        self.backbone, self.views = backbone, views
        self._device = pick_device(device)
        self._module = backbone.module.to(self._device).eval()
        self._batch_size, self._workers = max(1, batch_size // (1 + views)), workers
        self._augmentation, self._seed = augmentation or Augmentation(), seed
        self._plain = plain_transform(backbone.transform)
        self._view = view_transform(backbone.transform, self._augmentation)

    @property
    def job(self) -> dict[str, Any]:
        """Plain values that decide the features of an image."""
        return {
            "weights": self.backbone.weights_sha256,
            "transform": thaw(dict(self.backbone.transform)),
            "views": self.views,
            "augmentation": asdict(self._augmentation),
            "seed": self._seed,
        }

    @torch.no_grad()
    def features(
        self, images: Images, rows: range
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], Skipped]:
        """Return the numbers of the readable images, (k, 1 + V, P) features, and the others."""
        kept: list[int] = []
        found: list[npt.NDArray[np.float32]] = []
        skipped: Skipped = []
        loader = DataLoader(
            _Stacks(images, rows, self._plain, self._view, self.views, self._seed),
            batch_size=self._batch_size,
            num_workers=self._workers,
            collate_fn=list,
            generator=torch.Generator(),
        )
        for batch in loader:
            good = [(i, stack) for i, stack, _ in batch if stack is not None]
            skipped += [(i, reason) for i, stack, reason in batch if stack is None]
            if good:
                pixels = torch.cat([stack for _, stack in good]).to(self._device)
                output = self._module(pixels).float().cpu().numpy()
                found.append(output.reshape(len(good), 1 + self.views, -1))
                kept += [i for i, _ in good]
        empty = np.empty((0, 1 + self.views, self.backbone.width), np.float32)
        return np.array(kept, np.int64), np.concatenate([empty, *found]), skipped


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
    store: Workspace | None = None,
    on_progress: Progress = silent,
) -> Extracted:
    """Compute features of images, and of random views of them to train on.

    Args:
        images: The images.
        backbone: The network; put into evaluation mode.
        views: V, random views an image.
        augmentation: The random changes that make a view.
        seed: Seed of the views.
        device: The device of the network; CUDA if available, else the CPU, if None.
        batch_size: Images in a forward pass, views included.
        workers: Processes that load images.
        strict: Refuse an unreadable image instead of skipping it.
        store: The workspace, locked, that keeps finished chunks of 1,024 images. A later call with
            the same images, network and settings goes on from them.
        on_progress: Called with ("extracting features", images done, images in all).

    Raises:
        InvalidInputError: If no image can be read, or with ``strict`` one cannot; or ``store``
            belongs to other images or settings.
        ArtifactError: If ``store`` is damaged.
    """
    network = _Network(
        backbone,
        device=device,
        batch_size=batch_size,
        workers=workers,
        views=views,
        augmentation=augmentation,
        seed=seed,
    )
    shape = (1 + views, backbone.width)
    work = _Work(images, network, shape, lambda features: features, {"result": "features"})
    found, kept, skipped = work.run(store, strict, "extracting features", on_progress)
    views_first = np.ascontiguousarray(found[:, 1:].transpose(1, 0, 2))
    return Extracted(np.ascontiguousarray(found[:, 0]), views_first, kept, skipped)


def embed_images(
    images: Images,
    codebooks: Codebooks,
    *,
    backbone: BackboneModel | None = None,
    device: str | torch.device | None = None,
    batch_size: int = 64,
    workers: int = 0,
    strict: bool = False,
    store: Workspace | None = None,
    on_progress: Progress = silent,
) -> EmbeddedImages:
    """Compute embeddings of images for codebooks that know a backbone.

    Args:
        images: The images.
        codebooks: Codebooks with a backbone.
        backbone: The network as `restore_backbone` built it; built here if None.
        device, batch_size, workers, strict, store: As for `extract_features`.
        on_progress: Called with ("embedding images", images done, images in all).

    Raises:
        InvalidInputError: If the codebooks know no backbone, or one whose code only their file
            names; or as `extract_features` does.
        ArtifactError: If the backbone's weights are not those of training, or as
            `extract_features` does.
    """
    if codebooks.backbone is None:
        raise InvalidInputError(
            "these codebooks were learned from vectors, so they cannot embed images. Give vectors "
            f"(.npy, width {codebooks.P}), or codebooks trained on images or on features that "
            "mecoq-index embed made."
        )
    backbone = backbone or restore_backbone(codebooks.backbone)
    network = _Network(backbone, device=device, batch_size=batch_size, workers=workers)

    def project(features: npt.NDArray[np.float32]) -> Vectors:
        return codebooks.project(features[:, 0])

    job = {"result": "embeddings", "codebooks": codebooks.fingerprint}
    work = _Work(images, network, (codebooks.D,), project, job)
    return EmbeddedImages(*work.run(store, strict, "embedding images", on_progress))


class _Work:
    """Goes through images chunk by chunk, and keeps what it has finished in a folder.

    Args:
        images: The images.
        network: Makes features of them.
        shape: The shape of the result of one image.
        finish: Turns features (k, 1 + V, P) into results (k, *shape), float32.
        job: Plain values that decide the results, beside images and network.
    """

    def __init__(
        self,
        images: Images,
        network: _Network,
        shape: tuple[int, ...],
        finish: _Finish,
        job: Mapping[str, Any],
    ) -> None:
        self._images, self._network, self._finish = images, network, finish
        self._shape, self._job = (len(images), *shape), job

    def run(
        self, store: Workspace | None, strict: bool, text: str, on_progress: Progress
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], Skipped]:
        """Return the results of the readable images, their numbers, and the others.

        Raises:
            InvalidInputError: If none can be read, or with ``strict`` one cannot; or ``store``
                belongs to another job.
            ArtifactError: If ``store`` is damaged.
        """
        n = len(self._images)
        results = np.zeros(self._shape, np.float32)
        skipped: Skipped = []
        at, job, column = 0, self._job_in(store), None
        if job is not None:
            column = Column(job.path / "results.npy", self._shape, np.float32)
            at = job.count("images", n)
            results[:at] = column.read(0, at)
            skipped = job.pairs("skipped", at)
        self._check(skipped, strict)
        while at < n:
            end = min(at + _CHUNK, n)
            kept, features, unreadable = self._network.features(self._images, range(at, end))
            self._check(unreadable, strict)
            skipped += unreadable
            if len(kept):
                results[kept] = self._finish(features)
            if job is not None and column is not None:
                column.write(at, results[at:end])
                sync(column.path)
                job.note(images=end, skipped=skipped)
            at = end
            on_progress(text, at, n)
        if len(skipped) == n:
            raise none_readable(n, skipped)
        is_kept = np.ones(n, np.bool_)
        is_kept[[i for i, _ in skipped]] = False
        kept = np.flatnonzero(is_kept)
        return (results[kept] if skipped else results), kept, skipped

    def _job_in(self, store: Workspace | None) -> Job | None:
        if store is None:
            return None
        about = {**self._job, **self._network.job, "images": fingerprint(self._images)}
        return store.job("embedding", about)

    @staticmethod
    def _check(skipped: Skipped, strict: bool) -> None:
        if strict and skipped:
            raise InvalidInputError(skipped[0][1])
