"""Random views of images, as a source of training pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._arrays import Ids
from .._optional import require
from ..errors import InvalidInputError
from .batching import count_steps, shuffled_batches
from .images import Images, fingerprint

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The random changes that make a view of an image; defaults as in the official MeCoQ runs."""

    min_scale: float = 0.5
    """Smallest share of the area that a random crop keeps."""
    flip: bool = True
    """Mirror every other view; not for images such as digits, in which left and right differ."""
    jitter: float = 0.7
    """Probability of shifting brightness, contrast, saturation and hue."""
    grayscale: float = 0.2
    """Probability of removing the color."""
    blur: float = 0.5
    """Probability of a Gaussian blur (kernel 3, sigma 0.1 to 2)."""

    def __post_init__(self) -> None:
        if not 0 < self.min_scale <= 1:
            raise InvalidInputError(f"min_scale must lie in (0, 1], got {self.min_scale}.")
        for name in ("jitter", "grayscale", "blur"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise InvalidInputError(f"{name} must be a probability in [0, 1], got {value}.")


def view_transform(transform: Mapping[str, Any], augmentation: Augmentation) -> Any:
    """Return a function from a PIL image to one random view of it.

    A view is a float32 tensor (3, H, W), normalized as the backbone's ``transform`` says.
    """
    v2 = _v2()
    steps = [
        v2.ToImage(),
        v2.RandomResizedCrop(
            transform["crop"], scale=(augmentation.min_scale, 1.0), antialias=True
        ),
    ]
    if augmentation.flip:
        steps.append(v2.RandomHorizontalFlip())
    if augmentation.jitter:
        steps.append(v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=augmentation.jitter))
    if augmentation.grayscale:
        steps.append(v2.RandomGrayscale(augmentation.grayscale))
    if augmentation.blur:
        steps.append(v2.RandomApply([v2.GaussianBlur(3, (0.1, 2.0))], p=augmentation.blur))
    return v2.Compose([*steps, *_to_normalized(transform)])


def plain_transform(transform: Mapping[str, Any]) -> Any:
    """Return a function from a PIL image to a float32 tensor (3, H, W), without randomness.

    It resizes the shorter side, crops the center, and normalizes.
    """
    v2 = _v2()
    return v2.Compose(
        [
            v2.ToImage(),
            v2.Resize(transform["resize"], antialias=True),
            v2.CenterCrop(transform["crop"]),
            *_to_normalized(transform),
        ]
    )


def _to_normalized(transform: Mapping[str, Any]) -> list[Any]:
    import torch

    v2 = _v2()
    return [
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(transform["mean"], transform["std"]),
    ]


def _v2() -> Any:
    return require("torchvision.transforms.v2", extra="images", purpose="image views")


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Draw torch's random numbers on the CPU from a stream fixed by ``key``, then go on as before.

    `torch.manual_seed` also records a stack trace for every GPU generator, which takes longer than
    making a small view.
    """
    import torch

    generator = torch.default_generator
    before = generator.get_state()
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)
    generator.manual_seed(int(state[0]) >> 1)
    try:
        yield
    finally:
        generator.set_state(before)


class ImageViews:
    """Two random views of each image a step; a source of pairs for the trainer.

    Every view is fixed by seed, epoch and image, whatever the number of workers.

    Args:
        images: The images.
        transform: The images that the backbone expects, see `BackboneModel`.
        augmentation: The random changes that make a view.
        workers: Processes that load images; 0 loads in this one.
    """

    def __init__(
        self,
        images: Images,
        transform: Mapping[str, Any],
        *,
        augmentation: Augmentation | None = None,
        workers: int = 0,
    ) -> None:
        self.images = images
        self._view = view_transform(transform, augmentation or Augmentation())
        self.workers = workers
        self.fingerprint = fingerprint(images)

    def __len__(self) -> int:
        return len(self.images)

    def steps(self, batch_size: int) -> int:
        """Return the number of batches an epoch."""
        return count_steps(len(self), batch_size)

    def batches(
        self, epoch: int, batch_size: int, seed: int, partners: Ids | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield two views (B, 3, H, W) of each image of a shuffled batch, fixed by seed and epoch.

        Args:
            epoch: The epoch, from 0.
            batch_size: B; the last batch may be smaller.
            seed: Seed of order and views.
            partners: The image that gives the second view of image i, (n,); the same one if None.
        """
        import torch
        from torch.utils.data import DataLoader

        rng = np.random.default_rng([seed, epoch])
        batches = [rows.tolist() for rows in shuffled_batches(len(self), batch_size, rng)]
        # The loader wants a length and items, though its type names a class of torch.
        pairs: Any = SeededPairs(self.images, self._view, seed=seed, epoch=epoch, partners=partners)
        yield from DataLoader(
            pairs,
            batch_sampler=batches,
            num_workers=self.workers,
            generator=torch.Generator(),  # the loader's own draws leave the global stream alone
        )


class SeededPairs:
    """Two views of image i, drawn from a random stream fixed by seed, epoch and i.

    Args:
        images: The images.
        view: Makes one random view of a PIL image.
        seed: Seed of the run.
        epoch: Epoch of the run.
        partners: The image that gives the second view of image i, (n,); the same one if None.
    """

    def __init__(
        self, images: Images, view: Any, *, seed: int, epoch: int, partners: Ids | None
    ) -> None:
        self._images, self._view, self._partners = images, view, partners
        self._key = (seed, epoch)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, ...]:
        """Return a view of image i and one of its partner, each (3, H, W)."""
        image = self._images.load(i)
        j = i if self._partners is None else int(self._partners[i])
        partner = image if j == i else self._images.load(j)
        with seeded(*self._key, i):
            return self._view(image), self._view(partner)
