"""``mecoq-index embed``"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ._options import (
    EXISTING,
    PATH,
    image_options,
    output_options,
    overwrite_option,
    positional,
    resume_option,
    seed_option,
)
from ._output import Output, after_interrupt, unfinished


@click.command()
@positional("source", old="--input")
@click.option("--out", type=PATH, required=True, help=".npy of embeddings, or .npz of features.")
@click.option("--codebooks", type=EXISTING, help="Write embeddings by these codebooks.")
@click.option("--views", type=click.IntRange(0, 100), help="Random views of each image.")
@click.option("--protocol", help="Divide the images as this protocol says; see below.")
@click.option("--image-size", type=click.IntRange(8, 4096), help="Side of the images in pixels.")
@click.option("--no-flip", is_flag=True, help="Never mirror a view (digits, text).")
@seed_option
@image_options
@resume_option
@overwrite_option
@output_options
def embed(
    source: Path,
    out: Path,
    codebooks: Path | None,
    views: int | None,
    protocol: str | None,
    image_size: int | None,
    no_flip: bool,
    seed: int | None,
    images: dict[str, Any],
    resume: bool,
    overwrite: bool,
    output: Output,
) -> None:
    """Turn SOURCE, a folder of images, into features to train on, or into embeddings.

    With --backbone, OUT.npz holds features, views and paths, and remembers the backbone, so that
    codebooks trained on it embed images. With --protocol (cifar10, cifar10-i, cifar10-ii,
    flickr25k, nuswide) it holds database, queries and their labels for mecoq-index bench, and
    features and views of the training images.

    With --codebooks, OUT.npy holds one embedding an item, and OUT.names.txt the paths.

    \b
    Example:
        mecoq-index embed photos/ --backbone torchvision:resnet50 \\
            --views 3 --out features.npz
        mecoq-index embed photos/ --codebooks c.pt --out z.npy
    """
    from ..codebooks import Codebooks
    from ..data.views import Augmentation
    from ..embed.files import write_embeddings, write_features

    if codebooks is None and "backbone" not in images:
        raise click.UsageError("give --backbone for features, or --codebooks for embeddings.")
    of_features: dict[str, Any] = {
        "views": views,
        "protocol": protocol,
        "image_size": image_size,
        "seed": seed,
        "augmentation": Augmentation(flip=False) if no_flip else None,
    }
    given = {name: value for name, value in of_features.items() if value is not None}
    if codebooks is not None and given:
        raise click.UsageError(
            "--views, --protocol, --image-size, --no-flip and --seed are for features: codebooks "
            "bring their own image settings."
        )
    after_interrupt(lambda: unfinished(out))
    with output.progress("embedding") as update:
        common = {"resume": resume, "overwrite": overwrite, "on_progress": update, **images}
        if codebooks is not None:
            written = write_embeddings(source, Codebooks.load(codebooks), out, **common)
        else:
            backbone = common.pop("backbone")
            written = write_features(source, backbone, out, **given, **common)
    output.report_skipped(written.skipped)
    shapes = {name: list(shape) for name, shape in written.shapes.items()}
    listed = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
    follow = ("mecoq-index", "train", out, "--bits", 64, "--out", "c.pt")
    output.done(
        f"wrote {' and '.join(map(str, written.files))}: {listed}",
        {"files": [str(file) for file in written.files], "shapes": shapes},
        next_command=follow if codebooks is None else (),
    )
