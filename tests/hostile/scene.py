"""A command that is about to run, which attacks change."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

SECRET = "root:S3cretOfTheTests"


class UnfitError(Exception):
    """The attack cannot be made on this input."""


@dataclass
class Scene:
    """A command that is about to run in a folder of its own.

    Attributes:
        rng: The generator that all chance comes from.
        folder: The working folder, which holds the inputs.
        neighbor: A folder beside it, which no command may touch.
        good: The folder of unharmed inputs.
        path: The input or output that is attacked, relative to ``folder``.
        seed: The number of the attempt.
        more: Arguments to be added at the end.
        setup: What happens in the process of the command before it starts; see `child`.
    """

    rng: np.random.Generator
    folder: Path
    neighbor: Path
    good: Path
    path: str = ""
    seed: int = 0
    more: list[str] = field(default_factory=list)
    setup: dict = field(default_factory=dict)

    @property
    def full(self):
        return self.folder / self.path

    def any_file(self):
        """The attacked file, or one in the attacked folder."""
        if self.full.is_file():
            return self.full
        files = sorted(f for f in self.full.rglob("*") if f.is_file() and f.stat().st_size)
        return files[int(self.rng.integers(len(files)))]


def remove(path):
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
