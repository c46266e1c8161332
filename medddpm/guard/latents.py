"""Is a scan like those that the model was trained on? Its latents tell.

The autoencoder was trained to describe those scans, so contrast, texture and noise that it knows
give latents with statistics that it knows. The mean and the logarithm of the standard deviation of
each channel over the body stand for a scan; `known.py` compares them with those of others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
_FEWEST = 50
_INSIDE = 0.75


def latent_features(latents: Array, inside: NDArray[np.bool_]) -> Array | None:
    """(2 C,): mean and log standard deviation of each channel; None for too few latent voxels.

    Args:
        latents: (C, N), standardised.
        inside: (N,) True in the body.
    """
    if inside.sum() < _FEWEST:
        return None
    values = latents[:, inside].astype(np.float64)
    spread = np.log(np.maximum(values.std(axis=1), 1e-3))
    return np.concatenate([values.mean(axis=1), spread]).astype(np.float32)


def latent_mask(mask: NDArray[Any], factor: int) -> NDArray[np.bool_]:
    """The blocks of factor^3 voxels that lie in the mask for the most part; whole blocks only."""
    x, y, z = (n // factor for n in mask.shape)
    part = np.asarray(mask[: x * factor, : y * factor, : z * factor], np.float32)
    blocks = part.reshape(x, factor, y, factor, z, factor).mean(axis=(1, 3, 5))
    out: NDArray[np.bool_] = blocks >= _INSIDE
    return out
