import json

import pytest
from click.testing import CliRunner

pytest.importorskip("faiss")
pytest.importorskip("sklearn")
pytest.importorskip("torchvision")
pytest.importorskip("matplotlib")

from mecoq_index.cli import main


@pytest.mark.slow
def test_the_demo_runs_the_whole_chain(tmp_path):
    out = tmp_path / "demo"
    result = CliRunner().invoke(main, ["demo", "--out", str(out), "--epochs", "2"])
    assert result.exit_code == 0, (result.output, result.exception)
    assert {p.name for p in out.iterdir()} >= {
        "digits", "c.pt", "digits.mecoq", "bench.json", "neighbors.png", "precision_recall.png",
    }  # fmt: skip
    records = json.loads((out / "bench.json").read_text())["records"]
    assert len(records) == 7
    assert all(0.3 < r["mean_average_precision"] <= 1 for r in records)
    again = CliRunner().invoke(main, ["demo", "--out", str(out)])
    assert again.exit_code == 1
    assert "exists already" in again.stderr
    query = next((out / "digits" / "queries").rglob("*.png"))
    found = CliRunner().invoke(main, ["search", str(out / "digits.mecoq"), str(query), "--json"])
    assert len(json.loads(found.stdout)["hits"]) == 10
