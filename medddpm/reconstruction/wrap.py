"""Whether the object reaches the edge of its field of view, where it folds onto its other side."""

from __future__ import annotations

import torch
from torch import Tensor

from medddpm.operators.fourier import ifft
from medddpm.operators.nufft import NufftSense
from medddpm.reconstruction.problem import Problem

_BRIGHT = 0.3
"""Of bright tissue: voxels above it are object."""
_SHARE = 0.1
"""Of the voxels at an edge: more of them are no tip of a nose."""
_NAMES = ("readout (x)", "phase encoding (y)", "second phase encoding (z)")


def wrap_notices(problem: Problem) -> list[str]:
    """One sentence an axis along which the object reaches both edges; none if there is air.

    The sensitivity of a coil does not go on smoothly from one edge to the other. ESPIRiT takes the
    kernels of both for one, and its maps are wrong there (Uecker et al., Magn Reson Med 71:990,
    2014, section on fields of view that are too small). An axis that was read out does not fold.

    Args:
        problem: Its centre is looked at, in low resolution.
    """
    first = 0 if isinstance(problem.sense, NufftSense) else 1
    shares = edge_shares(problem.centre)
    return [
        f"the object reaches both edges of the field of view along {_NAMES[axis]} "
        f"({100 * share:.0f} % of the voxels there): it may fold, and sensitivities are wrong "
        "near these edges; take a larger field of view along it, or do not trust them"
        for axis, share in enumerate(shares)
        if axis >= first and share > _SHARE
    ]


def edge_shares(centre: Tensor) -> list[float]:
    """For each axis the share of object among the voxels of its emptier edge; 0 of a short axis.

    Args:
        centre: (B, C, x, y, z) k-space.
    """
    low = centre
    for axis in (2, 3, 4):
        length = centre.shape[axis]
        if length > 1:  # against ringing
            place = (torch.arange(length) - length // 2) / (length / 2)
            window = 0.54 + 0.46 * torch.cos(torch.pi * place)
            low = low * window.reshape([-1 if a == axis else 1 for a in range(5)])
    image = ifft(low).abs().square().sum(dim=1).sqrt()
    bright = image > _BRIGHT * torch.quantile(image.flatten(), 0.99)
    shares = []
    for axis in (1, 2, 3):
        length = bright.shape[axis]
        ends = [bright.select(axis, end).float().mean() for end in (0, length - 1)]
        shares.append(float(min(ends)) if length > 1 else 0.0)
    return shares
