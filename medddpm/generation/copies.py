"""Is a draw a copy of a training scan? Asked of every draw before it is written."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_POOL = 4
"""Latent voxels along an axis that one element of an embedding averages."""


@dataclass(frozen=True)
class Likeness:
    """How near a draw comes to the training scan that is most like it.

    Attributes:
        similarity: Cosine of both differences from the mean head, 1 for the same head.
        threshold: What held-out heads reach against the training scans; more is a copy.
    """

    similarity: float
    threshold: float

    @property
    def is_copy(self) -> bool:
        """True if it is more like a training scan than another person's scan is."""
        return self.similarity > self.threshold


def embedding(u: Tensor) -> Tensor:
    """(B, D) rows of unit length of standardised differences (B, C, X, Y, Z).

    The mean head is taken off already, so that what all heads share does not count.
    """
    pooled = F.avg_pool3d(u.float(), _POOL, ceil_mode=True).flatten(1)
    return F.normalize(pooled, dim=1)


def nearest(u: Tensor, memory: Tensor) -> Tensor:
    """(B,) highest cosine of each draw with a training scan; `memory` is (N, D) of `embedding`."""
    return (embedding(u) @ memory.float().T).amax(1)


def threshold_of(held: Tensor, share: float = 0.99) -> float:
    """The similarity that so large a share of held-out heads (N,) stays below."""
    return float(torch.quantile(held, share))
