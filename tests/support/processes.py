"""Commands in processes that may die: forked from one that has imported the package already."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["medddpm.cli", "medddpm.data.prepare", "medddpm.workflows"])


class Ended(NamedTuple):
    """What a process left: its exit code, which is minus the signal that killed it, and stderr."""

    code: int
    stderr: str


def ended(function: Callable[..., object], *arguments: object, limit_s: float = 120) -> Ended:
    """Call a function in a process of its own, and wait for its end."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "stderr")
        process = CONTEXT.Process(target=_logged, args=(log, function, *arguments))
        process.start()
        process.join(limit_s)
        process.kill()
        process.join()
        assert process.exitcode is not None
        return Ended(process.exitcode, log.read_text())


def command(*words: object) -> None:
    """The command line."""
    from medddpm.cli import main

    sys.argv = ["medddpm", *map(str, words)]
    main()


def limited(file_size: int, *words: object) -> None:
    """The same, where no file can be larger."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    command(*words)


def signalled(number: signal.Signals, module: str, name: str, count: int, *words: object) -> None:
    """The same, sent a signal when it calls `module.name` for the count-th time."""
    home: Any = importlib.import_module(module)
    whole, calls = getattr(home, name), 0

    def told(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            os.kill(os.getpid(), number)
        return whole(*arguments, **named)

    setattr(home, name, told)
    command(*words)


def _logged(log: Path, function: Callable[..., object], *arguments: object) -> None:
    with log.open("w") as file:
        os.dup2(file.fileno(), 2)
    function(*arguments)
