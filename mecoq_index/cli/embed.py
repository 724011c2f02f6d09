"""``mecoq-index embed``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._shared import (
    EXISTING,
    PATH,
    check_output,
    chunk_store,
    device_option,
    load_inputs,
    overwrite_option,
    progress,
    report_skipped,
    say,
    strict_option,
    workers_option,
)

if TYPE_CHECKING:
    from ..data.images import Images


@click.command()
@click.argument("images", type=EXISTING)
@click.option("--out", type=PATH, required=True, help=".npy of embeddings, or .npz of features.")
@click.option("--codebooks", type=EXISTING, help="Embed by these codebooks.")
@click.option("--backbone", help="Or: features of this backbone, to train on.")
@click.option("--views", default=0, type=click.IntRange(min=0), help="Random views of each image.")
@click.option("--protocol", help="Divide the images as this protocol says; see below.")
@click.option("--image-size", type=click.IntRange(min=8), help="Side of the images in pixels.")
@click.option("--no-flip", is_flag=True, help="Never mirror a view (digits, text).")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@click.option("--resume", is_flag=True, help="Go on where an interrupted run stopped.")
@device_option
@workers_option
@strict_option
@overwrite_option
def embed(
    images: Path,
    out: Path,
    codebooks: Path | None,
    backbone: str | None,
    views: int,
    protocol: str | None,
    image_size: int | None,
    no_flip: bool,
    seed: int,
    resume: bool,
    device: str | None,
    workers: int,
    strict: bool,
    overwrite: bool,
) -> None:
    """Turn IMAGES (a folder) into embeddings, or into features to train on.

    With --codebooks, OUT.npy holds one embedding an image, and OUT.names.txt the paths. With
    --backbone, OUT.npz holds features, views and paths. With --protocol (cifar10, cifar10-i,
    cifar10-ii, flickr25k, nuswide) OUT.npz holds database, queries and their labels for
    mecoq-index bench, and features and views of the training images for mecoq-index train.

    \b
    Example:
        mecoq-index embed photos/ --codebooks c.pt --out z.npy
        mecoq-index embed photos/ --backbone vgg16 --views 3 --out features.npz
    """
    if (codebooks is None) == (backbone is None):
        raise click.UsageError("give one of --codebooks and --backbone.")
    wanted = ".npy" if codebooks is not None else ".npz"
    if out.suffix != wanted:
        raise click.UsageError(f"--out must end in {wanted} here, got {out.name!r}.")
    if codebooks is not None and (views or protocol or image_size or no_flip):
        raise click.UsageError(
            "--views, --protocol, --image-size and --no-flip go with --backbone: codebooks bring "
            "their own image settings."
        )
    from ..data.feature_file import FeatureFile, save_features

    check_output(out, overwrite)
    if codebooks is not None:
        check_output(_names_file(out), overwrite)
    with chunk_store(out, resume) as store:
        if codebooks is not None:
            _embed_by_codebooks(images, codebooks, out, device, workers, strict, store)
            return
        arrays = _extract(
            images,
            str(backbone),
            image_size=image_size,
            protocol=protocol,
            flip=not no_flip,
            views=views,
            seed=seed,
            device=device,
            workers=workers,
            strict=strict,
            store=store,
        )
        save_features(out, **arrays)
    headers = FeatureFile(out).headers
    say(f"wrote {out}: " + ", ".join(f"{k} {shape}" for k, (shape, _) in headers.items()))


def _names_file(out: Path) -> Path:
    return out.with_suffix(".names.txt")


def _embed_by_codebooks(
    images: Path,
    codebooks: Path,
    out: Path,
    device: str | None,
    workers: int,
    strict: bool,
    store: Path,
) -> None:
    import numpy as np

    from .._files import atomic_file
    from ..codebooks import Codebooks

    inputs = load_inputs(
        images,
        Codebooks.load(codebooks),
        device=device,
        workers=workers,
        strict=strict,
        store=store,
    )
    with atomic_file(_names_file(out)) as partial:
        partial.write_text("".join(f"{name}\n" for name in inputs.names), encoding="utf-8")
    with atomic_file(out) as partial, partial.open("wb") as stream:
        np.save(stream, inputs.z)
    say(f"wrote {out}: {inputs.z.shape[0]} embeddings of width {inputs.z.shape[1]}")


def _extract(
    root: Path,
    backbone: str,
    *,
    image_size: int | None,
    protocol: str | None,
    flip: bool,
    views: int,
    seed: int,
    **options: Any,
) -> dict[str, Any]:
    from ..data.images import ImageFiles, class_labels, find_images
    from ..data.protocols import load_protocol
    from ..data.views import Augmentation
    from ..embed.backbones import backbone_record, load_backbone
    from ..embed.encoder import extract_features

    split = None if protocol is None else load_protocol(protocol, root, seed=seed)
    paths = find_images(root) if split is None else []
    images: Images = ImageFiles(paths, root) if split is None else split.images
    model = load_backbone(backbone, image_size=image_size)
    with progress("extracting features") as update:
        found = extract_features(
            images,
            model,
            views=views,
            augmentation=Augmentation(flip=flip),
            seed=seed,
            on_progress=lambda text, done, total: update(done, total),
            **options,
        )
    report_skipped(found.skipped)
    record = backbone_record(model, trained=False)
    if split is None:
        return {
            "features": found.features,
            "views": found.views,
            "names": [images.name(int(i)) for i in found.kept],
            "labels": class_labels(root, [paths[int(i)] for i in found.kept]),
            "backbone": record,
        }
    row_of = {int(i): row for row, i in enumerate(found.kept)}
    arrays: dict[str, Any] = {}
    for part in ("database", "queries"):
        kept = [int(i) for i in getattr(split, part) if int(i) in row_of]
        arrays[part] = found.features[[row_of[i] for i in kept]]
        name = "database_labels" if part == "database" else "query_labels"
        arrays[name] = split.labels[kept]
    if not views:
        return {"split": arrays, "backbone": record}
    trained = [row_of[int(i)] for i in split.train if int(i) in row_of]
    return {
        "features": found.features[trained],
        "views": found.views[:, trained],
        "split": arrays,
        "backbone": record,
    }
