"""What commands print: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import logging
import re
import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .._plain import without_infinities
from .._progress import Progress, silent

if TYPE_CHECKING:
    from rich.table import Table


# Controls of a terminal, which names of files may hold: C0 and C1, line and paragraph separators,
# marks that change the direction of text or cannot be seen, and bytes that are no UTF-8. Joiners
# stay, since some scripts cannot be written without them.
_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)


def visible(text: str) -> str:
    r"""Return a text as one line in which control characters can be seen: ``\n``, ``\x1b``."""
    return _CONTROLS.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return repr(found[0])[1:-1]
    return found[0].encode("ascii", "backslashreplace").decode()


def counted(items: int) -> str:
    """Return "1 item", "2 items" and so on."""
    return f"{items:,} item{'' if items == 1 else 's'}"


@dataclass(frozen=True)
class Output:
    """How a command talks.

    Attributes:
        as_json: Whether the result is printed as one JSON object on standard output.
        quiet: Whether only results and errors are printed.
    """

    as_json: bool = False
    quiet: bool = False

    def say(self, text: str) -> None:
        """Print a line for people, on standard error."""
        if not self.quiet:
            click.echo(visible(text), err=True)

    def print_line(self, text: str) -> None:
        """Print a line of a result for people, on standard output."""
        click.echo(visible(text))

    def done(
        self, text: str, result: Mapping[str, Any], *, next_command: Sequence[object] = ()
    ) -> None:
        """Tell what a command made, and which command to try next.

        Args:
            text: One line for people.
            result: The same as plain values, for ``--json``.
            next_command: A command line that goes on from here, word by word.
        """
        if self.as_json:
            self.print_json(result)
        self.say(text)
        if next_command:
            self.say(f"now try: {shlex.join(map(str, next_command))}")

    def print_json(self, value: Any) -> None:
        r"""Print one JSON object on standard output, with null for numbers that JSON lacks.

        Texts come back exactly, bytes of file names that are no UTF-8 as Python's surrogates.
        """
        text = json.dumps(without_infinities(value), ensure_ascii=False, allow_nan=False)
        # A surrogate that is escaped for Python is escaped for JSON.
        click.echo(text.encode("utf-8", "backslashreplace").decode())

    def print_table(self, table: Table) -> None:
        """Print a table on standard output, in full width where nobody is watching."""
        from rich.console import Console

        console = Console(markup=False)
        if not console.is_terminal:
            console = Console(width=180, markup=False)
        console.print(table)

    @contextmanager
    def progress(self, label: str) -> Iterator[Progress]:
        """Show how far long work has come: a bar on a terminal, plain lines elsewhere."""
        if self.quiet:
            yield silent
            return
        from .._progress import shown

        with shown(label) as update:
            yield update

    def report_skipped(self, skipped: Sequence[tuple[Any, str]]) -> None:
        """Count and list the images that could not be read."""
        if skipped:
            self.say(f"skipped {len(skipped)} unreadable images:")
            for _, reason in skipped:
                self.say(f"  {reason}")


class _ToStandardError(logging.Handler):
    """Prints where standard error leads at that time."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(visible(self.format(record)), err=True)


@contextmanager
def shown_warnings() -> Iterator[None]:
    """Print warnings on standard error, a line each, while the block runs.

    Those of the library, and those of Python that other libraries raise, for instance of an image.
    """
    logger = logging.getLogger("mecoq_index")
    handler = _ToStandardError(logging.WARNING)
    handler.setFormatter(logging.Formatter("warning: %(message)s"))
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            yield
    finally:
        logger.removeHandler(handler)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    click.echo(visible(f"warning: {message}"), err=True)


@contextmanager
def visible_errors() -> Iterator[None]:
    """Show control characters in the errors that the block raises for people."""
    try:
        yield
    except click.ClickException as exc:
        vars(exc)["message"] = visible(exc.message)
        raise


def unfinished(out: Path) -> str:
    """Return the sentence that says how to go on with work that is kept beside an output."""
    from .._workspace import Workspace

    if Workspace.beside(out).has_jobs():
        return "Add --resume to go on from what is done."
    return "Nothing was changed; run the command again."


def after_interrupt(advice: Callable[[], str]) -> None:
    """Set what returns the sentence that Ctrl-C prints from now on: how to go on."""
    click.get_current_context().find_root().meta["after_interrupt"] = advice
