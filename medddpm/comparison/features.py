"""What of a head the distances are taken of: brightness and detail, region by region.

Not features of the autoencoder: some methods draw its latents, and one that fits their mean and
deviation alone would look perfect.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_BANDS = 3
"""Scales of detail: one, two and four voxels."""
_FLOOR = 1e-3


def regional_features(head: Tensor) -> Tensor:
    """(16,) of a head (1, 1, X, Y, Z) on the intensity scale.

    In each quarter (back or front, low or high): the mean, and the log of the deviation in three
    bands of a Laplacian pyramid (Burt & Adelson 1983).
    """
    found, x = [], head.float()
    for _ in range(_BANDS):
        coarse = F.avg_pool3d(x, 2, ceil_mode=True)
        back = F.interpolate(coarse, size=x.shape[2:], mode="trilinear", align_corners=False)
        found.append((_quarters((x - back).square()).sqrt() + _FLOOR).log())
        x = coarse
    return torch.cat([_quarters(x), *found])


def _quarters(x: Tensor) -> Tensor:
    """(4,) means."""
    return F.adaptive_avg_pool3d(x, (1, 2, 2)).flatten()
