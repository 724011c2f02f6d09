"""``mecoq-index demo``: the whole chain on real images that ship inside scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._options import PATH, output_options
from ._output import Output

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ..codebooks import Codebooks
    from ..index.index import Index

# One image in five is a query. The settings were tried with other rows as queries, so that these
# numbers are not those that they were chosen by.
_EVERY, _FIRST_QUERY = 5, 3
_SHOWN_QUERIES, _SHOWN_RESULTS = 8, 10


@click.command()
@click.option(
    "--out",
    type=PATH,
    default=Path("mecoq-demo"),
    show_default=True,
    help="The folder to make.",
)
@click.option(
    "--epochs",
    default=16,
    show_default=True,
    type=click.IntRange(min=1),
    help="Passes over the images.",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Seed of everything random.",
)
@output_options
def demo(out: Path, epochs: int, seed: int, output: Output) -> None:
    """Train, build, search and bench on 1,797 handwritten digits, in a few minutes.

    A small network and codebooks of 32 bits are trained together from the images, without labels.
    The folder then holds the images, the codebooks, the index, a table as JSON, and a picture of
    queries with their nearest items under MeCoQ and under Hamming.

    \b
    Example:
        mecoq-index demo
    """
    from .._files import atomic_directory, check_output

    check_output(out, overwrite=False, folder=True)
    with atomic_directory(out) as folder:
        output.say("1/4  writing 1,797 digits of scikit-learn as PNG files")
        _write_digits(folder / "digits")
        output.say("2/4  training a small network and 8 codebooks of 16 codewords, without labels")
        codebooks = _train(folder, epochs, seed, output)
        output.say("3/4  encoding the images to 4 bytes each and building a FAISS index")
        index = _build(folder, codebooks)
        output.say(
            "4/4  comparing with Hamming, PQ and exact floats on the same network's features"
        )
        content = _compare(folder, index, seed, output)
    query = next(iter(_images(out / "digits" / "queries")))
    output.done(
        f"wrote {out}/: neighbors.png, precision_recall.png, bench.json, c.pt, digits.mecoq",
        content,
        next_command=("mecoq-index", "search", out / "digits.mecoq", query, "-k", 5),
    )


def _write_digits(root: Path) -> None:
    import numpy as np

    from .._optional import require

    digits = require("sklearn.datasets", extra="bench", purpose="the demo's images").load_digits()
    image_module = require("PIL.Image", extra="images", purpose="writing the demo's images")
    for i, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        part = "queries" if i % _EVERY == _FIRST_QUERY else "database"
        folder = root / part / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        gray = (pixels * (255 / 16)).astype(np.uint8)
        image_module.fromarray(gray).save(folder / f"{i:04d}.png")


def _images(root: Path) -> list[Path]:
    from ..data.images import find_images

    return list(find_images(root))


def _train(out: Path, epochs: int, seed: int, output: Output) -> Codebooks:
    from ..data.views import Augmentation
    from ..learn.config import TrainConfig
    from ..learn.objective.settings import ContrastSettings
    from ..learn.training import train

    config = TrainConfig(
        objective=ContrastSettings(memory_size=0),
        num_codebooks=8,
        num_codewords=16,
        dim=128,
        projection="mlp",
        optimizer="adamw",
        lr=0.001,
        backbone_lr_scale=1.0,
        batch_size=64,
        epochs=epochs,
        warmup_epochs=1,
        trainable_layers=-1,
        seed=seed,
    )
    with output.progress("training") as update:
        return train(
            out / "digits" / "database",
            config=config,
            backbone="mecoq:small",
            augmentation=Augmentation(min_scale=0.6, flip=False, jitter=0, grayscale=0, blur=0),
            out=out / "c.pt",
            device="cpu",
            progress=update,
        )


def _build(out: Path, codebooks: Codebooks) -> Index:
    from ..index.index import Index

    return Index.build(
        out / "digits" / "database", codebooks, out=out / "digits.mecoq", device="cpu"
    )


def _compare(out: Path, index: Index, seed: int, output: Output) -> dict[str, Any]:
    from ..baselines.hashing import ITQ
    from ..bench.plots import plot_neighbors, plot_precision_recall
    from ..bench.report import make_table, to_json, write_json
    from ..bench.runner import BenchSettings, run_bench
    from ..data.datasets import Dataset

    codebooks = index.codebooks
    database_paths = _images(out / "digits" / "database")
    query_paths = _images(out / "digits" / "queries")
    x, labels = _features(database_paths, codebooks)
    q, query_labels = _features(query_paths, codebooks)
    dataset = Dataset("digits", x, q, labels, query_labels)
    settings = BenchSettings(map_at=100, precision_at=10, repeats=3, seed=seed)
    with output.progress("measuring") as update:
        records = run_bench(
            dataset,
            codebooks,
            options=[{"factory": "MeCoQ"}, {"factory": "MeCoQ8x4fs"}],
            baselines=("LSH", "PCA-sign", "ITQ", "PQ"),
            given="features",
            settings=settings,
            on_progress=update,
        )
    if not output.as_json:
        output.print_table(make_table(records, settings))
    content = to_json(records, settings, dataset="digits", items=len(x), queries=len(q))
    write_json(out / "bench.json", content)
    learned = index.search(q, _SHOWN_RESULTS, given="features").ids
    hashing = ITQ.fit(x, int(codebooks.bits), seed=seed)
    hashing.add(x)
    hamming = hashing.search(q, _SHOWN_RESULTS).ids
    right = (labels[learned] == query_labels[:, None]) & (labels[hamming] == query_labels[:, None])
    shown = _hard_queries(right)
    plot_neighbors(
        [query_paths[i] for i in shown],
        {
            f"MeCoQ, {codebooks.bits:g} bits": learned[shown],
            f"Hamming (ITQ), {codebooks.bits:g} bits": hamming[shown],
        },
        database_paths,
        correct=lambda row, i: bool(labels[i] == query_labels[shown[row]]),
        path=out / "neighbors.png",
    )
    plot_precision_recall(records, out / "precision_recall.png")
    return content


def _features(
    paths: list[Path], codebooks: Codebooks
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    import numpy as np

    from ..data.images import ImageFiles
    from ..embed.backbones import restore_backbone
    from ..embed.encoder import extract_features
    from ..errors import InvalidInputError

    if codebooks.backbone is None:
        raise InvalidInputError("the demo's codebooks must have been learned from images.")
    found = extract_features(
        ImageFiles(paths), restore_backbone(codebooks.backbone), device="cpu", strict=True
    )
    return found.features, np.array([int(path.parent.name) for path in paths])


def _hard_queries(right: npt.NDArray[np.bool_]) -> Any:
    """Queries that one method or the other does not get wholly right, evenly spread over them."""
    import numpy as np

    wrong = np.flatnonzero(~right.all(axis=1))
    pool = wrong if len(wrong) >= _SHOWN_QUERIES else np.arange(len(right))
    return pool[np.linspace(0, len(pool) - 1, _SHOWN_QUERIES).round().astype(int)]
