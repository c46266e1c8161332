"""The latents of the training scans: their statistics, which the codec standardises with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from medddpm.model.codec import LatentCodec
from medddpm.training.batches import clean_batch
from medddpm.training.fabric import reduced
from medddpm.training.scans import Scans

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def measure_latents(codec: LatentCodec, scans: Scans, fabric: Fabric) -> None:
    """Store mean and deviation of the latents, and what noise makes of them.

    Processes share the work; the patches are the same in every run.
    """
    device = next(codec.parameters()).device
    codec.to(device)  # the statistics too, which training left where they were
    # Sums, sums of squares, and how many: one row each.
    sums = torch.zeros(3, codec.latent_channels, dtype=torch.float64, device=device)
    with torch.no_grad():
        for number in range(fabric.global_rank, 60, fabric.world_size):
            rng = np.random.default_rng([2, number])
            x, _ = clean_batch(scans.train, 2, rng, scans.options)
            raw = codec.raw(x.to(device))[0].double().transpose(0, 1).flatten(1)
            parts = [raw.sum(1), raw.square().sum(1), torch.full_like(raw[:, 0], raw[0].numel())]
            sums += torch.stack(parts)
    total, squares, count = reduced(fabric, sums, "sum")
    codec.set_statistics(total, squares, int(count[0]))
    x, _ = clean_batch(scans.train, 8, np.random.default_rng(2), scans.options)
    codec.measure_noise_gain(x.to(device), 0.05, torch.Generator().manual_seed(3))
