"""README.md is true: its code runs, its commands exist."""

import re
from pathlib import Path

import pytest

from mecoq_index.cli import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_a_python_example_runs(block, tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})


def test_every_command_line_names_commands_and_options_that_exist():
    lines = re.findall(r"^\$ (mecoq-index .*)$", README, re.MULTILINE)
    lines += re.findall(r"`(mecoq-index [^`]*)`", README)
    assert len(lines) >= 6
    for line in lines:
        _, name, *words = line.split()
        options = {o for p in main.commands[name].params for o in p.opts + p.secondary_opts}
        used = {word for word in words if word.startswith("-")}
        assert used <= options, line


def test_there_are_exactly_two_commands_for_a_fresh_machine():
    section = README.partition("## Two commands")[2].partition("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    assert [len(block.strip().splitlines()) for block in blocks] == [1, 1]
    assert "mecoq-index demo" in blocks[0]
    assert "pytest" in blocks[1]
