"""How many tiles fit a memory budget."""

from __future__ import annotations

import math

import torch

from medddpm.errors import MemoryBudgetError
from medddpm.model.model import Model
from medddpm.preprocess.tiles import TilePlan

_GB = 1e9
_PROCESS = 0.9 * _GB
"""Python with PyTorch and this package imported, weights included; measured."""
BYTES_A_VOLUME_VOXEL = 44
"""Input, output, padded copy, accumulators and masks."""
_BYTES_A_TILE_CHANNEL = 5.0
"""Live bytes a half-resolution voxel and channel of the fidelity decoder; measured in float32."""
_BYTES_A_SHRUNK_VOXEL = 320
"""Sixteen DCT coefficients a voxel, and what becomes of them; measured in float32."""
_MOST_TILES = {"cpu": 1, "cuda": 4}
"""More at once take more memory and, on a CPU, more time: its caches hold one."""


def tile_bytes(plan: TilePlan, model: Model) -> float:
    """Peak working memory of the networks for one tile, in bytes."""
    channels = model.spec.fidelity.channels[0]
    network = channels / 8 * _BYTES_A_TILE_CHANNEL * 4
    return math.prod(plan.tile) * (network + _BYTES_A_SHRUNK_VOXEL)


def tile_batch(plan: TilePlan, memory_gb: float | None, device: torch.device, model: Model) -> int:
    """Tiles that run together under a budget of `memory_gb` for the whole process.

    Raises:
        MemoryBudgetError: Not even one fits; the message says how much is needed.
    """
    if memory_gb is None:
        return _MOST_TILES.get(device.type, 1)
    fixed = _PROCESS + math.prod(plan.padded) * BYTES_A_VOLUME_VOXEL
    one = tile_bytes(plan, model)
    fitting = int((memory_gb * _GB - fixed) // one)
    if fitting < 1:
        smaller = max(model.multiple, max(plan.tile) // 2 // model.multiple * model.multiple)
        hint = f", or make tiles smaller with --set restore.tile={smaller}"
        raise MemoryBudgetError(
            f"a memory budget of {memory_gb:g} GB is too small: this scan needs "
            f"{(fixed + one) / _GB:.1f} GB with tiles of {plan.tile}; raise --memory"
            + (hint if smaller < max(plan.tile) else "")
        )
    return min(fitting, _MOST_TILES.get(device.type, 1))
