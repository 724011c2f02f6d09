"""The tables of README.md and docs/ show the committed results; sentences there hold no numbers."""

import importlib
import json
import re
import shutil
import statistics
from pathlib import Path

import pytest

pytest.importorskip("scipy")

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "results.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]

# Names that hold digits; no measurement among them.
NAMES = r"mAP@1000|recall@10|CIFAR-10|VGG-16|64-bit"
SOURCE = (
    r"Made by `(?:python benchmarks/(\w+)\.py[^`]*|mecoq-index demo)`"
    r" on .+, commits? [0-9a-f]{7}(?:-dirty)?(?: and [0-9a-f]{7})*\.$"
)


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("tables")


@pytest.fixture
def results(tables, tmp_path, monkeypatch):
    """A copy of the results, which tests may change; the scripts read it."""
    copy = tmp_path / "results"
    shutil.copytree(RESULTS, copy, ignore=shutil.ignore_patterns("*.png"))
    monkeypatch.setattr(importlib.import_module("records"), "RESULTS", copy)
    return copy


def cells(table, name):
    """The cells of the row whose first cell is ``name``, without bold marks."""
    rows = [[cell.strip("* ") for cell in row] for row in table.rows]
    return next(row for row in rows if row[0] == name)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_shows_the_committed_results(path, tables):
    page = path.read_text(encoding="utf-8")
    assert tables.fill(page) == page, "run python benchmarks/tables.py"


def test_every_table_is_shown(tables):
    shown = tables.names(PAGE.read_text(encoding="utf-8"))
    assert sorted(shown) == sorted(tables.TABLES.keys() - {"headline"})  # that one is README's


def test_another_result_makes_another_page(tables, results):
    page = PAGE.read_text(encoding="utf-8")
    assert tables.fill(page) == page
    file = results / "quality_vectors.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    record["result"]["rows"][1]["map"] += 1
    file.write_text(json.dumps(record), encoding="utf-8")
    filled = tables.fill(page)
    different = [a for a, b in zip(page.splitlines(), filled.splitlines(), strict=True) if a != b]
    assert len(different) == 1
    assert record["result"]["rows"][1]["method"] in different[0]


def test_the_headline_has_five_rows_of_the_record(tables):
    record = json.loads((RESULTS / "quality_cifar10.json").read_text(encoding="utf-8"))
    rows = record["result"]["rows"]
    table = tables.TABLES["headline"]()
    assert [row[0].strip("*") for row in table.rows] == [
        "MeCoQ, K=16",
        "learned binary codes (Hamming)",
        "PQ",
        "ITQ (Hamming)",
        "exact float features",
    ]
    for shown, method in (("MeCoQ, K=16", "MeCoQ, K=16"), ("PQ", "PQ"), ("ITQ (Hamming)", "ITQ")):
        maps = [row["map"] for row in rows if row["method"] == method and row["bits"] == 64]
        assert len(maps) == 3
        assert cells(table, shown)[1:] == ["8", f"{statistics.mean(maps):.1f}"]
    assert cells(table, "exact float features")[1] == "5,120"


def test_ratios_of_speed_are_those_of_the_later_record_of_a_size(tables):
    record = json.loads((RESULTS / "search_speed_1m.json").read_text(encoding="utf-8"))
    (run,) = record["result"]["runs"]
    table = tables.TABLES["search-ratios"]()
    assert table.columns[2] == f"1,000,000 codes (commit {record['environment']['commit'][:7]})"
    want = {
        (one["times_faster"], one["than"]): f"{one['ratio']:.2f}"
        for one in run["ratios"]
        if (one["threads"], one["batch"], one["k"]) == (1, 100, 10)
    }
    for first, than, ratio, _ in table.rows:
        assert ratio == want[first, than]


def test_every_table_of_measurements_names_its_source(tables):
    for name, table in tables.TABLES.items():
        if name != "data":
            found = re.search(SOURCE, table().source)
            assert found, name
            script = found[1]
            assert script is None or (ROOT / "benchmarks" / f"{script}.py").is_file()


def test_a_seed_of_the_ablation_counts_once(tables, results):
    shutil.copy(results / "ablation_seed1.json", results / "ablation_seed9.json")
    with pytest.raises(ValueError, match="seed 1 of the ablation is there twice"):
        tables.TABLES["ablation"]()


def test_only_the_blocks_are_written(tables):
    filled = tables.fill("before\n<!-- table: scale-growth -->\nold\n<!-- end -->\nafter 1.5\n")
    assert filled.startswith("before\n<!-- table: scale-growth -->\n\n| index |")
    assert filled.endswith("\n\n<!-- end -->\nafter 1.5\n")
    assert "old" not in filled
    assert tables.fill(filled) == filled
    assert tables.fill("no blocks\n") == "no blocks\n"


def test_an_unknown_table_is_refused(tables):
    with pytest.raises(ValueError, match="unknown table 'speed'; choose one of "):
        tables.fill("<!-- table: speed -->\n<!-- end -->\n")


@pytest.mark.parametrize(
    "page",
    [
        "<!-- table: scale -->\n",
        "<!-- table: scale -->\n<!-- table: demo -->\n<!-- end -->\n",
        "<!-- table: scale --> text\n<!-- end -->\n",
    ],
)
def test_a_block_that_is_not_closed_is_refused(page, tables):
    with pytest.raises(ValueError, match="needs its own '<!-- end -->' on a line below it"):
        tables.fill(page)


def test_rows_fit_the_columns_and_numbers_stand_right(tables):
    Table = importlib.import_module("markdown_table").Table
    table = Table(("a", "b", "c"), [("x", "+1.5", "2"), ("y", "", "two")], "Source.")
    assert str(table).splitlines()[1:] == [
        "| --- | ---: | --- |",
        "| x | +1.5 | 2 |",
        "| y |  | two |",
        "",
        "Source.",
    ]
    with pytest.raises(ValueError, match=r"a row must have 2 cells.*got \['x'\]"):
        Table(("a", "b"), [("x",)])


def written_by_hand(page):
    """The page without tables, code, and the targets of links."""
    page = re.sub(r"<!-- table: .*?<!-- end -->", "", page, flags=re.DOTALL)
    return re.sub(r"`[^`]*`|\]\([^)]*\)", "", page)


def test_no_sentence_of_the_page_holds_a_number():
    text = written_by_hand(PAGE.read_text(encoding="utf-8"))
    assert "Milvus" in text
    assert re.findall(r"\S*\d\S*", re.sub(NAMES, "", text)) == []


def test_the_page_is_in_american_spelling():
    text = re.sub(r"\]\([^)]*\)", "", PAGE.read_text(encoding="utf-8"))
    assert re.findall(r"\w*(?:eighbour|alis[ei]|ularis|entre|olour)\w*", text) == []


def test_pictures_and_links_of_the_page_exist():
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", PAGE.read_text(encoding="utf-8"))
    assert len(targets) >= 5
    for target in targets:
        assert (PAGE.parent / target).is_file(), target
