import io
import json

import numpy as np
import pytest
from rich.console import Console

from mecoq_index import scoring
from mecoq_index.bench.metrics import mean_average_precision
from mecoq_index.bench.plots import plot_precision_recall, plot_quality_over_speed
from mecoq_index.bench.report import make_table, to_json, write_json
from mecoq_index.bench.runner import BenchSettings, run_bench
from mecoq_index.codebooks import Codebooks, Layer
from mecoq_index.data.datasets import Dataset
from mecoq_index.errors import InvalidInputError

pytest.importorskip("faiss")

SETTINGS = BenchSettings(map_at=50, precision_at=10, recall_at=(1, 10), repeats=1)


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    label = np.sort(rng.integers(5, size=400))
    x = (rng.standard_normal((5, 16))[label] + 0.4 * rng.standard_normal((400, 16))).astype(
        np.float32
    )
    codewords = rng.standard_normal((2, 16, 4))
    codewords /= np.linalg.norm(codewords, axis=-1, keepdims=True)
    layer = Layer(rng.standard_normal((8, 16)), np.zeros(8))
    books = Codebooks(codewords.astype(np.float32), projection=[layer])
    held = np.arange(400) % 10 == 0
    return Dataset("clusters", x[~held], x[held], label[~held], label[held]), books


@pytest.fixture(scope="module")
def records(case):
    return run_bench(
        *case,
        options=[{"factory": "MeCoQ"}, {"factory": "IVF4,MeCoQ2x4fs"}],
        baselines=["LSH", "PQ"],
        settings=SETTINGS,
    )


def test_methods_come_in_order_with_their_sizes(records):
    assert [r.method for r in records] == [
        "MeCoQ (faiss, MeCoQ)",
        "MeCoQ (faiss, IVF4,MeCoQ2x4fs)",
        "LSH",
        "PQ",
        "exact cosine",
    ]
    assert [r.bytes_per_vector for r in records] == [1, 9, 1, 1, 64]
    assert [r.bits for r in records] == [8, 8, 8, 8, 512]


def test_quality_is_that_of_the_reference_ranking(case, records):
    data, books = case
    mixed = data.shuffled(0)
    z, zq = books.project(mixed.database), books.project(mixed.queries)
    scores = scoring.aqs(zq, scoring.encode(z, books), books)
    ids = np.argsort(-scores, axis=1, kind="stable")[:, :50]
    want = mean_average_precision(ids, mixed.database_labels, mixed.query_labels)
    assert records[0].mean_average_precision == pytest.approx(want, abs=0.02)  # ties
    assert records[0].recall_aqs == {1: 1.0, 10: 1.0}
    assert records[-1].recall_float == {1: 1.0, 10: 1.0}
    assert records[1].recall_aqs[10] < 1
    assert records[2].recall_aqs == {}


def test_times_and_memory_are_positive(records):
    for r in records:
        assert 0 < r.single_ms_p50 <= r.single_ms_p99
        assert r.queries_per_second > 0
        assert r.batch_queries_per_second > 0


def test_the_table_shows_what_was_measured(records):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(make_table(records, SETTINGS))
    text = console.export_text()
    for word in ("mAP@50", "P@10", "recall@10", "LSH", "IVF4,MeCoQ2x4fs", "p99 ms"):
        assert word in text


def test_json_is_plain_and_names_the_machine(records, tmp_path):
    write_json(tmp_path / "bench.json", to_json(records, SETTINGS, dataset="clusters"))
    content = json.loads((tmp_path / "bench.json").read_text())
    assert content["records"][0]["method"] == "MeCoQ (faiss, MeCoQ)"
    assert content["environment"]["versions"]["numpy"] == np.__version__
    assert content["settings"]["map_at"] == 50


def test_plots_are_pictures(records, tmp_path):
    pytest.importorskip("matplotlib")
    plot_precision_recall(records, tmp_path / "pr.png")
    plot_quality_over_speed(records, tmp_path / "speed.png", map_at=50)
    for name in ("pr.png", "speed.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"


def test_without_labels_only_recall_and_speed_are_measured(case):
    data, books = case
    plain = Dataset("plain", data.database, data.queries)
    (record, exact) = run_bench(plain, books, engine="numpy", baselines=[], settings=SETTINGS)
    assert record.mean_average_precision is None
    assert record.recall_float.keys() == {1, 10}
    assert "mAP" not in "".join(
        str(c.header) for c in make_table([record, exact], SETTINGS).columns
    )


def test_options_for_searching_go_to_every_search(case):
    factory = "IVF4,MeCoQ2x4"
    options = [{"factory": factory, "nprobe": 4}, {"factory": "MeCoQ2x4fs", "k_factor": 9}]
    lists, reranked, _ = run_bench(*case, options=options, baselines=[], settings=SETTINGS)
    assert lists.method == "MeCoQ (faiss, IVF4,MeCoQ2x4, nprobe=4)"
    assert lists.details["nprobe"] == 4
    assert lists.recall_aqs == {1: 1.0, 10: 1.0}
    assert reranked.details["k_factor"] == 9
    assert reranked.recall_aqs == {1: 1.0, 10: 1.0}  # rounded tables alone miss some


def test_progress_counts_methods(case):
    told = []
    run_bench(*case, engine="numpy", baselines=["LSH"], settings=SETTINGS,
              on_progress=lambda *step: told.append(step))  # fmt: skip
    assert told == [
        ("MeCoQ (numpy)", 0, 3),
        ("LSH", 1, 3),
        ("exact cosine", 2, 3),
        ("done", 3, 3),
    ]


def test_what_does_not_fit_is_refused(case):
    data, books = case
    with pytest.raises(InvalidInputError, match=r"unknown baselines \['SH'\]; choose from \['ITQ'"):
        run_bench(data, books, baselines=["SH"])
    narrow = Dataset("narrow", data.database[:, :7].copy(), data.queries[:, :7].copy())
    with pytest.raises(
        InvalidInputError, match="width P=16 or embeddings of width D=8, got width 7"
    ):
        run_bench(narrow, books)
    with pytest.raises(InvalidInputError, match="items and queries to measure, got 360 and 0"):
        run_bench(Dataset("mute", data.database, data.queries[:0]), books)


@pytest.mark.parametrize(
    "options,message",
    [
        ([{"factor": "MeCoQ"}], "unknown bench option of the faiss engine 'factor'; did you mean"),
        ([{}, {"factory": "IVF500,MeCoQ"}], "IVF500 needs at least 500 items"),
        ([{}, {}], r"two give 'MeCoQ \(faiss\)'. Leave one out"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_measured(case, options, message):
    told = []
    with pytest.raises(InvalidInputError, match=message):
        run_bench(*case, options=options, on_progress=lambda *step: told.append(step))
    assert told == []


@pytest.mark.parametrize("values", [{"recall_at": ()}, {"repeats": 0}, {"recall_at": (0,)}])
def test_settings_that_measure_nothing_are_refused(values):
    with pytest.raises(InvalidInputError, match="must be at least 1, and recall_at must not be"):
        BenchSettings(**values)
