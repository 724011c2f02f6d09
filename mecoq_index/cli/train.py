"""``mecoq-index train``"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InvalidInputError, TrainingError
from ._shared import (
    EXISTING,
    PATH,
    check_output,
    device_option,
    overwrite_option,
    progress,
    report_skipped,
    say,
    strict_option,
    workers_option,
)

if TYPE_CHECKING:
    from ..codebooks import Codebooks
    from ..data.features import FeatureViews
    from ..data.images import Images
    from ..learn.config import TrainConfig


_MOST_HELD_OUT = 2000


@click.command()
@click.argument("source", type=EXISTING)
@click.option("--out", type=PATH, required=True, help="The codebook file to write.")
@click.option("--bits", type=click.IntRange(min=1), help="Bits of a code. [default: 64]")
@click.option(
    "--codewords",
    type=click.IntRange(2, 256),
    help="Codewords per codebook, mostly 16 or 256. "
    "[default: 16 for features, 256 for images and with --distill]",
)
@click.option(
    "--distill",
    is_flag=True,
    help="Unit vectors: reproduce their ranking by cosine instead of learning a new one.",
)
@click.option(
    "--binary", is_flag=True, help="Features: learn binary codes, to compare by Hamming distance."
)
@click.option(
    "--neighbours",
    type=click.IntRange(min=0),
    help="Nearest neighbours of an item that serve as its positives. "
    "[default: 3 for features with views, 5 without; none for images and --distill]",
)
@click.option("--preset", help="A released setting, for instance cifar10-i-32.")
@click.option(
    "--loss",
    type=click.Choice(["paper", "official"]),
    help="With --preset: the paper's equations, or the released code's. [default: paper]",
)
@click.option("--config", type=EXISTING, help="Settings as a JSON object.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change one setting, for instance --set temperature=0.3. May be repeated.",
)
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the data.")
@click.option(
    "--patience",
    type=click.IntRange(min=1),
    help="Features with views: keep a tenth of the items, 2,000 at most, out of training; stop "
    "after so many epochs in which the results of two views of them agree no better, and keep the "
    "best epoch.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of everything random.")
@click.option(
    "--backbone",
    help="For images: torchvision:NAME[:WEIGHTS], timm:NAME, or MODULE:ATTRIBUTE. "
    "[default: torchvision:vgg16]",
)
@click.option("--image-size", type=click.IntRange(min=8), help="Side of the images in pixels.")
@click.option("--protocol", help="For images: train on this protocol's training images.")
@click.option("--no-flip", is_flag=True, help="For images: never mirror (digits, text).")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint beside --out.")
@device_option
@workers_option
@strict_option
@overwrite_option
def train(
    source: Path,
    out: Path,
    bits: int | None,
    codewords: int | None,
    distill: bool,
    binary: bool,
    neighbours: int | None,
    preset: str | None,
    loss: str | None,
    config: Path | None,
    changes: tuple[str, ...],
    epochs: int | None,
    patience: int | None,
    seed: int | None,
    backbone: str | None,
    image_size: int | None,
    protocol: str | None,
    no_flip: bool,
    resume: bool,
    device: str | None,
    workers: int,
    strict: bool,
    overwrite: bool,
) -> None:
    """Learn codebooks from SOURCE: a folder of images, or features with views.

    Features are an .npz with view0, view1, ... (mecoq-index embed --views makes one), an .npy of
    shape (views, n, width), or an .npy of shape (n, width), one row an item: there, neighbours and
    dropout take the place of views.

    \b
    Example:
        mecoq-index train photos/ --bits 64 --out c.pt
        mecoq-index train features.npz --bits 32 --out c.pt
        mecoq-index train vectors.npy --bits 64 --out c.pt
        mecoq-index train vectors.npy --distill --bits 64 --out c.pt
    """
    check_output(out, overwrite)
    _check_checkpoint(out, resume or overwrite)
    is_images = source.is_dir() or source.suffix.lower() not in (".npz", ".npy")
    if not is_images and (backbone or image_size or protocol or no_flip):
        raise click.UsageError(
            "--backbone, --image-size, --protocol and --no-flip are for images, but "
            f"{source.name} holds features."
        )
    if is_images and (binary or distill or patience):
        raise click.UsageError(
            "--binary, --distill and --patience are for features; make them with mecoq-index embed."
        )
    if distill and patience:
        raise click.UsageError(
            "--patience judges epochs by two views of an item, and --distill takes vectors without "
            "views: leave one of them out."
        )
    if distill + binary + bool(binary and codewords) > 1:
        raise click.UsageError(
            "--distill and --binary exclude each other, and --binary has no --codewords."
        )
    data = None if is_images else _load_features(source)
    if data is None:
        kind = "images"
    elif distill:
        kind = "distill"
    else:
        kind = ("binary " if binary else "") + ("views" if data.has_two_views else "vectors")
    settings = _settings(
        kind,
        bits,
        codewords,
        preset,
        loss,
        config,
        changes,
        epochs=epochs,
        seed=seed,
        neighbours=neighbours,
    )
    if patience and data is not None:
        held_out = settings.held_out or min(_MOST_HELD_OUT, len(data) // 10)
        settings = settings.replace(patience=patience, held_out=held_out)
        say(f"{settings.held_out} items are kept out of training, to judge each epoch by")
    if data is None:
        books = _train_on_images(
            source,
            settings,
            out,
            backbone=backbone or "torchvision:vgg16",
            image_size=image_size,
            protocol=protocol,
            flip=not no_flip,
            resume=resume,
            device=device,
            workers=workers,
            strict=strict,
        )
    else:
        books = _run(data, settings, out, resume=resume, device=device, source=source)
    say(f"wrote {out}: M={books.M}, K={books.K}, {books.bits:g} bits a code")


def _check_checkpoint(out: Path, known: bool) -> None:
    """Refuse to start over what an interrupted run has left, unless it is resumed or given up."""
    from ..learn.checkpoint import RunPaths

    checkpoint = RunPaths(out).checkpoint
    if checkpoint.exists() and not known:
        raise InvalidInputError(
            f"{checkpoint} is left from an interrupted run. Add --resume to go on from it, or "
            "--overwrite to start again."
        )


def _settings(
    kind: str,
    bits: int | None,
    codewords: int | None,
    preset: str | None,
    loss: str | None,
    config: Path | None,
    changes: tuple[str, ...],
    **overrides: int | None,
) -> TrainConfig:
    from ..learn import presets
    from ..learn.config import TrainConfig

    heads = ("distill", "binary views", "binary vectors")
    recommended_wanted = bool(bits or codewords or kind in heads)
    if (preset is not None) + (config is not None) + recommended_wanted > 1:
        raise click.UsageError(
            "--preset, --config and --bits/--codewords/--distill/--binary exclude each other."
        )
    if loss is not None and preset is None:
        raise click.UsageError("--loss says how to read a released setting: give --preset too.")
    if preset is not None:
        settings = presets.preset(preset, loss="official" if loss == "official" else "paper")
    elif config is not None:
        settings = TrainConfig.from_json(config)
    elif kind.startswith("binary"):
        settings = presets.for_binary(bits or 64, views=kind == "binary views")
    else:
        recommended, usual_codewords = {
            "images": (presets.for_images, 256),
            "views": (presets.for_features, 16),
            "vectors": (presets.for_vectors, 16),
            "distill": (presets.for_distillation, 256),
        }[kind]
        settings = recommended(bits or 64, codewords or usual_codewords)
    values: dict[str, Any] = {k: v for k, v in overrides.items() if v is not None}
    if epochs := values.get("epochs"):
        values["warmup_epochs"] = min(settings.warmup_epochs, epochs)
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise click.UsageError(f"--set takes NAME=VALUE, got {change!r}.")
        values[name] = _parse(text)
    return settings.replace(**values)


def _load_features(source: Path) -> FeatureViews:
    from ..data.features import FeatureViews

    return FeatureViews.load(source)


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _train_on_images(
    source: Path,
    settings: TrainConfig,
    out: Path,
    *,
    backbone: str,
    image_size: int | None,
    protocol: str | None,
    flip: bool,
    resume: bool,
    device: str | None,
    workers: int,
    strict: bool,
) -> Codebooks:
    from ..data.images import ImageFiles, Subset, check_images, find_images
    from ..data.protocols import load_protocol
    from ..data.views import Augmentation, ImageViews
    from ..embed.backbones import load_backbone

    found: Images
    if protocol is not None:
        split = load_protocol(protocol, source, seed=settings.seed)
        found = Subset(split.images, split.train)
    else:
        found = ImageFiles(find_images(source), source if source.is_dir() else None)
    with progress("checking images") as update:
        images, skipped = check_images(
            found, strict=strict, on_progress=lambda text, done, total: update(done, total)
        )
    report_skipped(skipped)
    model = load_backbone(backbone, image_size=image_size)
    if settings.neighbours and not resume:
        say(f"neighbours are found by features: extracting those of {len(images)} images first")
    data = ImageViews(
        images, model.transform, augmentation=Augmentation(flip=flip), workers=workers
    )
    return _run(data, settings, out, resume=resume, device=device, source=source, backbone=model)


def _run(
    data: Any, settings: TrainConfig, out: Path, *, resume: bool, source: Path, **options: Any
) -> Codebooks:
    from ..learn.checkpoint import RunPaths
    from ..learn.run import Progress
    from ..learn.trainer import train as learn

    with progress("training") as update:

        def show(p: Progress) -> None:
            terms = " ".join(f"{name} {value:.3f}" for name, value in p.terms.items())
            update(p.epoch * p.steps + p.step, p.epochs * p.steps, f"epoch {p.epoch + 1} {terms}")

        try:
            return learn(
                data,
                settings,
                out=out,
                resume=resume,
                provenance={"trained_on": source.name},
                on_progress=show,
                **options,
            )
        except KeyboardInterrupt as exc:
            checkpoint = RunPaths(out).checkpoint
            if not checkpoint.exists():
                raise TrainingError("interrupted before the first epoch; nothing is kept.") from exc
            raise TrainingError(
                f"interrupted; {checkpoint} holds the last whole epoch. Add --resume to go on."
            ) from exc
