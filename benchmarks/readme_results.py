"""The committed results, as the scripts that write README's tables read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


def read(name: str) -> dict[str, Any]:
    """A committed result."""
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def machine(record: dict[str, Any]) -> str:
    """One line about where a result was measured."""
    environment = record["environment"]
    versions = environment["versions"]
    listed = ", ".join(
        f"{name} {versions[name]}" for name in ("torch", "faiss-cpu") if name in versions
    )
    return f"{environment['processor']}, {environment['cores']} cores, {listed}, {commit(record)}"


def commit(record: dict[str, Any]) -> str:
    """That of the code which made a result."""
    name: str = record["environment"]["commit"]
    return f"commit {name[:7]}{'-dirty' * name.endswith('-dirty')}"
