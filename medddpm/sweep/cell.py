"""One cell of a sweep: train in its own folder, score on held-out patches, keep the row.

A cell is a run folder like any other, with `cell.json` (settings, stages that are trained, and the
seconds of all sessions that were not killed) and at the end `result.json` or `failure.json`. A lock
of the operating system keeps a second process out, and goes with the process that held it.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medddpm.config import dump_config
from medddpm.errors import ConfigError, MedddpmError
from medddpm.io.lock import lock_of
from medddpm.io.outputs import write_json
from medddpm.metrics.scores import ssim_image
from medddpm.model.model import Model, load_model
from medddpm.preprocess.noise_law import NoiseLaw
from medddpm.restoration.options import RestoreOptions
from medddpm.restoration.restorer import pick_device
from medddpm.restoration.tile import TileRestorer
from medddpm.sweep.grid import Cell
from medddpm.training.run import StageName
from medddpm.training.scans import Scans
from medddpm.training.validation import psnr_inside
from medddpm.workflows.training import train

Row = dict[str, Any]
OnCellLog = Callable[[str, Row], None]
STAGES: tuple[StageName, ...] = ("autoencoder", "diffusion", "fidelity", "joint")
"""What a sweep can score: `mean` tells nothing of a distillation."""
SIGMAS = (0.05, 0.09)
"""Noise of the held-out patches, those of the validation while training."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CellPlan:
    """What all cells of a sweep share.

    Attributes:
        data: Folder of NIfTI scans.
        folder: Of all cells.
        cache: Packed scans, which the cells link to.
        stages: What a cell trains, in order.
        weights: Earlier stages, copied into each cell.
        digest: SHA-256 of those.
        threads: Of torch in a cell; None leaves them.
    """

    data: Path
    folder: Path
    cache: Path
    stages: tuple[StageName, ...]
    weights: Path | None
    digest: str = ""
    threads: int | None = None


def run_cell(cell: Cell, plan: CellPlan, on_log: OnCellLog | None = None) -> Row:
    """Train and score one cell, or go on with it; returns its row.

    Whatever goes wrong in the cell is kept in its row and its failure.json: only an interrupt is
    raised. `state` is "done", "failed", or "running" where another process holds the cell.
    """
    folder = plan.folder / cell.name
    try:
        with claimed(folder) as mine:
            if not mine:
                return read_row(cell, plan)
            if _result(folder, plan) is None:
                _train_and_score(cell, plan, folder, on_log)
    except Exception as error:
        if not isinstance(error, MedddpmError):
            log.exception("cell %s", cell.name)
        text = str(error) if isinstance(error, MedddpmError) else f"{type(error).__name__}: {error}"
        _keep_failure(folder, text)
        return _row(cell, plan, "failed") | {"error": text}
    return read_row(cell, plan)


def read_row(cell: Cell, plan: CellPlan) -> Row:
    """The row of a cell as its folder has it; "running" if a process holds it, "open" if none."""
    folder = plan.folder / cell.name
    done = _result(folder, plan)
    if done is not None:
        return _row(cell, plan, "done") | done
    if folder.exists():
        with claimed(folder) as mine:
            if not mine:
                return _row(cell, plan, "running") | {"error": f"held by {_holder(folder)}"}
    if (folder / "failure.json").exists():
        return _row(cell, plan, "failed") | _read(folder / "failure.json")
    return _row(cell, plan, "open")


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder, which is made; False where another process holds it.

    The lock file says who holds it. Nobody's death leaves it locked.
    """
    lock = lock_of(folder / "lock")
    if lock is None:
        yield False
        return
    try:
        _write_whole(folder / "lock.json", {"pid": os.getpid(), "host": platform.node()})
        yield True
    finally:
        lock.release()


def check_same(cell: Cell, plan: CellPlan) -> None:
    """Refuse to go on with a cell that was begun with another config or other weights.

    Raises:
        ConfigError: The folder's cell.json says so.
    """
    folder = plan.folder / cell.name
    facts = _facts(folder)
    for name, now in _origin(cell, plan).items():
        if facts.get(name, now) != now:
            raise ConfigError(
                f"{folder} was begun with other {name}; take another --out, or remove that folder"
            )


def _train_and_score(cell: Cell, plan: CellPlan, folder: Path, on_log: OnCellLog | None) -> None:
    if plan.threads:
        torch.set_num_threads(plan.threads)
    (folder / "failure.json").unlink(missing_ok=True)
    facts = _facts(folder) | _origin(cell, plan)
    _write_whole(folder / "cell.json", facts)
    _furnish(plan, folder)
    for stage in plan.stages:
        if stage in facts["trained"]:
            continue
        began = time.monotonic()
        try:
            train(
                stage,
                data=plan.data,
                out=folder,
                config=cell.config,
                resume=True,
                on_log=(lambda row: on_log(cell.name, row)) if on_log else None,
            )
            facts["trained"].append(stage)
        finally:  # also of a run that was stopped: its seconds count when it goes on
            facts["train_seconds"] += time.monotonic() - began
            _write_whole(folder / "cell.json", facts)
    scores = score(folder, cell, plan.stages[-1])
    known = {"stages": _label(plan), "train_seconds": facts["train_seconds"]}
    _write_whole(folder / "result.json", known | scores)


def _furnish(plan: CellPlan, folder: Path) -> None:
    """A link to the packed scans and a copy of the earlier stages."""
    if not (folder / "cache").exists():
        (folder / "cache").symlink_to(plan.cache.resolve(), target_is_directory=True)
    weights = folder / "model.safetensors"
    if plan.weights and not weights.exists():
        shutil.copyfile(plan.weights, folder / "model.copying")
        os.replace(folder / "model.copying", weights)


def score(folder: Path, cell: Cell, stage: StageName) -> Row:
    """PSNR, SSIM and seconds of the cell's weights on held-out patches, by the restoring path.

    The patches and their noise are those of the validation while training. After the stage
    "autoencoder" the round trip of the clean patches is scored; after "diffusion" the plain
    decoding of E[z0 | y]; after "fidelity" the restoration in mode "mean". "restore_seconds" is
    the median of a patch.
    """
    config = cell.config
    device = pick_device(config.train.device)
    model = load_model(folder / "model.safetensors").to(device)
    scans = Scans(folder / "cache", config.data, config.train.validation_patches)
    row: Row = {"log": _last_logged(folder / stage / "log.jsonl")}
    if stage == "autoencoder":
        began = time.monotonic()
        restored = _round_trip(model, scans.held_x, device)
        row["restore_seconds"] = (time.monotonic() - began) / len(restored)
        return row | _closeness(restored, scans.held_x, "")
    fidelity = 1.0 if stage in ("fidelity", "joint") else 0.0
    options = RestoreOptions(mode="mean", fidelity=fidelity, shifts=1, bf16=config.restore.bf16)
    seconds = []
    for sigma in SIGMAS:
        noisy = scans.held_noisy(sigma).y
        parts = []
        for y, spacing in zip(noisy, scans.held_spacing.tolist(), strict=True):
            began = time.monotonic()
            tile = TileRestorer(model, device, NoiseLaw(sigma=sigma), spacing, 0, options)
            parts.append(torch.from_numpy(tile.restore(y.numpy(), [(0, 0, 0)], 0))[None])
            seconds.append(time.monotonic() - began)
        row |= _closeness(torch.cat(parts), scans.held_x, f"_{sigma}")
    row["restore_seconds"] = statistics.median(seconds)
    for name in ("psnr", "ssim"):
        row[name] = sum(row[f"{name}_{sigma}"] for sigma in SIGMAS) / len(SIGMAS)
    return row


@torch.inference_mode()
def _round_trip(model: Model, x: Tensor, device: torch.device) -> Tensor:
    parts = [model.codec.decode(model.codec.encode(part[None].to(device))).cpu() for part in x]
    return torch.cat(parts)


def _closeness(restored: Tensor, clean: Tensor, suffix: str) -> Row:
    """PSNR and SSIM inside, as the validation while training counts it: above 5 % of the scale."""
    values = []
    for found, x in zip(restored[:, 0].numpy(), clean[:, 0].numpy(), strict=True):
        values.append(torch.from_numpy(ssim_image(x, found, 1.0)[x > 0.05]))
    ssim = float(torch.cat(values).double().mean())
    return {f"psnr{suffix}": psnr_inside(restored, clean), f"ssim{suffix}": ssim}


def _last_logged(path: Path) -> Row:
    """The last value of each figure that the training logged."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {name: value for row in rows for name, value in row.items()}


def _facts(folder: Path) -> Row:
    path = folder / "cell.json"
    return _read(path) if path.exists() else {"trained": [], "train_seconds": 0.0}


def _origin(cell: Cell, plan: CellPlan) -> Row:
    """What a cell may not change while it is resumed."""
    return {"settings": dump_config(cell.config), "weights": plan.digest}


def _result(folder: Path, plan: CellPlan) -> Row | None:
    """The scores of a cell that is done with these stages; with more of them it goes on."""
    path = folder / "result.json"
    facts = _read(path) if path.exists() else {}
    return facts if facts.get("stages") == _label(plan) else None


def _read(path: Path) -> Row:
    content: Row = json.loads(path.read_text(encoding="utf-8"))
    return content


def _label(plan: CellPlan) -> str:
    return "+".join(plan.stages)


def _keep_failure(folder: Path, text: str) -> None:
    """Record why the cell failed; where even that cannot be written, the row still says it."""
    try:
        write_json(folder / "failure.json", {"error": text})
    except OSError as error:
        log.warning("cannot write into %s: %s", folder, error.strerror)


def _row(cell: Cell, plan: CellPlan, state: str) -> Row:
    return {"cell": cell.name, **cell.settings, "stages": _label(plan), "state": state}


def _holder(folder: Path) -> str:
    try:
        facts = _read(folder / "lock.json")
        return f"process {facts['pid']} on {facts['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"


def _write_whole(path: Path, content: Row) -> None:
    """Write JSON by atomic rename: a process that is killed leaves the old file or the new one."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    write_json(partial, content)
    os.replace(partial, path)


def parse_stages(names: Sequence[str]) -> tuple[StageName, ...]:
    """The stages in the order in which they train."""
    unknown = [name for name in names if name not in STAGES]
    if unknown or not names:
        raise ConfigError(f"no stage that a sweep scores is called {unknown}; there are {STAGES}")
    return tuple(stage for stage in STAGES if stage in names)
