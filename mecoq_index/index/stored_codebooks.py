"""The files of a bundle that hold its codebooks, and the weights of their backbone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._reading import check_readable, sha256_file
from ..codebook_file import write, write_weights
from ..codebooks import Codebooks
from ..errors import ArtifactError

CODEBOOKS, WEIGHTS = "codebooks.safetensors", "backbone.safetensors"
OLD_CODEBOOKS = "codebooks.pt"  # of bundles of versions 1 and 2
_GENERATION = re.compile(r"-([0-9]{1,12})\Z")

Recorded = dict[str, int | str]
"""Size and SHA-256 of a file, as the manifest has them."""


@dataclass(frozen=True, eq=False)
class CodebookFiles:
    """Files of one generation of a bundle.

    Attributes:
        entries: What the manifest says of them: ``codebooks_file``, ``backbone_file`` and
            ``backbone_sha256``, the latter two None without weights.
        writers: A function for each file to write, by its name.
        kept: The manifest's records of files of an earlier generation that stay.
    """

    entries: dict[str, str | None]
    writers: dict[str, Callable[[Path], None]]
    kept: dict[str, Recorded] = field(default_factory=dict)


def plan_codebook_files(
    folder: Path, codebooks: Codebooks, generation: int, old: Mapping[str, Any] | None
) -> CodebookFiles:
    """Decide on the files of a generation.

    Args:
        folder: The bundle.
        codebooks: The codebooks.
        generation: The number of the generation.
        old: The manifest of the generation before. If its file of weights holds the same weights,
            that file stays.
    """
    name, weights_file = of_generation(CODEBOOKS, generation), None
    digest = None if codebooks.backbone is None else codebooks.backbone.state_sha256
    writers: dict[str, Callable[[Path], None]] = {}
    kept: dict[str, Recorded] = {}
    if codebooks.backbone is not None and codebooks.backbone.state is not None:
        state = codebooks.backbone.state
        weights_file = _weights_to_keep(folder, digest, old)
        if weights_file is not None and old is not None:
            kept = {weights_file: old["files"][weights_file]}
        else:
            weights_file = of_generation(WEIGHTS, generation)
            writers[weights_file] = lambda path: write_weights(state, path)
    writers[name] = lambda path: write(codebooks.content(), path, weights_file=weights_file)
    entries = {
        "codebooks_file": name,
        "backbone_file": weights_file,
        "backbone_sha256": digest,
    }
    return CodebookFiles(entries, writers, kept)


def _weights_to_keep(folder: Path, digest: str | None, old: Mapping[str, Any] | None) -> str | None:
    """Return the name of the old file of weights if it is undamaged and holds the same ones."""
    name: str | None = old.get("backbone_file") if old else None
    if old is None or name is None or old.get("backbone_sha256") != digest:
        return None
    file = folder / name
    try:
        undamaged = sha256_file(check_readable(file, links=False)) == old["files"][name]["sha256"]
    except ArtifactError:
        return None
    return name if undamaged else None


def of_generation(name: str, generation: int) -> str:
    """Return the name that a file has in a generation of a bundle: ``index-1.faiss``."""
    stem, dot, suffix = name.partition(".")
    return f"{stem}-{generation}{dot}{suffix}" if generation else name


def without_generation(name: str) -> str:
    """Return the name of a file without the number of its generation."""
    stem, dot, suffix = name.partition(".")
    return _GENERATION.sub("", stem) + dot + suffix


def generation_of(name: str) -> int | None:
    """Return the number of the generation in the name of a file; None without one."""
    found = _GENERATION.search(name.partition(".")[0])
    return None if found is None else int(found[1])
