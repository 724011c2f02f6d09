"""Hundreds of changed FAISS files, opened and searched: none crashes, or touches another file."""

import sys

import pytest

pytest.importorskip("faiss")
if not sys.platform.startswith("linux"):
    pytest.skip("memory is limited as Linux does it", allow_module_level=True)

from hostile import faiss_files

COUNT = 340


def test_changed_files_are_refused_or_answer_and_nothing_else_is_touched(tmp_path):
    folder, outside = tmp_path / "cases", tmp_path / "outside"
    folder.mkdir()
    outside.write_bytes(bytes(199_992))
    cases = faiss_files.write_cases(folder, COUNT, seed=1)
    faiss_files.add_outside_lists(folder, cases, outside)
    outcomes = faiss_files.run_cases(folder, cases)
    assert len(outcomes) == len(cases) > COUNT
    bad = [case for case in outcomes if not case["outcome"].startswith(("opened", "refused: "))]
    assert bad == []
    refused = [case for case in outcomes if case["outcome"].startswith("refused: ")]
    assert len(refused) > COUNT // 2
    assert all("\n" not in case["outcome"] for case in refused)
    assert outside.read_bytes() == bytes(199_992)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cases", "outside"]


def test_what_the_cases_are_made_from_opens(tmp_path):
    sources = faiss_files.write_layouts(tmp_path)
    cases = []
    for number, source in enumerate(sources):
        (tmp_path / f"case{number}").write_bytes(source.read_bytes())
        cases.append({"source": str(source), "change": "nothing"})
    outcomes = faiss_files.run_cases(tmp_path, cases)
    assert [case["outcome"] for case in outcomes] == ["opened"] * len(sources)
