"""``mecoq-index train``"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .._json import parse_json
from ._options import (
    EXISTING,
    PATH,
    RenamedOption,
    image_options,
    is_given,
    output_options,
    overwrite_option,
    positional,
    resume_option,
    seed_option,
    vector_column_option,
)
from ._output import Output, after_interrupt

# Arguments of training that --set could reach, but which say what to train on, and where.
_NO_SETTINGS = frozenset(
    {
        *("source", "out", "progress", "config", "augmentation", "backbone", "device"),
        *("workers", "strict", "resume", "overwrite"),
    }
)


@click.command()
@positional("source", old="--input")
@click.option("--out", type=PATH, required=True, help="The codebook file to write.")
@click.option("--bits", type=click.IntRange(min=1), help="Bits of a code. [default: 64]")
@click.option(
    "--codewords",
    type=click.IntRange(2, 256),
    help="Codewords per codebook, mostly 16 or 256. "
    "[default: 16 for contrast on features, 256 for images and distillation]",
)
@click.option(
    "--objective",
    type=click.Choice(["contrast", "distillation", "signs"]),
    help="contrast: learn which items are alike. distillation: reproduce the ranking by cosine of "
    "unit vectors. signs: learn binary codes, to compare by Hamming distance. [default: contrast]",
)
@click.option("--distill", "old_objective", flag_value="distillation", hidden=True)
@click.option("--binary", "old_objective", flag_value="signs", hidden=True)
@click.option(
    "--neighbors",
    "neighbors",
    cls=RenamedOption,
    old="--neighbours",
    type=click.IntRange(min=0),
    help="Nearest neighbors of an item that serve as its positives. "
    "[default: 3 for features with views, 5 without; none for images and distillation]",
)
@click.option("--normalize", is_flag=True, help="Divide vectors by their length, here and later.")
@vector_column_option
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
    help="For features with views: stop after so many epochs in which two views of held-out items "
    "agree no better on what they find, and keep the best epoch.",
)
@seed_option
@image_options
@click.option("--image-size", type=click.IntRange(8, 4096), help="Side of the images in pixels.")
@click.option("--protocol", help="For images: train on this protocol's training images.")
@click.option("--no-flip", is_flag=True, help="For images: never mirror (digits, text).")
@resume_option
@overwrite_option
@output_options
def train(
    source: Path,
    out: Path,
    images: dict[str, Any],
    changes: tuple[str, ...],
    no_flip: bool,
    output: Output,
    **settings: Any,
) -> None:
    """Learn codebooks from SOURCE: images, vectors, or features with views.

    SOURCE is a folder of images; vectors in a file (.npy, .npz, .fvecs, .hdf5, .parquet, .arrow,
    ...), one row an item; or features with views (mecoq-index embed --views makes them). Without
    views, neighbors and dropout take their place.

    \b
    Example:
        mecoq-index train photos/ --bits 64 --out c.pt
        mecoq-index train items.parquet --vector-column v --bits 64 --out c.pt
        mecoq-index train vectors.npy --objective distillation --normalize \\
            --out c.pt
    """
    from ..data.views import Augmentation
    from ..learn.checkpoint import RunPaths
    from ..learn.config import TrainConfig
    from ..learn.presets import preset as released
    from ..learn.training import train as learn

    given = {name: value for name, value in settings.items() if is_given(value)}
    old_objective = given.pop("old_objective", None)
    if old_objective is not None and given.setdefault("objective", old_objective) != old_objective:
        raise click.UsageError("--distill and --binary are old spellings: give --objective alone.")
    loss, name, file = given.pop("loss", None), given.pop("preset", None), given.pop("config", None)
    if name is not None and file is not None:
        raise click.UsageError("--preset and --config exclude each other.")
    if loss is not None and name is None:
        raise click.UsageError("--loss says how to read a released setting: give --preset too.")
    whole = "--preset" if name is not None else "--config" if file is not None else ""
    sizes = [f"--{one}" for one in ("bits", "codewords", "objective") if one in given]
    if whole and sizes:
        raise click.UsageError(
            f"{whole} decides {' and '.join(sizes)}, so they exclude each other. Leave one out; "
            "--set NAME=VALUE changes a single setting."
        )
    if name is not None:
        given["config"] = released(name, loss=loss or "paper")
    elif file is not None:
        given["config"] = TrainConfig.from_json(file)
    settled = dict(map(_setting, changes))  # of one that is repeated, the last counts
    for setting in settled:
        if setting in given:
            raise click.UsageError(f"--set {setting} and --{setting} are the same: give one.")
        if setting in _NO_SETTINGS:
            raise click.UsageError(f"--set is for settings of training, but {setting} is not one.")
    given |= settled
    if no_flip:
        given["augmentation"] = Augmentation(flip=False)
    after_interrupt(lambda: _how_to_go_on(RunPaths(out).checkpoint))
    with output.progress("training") as update:
        books = learn(
            source,
            out=out,
            progress=update,
            **given,
            **images,
        )
    report = dict(books.report)
    report.pop("warnings", None)  # told already
    for key, value in report.items():
        output.say(f"{key.replace('_', ' ')}: {value}")
    output.done(
        f"wrote {out}: M={books.M}, K={books.K}, {books.bits:g} bits a code",
        {"out": str(out), "M": books.M, "K": books.K, "bits": books.bits, **books.report},
        next_command=(
            *("mecoq-index", "build", source, "--codebooks", out, "--out", f"{source.stem}.mecoq"),
            *(("--vector-column", column) if (column := given.get("vector_column")) else ()),
        ),
    )


def _how_to_go_on(checkpoint: Path) -> str:
    from .._addresses import exists

    if exists(checkpoint):
        return f"{checkpoint} holds the last whole epoch. Add --resume to go on."
    return "No epoch was complete, so nothing is kept; run the command again."


def _setting(change: str) -> tuple[str, Any]:
    name, equals, text = change.partition("=")
    if not equals:
        raise click.UsageError(f"--set takes NAME=VALUE, got {change!r}.")
    try:
        return name, parse_json(text)
    except ValueError:  # a word, or a number that no setting can have
        return name, text
