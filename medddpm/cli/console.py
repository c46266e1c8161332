"""What a person sees while a command runs: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

import typer

T = TypeVar("T")
FIRST_S = 1.5
"""A command that takes longer says something by then."""
_LEAST_S = 5.0
_SHARE = 0.1
"""After that a line each 5 s, and of a long command one each tenth of the time so far: 25 lines of
a command of five minutes, 60 of one of three hours."""
_STEPS = 32
"""The time left goes by so many steps: the first of a run that goes on may be read, not done."""


class Report(Protocol):
    """Called with what is being done, how much is done, and of how much."""

    def __call__(self, task: str, done: int, total: int) -> None:
        """Say that `done` of `total` steps of `task` are done."""


def each(report: Report, task: str, tell: Callable[[T], None]) -> Callable[[T, int, int], None]:
    """Who hears of each row of a table: it is told, and how much of the task is done is reported.

    Args:
        report: Of the progress.
        task: What is being done.
        tell: Called with a row.
    """

    def hear(row: T, done: int, total: int) -> None:
        tell(row)
        report(task, done, total)

    return hear


@contextmanager
def progress(task: str = "working") -> Iterator[Report]:
    """A reporter of progress on standard error; it also speaks where nothing is reported.

    Args:
        task: What is being done until something is reported.
    """
    if not sys.stderr.isatty():
        with _PlainLines(task) as lines:
            yield lines
        return
    from rich.console import Console
    from rich.progress import Progress, TaskID

    with Progress(console=Console(stderr=True), transient=True) as bars:
        waiting = bars.add_task(task, total=None)
        tasks: dict[str, TaskID] = {}

        def report(task: str, done: int, total: int) -> None:
            bars.update(waiting, visible=False)
            if task not in tasks:
                tasks[task] = bars.add_task(task, total=total)
            bars.update(tasks[task], completed=done, total=total)

        yield report


class _PlainLines:
    """Lines for a log, by a clock of their own: a step may take long, and must not be silent."""

    def __init__(self, task: str) -> None:
        self.task, self.done, self.total = task, 0, 0
        self.began = time.monotonic()
        self.steps = deque([(self.began, 0)], maxlen=_STEPS)
        self.lock, self.over = threading.Lock(), threading.Event()
        self.clock = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> _PlainLines:
        self.clock.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.clock.join()

    def __call__(self, task: str, done: int, total: int) -> None:
        with self.lock:
            now = time.monotonic()
            if task != self.task:
                self.steps = deque([(now, 0)], maxlen=_STEPS)
            self.steps.append((now, done))
            self.task, self.done, self.total = task, done, total
            if done == total:
                say(f"{task}: {done}/{total}")

    def _tick(self) -> None:
        pause = FIRST_S
        while not self.over.wait(pause):
            with self.lock:
                if not self.total or self.done < self.total:
                    say(self._line())
            pause = max(_LEAST_S, _SHARE * (time.monotonic() - self.began))

    def _line(self) -> str:
        (then, before), now = self.steps[0], time.monotonic()
        if self.done <= before:
            return f"{self.task}: {duration(now - self.began)} so far"
        left = (now - then) / (self.done - before) * (self.total - self.done)
        return f"{self.task}: {self.done}/{self.total}, about {duration(left)} left"


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    Example:
        >>> duration(4000)
        '1 h 07 min'
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def say(text: str) -> None:
    """One line of news for the person, on standard error; results go to standard output."""
    typer.echo(text, err=True)
