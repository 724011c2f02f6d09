"""Read the committed results, and say where each was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

Record = dict[str, Any]

RESULTS = Path(__file__).resolve().parent / "results"

_AMERICAN = (("eighbour", "eighbor"), ("ormalis", "ormaliz"), ("egularis", "egulariz"))


def read(name: str) -> Record:
    """The committed result ``name``."""
    content: Record = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def read_lines(name: str) -> list[Record]:
    """The committed log ``name``, one record a line."""
    text = (RESULTS / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def read_all(pattern: str) -> list[Record]:
    """The committed results whose names match a glob pattern, by name."""
    return [read(file.stem) for file in sorted(RESULTS.glob(f"{pattern}.json"))]


def american(label: str) -> str:
    """A label in American spelling; results keep the spelling of the day they were made."""
    for british, spelled in _AMERICAN:
        label = re.sub(british, spelled, label)
    return label


def commit(record: Record) -> str:
    """The commit that made a result, in seven digits, with ``-dirty`` if files had been changed."""
    name: str = record["environment"]["commit"]
    return f"{name[:7]}{'-dirty' * name.endswith('-dirty')}"


def machine(record: Record) -> str:
    """The processor and the versions that a result was measured with."""
    environment = record["environment"]
    versions = environment["versions"]
    listed = [f"{name} {versions[name]}" for name in ("torch", "faiss-cpu") if name in versions]
    return ", ".join([environment["processor"], f"{environment['cores']} cores", *listed])


def made_by(command: str, *records: Record) -> str:
    """The source of a table: ``Made by `COMMAND` on MACHINE, commit X.``

    Args:
        command: The command line that makes the results.
        records: The results that it made. Machines and commits are named once each.
    """
    machines = list(dict.fromkeys(machine(record) for record in records))
    commits = list(dict.fromkeys(commit(record) for record in records))
    word = "commit" if len(commits) == 1 else "commits"
    return f"Made by `{command}` on {'; '.join(machines)}, {word} {' and '.join(commits)}."
