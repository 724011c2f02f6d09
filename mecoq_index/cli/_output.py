"""What commands print: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from .._progress import Progress, silent

if TYPE_CHECKING:
    from rich.table import Table


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
            click.echo(text, err=True)

    def done(self, text: str, result: Mapping[str, Any], *, next_command: str = "") -> None:
        """Tell what a command made, and which command to try next.

        Args:
            text: One line for people.
            result: The same as plain values, for ``--json``.
            next_command: A command line that goes on from here.
        """
        if self.as_json:
            self.print_json(result)
        self.say(text)
        if next_command:
            self.say(f"now try: {next_command}")

    def print_json(self, value: Any) -> None:
        """Print one JSON object on standard output."""
        click.echo(json.dumps(value, ensure_ascii=False))

    def print_table(self, table: Table) -> None:
        """Print a table on standard output, in full width where nobody is watching."""
        from rich.console import Console

        console = Console()
        if not console.is_terminal:
            console = Console(width=180)
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
        click.echo(self.format(record), err=True)


@contextmanager
def shown_warnings() -> Iterator[None]:
    """Print warnings of the library on standard error, a line each, while the block runs."""
    logger = logging.getLogger("mecoq_index")
    handler = _ToStandardError(logging.WARNING)
    handler.setFormatter(logging.Formatter("warning: %(message)s"))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def after_interrupt(advice: Callable[[], str]) -> None:
    """Set what returns the sentence that Ctrl-C prints from now on: how to go on."""
    click.get_current_context().find_root().meta["after_interrupt"] = advice
