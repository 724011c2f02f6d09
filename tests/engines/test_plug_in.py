"""A plug-in can do all that a built-in engine can, by its name alone."""

import ast
import os
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from engines import plug_in
from engines.plug_in import RemoteEngine, ShelfBuilder, ShelfEngine
from on_disk import add_items, remove_items

from mecoq_index import scoring
from mecoq_index.bench.runner import BenchSettings, run_bench
from mecoq_index.codebooks import Codebooks
from mecoq_index.data.datasets import Dataset
from mecoq_index.data.reader import ArrayRows
from mecoq_index.embed import rows as encoding
from mecoq_index.engines import registry
from mecoq_index.engines.abilities import Tunable
from mecoq_index.engines.base import Batch
from mecoq_index.errors import ArtifactError, InvalidInputError
from mecoq_index.index import build as building
from mecoq_index.index.build import BuildOptions, Shard, build_bundle
from mecoq_index.index.merge import merge_bundles
from mecoq_index.index.stored import open_bundle, save_bundle

N, SHELVES = 600, 5
CODEWORDS = np.random.default_rng(0).standard_normal((4, 16, 4))
BOOKS = Codebooks(CODEWORDS / np.linalg.norm(CODEWORDS, axis=-1, keepdims=True))
CODES = np.random.default_rng(1).integers(16, size=(N, 4), dtype=np.uint8)
QUERIES = np.random.default_rng(2).standard_normal((9, 16)).astype(np.float32)
IDS = np.random.default_rng(3).permutation(10 * N)[:N].astype(np.int64)
SCORES = scoring.aqs(QUERIES, CODES, BOOKS)
OPTIONS = BuildOptions(engine="shelves", options={"shelves": SHELVES, "seed": 7})


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """The plug-in installed, and several steps in a build of few rows; no waiting for the disk."""
    entries = [
        EntryPoint("shelves", "engines.plug_in:ShelfEngine", registry.ENTRY_POINT_GROUP),
        EntryPoint("remote", "engines.plug_in:RemoteEngine", registry.ENTRY_POINT_GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(encoding, "_MAX_CHUNK", 100)
    monkeypatch.setattr(building, "_NOTE_SECONDS", -1)
    monkeypatch.setattr(building, "_ADDED_AT_A_TIME", 200)


def content(path):
    return {p.name: p.read_bytes() for p in path.iterdir() if p.name != ".lock"}


def build(out, codes=CODES, options=OPTIONS, **more):
    build_bundle(ArrayRows(codes), BOOKS, out, options, **more)


def test_it_is_a_class_of_its_own():
    assert [ShelfEngine.__base__, ShelfBuilder.__base__] == [object, object]
    tree = ast.parse(Path(plug_in.__file__).read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {module for module in modules if module.startswith("mecoq_index")} == {
        "mecoq_index",
        "mecoq_index.engines.abilities",
        "mecoq_index.engines.base",
    }


def test_it_is_known_by_its_name():
    assert registry.get_engine("shelves") is ShelfEngine


def test_it_is_built_with_its_options_and_opened_by_what_the_bundle_says(tmp_path):
    build(tmp_path / "x", ids=IDS)
    engine, bundle = open_bundle(tmp_path / "x")
    assert isinstance(engine, ShelfEngine)
    assert bundle.manifest["description"]["shelves"] == SHELVES == len(engine.centers)
    np.testing.assert_array_equal(engine.codes(IDS), CODES)
    hits = engine.search(QUERIES, 3, visited=SHELVES)
    np.testing.assert_allclose(hits.scores, -np.sort(-SCORES, axis=1)[:, :3], atol=1e-5)


@pytest.mark.parametrize(
    "options,message",
    [
        ({"shelfs": 3}, "unknown option of the shelves engine 'shelfs'; did you mean 'shelves'"),
        ({"visited": 5}, "visited must be 1 to 4, got 5"),
        ({"shelves": N + 1}, "601 shelves need as many items, got 600"),
    ],
)
def test_its_options_are_checked_before_a_row_is_encoded(tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(encoding.RowEncoder, "encode", None)
    with pytest.raises(InvalidInputError, match=message):
        build(tmp_path / "x", options=BuildOptions(engine="shelves", options=options))
    with pytest.raises(InvalidInputError, match=r"ids must not be negative"):
        build(tmp_path / "x", ids=IDS - 1 - IDS.min())
    assert list(tmp_path.iterdir()) == []


class StoppedError(Exception):
    pass


class InterruptAt:
    """Raises at one of the times at which a build reports its progress."""

    def __init__(self, number=0):
        self.number, self.seen = number, []

    def __call__(self, *step):
        self.seen.append(step)
        if len(self.seen) == self.number:
            raise StoppedError


@pytest.mark.parametrize("shard", [None, Shard(2, 3)])
def test_a_build_that_is_interrupted_at_any_step_goes_on_to_the_same_bytes(
    tmp_path, monkeypatch, shard
):
    options = BuildOptions(engine="shelves", options=OPTIONS.options, shard=shard)
    steps = InterruptAt()
    build(tmp_path / "whole", options=options, ids=IDS, on_progress=steps)
    want = content(tmp_path / "whole")
    texts = [text for text, _, _ in steps.seen]
    assert {"encoding", "putting up shelves", "placing", "adding", "writing"} == set(texts)
    trainings = []
    train = ShelfBuilder.train
    monkeypatch.setattr(ShelfBuilder, "train", lambda *args: trainings.append(1) or train(*args))
    for number in range(1, len(texts) + 1):
        out = tmp_path / str(number)
        with pytest.raises(StoppedError):
            build(out, options=options, ids=IDS, on_progress=InterruptAt(number))
        trainings.clear()
        again = InterruptAt()
        build(out, options=options, ids=IDS, on_progress=again, resume=True)
        assert content(out) == want
        was_trained = number > texts.index("putting up shelves") + 1
        assert len(trainings) == (0 if was_trained else 1)
        was_placed = number >= len(texts) - texts[::-1].index("placing")
        assert ("placing" in [text for text, _, _ in again.seen]) != was_placed


def test_another_option_is_another_build(tmp_path):
    with pytest.raises(StoppedError):
        build(tmp_path / "x", on_progress=InterruptAt(2))
    options = BuildOptions(engine="shelves", options={"shelves": 3, "seed": 7})
    with pytest.raises(InvalidInputError, match=r"differs in: shelves\."):
        build(tmp_path / "x", options=options, resume=True)


@pytest.mark.parametrize("numbered", [False, True])
def test_shards_are_merged_to_the_bytes_of_the_whole(tmp_path, numbered):
    ids = IDS if numbered else None
    build(tmp_path / "whole", ids=ids)
    parts = [tmp_path / str(number) for number in (1, 2, 3)]
    for number, part in enumerate(parts, 1):
        shard = BuildOptions(engine="shelves", options=OPTIONS.options, shard=Shard(number, 3))
        build(part, options=shard, ids=ids)
    merge_bundles([parts[2], parts[0], parts[1]], tmp_path / "merged")
    assert content(tmp_path / "merged") == content(tmp_path / "whole")


def test_bundles_with_the_same_shelves_are_merged_and_others_refused(tmp_path):
    engine = ShelfEngine.build(BOOKS, CODES, IDS, shelves=SHELVES)
    for name, rows in (("a", slice(0, 400)), ("b", slice(400, N))):
        alike = engine.builder_alike()
        alike.add(Batch(CODES[rows], IDS[rows]))
        save_bundle(alike.finish(), tmp_path / name)
    merged = merge_bundles([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    np.testing.assert_array_equal(merged.codes(IDS), CODES)
    np.testing.assert_array_equal(
        merged.search(QUERIES, 5).scores, engine.search(QUERIES, 5).scores
    )
    build(tmp_path / "c", CODES[::-1].copy(), ids=IDS + 10 * N)
    with pytest.raises(InvalidInputError, match="shelves, made of others"):
        merge_bundles([tmp_path / "a", tmp_path / "c"], tmp_path / "no")
    build(tmp_path / "d", options=BuildOptions(engine="shelves"), ids=IDS + 10 * N)
    with pytest.raises(InvalidInputError, match=r"shelves \(4 instead of 5\)"):
        merge_bundles([tmp_path / "a", tmp_path / "d"], tmp_path / "no")


def test_items_are_added_and_removed_on_disk(tmp_path):
    build(tmp_path / "x")
    np.testing.assert_array_equal(add_items(tmp_path / "x", CODES[:2]), [N, N + 1])
    assert remove_items(tmp_path / "x", np.array([0, 3, N])) == 3
    engine, bundle = open_bundle(tmp_path / "x")
    assert len(engine) == N - 1
    assert bundle.generation == 2
    np.testing.assert_array_equal(engine.codes(np.array([1, N + 1])), CODES[[1, 1]])


def test_it_is_tuned_and_the_value_found_is_kept(tmp_path):
    build(tmp_path / "x")
    engine, _ = open_bundle(tmp_path / "x")
    assert isinstance(engine, Tunable)
    tuned = engine.tune(QUERIES, recall=0.9, k=5)
    assert 1 < tuned.value <= SHELVES
    assert tuned.recall >= 0.9 > tuned.curve[-2][1]
    engine.set_default(tuned.setting, tuned.value)
    save_bundle(engine, tmp_path / "tuned")
    again, bundle = open_bundle(tmp_path / "tuned")
    assert bundle.manifest["description"]["visited"] == tuned.value
    best = -np.sort(-SCORES, axis=1)[:, 4:5]
    reached = (again.search(QUERIES, 5).scores >= best - 1e-5).mean()
    assert reached == pytest.approx(tuned.recall)


def test_damage_in_its_file_is_told_as_in_any_other(tmp_path):
    build(tmp_path / "x")
    file = tmp_path / "x" / "shelves.npz"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"shelves.npz is damaged"):
        open_bundle(tmp_path / "x")


# Measuring

pytest.importorskip("faiss")  # baselines are FAISS's

VECTORS = np.random.default_rng(4).standard_normal((N, 16)).astype(np.float32)
DATASET = Dataset("noise", VECTORS, QUERIES)
SETTINGS = BenchSettings(map_at=20, recall_at=(5,), repeats=1, seed=3)


def test_each_set_of_its_options_is_measured():
    options = [{"shelves": 6}, {"shelves": 6, "visited": 6}]
    few, all_, _ = run_bench(
        DATASET, BOOKS, engine="shelves", options=options, baselines=[], settings=SETTINGS
    )
    assert few.method == "MeCoQ (shelves, shelves=6)"
    assert all_.method == "MeCoQ (shelves, shelves=6, visited=6)"
    assert few.details == {**all_.details, "visited": 1}
    assert few.bytes_per_vector == 16
    assert few.recall_aqs[5] < all_.recall_aqs[5] == 1


def test_the_seed_of_a_bench_is_that_of_an_option_called_seed(monkeypatch):
    seeds, builder = set(), ShelfEngine.builder

    def noted(*args, **options):
        seeds.add(options["seed"])
        return builder(*args, **options)

    monkeypatch.setattr(ShelfEngine, "builder", noted)
    options = [{"visited": 1}, {"visited": 1, "seed": 9}]
    run_bench(DATASET, BOOKS, engine="shelves", options=options, baselines=[], settings=SETTINGS)
    assert seeds == {3, 9}


def test_an_engine_elsewhere_is_measured_there_beside_hamming_codes():
    options = [{"places": "a,b", "token": "hush"}]
    stored = []
    a, b, hamming, itq, _ = run_bench(
        DATASET, BOOKS, engine="remote", options=options, baselines=["ITQ"], settings=SETTINGS,
        on_progress=lambda *step: stored.append(dict(plug_in.STORED)),
    )  # fmt: skip
    assert [a.method, b.method, hamming.method] == [
        "MeCoQ (remote, a)",
        "MeCoQ (remote, b)",
        "ITQ (remote, hamming)",
    ]
    assert a.recall_aqs == b.recall_aqs == {5: 1}
    assert hamming.recall_aqs == {}
    # The same bits; only ties may come in another order.
    assert hamming.recall_float[5] == pytest.approx(itq.recall_float[5], abs=0.1)
    assert [hamming.bits, hamming.bytes_per_vector] == [16, 10]
    assert stored == [{}] * 6  # each row is cleared away before the next one


def test_an_engine_elsewhere_that_cannot_say_how_to_measure_it_is_refused(monkeypatch):
    monkeypatch.delattr(RemoteEngine, "bench_variants")
    with pytest.raises(InvalidInputError, match="remote engine keeps items elsewhere and does not"):
        run_bench(DATASET, BOOKS, engine="remote", settings=SETTINGS)
