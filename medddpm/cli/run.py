"""Turns exceptions into one clear message and an exit code, and warnings into one line."""

from __future__ import annotations

import errno
import functools
import io
import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import typer

from medddpm.errors import MedddpmError, VolumeReadError
from medddpm.version import __version__

P = ParamSpec("P")
R = TypeVar("R")

EXIT_INTERRUPTED = 130
_OF_A_PATH = {errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ELOOP}
"""What the system says of a path that a person gave."""
_LONG = 200
EXIT_FLAGGED = 6
"""The output was written, and a check raised a flag that a person should look at."""


@dataclass
class _Settings:
    debug: bool = False


_settings = _Settings()


def set_debug(wanted: bool) -> None:
    """Show tracebacks from here on, or not."""
    _settings.debug = wanted


def interrupt_on_sigterm() -> None:
    """Let a batch system's SIGTERM end the command as Ctrl-C does: cleanly."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def print_names_as_they_are() -> None:
    """Let file names that are no UTF-8 be printed, byte for byte."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")


def use_plain_warnings() -> None:
    """Show each warning as one line, without the place in our source."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        typer.echo(f"warning: {message}", err=True)

    for category in (DeprecationWarning, FutureWarning, PendingDeprecationWarning):
        warnings.simplefilter("ignore", category)
    warnings.filterwarnings("ignore", module=r"pydicom(\..*)?$")  # they quote headers
    warnings.showwarning = show


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Wrap a command: a user's mistake becomes a message and its exit code, never a traceback."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except MedddpmError as error:
            say_error(error)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            typer.echo("medddpm: interrupted; no half-written output is left", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except BrokenPipeError:
            raise typer.Exit(1) from None
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _OF_A_PATH and error.filename:
                say_error(VolumeReadError(f"{_shortened(error.filename)}: {error.strerror}"))
                raise typer.Exit(VolumeReadError.exit_code) from None
            _show_traceback_if_wanted()
            typer.echo(f"medddpm: a bug: {type(error).__name__}: {error}", err=True)
            typer.echo(f"The traceback is in {_save_traceback()}", err=True)
            raise typer.Exit(1) from None

    return wrapped


def _shortened(name: object) -> str:
    """A path as it is said; one that is too long to exist is too long to read."""
    text = str(name)
    return text if len(text) <= _LONG else f"{text[:_LONG]}..."


def say_error(error: MedddpmError) -> None:
    """The one line that a user's mistake gives."""
    _show_traceback_if_wanted()
    typer.echo(f"medddpm: {error}", err=True)


class LeftOut:
    """Collects the errors of single scans while the others go on.

    Each is said at once; the exit code at the end is that of the first.
    """

    def __init__(self) -> None:
        self.errors: list[MedddpmError] = []

    def __call__(self, error: MedddpmError) -> None:
        """Say the error and keep it."""
        say_error(error)
        self.errors.append(error)

    def exit_if_any(self, done: int) -> None:
        """End with the first error's exit code, and say again that something is missing.

        Args:
            done: How many scans went well.
        """
        if not self.errors:
            return
        if done:
            typer.echo(f"medddpm: {done} done, {len(self.errors)} left out: see above", err=True)
        raise typer.Exit(self.errors[0].exit_code)


def _show_traceback_if_wanted() -> None:
    if _settings.debug:
        typer.echo(traceback.format_exc(), err=True)


def _save_traceback() -> str:
    handle, path = tempfile.mkstemp(prefix="medddpm-", suffix=".log", text=True)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(f"medddpm {__version__}\n{traceback.format_exc()}")
    return path
