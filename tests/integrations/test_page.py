"""The examples of docs/integrations.md run, with the real packages."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from mecoq_index import Codebooks

PAGE = Path(__file__).resolve().parents[2] / "docs" / "integrations.md"
WORDS, *EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
OTHERS = ("langchain_milvus", "langchain_community", "pymilvus.model", "llama_index", "datasets")


def test_the_page_has_an_example_for_each_package():
    assert [[name for name in OTHERS if name in block] for block in EXAMPLES] == [
        [name] for name in OTHERS
    ]


@pytest.mark.parametrize("block", EXAMPLES)
def test_an_example_runs(block, tmp_path, monkeypatch):
    for name in re.findall(r"^from (\S+) import", block, re.MULTILINE):
        if name != "words":
            pytest.importorskip(name)
    codewords = np.random.default_rng(0).standard_normal((16, 16, 8))
    codewords /= np.linalg.norm(codewords, axis=2, keepdims=True)
    Codebooks(codewords).save(tmp_path / "c.safetensors")
    (tmp_path / "words.py").write_text(WORDS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "words", raising=False)
    exec(compile(block, "docs/integrations.md", "exec"), {"__name__": "example"})
