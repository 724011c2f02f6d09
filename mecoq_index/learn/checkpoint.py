"""Checkpoints and the log of a training run, beside the output file.

A checkpoint is a codebook file with one more key, ``training``. After Ctrl-C, training can go on
from it, and an index can be built from it as it is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .._files import atomic_file
from .._json import parse_json
from .._reading import check_readable, open_own
from .._system_errors import named
from .._torch_tensors import load_torch
from ..codebook_file import torch_content
from ..codebooks import Codebooks
from ..errors import ArtifactError, InvalidInputError
from .config import TrainConfig


@dataclass(frozen=True)
class RunPaths:
    """The paths of the other files of a run that writes ``out``."""

    out: Path

    @property
    def checkpoint(self) -> Path:
        """The state after the last whole epoch; removed at the end of the run."""
        return self.out.with_name(f"{self.out.stem}.checkpoint.pt")

    @property
    def log(self) -> Path:
        """JSON lines: one record of the run, then one per epoch."""
        return self.out.with_name(f"{self.out.stem}.log.jsonl")


def save_checkpoint(path: Path, codebooks: Codebooks, training: Mapping[str, Any]) -> None:
    """Write codebooks and the state of their training in place of the old checkpoint."""
    content = {**torch_content(codebooks.content()), "training": dict(training)}
    # Given a path, torch would take backslashes in it for slashes.
    with atomic_file(path) as partial, partial.open("wb") as stream:
        torch.save(content, stream)


def load_checkpoint(path: Path, config: TrainConfig, source: Mapping[str, Any]) -> dict[str, Any]:
    """Read the state of training from a checkpoint of the same settings and data.

    Raises:
        ArtifactError: If the file is missing, damaged or no checkpoint.
        InvalidInputError: If it belongs to other settings or other data.
    """
    content = load_torch(check_readable(path))
    training = content.get("training") if isinstance(content, dict) else None
    if not isinstance(training, dict):
        raise ArtifactError(f"{path} is no checkpoint: it holds no state of training.")
    stored, wanted = _flat(training["config"]), _flat(config.to_dict())
    if stored.keys() != wanted.keys() and stored.get("objective") == wanted["objective"]:
        raise InvalidInputError(
            f"{path} was made by another version of mecoq-index, with other settings. Remove it to "
            "start again, or go on with that version."
        )
    changed = sorted(name for name in stored.keys() & wanted.keys() if stored[name] != wanted[name])
    if changed:
        listed = ", ".join(f"{n}={stored[n]!r} there, {wanted[n]!r} here" for n in changed)
        raise InvalidInputError(
            f"{path} belongs to a run with other settings ({listed}). "
            "Repeat those settings to resume, or remove the checkpoint to start again."
        )
    if training["source"] != dict(source):
        raise InvalidInputError(
            f"{path} belongs to a run on other data ({training['source']} there, {dict(source)} "
            "here). Give the same data to resume, or remove the checkpoint to start again."
        )
    # The file holds the backbone's weights once, where a codebook file holds them.
    backbone = content["backbone"]
    training["backbone_state"] = backbone and backbone["state"]
    return training


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Put the settings of the objective beside the others, and its name in their place."""
    objective = config.get("objective")
    if not isinstance(objective, Mapping):
        return dict(config)
    own = {name: value for name, value in objective.items() if name != "name"}
    return {**config, **own, "objective": objective.get("name")}


class RunLog:
    """An append-only file of JSON lines, written before the next epoch begins.

    Args:
        path: The file; None for no log.
        head: The first record, on the run.
        resume_at: The number of epochs that are done; their records stay, if the file has the same
            head.
    """

    def __init__(
        self, path: Path | None, head: Mapping[str, Any], *, resume_at: int | None = None
    ) -> None:
        self._path = path
        if path is None:
            return
        lines = [json.dumps(head)]
        if resume_at is not None and path.is_file():
            first, *rest = path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
            # Epochs after the checkpoint are trained and logged again.
            if first == lines[0]:
                lines += [line for line in rest if 0 <= _epoch_of(line) < resume_at]
        with atomic_file(path) as partial:
            partial.write_text("".join(line + "\n" for line in lines), encoding="utf-8")

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record."""
        if self._path is not None:
            flags = os.O_WRONLY | os.O_APPEND
            with named(self._path), os.fdopen(open_own(self._path, flags), "ab") as stream:
                stream.write(json.dumps(record).encode() + b"\n")


def _epoch_of(line: str) -> int:
    """The epoch that a record is of; -1 for a line that a full disk has cut short."""
    try:
        return int(parse_json(line, finite=False)["epoch"])
    except (ArithmeticError, ValueError, LookupError, TypeError):
        return -1
