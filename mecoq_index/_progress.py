"""The one shape in which long work reports how far it has come, and showing it to people."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

Progress = Callable[[str, int, int], None]
"""Called with (a few words on the step under way, steps done, steps in all)."""

_LINE_SECONDS = 5.0


def silent(text: str, done: int, total: int) -> None:
    """Report nothing."""


def reported(progress: Progress | bool, label: str) -> AbstractContextManager[Progress]:
    """A callback for ``progress``: itself, one that shows a bar for True, a silent one for False.

    Args:
        progress: As a public function takes it.
        label: What the work is, as a bar calls it.
    """
    if callable(progress):
        return nullcontext(progress)
    return shown(label) if progress else nullcontext(silent)


def shown(label: str) -> AbstractContextManager[Progress]:
    """Show progress on standard error: a bar with an ETA on a terminal, else a line now and then.

    Args:
        label: What the work is.
    """
    return _bar(label) if sys.stderr.isatty() else _lines(label)


@contextmanager
def _bar(label: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[text]}", markup=False),
    )
    with Bar(*columns, console=Console(file=sys.stderr)) as bar:
        task = bar.add_task(label, total=None, text="")

        def update(text: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, text=text)

        yield update


@contextmanager
def _lines(label: str) -> Iterator[Progress]:
    """A line every few seconds, and one at the end; nothing of work that is done sooner."""
    started = last = time.monotonic()
    latest: tuple[str, int, int] | None = None
    printed: tuple[str, int, int] | None = None

    def update(text: str, done: int, total: int) -> None:
        nonlocal last, latest, printed
        latest, now = (text, done, total), time.monotonic()
        if now - last >= _LINE_SECONDS:
            last, printed = now, latest
            _print_line(label, text, done, total, now - started)

    yield update
    if printed is not None and latest is not None and printed != latest:
        _print_line(label, *latest, time.monotonic() - started)


def _print_line(label: str, text: str, done: int, total: int, seconds: float) -> None:
    share = done / total if total else 1.0
    left = f", about {_spoken(seconds / share - seconds)} left" if 0 < share < 1 else ""
    print(
        f"{label}: {share:4.0%} after {_spoken(seconds)}{left}  {text}".rstrip(),
        file=sys.stderr,
        flush=True,
    )


def _spoken(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
