import json
import logging

import numpy as np
import pytest
import torch
from clusters import clustered_views

from mecoq_index import _progress
from mecoq_index.backbone import Backbone
from mecoq_index.codebooks import Codebooks
from mecoq_index.data.features import FeatureViews
from mecoq_index.errors import ArtifactError, InvalidInputError
from mecoq_index.learn.checkpoint import RunPaths
from mecoq_index.learn.config import TrainConfig
from mecoq_index.learn.objective.settings import ContrastSettings, DistillationSettings
from mecoq_index.learn.presets import recommended
from mecoq_index.learn.training import train

pytest.importorskip("faiss")

QUICK = {"bits": 16, "epochs": 1, "progress": False}
BACKBONE = Backbone("mecoq:small", "0" * 64, {"image_size": 32})


@pytest.fixture(scope="module")
def x():
    """Vectors (600, 12) in clusters, exact in float32."""
    return clustered_views(n=600)[0][0]


@pytest.fixture(scope="module")
def books(x):
    return train(x, **QUICK)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of 20 images of noise."""
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("photos")
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (20, 40, 40, 3))):
        image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def as_npy(x, path):
    np.save(path / "x.npy", x)
    return {"source": path / "x.npy"}


def as_parquet(x, path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), x.shape[1])
    others = pa.FixedSizeListArray.from_arrays(pa.array(-x.ravel()), x.shape[1])
    parquet.write_table(pa.table({"v": vectors, "other": others}), path / "x.parquet")
    return {"source": str(path / "x.parquet"), "vector_column": "v"}


def as_hdf5(x, path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path / "x.hdf5", "w") as file:
        file["train"], file["test"] = x, x[:3]
    return {"source": path / "x.hdf5"}


def as_dataset(x, path):
    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return len(x)

        def __getitem__(self, i):
            return torch.from_numpy(x[i]), i % 3

    return {"source": Rows()}


SOURCES = {
    "float64": lambda x, path: {"source": x.astype(np.float64)},
    "lists": lambda x, path: {"source": x.tolist()},
    "tensor": lambda x, path: {"source": torch.from_numpy(x)},
    "one view": lambda x, path: {"source": FeatureViews(x)},
    "npy": as_npy,
    "parquet": as_parquet,
    "hdf5": as_hdf5,
    "dataset": as_dataset,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_the_same_vectors_give_the_same_codebooks_from_every_source(kind, x, books, tmp_path):
    assert train(**SOURCES[kind](x, tmp_path), **QUICK).fingerprint == books.fingerprint


def test_vectors_are_trained_on_with_the_recommended_settings(x):
    for asked in ({}, {"objective": "signs", "bits": 24}, {"codewords": 256, "bits": 32}):
        wanted = recommended("vectors", **asked)
        used = train(x, **asked, epochs=1, progress=False).provenance["config"]
        assert TrainConfig.from_dict(used) == wanted.replace(epochs=1)


def test_views_are_trained_on_with_the_settings_for_views():
    views = clustered_views()[0]
    for source in (FeatureViews(views), views):
        used = train(source, **QUICK).provenance["config"]
        assert TrainConfig.from_dict(used) == recommended("views", 16).replace(epochs=1)


def test_distillation_takes_vectors_by_their_direction(x):
    with pytest.raises(InvalidInputError, match=r"600 of 600 rows have not.*: normalize=True"):
        train(x, **QUICK, objective="distillation")
    books = train(x, **QUICK, objective="distillation", normalize=True)
    wanted = recommended("vectors", 16, objective="distillation").replace(epochs=1)
    assert TrainConfig.from_dict(books.provenance["config"]) == wanted
    assert books.K == 256
    np.testing.assert_allclose(books.embed(7 * x[:5]), books.embed(x[:5]), rtol=1e-4, atol=1e-4)


def test_normalize_is_part_of_the_codebooks(x, books):
    normalized = train(x, **QUICK, normalize=True)
    assert normalized.normalize
    assert not books.normalize
    assert normalized.fingerprint != books.fingerprint
    lengths = np.linalg.norm(x, axis=1)
    assert normalized.statistics.lengths[1] == pytest.approx(np.median(lengths), rel=1e-3)


def test_codebooks_know_what_they_were_trained_on(x, books, tmp_path):
    assert books.statistics.count == 600
    assert books.provenance["trained_on"] == "memory"
    assert train(**as_npy(x, tmp_path), **QUICK).provenance["trained_on"] == "x.npy"


def test_features_of_embed_bring_the_record_of_their_backbone(x, tmp_path):
    record = {"name": "mecoq:small", "weights_sha256": "0" * 64, "transform": {"image_size": 32}}
    path = tmp_path / "f.npz"
    np.savez(path, features=x, view0=x, view1=x + 1, backbone=json.dumps(record))
    books = train(path, **QUICK)
    assert (books.backbone.name, books.backbone.state) == ("mecoq:small", None)
    by_hand = FeatureViews(np.stack([x, x + 1]), features=x, backbone=BACKBONE)
    assert train(by_hand, **QUICK).fingerprint == books.fingerprint
    used = TrainConfig.from_dict(books.provenance["config"])
    assert used == recommended("views", 16).replace(epochs=1)


def test_a_folder_of_images_trains_a_backbone_too(photos, tmp_path, caplog):
    (tmp_path / "photos").symlink_to(photos)
    settings = {**QUICK, "backbone": "mecoq:small", "codewords": 16}
    books = train(tmp_path / "photos", **settings)
    assert (books.M, books.K, books.P) == (4, 16, 256)
    assert books.backbone.name == "mecoq:small"
    assert books.backbone.state  # the last two layers have been trained
    wanted = recommended("images", 16, 16).replace(epochs=1)
    assert TrainConfig.from_dict(books.provenance["config"]) == wanted
    assert books.report["measured_on"] == "20 training images"
    assert "only 20 items" in caplog.text


def test_unreadable_images_are_skipped_with_a_warning_or_refused(photos, tmp_path, caplog):
    for file in photos.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "bad.png").write_bytes(b"no image")
    settings = {**QUICK, "backbone": "mecoq:small"}
    books = train(tmp_path, **settings)
    assert books.report["items"] == 20
    assert "skipped 1 unreadable images, the first of them: " in caplog.text
    with pytest.raises(InvalidInputError, match=r"bad\.png is no readable image"):
        train(tmp_path, **settings, strict=True)


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"normalize": True}, "normalize divides vectors by their length; these are images"),
        ({"patience": 3}, r"patience judges epochs by views of features, .* mecoq-index embed"),
        ({"objective": "signs"}, "'signs' takes features, but the source holds images"),
        ({"view_dropout": 0.1}, "view_dropout works on features, not on ImageViews"),
        ({"held_out": 5}, "held_out works on features with views, not on ImageViews"),
        ({"protocol": "cifar"}, "unknown protocol 'cifar'"),
    ],
)
def test_what_is_not_for_images_is_refused(changes, message, photos):
    with pytest.raises(InvalidInputError, match=message):
        train(photos, **QUICK, backbone="mecoq:small", **changes)


def test_a_protocol_needs_a_folder():
    pixels = np.zeros((4, 8, 8, 3), np.uint8)
    with pytest.raises(InvalidInputError, match="protocol divides a folder of images, got images"):
        train(pixels, **QUICK, protocol="cifar10")


@pytest.mark.parametrize(
    "name,value",
    [("backbone", "mecoq:small"), ("image_size", 32), ("protocol", "cifar10")],
)
def test_what_is_for_images_is_refused_with_vectors(name, value, x):
    with pytest.raises(InvalidInputError, match=f"{name} is for images, but the source holds vec"):
        train(x, **QUICK, **{name: value})


def test_the_report_measures_on_held_out_items_if_there_are_many(x, books):
    assert books.report["measured_on"] == "600 training items"
    many = np.concatenate([x, x + 0.1])
    report = train(many, **QUICK).report
    assert (report["items"], report["measured_on"]) == (1140, "60 held-out items")
    for share in ("distinct_codes", "codeword_usage", "neighbors_kept"):
        assert 0 < report[share] <= 1
    assert report["epochs"] == 1


def test_few_rows_are_warned_of_in_log_and_report(x, caplog):
    caplog.set_level(logging.WARNING, "mecoq_index")
    books = train(x[:50], **QUICK)
    (warning,) = books.report["warnings"]
    assert warning.startswith("there were only 50 items to learn from")
    assert warning in caplog.text


def test_training_that_stops_early_says_which_epoch_it_kept(tmp_path):
    views = clustered_views(n=300)[0]
    books = train(views, bits=16, patience=1, progress=False, out=tmp_path / "c.pt")
    config = TrainConfig.from_dict(books.provenance["config"])
    assert (config.patience, config.held_out) == (1, 30)
    report = books.report
    assert report["best_epoch"] < report["epochs"] < config.epochs
    assert any(f"those of epoch {report['best_epoch']}" in told for told in report["warnings"])
    assert Codebooks.load(tmp_path / "c.pt").report == report


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_the_file_holds_what_was_returned(suffix, x, books, tmp_path):
    out = tmp_path / f"c{suffix}"
    assert train(x, **QUICK, out=out).fingerprint == books.fingerprint
    loaded = Codebooks.load(out)
    assert loaded.fingerprint == books.fingerprint
    assert (loaded.report, loaded.statistics) == (books.report, books.statistics)
    assert not RunPaths(out).checkpoint.exists()
    with pytest.raises(InvalidInputError, match="exists"):
        train(x, **QUICK, out=out)
    train(x, **QUICK, out=out, overwrite=True, seed=1)
    assert Codebooks.load(out).fingerprint != books.fingerprint


def test_an_interrupted_run_goes_on_only_if_asked_to(x, tmp_path):
    out = tmp_path / "c.pt"
    settings = {"bits": 16, "epochs": 3, "out": out}

    def interrupt(text, done, total):
        if text.startswith("epoch 2/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(x, **settings, progress=interrupt)
    with pytest.raises(InvalidInputError, match=r"is left from an interrupted run. Use resume"):
        train(x, **settings, progress=False)
    whole = train(x, bits=16, epochs=3, progress=False)
    resumed = train(x, **settings, resume=True, progress=False)
    assert resumed.fingerprint == whole.fingerprint


def test_settings_of_an_objective_may_be_given_as_an_object(x):
    own = ContrastSettings(neighbors=2, memory_size=0, temperature=0.3)
    used = train(x, **QUICK, objective=own).provenance["config"]
    assert TrainConfig.from_dict(used) == recommended("vectors", 16).replace(
        objective=own, epochs=1
    )


def test_a_whole_config_is_used_as_it_is(x):
    config = recommended("vectors", 32, 16).replace(epochs=1, lr=0.01, warmup_epochs=0)
    used = train(x, config=config, progress=False, temperature=0.25).provenance["config"]
    assert TrainConfig.from_dict(used) == config.replace(temperature=0.25)


@pytest.mark.parametrize("beside", [{"bits": 16}, {"objective": "signs"}, {"codewords": 16}])
def test_a_config_goes_with_no_other_choice_of_size_or_objective(x, beside):
    with pytest.raises(InvalidInputError, match=r"config holds all settings, .* config\.replace"):
        train(x, config=TrainConfig(), progress=False, **beside)


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"config": {"epochs": 1}}, r"config must be a TrainConfig, got dict\. Use .*from_json"),
        ({"temprature": 0.1}, "unknown setting 'temprature'; did you mean 'temperature'"),
        ({"objective": "contrst"}, "unknown objective 'contrst'; did you mean 'contrast'"),
        ({"objective": 3}, r"objective must be one of \['contrast', .*\] or settings .* got int"),
        ({"objective": ContrastSettings}, "objective must be one of .* got type"),
        (
            {"objective": DistillationSettings(), "temperature": 0.3},
            "unknown setting 'temperature'",
        ),
        ({"bits": 7}, r"bits must be a multiple of 4, .* got 7\. Use 4 or 8"),
        ({"codewords": 3}, r"codewords must be 2, 4, 8, \.\.\. or 256, got 3"),
        ({"objective": "signs", "codewords": 4}, "'signs' has no codewords to choose"),
        ({"epochs": "3"}, "epochs must be int, got '3'"),
        ({"epochs": None}, "epochs must be int, got None"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"seed": 2**70}, r"seed must be at most 8796093022207, got 118"),
        ({"neighbors": 600}, "neighbors must be between 1 and the other items, 599 here; got 600"),
        ({"patience": 3}, "judged by two views of each, but there is one"),
        ({"out": "c.txt"}, r"must end in \.safetensors or \.pt, got 'c\.txt'"),
        ({"vector_column": "v"}, "vector_column must be left out: only tables have columns"),
    ],
)
def test_bad_settings_are_refused(changes, message, x):
    with pytest.raises(InvalidInputError, match=message):
        train(x, **{"bits": None if "config" in changes else 16, "progress": False, **changes})


class Frame:
    """A table that NumPy reads as strings, as a data frame with a column of names is read."""

    def __array__(self, dtype=None, copy=None):
        return np.array([["a", 1.0]], object)


class NoArray:
    """Something with a length and columns, but no numbers."""

    columns = ("v",)

    def __len__(self):
        return 600


@pytest.mark.parametrize(
    "source,message",
    [
        (np.zeros(12), r"source must be an array of shape \(n, width\), got \(12,\)"),
        (Frame(), "source must hold floats or integers, got object"),
        (NoArray(), "a source must be an array, a path, .*, got NoArray"),
        (None, "a source must be an array, a path, .*, got NoneType"),
        ([], "a source must hold at least one item, got an empty list"),
        ("nowhere.npy", r"nowhere\.npy does not exist"),
        (np.ones((600, 12)), "nothing to learn: all 600 vectors are equal"),
        (np.ones((1, 12)), "training needs at least 2 items to contrast, got 1"),
        (np.ones((0, 12)), "training needs at least 2 items to contrast, got 0"),
        (np.full((9, 12), np.nan), "source must be finite, but 9 of 9 rows hold NaN or Inf"),
    ],
)
def test_a_source_that_cannot_be_learned_from_says_why(source, message):
    with pytest.raises(InvalidInputError, match=message):
        train(source, **QUICK)


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "x.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00")
    with pytest.raises(ArtifactError, match=r"x\.npy"):
        train(path, **QUICK)


def test_more_bits_than_a_float_can_count_are_reported_on(x):
    books = train(x[:100], bits=1100, objective="signs", epochs=1, progress=False)
    assert books.report["distinct_codes"] > 0.9


def test_progress_is_shown_unless_it_is_off(x, capsys, monkeypatch):
    monkeypatch.setattr(_progress, "_LINE_SECONDS", 0)
    train(x, **QUICK)
    assert capsys.readouterr() == ("", "")
    train(x, **{**QUICK, "progress": True})
    assert "epoch 1/1" in capsys.readouterr().err
