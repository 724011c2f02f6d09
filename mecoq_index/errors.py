"""Everything this package raises on purpose.

MecoqError
├── InvalidInputError (ValueError)        an argument has a wrong shape, dtype or value
├── ArtifactError                         a file is missing, damaged, foreign or newer
├── ServerError                           a database server is out of reach, refuses, or fails
├── TrainingError                         a training run cannot go on: its loss became NaN
└── MissingDependencyError (ImportError)  an optional package is needed and not installed

A message says what must hold, what came, and what to do.
"""

from __future__ import annotations

_LONGEST, _LONGEST_LINE = 2000, 200


def first_line(exc: BaseException) -> str:
    """Return the first line of what an exception says, shortened, to be part of a message."""
    line = next(iter(str(exc).splitlines()), type(exc).__name__)
    return line if len(line) <= _LONGEST_LINE else line[:_LONGEST_LINE] + "..."


class MecoqError(Exception):
    """Base class of every deliberate error of this package.

    Of a message that repeats too much, for instance a name in a file, the middle is left out.
    """

    def __str__(self) -> str:
        text = super().__str__()
        if len(text) <= _LONGEST:
            return text
        return f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 4 :]}"


class InvalidInputError(MecoqError, ValueError):
    """An argument has a wrong shape, dtype or value."""


class ArtifactError(MecoqError):
    """A file is missing, damaged, foreign, or written by another version."""


class ServerError(MecoqError):
    """A database server is out of reach, refuses what it was asked, or fails."""


class TrainingError(MecoqError):
    """A training run cannot go on."""


class MissingDependencyError(MecoqError, ImportError):
    """An optional package is needed and not installed."""
