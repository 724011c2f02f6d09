"""From a person's data to named hits in three lines of Python, or three commands."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from click.testing import CliRunner

import mecoq_index as mi
from mecoq_index.cli import main

pytest.importorskip("faiss")
pytest.importorskip("torch")
pytest.importorskip("torchvision")
pytest.importorskip("pyarrow")
pytest.importorskip("h5py")
Image = pytest.importorskip("PIL.Image")

N, P = 300, 16
SETTINGS = {"bits": 16, "epochs": 2}


def shell(*words):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


@dataclass(frozen=True)
class Case:
    """A source, a query that is one of its items, and the item's name."""

    source: str
    query: str
    name: str
    train: dict
    build: dict


PHOTOS = Case("photos", "photos/blue/1.png", "blue/1.png", {"backbone": "mecoq:small"}, {})
PARQUET = Case(
    "items.parquet",
    "query.npy",
    "item 7",
    {"vector_column": "v"},
    {"vector_column": "v", "id_column": "id"},
)
HDF5 = Case("sets.hdf5", "query.npy", "item 7", {}, {"ids": "names.txt"})
FLOAT64 = Case("vectors.npy", "query.npy", "item 7", {}, {"ids": "names.txt"})
CASES = [
    pytest.param(PHOTOS, id="images"),
    pytest.param(PARQUET, id="parquet"),
    pytest.param(HDF5, id="hdf5"),
    pytest.param(FLOAT64, id="float64"),
]


@pytest.fixture(autouse=True)
def sources(tmp_path, monkeypatch):
    import h5py
    import pyarrow
    from pyarrow import parquet

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((30, P))
    x = centers[rng.integers(30, size=N)] + 0.3 * rng.standard_normal((N, P))
    names = [f"item {i}" for i in range(N)]
    np.save("vectors.npy", x)
    np.save("query.npy", x[7:8])
    (tmp_path / "names.txt").write_text("".join(f"{name}\n" for name in names))
    parquet.write_table(pyarrow.table({"id": names, "v": list(x)}), "items.parquet")
    with h5py.File("sets.hdf5", "w") as file:
        file["train"], file["test"] = x.astype(np.float32), x[:5].astype(np.float32)
    for i in range(24):
        for color in ("red", "blue"):
            folder = tmp_path / "photos" / color
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(90, size=(24, 24, 3), dtype=np.uint8)
            pixels[..., 0 if color == "red" else 2] += 150
            Image.fromarray(pixels).save(folder / f"{i}.png")


def options(keywords):
    return [word for name, value in keywords.items() for word in (_spelled(name), value)]


def _spelled(name):
    return "--" + name.replace("_", "-")


def check_found(found, case):
    """The item that was asked for scores best; items of the same code score the same."""
    best = found[0]["score"]
    assert case.name in {hit["name"] for hit in found if hit["score"] > best - 1e-5}


@pytest.mark.parametrize("case", CASES)
def test_three_lines_of_python(case):
    books = mi.train(case.source, **case.train, **SETTINGS)
    index = mi.Index.build(case.source, books, out="i.mecoq", **case.build)
    results = index.search(case.query, k=48)
    check_found([{"name": hit.name, "score": hit.score} for hit in results[0]], case)


def test_three_lines_of_python_with_an_array():
    x = np.load("vectors.npy")
    books = mi.train(x, **SETTINGS)
    index = mi.Index.build(x, books, names=[f"item {i}" for i in range(N)])
    results = index.search(x[7], k=48)
    check_found([{"name": hit.name, "score": hit.score} for hit in results[0]], FLOAT64)


@pytest.mark.parametrize("case", CASES)
def test_three_commands(case):
    shell("train", case.source, "--out", "c.pt", *options(case.train | SETTINGS))
    shell("build", case.source, "--codebooks", "c.pt", "--out", "i.mecoq", *options(case.build))
    found = json.loads(shell("search", "i.mecoq", case.query, "-k", 48, "--json"))
    check_found(found["hits"], case)


def test_features_of_images_are_trained_on_and_images_searched():
    shell("embed", "photos", "--backbone", "mecoq:small", "--views", 2, "--out", "f.npz")
    shell("train", "f.npz", "--out", "c.pt", *options(SETTINGS))
    shell("build", "photos", "--codebooks", "c.pt", "--out", "i.mecoq")
    found = json.loads(shell("search", "i.mecoq", PHOTOS.query, "-k", 48, "--json"))
    check_found(found["hits"], PHOTOS)
