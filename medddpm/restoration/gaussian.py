"""Real images with known Gaussian noise through `mean`, bare: no look at the values, no guard.

The step of an iteration, where the noise is known; `Restorer.restore` is for scans.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from medddpm.errors import SamplingDivergedError
from medddpm.model.model import Model
from medddpm.preprocess.noise_law import NoiseLaw
from medddpm.preprocess.tiles import batches, blended, pad_mirrored, plan_tiles
from medddpm.restoration.memory import tile_batch
from medddpm.restoration.options import RestoreOptions
from medddpm.restoration.tile import TileRestorer

Array = NDArray[np.float32]


def denoise_gaussian(
    model: Model,
    image: Array,
    law: NoiseLaw,
    spacing: Sequence[float],
    *,
    options: RestoreOptions,
    device: torch.device,
    learned: bool = True,
) -> Array:
    """The expected clean image: (X, Y, Z) float32, of either sign.

    Args:
        model: The networks, on `device`.
        image: (X, Y, Z), bright tissue about 1.
        law: Its noise, of which level and colour count.
        spacing: Voxel size in mm.
        options: Tiles, shifts, memory; mode and noise are "mean" and "gaussian".
        device: Where the networks run.
        learned: By the networks; else by the shrinkage that they start from, a tenth of the time.

    Raises:
        SamplingDivergedError: A network produced NaN or infinity.
    """
    x, y, z = image.shape
    plan = plan_tiles((x, y, z), options.tile, options.overlap, model.multiple)
    padded = pad_mirrored(image, plan.padded)
    sigma = law.sigma
    level = sigma if isinstance(sigma, float) else pad_mirrored(sigma, plan.padded)
    law = NoiseLaw("gaussian", 1, level, law.colour)
    tiles = TileRestorer(model, device, law, spacing, options.seed, options)
    groups = batches(plan, tile_batch(plan, options.memory_gb, device, model), padded == 0)

    def denoised(stack: Array, group: list[tuple[int, int, int]]) -> Array:
        return tiles.restore(stack, group, 0) if learned else tiles.shrunk(stack, group)

    out = blended(plan, padded, groups, denoised)
    if not np.isfinite(out).all():
        raise SamplingDivergedError("the denoised image holds NaN or infinity; nothing was kept")
    return out
