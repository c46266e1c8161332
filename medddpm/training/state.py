"""The state of a training run in one safetensors file: weights, EMA, optimiser, step."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from medddpm.errors import CheckpointError

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


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
    """Write the whole state by atomic rename."""
    tensors: dict[str, Tensor] = {f"net.{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.values.items()}
    for name, parameter in network.named_parameters():
        for moment, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{moment}.{name}"] = value
    tensors = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"facts": json.dumps(facts)})
    os.replace(partial, path)


@torch.no_grad()
def load_state(
    path: Path, network: nn.Module, ema: Ema, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Restore what `save_state` wrote, in place; returns its facts."""
    try:
        with safe_open(path, framework="pt") as file:
            facts: dict[str, Any] = json.loads(file.metadata()["facts"])
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        network.load_state_dict(_part(tensors, "net."))
        for name, value in _part(tensors, "ema.").items():
            ema.values[name].copy_(value)
    except (SafetensorError, OSError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"cannot resume from {path}: {error}; delete it to begin again"
        ) from error
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


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
