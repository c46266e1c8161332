"""The state of a training run in one safetensors file: weights, EMA, optimiser, step."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from medddpm.data.tables import write_text
from medddpm.errors import CheckpointError, OutputError
from medddpm.io.files import named_in_utf8
from medddpm.io.tensors import save_tensors

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")
_SECONDS = "seconds.txt"


@dataclass
class Progress:
    """How far a stage has come, and what its next steps depend on.

    Attributes:
        step: Optimiser steps done.
        usual_norm: Of the gradients; see `AdaptiveClip`.
        usual_loss: See `LossWatch`.
        seen: See `LossWatch`.
        rollbacks: How often the run diverged and went back.
        best: Best main figure of the validations, if there was one.
        waits: Validations since then.
        processes: Processes of the run.
        samples: Samples of its global batch; 0 if not known.
        seconds: That the steps took, validation left out.
    """

    step: int = 0
    usual_norm: float = 0.0
    usual_loss: float = 0.0
    seen: int = 0
    rollbacks: int = 0
    best: float | None = None
    waits: int = 0
    processes: int = 1
    samples: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Progress:
        """What a saved state says; an older one lacks some."""
        return cls(**{f.name: facts[f.name] for f in fields(cls) if f.name in facts})

    def change_from(self, before: Progress) -> str:
        """What is other in the steps of this run than before, in words; empty if nothing is."""
        if not before.samples or (before.processes, before.samples) == (
            self.processes,
            self.samples,
        ):
            return ""
        counts = f"processes: {self.processes}, before {before.processes}"
        if before.samples == self.samples:
            return f"{counts}; the same {self.samples} samples a step, so equal up to rounding"
        return (
            f"{counts}; samples a step: {self.samples}, before {before.samples}, so other batches; "
            "the learning rate is left as it is"
        )


class Ema:
    """Exponential moving average of a network's parameters, with a warm-up of the decay."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {k: v.detach().clone() for k, v in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move the average towards the network after optimiser step `step` (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            if value.dtype.is_floating_point:
                self.values[name].lerp_(value, 1 - decay)
            else:
                self.values[name].copy_(value)


def save_state(
    path: Path,
    network: nn.Module,
    ema: Ema,
    optimizer: torch.optim.Optimizer,
    facts: dict[str, Any],
) -> None:
    """Write the whole state; its seconds go beside it, as they differ where nothing else does."""
    facts = dict(facts)
    seconds = str(facts.pop("seconds", 0.0))
    tensors: dict[str, Tensor] = {f"net.{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.values.items()}
    for name, parameter in network.named_parameters():
        for moment, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{moment}.{name}"] = value
    write_tensors(path, tensors, {"facts": json.dumps(facts)})
    write_text(path.with_name(_SECONDS), f"{seconds}\n")


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file so that a kill or a power cut leaves the old one or the new one.

    Raises:
        OutputError: It cannot be written; the old file is as it was.
    """
    tensors = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    partial = path.with_suffix(".partial")
    try:
        save_tensors(partial, tensors, metadata)
        _flush(partial)
        os.replace(partial, path)
        _flush(path.parent)
    except (SafetensorError, OSError) as error:
        with suppress(OSError):
            partial.unlink()
        raise OutputError(
            f"cannot write {path}: {error}; make room, then go on with --resume"
        ) from error


def _flush(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def saved_progress(path: Path) -> Progress:
    """How far the stage of a saved state has come.

    Raises:
        CheckpointError: It cannot be read.
    """
    try:
        with named_in_utf8(path) as named, safe_open(named, framework="pt") as file:
            return Progress.of(json.loads(file.metadata()["facts"]) | _seconds(path))
    except (SafetensorError, OSError, KeyError) as error:
        raise CheckpointError(f"cannot read {path}: {error}; delete it to begin again") from error


@torch.no_grad()
def load_state(
    path: Path, network: nn.Module, ema: Ema, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Restore what `save_state` wrote, in place; returns its facts."""
    try:
        with named_in_utf8(path) as named, safe_open(named, framework="pt") as file:
            facts: dict[str, Any] = json.loads(file.metadata()["facts"]) | _seconds(path)
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        network.load_state_dict(_part(tensors, "net."))
        for name, value in _part(tensors, "ema.").items():
            ema.values[name].copy_(value)
    except (SafetensorError, OSError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"cannot resume from {path}: {error}; delete it to begin again"
        ) from error
    optimizer.state.clear()
    for name, parameter in network.named_parameters():
        # In the memory layout of the parameter: a step with mixed layouts takes a third longer.
        moments = {
            m: tensors[f"{m}.{name}"]
            if m == "step"
            else torch.empty_like(parameter).copy_(tensors[f"{m}.{name}"])
            for m in _MOMENTS
            if f"{m}.{name}" in tensors
        }
        if moments:
            optimizer.state[parameter] = moments
    return facts


def _seconds(state: Path) -> dict[str, float]:
    """How long the steps of a state took; nothing where that was not kept."""
    try:
        return {"seconds": float(state.with_name(_SECONDS).read_text(encoding="ascii"))}
    except (OSError, ValueError):
        return {}


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
