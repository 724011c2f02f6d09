"""README.md and docs/ are true: code runs, commands exist, links lead somewhere."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from mecoq_index import Codebooks
from mecoq_index.cli import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}


ELSEWHERE = "docs/integrations.md"  # needs other libraries: tests/integrations runs its paths


def blocks(language):
    return [
        pytest.param(block, id=f"{page}-{i}")
        for page, text in TEXTS.items()
        if page != ELSEWHERE
        for i, block in enumerate(re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL))
    ]


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """The files that the pages speak of, small."""
    folder = tmp_path_factory.mktemp("examples")
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((20, 64))
    vectors = centers[rng.integers(20, size=2000)] + 0.3 * rng.standard_normal((2000, 64))
    np.save(folder / "vectors.npy", vectors)  # float64, as NumPy makes it
    np.save(folder / "queries.npy", vectors[:20])
    codewords = rng.standard_normal((16, 16, 8))
    codewords /= np.linalg.norm(codewords, axis=-1, keepdims=True)
    books = Codebooks(codewords)
    books.save(folder / "c.safetensors")
    books.save(folder / "c.pt")
    image = pytest.importorskip("PIL.Image")
    (folder / "photos").mkdir()
    for i in range(12):
        pixels = rng.integers(256, size=(32, 32, 3), dtype=np.uint8)
        image.fromarray(pixels).save(folder / "photos" / f"{i:02d}.jpg")
    views = vectors[:600].astype(np.float32)
    np.savez(folder / "photos" / "features.npz", view0=views, view1=views + 0.1)
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = arrow.table(
        {
            "id": [f"item {i}" for i in range(2000)],
            "v": list(vectors),
            "year": np.arange(2000) % 30 + 1995,
        }
    )
    parquet.write_table(table, folder / "items.parquet")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("python"))
def test_a_python_example_runs(block, examples, tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    for file in examples.iterdir():
        (tmp_path / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "an example", "exec"), {})


def commands():
    found = []
    for page, text in TEXTS.items():
        lines = re.findall(r"^\$ (mecoq-index .*)$", text, re.MULTILINE)
        lines += re.findall(r"`(mecoq-index [^`]*)`", text)
        for line in lines:
            found.append(pytest.param(line, id=f"{page}: {line}"))
    return found


@pytest.mark.parametrize("line", commands())
def test_a_command_line_names_commands_and_options_that_exist(line):
    _, name, *words = shlex.split(line)
    options = {o for p in main.commands[name].params for o in p.opts + p.secondary_opts}
    shown = {
        o for p in main.commands[name].params if not getattr(p, "hidden", False) for o in p.opts
    }
    used = {word for word in words if word.startswith("-")}
    assert used <= options, line
    assert used <= shown | {"--help"}, f"{line} shows an old spelling"


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_to_files_that_exist(page):
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", TEXTS[page])
    missing = [link for link in links if not (ROOT / page).parent.joinpath(link).exists()]
    assert missing == []


def test_the_reference_of_commands_is_what_help_prints():
    from docs_command_line import render

    assert TEXTS["docs/command-line.md"] == render(), "run: python tests/docs_command_line.py"


def test_the_first_page_is_short():
    assert len(TEXTS["README.md"].encode()) <= 8192


def test_there_are_exactly_two_commands_for_a_fresh_machine():
    section = TEXTS["README.md"].partition("## Two commands")[2].partition("\n## ")[0]
    found = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    assert [len(block.strip().splitlines()) for block in found] == [1, 1]
    assert "mecoq-index demo" in found[0]
    assert "pytest" in found[1]
