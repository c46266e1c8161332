"""What the autoencoder makes of a restored scan: the ceiling of the method, and how familiar it is.

A few tiles tell; they are spread over the scan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from medddpm.guard.latents import latent_features, latent_mask
from medddpm.model.model import Model
from medddpm.preprocess.tiles import TilePlan, pad_mirrored, plan_tiles
from medddpm.restoration.options import RestoreOptions
from medddpm.restoration.tile import uses_bf16

Array = NDArray[np.float32]
_TILES = 4
_EDGE, _OVERLAP = 96, 16
"""In voxels, whatever the restoration's are: the guard compares features of the same tiles."""
_AIR = 0.05
"""Fraction of the intensity scale: below it there is little to describe."""


@dataclass(frozen=True)
class Probe:
    """What was found.

    Attributes:
        ceiling: PSNR in dB, data range 1, of the scan through the autoencoder and back, in the
            body; NaN where there is none.
        features: See `latent_features`, or None for a scan with hardly a body.
    """

    ceiling: float
    features: Array | None


@torch.inference_mode()
def probe(model: Model, x_hat: Array, options: RestoreOptions, device: torch.device) -> Probe:
    """Encode and decode up to four tiles of the restored scan, those with most of the body in it.

    Args:
        model: On `device`.
        x_hat: (X, Y, Z), as a fraction of the intensity scale.
        options: Of the restoration: in bfloat16 or not.
        device: Where the networks run.
    """
    x, y, z = x_hat.shape
    plan = plan_tiles((x, y, z), _EDGE, _OVERLAP, model.multiple)
    bf16 = uses_bf16(options, device)
    padded = pad_mirrored(x_hat, plan.padded)
    factor = model.spec.autoencoder.factor
    errors, latents, masks = [], [], []
    for tile in _fullest(padded, plan):
        inside = tile > _AIR
        image = torch.from_numpy(np.ascontiguousarray(tile)).to(device)[None, None]
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            latent = model.codec.encode(image)
            error = (model.codec.decode(latent) - image).square()[0, 0].cpu().numpy()
        errors.append(error[inside])
        latents.append(latent[0].flatten(1).float().cpu().numpy())
        masks.append(latent_mask(inside, factor).ravel())
    if not errors:
        return Probe(float("nan"), None)
    mse = float(np.mean(np.concatenate(errors), dtype=np.float64))
    features = latent_features(np.concatenate(latents, axis=1), np.concatenate(masks))
    return Probe(-10 * math.log10(max(mse, 1e-12)), features)


def _fullest(padded: Array, plan: TilePlan) -> list[Array]:
    tiles = [padded[plan.slices(start)] for start in plan.starts]
    bodies = [int((tile[::2, ::2, ::2] > _AIR).sum()) for tile in tiles]
    best = sorted(np.argsort(bodies, kind="stable")[::-1][:_TILES].tolist())
    return [tiles[i] for i in best if bodies[i] > 0]
