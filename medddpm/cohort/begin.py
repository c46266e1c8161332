"""One folder, one set of settings: what a run notes of itself, and whom it refuses to mix with."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from medddpm.cohort.claims import claimed, holder_is_alive
from medddpm.cohort.job import Settings
from medddpm.errors import ConfigError, MedddpmError, OutputError
from medddpm.io import atomic_path
from medddpm.io.outputs import write_json


@contextmanager
def begun(settings: Settings, *, resume: bool = False, overwrite: bool = False) -> Iterator[None]:
    """A run with these settings; other ones are kept out of the folder meanwhile.

    Args:
        settings: Of the run.
        resume: It must have been begun before.
        overwrite: What was restored with other settings may be restored anew.

    Raises:
        ConfigError: The folder holds scans of other settings, or another run works in it with
            other settings.
        OutputError: The disk is full or gone.
    """
    with ExitStack() as stack:
        try:
            runs = settings.state / "runs"
            mark = f"{settings.fingerprint}-{uuid.uuid4().hex}"
            stack.enter_context(claimed(runs, mark, settings.run))
            _refuse_others_at_work(runs, settings)
            check_settings(settings, resume=resume, overwrite=overwrite)
            with atomic_path(settings.state / "run.json") as partial:
                write_json(partial, {**settings.deciding(), "begun": round(time.time())})
        except MedddpmError:
            raise
        except OSError as error:
            raise OutputError(f"cannot write into {settings.out}: {error.strerror}") from None
        yield


def check_settings(settings: Settings, *, resume: bool = False, overwrite: bool = False) -> None:
    """Raise ConfigError unless what a folder holds was restored with the same settings."""
    before = _noted(settings.state / "run.json")
    if before is None:
        if resume:
            raise ConfigError(
                f"{settings.out} holds no run to resume; leave --resume out to begin one"
            )
        return
    names = _differences(before, json.loads(json.dumps(settings.deciding())))
    holds_scans = any((settings.state / "records").glob("*.json"))
    if names and (resume or (holds_scans and not overwrite)):
        raise ConfigError(
            f"the run in {settings.out} was begun with another {', '.join(names)}, and results of "
            "two settings do not mix: give the same, or another folder, or --overwrite"
            f"{' without --resume' if resume else ''} to restore all scans anew"
        )


def _refuse_others_at_work(runs: Path, settings: Settings) -> None:
    """Both of two that begin at one moment may be refused, and none is let in wrongly."""
    for path in runs.glob("*.*"):
        if not holder_is_alive(path):
            path.unlink(missing_ok=True)
        elif path.name.partition("-")[0] != settings.fingerprint:
            raise ConfigError(
                f"another run works in {settings.out} with other settings; wait until it ends, or "
                "give another folder"
            )


def _noted(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of what decides the outputs and differs."""
    names = [n for n in ("weights", "format", "trust") if before.get(n) != now.get(n)]
    options = before.get("options")
    options = options if isinstance(options, dict) else {}
    return names + [n for n, value in now["options"].items() if options.get(n) != value]
