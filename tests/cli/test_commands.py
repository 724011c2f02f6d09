"""The commands as a person types them: results, and one sentence for every mistake."""

import json
import os
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("faiss")
pytest.importorskip("torchvision")
Image = pytest.importorskip("PIL.Image")

from mecoq_index import Codebooks, scoring
from mecoq_index.cli import main

FAST = ["--set", "num_codebooks=2", "--set", "num_codewords=16", "--set", "dim=8"]
FAST += ["--set", "batch_size=16", "--epochs", "2"]


def run(*args, code=0):
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert result.exit_code == code, (result.output, result.exception)
    if code:
        assert "Traceback" not in result.output
    return result


def refused(*args, saying, code=1):
    """One sentence on standard error, no traceback, nothing on standard output."""
    result = run(*args, code=code)
    message = result.stderr.strip().splitlines()[-1]
    assert message.startswith("Error: ")
    assert saying in message, message
    assert result.stdout == ""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with features, codebooks, embeddings and an index, made by the commands."""
    root = tmp_path_factory.mktemp("work")
    rng = np.random.default_rng(0)
    label = np.arange(120) % 4
    items = 2 * rng.standard_normal((4, 12))[label] + 0.4 * rng.standard_normal((120, 12))
    views = items + 0.2 * rng.standard_normal((3, 120, 12))
    views = views.astype(np.float32)
    np.savez(root / "views.npz", **{f"view{i}": v for i, v in enumerate(views)})
    np.save(root / "x.npy", views[0])
    np.savez(
        root / "pack.npz",
        database=views[0, :100],
        queries=views[1, 100:],
        database_labels=label[:100],
        query_labels=label[100:],
    )
    run("train", root / "views.npz", "--out", root / "c.pt", *FAST)
    run("build", "--codebooks", root / "c.pt", "--input", root / "x.npy", "--out", root / "x.mecoq")
    return root


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twelve images in two folders, one of them unreadable."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(12):
        folder = root / f"class{i % 2}"
        folder.mkdir(exist_ok=True)
        base = np.full((20, 20, 3), 200 * (i % 2), np.uint8)
        noise = rng.integers(50, size=(20, 20, 3), dtype=np.uint8)
        Image.fromarray(base + noise).save(folder / f"{i}.png")
    (root / "class0" / "bad.png").write_bytes(b"broken")
    return root


SMALL = ("--backbone", "mecoq:small")


def test_search_gives_the_ranking_of_the_algebra(work):
    out = run("search", work / "x.mecoq", work / "x.npy", "-k", 5, "--json").stdout
    books = Codebooks.load(work / "c.pt")
    z = books.embed(np.load(work / "x.npy"))
    scores = scoring.aqs(z, scoring.encode(z, books), books)
    for row, line in enumerate(out.splitlines()):
        hits = json.loads(line)["hits"]
        want = -np.sort(-scores[row])[:5]
        np.testing.assert_allclose([h["score"] for h in hits], want, atol=1e-5)
        np.testing.assert_allclose([scores[row, h["id"]] for h in hits], want, atol=1e-5)
    assert row == 119


@pytest.mark.parametrize("factory", ["IVF4,MeCoQ2x4", "MeCoQ2x4fs", "IVF4,MeCoQ2x4fs,IDMap2", None])
def test_build_search_and_inspect_agree_for_every_layout(work, tmp_path, factory):
    options = [] if factory is None else ["--factory", factory]
    build = ("build", "--codebooks", work / "c.pt", "--input", work / "x.npy", *options)
    described = json.loads(run(*build, "--out", tmp_path / "i.mecoq", "--json").stdout)
    facts = json.loads(run("inspect", tmp_path / "i.mecoq", "--json").stdout)
    assert facts["items"] == described["items"] == 120
    assert facts["factory"] == (factory or "MeCoQ2x4")
    text = run("search", tmp_path / "i.mecoq", work / "x.npy", "-k", 3).stdout
    assert text.splitlines()[0] == "query 0"
    assert len(text.splitlines()) == 120 * 4


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_other_engines_give_the_same_scores(work, tmp_path, engine):
    out = tmp_path / "i.mecoq"
    run(
        "build",
        "--codebooks",
        work / "c.pt",
        "--input",
        work / "x.npy",
        "--out",
        out,
        "--engine",
        engine,
    )
    lines = [
        run("search", index, work / "x.npy", "-k", 4, "--json").stdout.splitlines()
        for index in (out, work / "x.mecoq")
    ]
    for a, b in zip(*lines, strict=True):
        scores = [[h["score"] for h in json.loads(line)["hits"]] for line in (a, b)]
        np.testing.assert_allclose(*scores, atol=1e-5)


def test_nprobe_is_for_ivf_indexes(work, tmp_path):
    build = ("build", "--codebooks", work / "c.pt", "--input", work / "x.npy")
    run(*build, "--factory", "IVF4,MeCoQ", "--nprobe", 1, "--out", tmp_path / "i.mecoq")
    search = ("search", tmp_path / "i.mecoq", work / "x.npy", "-k", 60, "--json")
    found = [
        sum(len(json.loads(line)["hits"]) for line in run(*search, *options).stdout.splitlines())
        for options in ((), ("--nprobe", 4))
    ]
    assert found[0] < found[1] == 120 * 60
    refused("search", work / "x.mecoq", work / "x.npy", "--nprobe", 2, saying="nprobe is for IVF")
    run(*build, "--engine", "numpy", "--out", tmp_path / "n.mecoq")
    search = ("search", tmp_path / "n.mecoq", work / "x.npy", "--nprobe", 2)
    refused(*search, saying="--nprobe is for faiss, but this index is of numpy", code=2)
    refused(*build, "--engine", "numpy", "--factory", "MeCoQ", "--out", tmp_path / "o.mecoq",
            saying="--factory is for faiss", code=2)  # fmt: skip


def test_the_whole_chain_runs_on_images(photos, tmp_path):
    books, index = tmp_path / "c.pt", tmp_path / "p.mecoq"
    trained = run("train", photos, "--out", books, *SMALL, *FAST, "--set", "batch_size=6")
    assert "skipped 1 unreadable images" in trained.stderr
    assert "bad.png is no readable image" in trained.stderr
    run("build", "--codebooks", books, "--input", photos, "--out", index, "--factory", "MeCoQ2x4")
    out = run("search", index, photos / "class1" / "1.png", "-k", 3, "--json").stdout
    hits = json.loads(out)["hits"]
    assert all(h["name"].endswith(".png") for h in hits)
    assert len(hits) == 3
    run("embed", photos, "--codebooks", books, "--out", tmp_path / "z.npy")
    assert np.load(tmp_path / "z.npy").shape == (12, 8)
    assert len((tmp_path / "z.names.txt").read_text().splitlines()) == 12
    facts = json.loads(run("inspect", books, "--json").stdout)
    assert facts["backbone"]["name"] == SMALL[1]
    for command in (
        ("train", photos, "--out", tmp_path / "d.pt", *SMALL, *FAST),
        ("build", "--codebooks", books, "--input", photos, "--out", tmp_path / "d.mecoq"),
        ("embed", photos, "--codebooks", books, "--out", tmp_path / "d.npy"),
    ):
        refused(*command, "--strict", saying="bad.png is no readable image")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "c.log.jsonl", "c.pt", "p.mecoq", "z.names.txt", "z.npy",
    ]  # fmt: skip


def test_images_are_added_to_an_index_of_images_by_their_paths(photos, tmp_path):
    books, index = tmp_path / "c.pt", tmp_path / "p.mecoq"
    run("train", photos, "--out", books, *SMALL, *FAST, "--set", "batch_size=6")
    run("build", "--codebooks", books, "--input", photos / "class0", "--out", index)
    (tmp_path / "more" / "new").mkdir(parents=True)
    shutil.copy(photos / "class1" / "1.png", tmp_path / "more" / "new" / "one.png")
    assert "added 1 item:" in run("add", index, "--input", tmp_path / "more").stderr
    out = run("search", index, photos / "class1" / "1.png", "-k", 7, "--json").stdout
    hits = json.loads(out)["hits"]
    assert "new/one.png" in {hit["name"] for hit in hits}
    assert len(hits) == 7
    refused("add", index, "--input", tmp_path / "more", saying="'new/one.png'")
    refused("add", index, tmp_path / "more", "--ids", books, saying="must be a file of ids")


def test_embedded_views_can_be_trained_on(photos, tmp_path):
    out = tmp_path / "f.npz"
    run("embed", photos, *SMALL, "--views", 2, "--out", out)
    with np.load(out) as arrays:
        assert arrays["view1"].shape == arrays["features"].shape == (12, 256)
        np.testing.assert_array_equal(np.bincount(arrays["labels"]), [6, 6])
        assert arrays["paths"][0] == "class0/0.png"
    run("train", out, "--out", tmp_path / "c.pt", *FAST, "--set", "batch_size=6")


def test_a_protocol_gives_a_data_set_to_bench_and_train_on(tmp_path):
    rng = np.random.default_rng(0)
    for part, n in (("train", 6), ("test", 2)):
        for label in range(3):
            folder = tmp_path / "cifar" / part / str(label)
            folder.mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(60, size=(16, 16, 3), dtype=np.uint8) + np.uint8(60 * label)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    pack, books = tmp_path / "pack.npz", tmp_path / "c.pt"
    run("embed", tmp_path / "cifar", "--protocol", "cifar10", *SMALL, "--views", 2, "--out", pack)
    run("train", pack, "--out", books, *FAST, "--set", "batch_size=6")
    content = run(
        "bench", "--codebooks", books, "--data", pack, "--repeats", 1, "--map-at", 5,
        "--baseline", "LSH", "--json",
    ).stdout  # fmt: skip
    assert [r["method"] for r in json.loads(content)["records"]] == [
        "MeCoQ (faiss)", "LSH", "exact cosine",
    ]  # fmt: skip
    run(
        "train",
        tmp_path / "cifar",
        "--protocol",
        "cifar10",
        "--out",
        tmp_path / "d.pt",
        *SMALL,
        *FAST,
        "--set",
        "batch_size=6",
    )


def test_bench_prints_a_table_and_writes_files(work, tmp_path):
    pytest.importorskip("matplotlib")
    result = run(
        "bench", "--codebooks", work / "c.pt", "--data", work / "pack.npz", "--repeats", 1,
        "--factory", "MeCoQ", "--factory", "MeCoQ2x4fs", "--baseline", "PCA-sign",
        "--out", tmp_path / "bench.json", "--plots", tmp_path / "plots",
    )  # fmt: skip
    assert "mAP@1000" in result.stdout
    assert len(json.loads((tmp_path / "bench.json").read_text())["records"]) == 4
    assert sorted(p.name for p in (tmp_path / "plots").iterdir()) == [
        "precision_recall.png", "quality_over_speed.png",
    ]  # fmt: skip


def _trained_config(source, out, *options):
    run("train", source, "--out", out, *options, "--epochs", 1, "--set", "batch_size=16")
    return Codebooks.load(out).provenance["config"]


def test_a_plain_matrix_is_trained_on_by_neighbors_and_dropout(work, tmp_path):
    config = _trained_config(work / "x.npy", tmp_path / "c.pt")
    assert (config["objective"]["neighbors"], config["objective"]["neighbor_share"]) == (5, 1.0)
    assert config["view_dropout"] == 0.2


def test_features_are_trained_on_with_neighbors_unless_there_shall_be_none(work, tmp_path):
    config = _trained_config(work / "views.npz", tmp_path / "c.pt", "--bits", 16)
    assert config["objective"]["neighbors"] == 3
    assert (config["num_codewords"], config["num_codebooks"]) == (16, 4)
    config = _trained_config(work / "views.npz", tmp_path / "d.pt", "--neighbours", 0)
    assert config["objective"]["neighbors"] == 0


def test_training_stops_by_the_agreement_of_views_on_demand(work, tmp_path):
    options = ("--patience", 2, "--set", "epochs=30", *FAST[:-2])
    run("train", work / "views.npz", "--out", tmp_path / "c.pt", *options)
    books = Codebooks.load(tmp_path / "c.pt")
    assert books.provenance["epochs_done"] < 30
    assert books.provenance["config"]["held_out"] == 12
    assert 0 < books.provenance["view_agreement"] <= 1
    run("train", work / "views.npz", "--out", tmp_path / "d.pt", "--set", "held_out=40", *options)
    assert Codebooks.load(tmp_path / "d.pt").provenance["config"]["held_out"] == 40


def test_binary_codes_are_learned_on_demand(work, tmp_path):
    config = _trained_config(work / "views.npz", tmp_path / "c.pt", "--binary", "--bits", 32)
    assert (config["objective"]["name"], config["dim"]) == ("signs", 32)
    assert (config["objective"]["neighbors"], config["view_dropout"]) == (3, 0)
    config = _trained_config(work / "x.npy", tmp_path / "d.pt", "--binary", "--bits", 32)
    assert (config["objective"]["name"], config["view_dropout"]) == ("signs", 0.2)
    assert (config["objective"]["neighbors"], config["objective"]["neighbor_share"]) == (5, 1.0)


def test_a_ranking_is_distilled_from_unit_vectors_only(work, tmp_path):
    x = np.load(work / "x.npy")
    np.save(tmp_path / "unit.npy", x / np.linalg.norm(x, axis=1, keepdims=True))
    train = ("--distill", "--bits", 8, "--codewords", 16)
    config = _trained_config(tmp_path / "unit.npy", tmp_path / "c.pt", *train)
    assert (config["objective"]["name"], config["num_codewords"]) == ("distillation", 16)
    result = run("train", work / "x.npy", "--out", tmp_path / "d.pt", *train, code=1)
    assert "vectors must have length 1" in result.stderr
    assert not (tmp_path / "d.pt").exists()


def test_presets_and_config_files_set_everything(work, tmp_path):
    run(
        "train",
        work / "views.npz",
        "--preset",
        "cifar10-i-16",
        "--out",
        tmp_path / "a.pt",
        "--epochs",
        1,
    )
    config = Codebooks.load(tmp_path / "a.pt").provenance["config"]
    chosen = config["objective"]
    assert (chosen["temperature"], chosen["loss"], chosen["codebooks"]) == (
        0.25,
        "paper",
        "learned",
    )
    run(
        "train",
        work / "views.npz",
        "--preset",
        "cifar10-i-16",
        "--loss",
        "official",
        "--out",
        tmp_path / "b.pt",
        "--epochs",
        1,
    )
    official = Codebooks.load(tmp_path / "b.pt").provenance["config"]["objective"]
    assert (official["loss"], official["codebooks"]) == ("official", "frozen")
    (tmp_path / "s.json").write_text(json.dumps(config | {"seed": 7}))
    run("train", work / "views.npz", "--config", tmp_path / "s.json", "--out", tmp_path / "c.pt")
    assert Codebooks.load(tmp_path / "c.pt").provenance["config"] == config | {"seed": 7}


def test_outputs_are_not_overwritten_unless_told(work):
    before = (work / "c.pt").read_bytes()
    train = ("train", work / "views.npz", "--out", work / "c.pt", *FAST)
    refused(*train, saying="c.pt exists already")
    build = (
        "build",
        "--codebooks",
        work / "c.pt",
        "--input",
        work / "x.npy",
        "--out",
        work / "x.mecoq",
    )
    refused(*build, saying="x.mecoq exists already")
    assert (work / "c.pt").read_bytes() == before
    run(*build, "--overwrite")
    (work / "x.mecoq" / "mine.txt").write_text("precious")
    refused(*build, "--overwrite", saying="holds files that are not the bundle's")
    (work / "x.mecoq" / "mine.txt").unlink()


def test_an_interrupted_training_says_how_to_go_on(work, tmp_path, monkeypatch):
    from mecoq_index.learn.run import TrainingRun

    real = TrainingRun.train_epoch

    def interrupt(self, on_progress):
        if self.epoch == 1:
            raise KeyboardInterrupt
        return real(self, on_progress)

    monkeypatch.setattr(TrainingRun, "train_epoch", interrupt)
    command = ("train", work / "views.npz", "--out", tmp_path / "c.pt", *FAST)
    refused(*command, saying="c.checkpoint.pt holds the last whole epoch. Add --resume to go on")
    monkeypatch.undo()
    refused(
        *command, saying="is left from an interrupted run. Use resume (--resume) to go on from it"
    )
    run(*command, "--resume")
    whole, resumed = Codebooks.load(work / "c.pt"), Codebooks.load(tmp_path / "c.pt")
    assert resumed.fingerprint == whole.fingerprint


def test_an_interruption_while_preparing_keeps_nothing_of_an_older_run(work, tmp_path, monkeypatch):
    from mecoq_index.learn.run import TrainingRun

    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingRun, "prepare", interrupt)
    (tmp_path / "c.checkpoint.pt").write_bytes(b"of an older run")
    command = ("train", work / "views.npz", "--out", tmp_path / "c.pt", *FAST)
    refused(*command, "--overwrite", saying="No epoch was complete, so nothing is kept")
    assert list(tmp_path.iterdir()) == []


def build_of(w, t, codebooks=None, source=None):
    codebooks, source = codebooks or w / "c.pt", source or w / "x.npy"
    return ("--codebooks", codebooks, "--input", source, "--out", t / "o.mecoq")


def test_an_interrupted_embedding_goes_on_from_its_chunks(photos, tmp_path, monkeypatch):
    from mecoq_index.embed import encoder

    command = ("embed", photos, *SMALL, "--views", 1, "--out", tmp_path / "f.npz")
    monkeypatch.setattr(encoder, "_CHUNK", 5)
    real, computed = encoder._Network.features, []

    def interrupt_third(*args):
        computed.append(1)
        if len(computed) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(encoder._Network, "features", interrupt_third)
    run(*command, code=1)
    assert [p.name for p in tmp_path.iterdir()] == [".f.npz.work"]
    run(*command, "--resume")
    assert len(computed) == 4
    assert [p.name for p in tmp_path.iterdir()] == ["f.npz"]


BAD_INPUTS = {
    "a source that is missing": (
        lambda w, t: ("train", t / "none", "--out", t / "o.pt"), "does not exist", 2),
    "an empty folder": (
        lambda w, t: ("train", t / "empty", "--out", t / "o.pt"), "holds no images", 1),
    "a truncated pack": (
        lambda w, t: ("train", t / "cut.npz", "--out", t / "o.pt"), "is no readable .npz file", 1),
    "an empty pack": (
        lambda w, t: ("train", t / "zero.npz", "--out", t / "o.pt"), "zero.npz is empty", 1),
    "features with NaN": (
        lambda w, t: ("train", t / "nan.npy", "--out", t / "o.pt"), "hold NaN or Inf", 1),
    "features of another dtype": (
        lambda w, t: ("train", t / "complex.npy", "--out", t / "o.pt"), "got complex128", 1),
    "D not divisible by M": (
        lambda w, t: ("train", w / "views.npz", "--out", t / "o.pt", "--set", "dim=30"),
        "dim must be a multiple of num_codebooks=16, got 30", 1),
    "an unknown setting": (
        lambda w, t: ("train", w / "views.npz", "--out", t / "o.pt", "--set", "tempo=3"),
        "unknown setting 'tempo'; the settings are", 1),
    "an unknown preset": (
        lambda w, t: ("train", w / "views.npz", "--out", t / "o.pt", "--preset", "cifar"),
        "unknown preset 'cifar'", 1),
    "bits that codewords do not divide": (
        lambda w, t: ("train", w / "views.npz", "--out", t / "o.pt", "--bits", "10"),
        "bits must be a multiple of 4", 1),
    "an output folder that is missing": (
        lambda w, t: ("train", w / "views.npz", "--out", t / "no" / "o.pt"), "does not exist", 1),
    "codebooks with code inside": (
        lambda w, t: ("inspect", t / "evil.pt"), "would run code when loaded, and is refused", 1),
    "truncated codebooks": (
        lambda w, t: ("inspect", t / "cut.pt"), "cut.pt is damaged", 1),
    "vectors of a wrong width": (
        lambda w, t: ("build", *build_of(w, t, source=t / "wide.npy")),
        "P=12 or embeddings of width D=8, got width 5", 1),
    "K that is no power of two": (
        lambda w, t: ("build", *build_of(w, t, t / "k3.npy", t / "z6.npy")),
        "K must be a power of two; got K=3", 1),
    "a factory string that does not fit": (
        lambda w, t: ("build", *build_of(w, t), "--factory", "MeCoQ8x8"),
        "The nearest string is 'MeCoQ2x4'", 1),
    "more lists than items": (
        lambda w, t: ("build", *build_of(w, t), "--factory", "IVF1024,MeCoQ"),
        "IVF1024 needs at least 1024 items", 1),
    "an unknown engine": (
        lambda w, t: ("build", *build_of(w, t), "--engine", "fais"),
        "unknown engine 'fais'", 1),
    "k of zero": (
        lambda w, t: ("search", w / "x.mecoq", w / "x.npy", "-k", "0"), "0 is not in the range", 2),
    "other codebooks than the index's": (
        lambda w, t: ("search", w / "x.mecoq", w / "x.npy", "--codebooks", t / "k16.npy"),
        "was built with other codebooks", 1),
    "images for codebooks of vectors": (
        lambda w, t: ("search", w / "x.mecoq", t / "photo.png"),
        "learned from vectors, so they cannot", 1),
    "a folder that is no index": (
        lambda w, t: ("search", t / "empty", w / "x.npy"), "has no manifest.json", 1),
    "a damaged index": (
        lambda w, t: ("search", t / "hurt.mecoq", w / "x.npy"), ".faiss is damaged", 1),
    "a foreign data set": (
        lambda w, t: ("bench", "--codebooks", w / "c.pt", "--data", w / "views.npz"),
        "must hold the array 'database'", 1),
    "an unknown baseline": (
        lambda w, t: (
            "bench", "--codebooks", w / "c.pt", "--data", w / "pack.npz", "--baseline", "SH"),
        "unknown baselines ['SH']", 1),
}  # fmt: skip


@pytest.mark.parametrize("mistake", BAD_INPUTS)
def test_bad_input_gets_one_sentence_and_leaves_nothing_behind(work, tmp_path, mistake):
    (tmp_path / "empty").mkdir()
    whole = (work / "views.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "zero.npz").write_bytes(b"")
    x = np.load(work / "x.npy")
    np.save(tmp_path / "nan.npy", np.where(x > 0, x, np.nan).astype(np.float32))
    np.save(tmp_path / "complex.npy", x.astype(np.complex128))
    np.save(tmp_path / "wide.npy", x[:, :5])
    np.save(tmp_path / "z6.npy", x[:, :6])
    codewords = np.random.default_rng(0).standard_normal((2, 16, 4))
    codewords /= np.linalg.norm(codewords, axis=-1, keepdims=True)
    np.save(tmp_path / "k16.npy", codewords)
    three = codewords[:, :3, :3]
    np.save(tmp_path / "k3.npy", three / np.linalg.norm(three, axis=-1, keepdims=True))
    (tmp_path / "cut.pt").write_bytes((work / "c.pt").read_bytes()[:1000])
    import pickle

    (tmp_path / "evil.pt").write_bytes(pickle.dumps(os.system))
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    shutil.copytree(work / "x.mecoq", tmp_path / "hurt.mecoq")
    [index] = (tmp_path / "hurt.mecoq").glob("index*.faiss")
    index.write_bytes(index.read_bytes()[:-7] + b"1234567")
    before = sorted(p.name for p in tmp_path.iterdir())
    command, saying, code = BAD_INPUTS[mistake]
    refused(*command(work, tmp_path), saying=saying, code=code)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_usage_errors_have_exit_code_two(work, tmp_path):
    refused(
        "embed",
        tmp_path,
        "--out",
        tmp_path / "z.npy",
        saying="give --backbone for features, or --codebooks for embeddings",
        code=2,
    )
    refused(
        "train", work / "views.npz", "--out", tmp_path / "o.pt",
        "--bits", 16, "--preset", "cifar10-i-16",
        saying="--preset decides --bits, so they exclude each other", code=2,
    )  # fmt: skip
    refused(
        "train", work / "views.npz", "--out", tmp_path / "o.pt", "--set", "lr",
        saying="--set takes NAME=VALUE, got 'lr'", code=2,
    )  # fmt: skip
    refused(
        "train", work / "views.npz", "--out", tmp_path / "o.pt", "--backbone", "vgg16",
        saying="backbone is for images, but the source holds vectors",
    )  # fmt: skip
    refused(
        "embed", tmp_path, "--codebooks", work / "c.pt", "--views", 2, "--out", tmp_path / "z.npy",
        saying="codebooks bring their own image settings", code=2,
    )  # fmt: skip
    refused(
        "train", work / "views.npz", "--out", tmp_path / "o.pt", "--loss", "official",
        saying="give --preset too", code=2,
    )  # fmt: skip


def test_codebooks_are_shown_to_people(work):
    text = run("inspect", work / "c.pt").stdout
    assert "M: 2" in text
    assert "  config:" in text
