"""What a person sees while a command runs: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import typer

_LINES = 10
"""Lines that one task prints when standard error is not a terminal."""


class Report(Protocol):
    """Called with what is being done, how much is done, and of how much."""

    def __call__(self, task: str, done: int, total: int) -> None:
        """Say that `done` of `total` steps of `task` are done."""


@contextmanager
def progress() -> Iterator[Report]:
    """A reporter of progress on standard error."""
    if not sys.stderr.isatty():
        yield _PlainLines()
        return
    from rich.console import Console
    from rich.progress import Progress, TaskID

    tasks: dict[str, TaskID] = {}
    with Progress(console=Console(stderr=True), transient=True) as bars:

        def report(task: str, done: int, total: int) -> None:
            if task not in tasks:
                tasks[task] = bars.add_task(task, total=total)
            bars.update(tasks[task], completed=done, total=total)

        yield report


class _PlainLines:
    """About ten lines a task, for logs."""

    def __init__(self) -> None:
        self.last: dict[str, int] = {}

    def __call__(self, task: str, done: int, total: int) -> None:
        tenth = _LINES * done // max(total, 1)
        if self.last.get(task) != tenth:
            self.last[task] = tenth
            typer.echo(f"{task}: {done}/{total}", err=True)


def say(text: str) -> None:
    """One line of news for the person, on standard error; results go to standard output."""
    typer.echo(text, err=True)
