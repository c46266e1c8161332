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
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["medddpm.cli", "medddpm.data.prepare", "medddpm.workflows"])


class Ended(NamedTuple):
    """What a process left: its exit code, which is minus the signal that killed it, and words."""

    code: int
    stdout: bytes
    stderr: str


def begun(folder: Path, function: Callable[..., object], *arguments: object) -> BaseProcess:
    """Call a function in a process of its own; it writes into `folder`/stdout and stderr."""
    process: BaseProcess = CONTEXT.Process(target=_logged, args=(folder, function, *arguments))
    process.start()
    return process


def ended(function: Callable[..., object], *arguments: object, limit_s: float = 300) -> Ended:
    """The same, and what it left."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = begun(folder, function, *arguments)
        process.join(limit_s)
        process.kill()
        process.join()
        assert process.exitcode is not None
        said = [(folder / stream).read_bytes() for stream in ("stdout", "stderr")]
        return Ended(process.exitcode, said[0], said[1].decode())


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


def _logged(folder: Path, function: Callable[..., object], *arguments: object) -> None:
    for number, stream in enumerate(("stdout", "stderr"), start=1):
        with (folder / stream).open("wb") as file:
            os.dup2(file.fileno(), number)
    function(*arguments)
