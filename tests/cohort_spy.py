"""Loaded into each worker of a cohort under test: logs every record, and does harm when told to.

SPY_FOLDER holds the log and the marks of what has happened. SPY_KILL: phases in which one worker
kills itself. SPY_DEADLY: a scan that kills whoever reads it. SPY_CHANGE: a scan whose file changes
while it is read, once. SPY_SLEEP: seconds before each scan. SPY_FILE_SIZE: most bytes of a file.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

from medddpm.cohort import job
from medddpm.io import outputs

HERE = Path(os.environ["SPY_FOLDER"])  # dask loads a copy of this file
MODULE: Any = job
if not hasattr(MODULE, "spied"):  # dask loads this twice
    MODULE.spied = (
        MODULE._read,
        MODULE.write_restored,
        MODULE.Restorer.restore,
        MODULE.save_outcome,
        os.rename,
    )
READ, WRITE, RESTORE, SAVE, RENAME = MODULE.spied


def is_first(mark: str) -> bool:
    """True for the first process that asks."""
    try:
        (HERE / mark).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def die_once(phase: str) -> None:
    if phase in os.environ.get("SPY_KILL", "").split(",") and is_first(f"killed-in-{phase}"):
        os.kill(os.getpid(), signal.SIGKILL)


def read(item: Any, settings: Any) -> Any:
    volumes = READ(item, settings)
    die_once("read")
    if os.environ.get("SPY_DEADLY") == item.name:
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ.get("SPY_CHANGE") == item.name and is_first("changed"):
        item.files[0].write_bytes(item.files[0].read_bytes() + b"\0")
    return volumes


def restore(self: Any, *args: Any, **kwargs: Any) -> Any:
    time.sleep(float(os.environ.get("SPY_SLEEP", "0")))
    result = RESTORE(self, *args, **kwargs)
    die_once("compute")
    return result


def write(*args: Any) -> Any:
    done = WRITE(*args)
    die_once("write")
    return done


def rename(source: Any, target: Any) -> None:
    RENAME(source, target)
    if Path(target).parent.name == "out" and str(target).endswith(".nii.gz"):
        die_once("move")


def save(state: Path, item: Any, outcome: Any) -> None:
    die_once("record")
    SAVE(state, item, outcome)
    with open(HERE / "saved.log", "a", encoding="utf-8") as log:
        log.write(f"{item.name} {outcome.state}\n")


MODULE._read, MODULE.write_restored, MODULE.save_outcome = read, write, save
MODULE.Restorer.restore = restore
outputs.os.rename = rename
if "SPY_FILE_SIZE" in os.environ:
    size = int(os.environ["SPY_FILE_SIZE"])
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
