"""What every benchmark shares: output options, the record of the machine, where the data lies."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from mecoq_index._files import atomic_file
from mecoq_index.bench.environment import describe_environment
from mecoq_index.learn.config import TrainConfig

REPOSITORY = Path(__file__).resolve().parents[1]
DATA = REPOSITORY.parent / "shared" / "data"


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """``--json PATH`` and ``--quick``, which every benchmark takes."""
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument("--quick", action="store_true", help="a small run of under a minute")


# The names that settings have in results/.
_NAMES = {"neighbors": "neighbours", "neighbor_share": "neighbour_share"}
_CHOSEN_BY = {"distillation": {"loss": "distillation"}, "signs": {"codebooks": "signs"}}


def settings_record(config: TrainConfig) -> dict[str, Any]:
    """All settings side by side, under the names that they have in results/.

    `TrainConfig.from_dict` reads them.
    """
    shared = config.to_dict()
    own = shared.pop("objective")
    name = own.pop("name")
    flat = {**shared, **own, **_CHOSEN_BY.get(name, {})}
    return {_NAMES.get(key, key): value for key, value in flat.items()}


def write_result(
    path: Path | None,
    result: dict[str, Any],
    *,
    question: str,
    seed: int,
    environment: dict[str, Any] | None = None,
) -> None:
    """Write a result with the question it answers and the machine it was measured on.

    A long run describes its environment before it starts: the commit that it ran is the one then.
    """
    if path is None:
        return
    record = {
        "question": question,
        "seed": seed,
        "environment": environment or describe_environment(),
        "result": result,
    }
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
