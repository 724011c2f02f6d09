"""Addresses where paths are expected: found by their form, and shown without passwords.

People mistype addresses, and a mistyped address is often taken for a path. Messages about something
that does not exist therefore never repeat a text that may hold a password. Folders that exist are
no addresses, whatever they are called, so only the rest of a path counts.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from .errors import InvalidInputError

HIDDEN = "an address that may hold a password"
"""The words for an address that a message must not repeat."""

_HARMLESS = re.compile(r"(?:\w+://)?[\w.-]+(?::\d{1,5})?(?:/[\w.-]+)*/?", re.ASCII)
_DRIVE = re.compile(r"^[A-Za-z]:(?=[\\/])")  # of Windows
_SECRET = r"[?&;#]\w+=|\b(?:token|password|passwd|pwd|secret|api_?key)="
# Has a scheme, or a password.
_ADDRESS = re.compile(rf"[A-Za-z][\w+.-]+:[\\/]|.*:.*@|.*@.*:|.*(?:{_SECRET})", re.DOTALL | re.I)
# May have one, and may be a path.
_DOUBTFUL = re.compile(rf"[:@?]|{_SECRET}", re.I)
_LONGEST = 300


def shown(path: str | Path) -> str:
    """A path that does not exist, for a message; without a password if it is an address."""
    folder, text = _missing_part(path)
    if not _DOUBTFUL.search(_DRIVE.sub("", _decoded(text))):
        return str(path)
    kept = without_credentials(text)
    if kept is None:
        return HIDDEN
    kept = f"...@{kept}" if "@" in _decoded(text) else kept
    return kept if folder is None else str(folder / kept)


def without_credentials(address: str) -> str | None:
    """The part of an address that cannot be a password; None if there may be one in all of it."""
    kept = re.split(r"[?#]", _decoded(address).rpartition("@")[2])[0]
    return kept if len(kept) <= _LONGEST and _HARMLESS.fullmatch(kept) else None


def is_like_address(path: str | Path) -> bool:
    """Whether a text is not the path of something, and has a scheme or a password."""
    _, text = _missing_part(path)
    return _ADDRESS.match(_DRIVE.sub("", _decoded(text))) is not None


def check_no_address(path: str | Path) -> None:
    """Refuse to write to an address, because a file would get its password as its name.

    Raises:
        InvalidInputError: If the path has the form of an address.
    """
    if is_like_address(path):
        raise InvalidInputError(
            f"the output must be the path of a file or folder, got {shown(path)}. Choose a name "
            "that is no address."
        )


def _missing_part(path: str | Path) -> tuple[Path | None, str]:
    """The deepest folder of a path that exists, if any, and the rest of the path."""
    whole = Path(path)
    for folder in whole.parents:
        if folder != Path() and exists(folder):
            rest = "" if exists(whole) else str(whole.relative_to(folder))
            return folder, rest
    return None, "" if exists(whole) else str(path)


def exists(path: Path) -> bool:
    """Whether there is something at a path; not if nothing can have such a name."""
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, or one with a zero byte
        return False


def _decoded(text: str) -> str:
    """A text without percent-encoding, of which there may be several layers."""
    for _ in range(5):
        text, before = unquote(text), text
        if text == before:
            break
    return text
