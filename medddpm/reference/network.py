"""The reference network: what a scan of another contrast adds to a restoration.

What `mean` removed is noise, and some anatomy that it took for noise. A border that a scan of
another contrast has too is found in there by a local regression on that contrast, as in a guided
filter (He et al., IEEE TPAMI 35:1397, 2013, eq. 5 and 6): over a small window the removed part is a
multiple of the reference's detail, and noise. A small network says at each voxel how much of
these estimates, over three windows, is given back: x_hat = mean + sigma * sum of gates * estimates,
as gains are far quicker to learn than pixels (Bako et al. 2017, section 4). It sees how sure each
slope is and no intensity, so that neither the contrast of the reference nor its sign matters. It
can give back what the scan itself holds, and nothing else. As sigma goes to 0, and before anything
is learned, the output is `mean`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval, Len
from torch import Tensor, nn
from torch.nn import functional as F

from medddpm.model.blocks import log_spacing, scaled_log_sigma

_Width = Annotated[int, Interval(ge=1, le=1024)]
_WINDOWS = (3, 5, 9)
"""Edges of the windows of the regressions, in voxels."""
_FLAT = 1e-5
"""Variance of a reference, at intensity scale 1, in a window without a border."""
_DOUBT = 4.0
"""Chi-squared of a slope that is believed by a half."""
_MOST = 8.0
"""Of an estimate, in units of the noise."""


@dataclass(frozen=True)
class ReferenceSpec:
    """What rebuilds the network.

    Attributes:
        channels: Width of each hidden layer.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    channels: Annotated[tuple[_Width, ...], Len(1, 8)] = (32, 32, 32)


class ReferenceNetwork(nn.Module):
    """Gates of what local regressions find, voxel by voxel.

    Args:
        spec: Its size.
    """

    def __init__(self, spec: ReferenceSpec) -> None:
        super().__init__()
        self.spec = spec
        widths = [5 * len(_WINDOWS) + 4, *spec.channels]
        self.hidden = nn.ModuleList(nn.Conv3d(a, b, 1) for a, b in pairwise(widths))
        self.gates = nn.Conv3d(widths[-1], 2 * len(_WINDOWS), 1)
        for parameter in self.gates.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self,
        y: Tensor,
        mean: Tensor,
        reference: Tensor,
        sigma: Tensor,
        spacing: Tensor,
        every: int = 1,
    ) -> Tensor:
        """What `mean` has wrong, (x - mean) / sigma: (B, 1, X, Y, Z) float32.

        Args:
            y: (B, 1, X, Y, Z), the noisy scan on the intensity scale.
            mean: Same shape, its restoration.
            reference: Same shape, on an intensity scale of its own; 0 where there is none.
            sigma: Same shape, on the intensity scale.
            spacing: (B, 3) mm.
            every: Of so many voxels along each axis one is answered, to train in less time.
        """
        unit = sigma.clamp_min(1e-4)
        estimates, doubts = guided((y - mean) / unit, reference)
        edges = [_variance(mean / unit, width).sqrt().log1p() for width in _WINDOWS]
        known = log_spacing(spacing)[:, :, None, None, None].expand(-1, -1, *y.shape[2:])
        h = torch.cat([estimates.abs(), doubts, *edges, scaled_log_sigma(sigma), known], dim=1)
        h, estimates = (image[..., ::every, ::every, ::every] for image in (h, estimates))
        for layer in self.hidden:
            h = F.silu(layer(h))
        gates: Tensor = self.gates(h).float()
        return (gates * estimates).sum(dim=1, keepdim=True)


def guided(removed: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """What of a removed part goes with a reference, by local regressions.

    Args:
        removed: (B, 1, X, Y, Z), in units of the noise.
        reference: Same shape.

    Returns:
        (B, 6, X, Y, Z): for each window the fit at its centre, and the mean of the fits of all
        windows that hold the voxel, each shrunk by its doubt; and (B, 6, X, Y, Z), for each window
        the log of 1 + the chi-squared of its slope, about 0.5 where the reference has nothing to
        do with it, and the log of the variance of the reference.
    """
    estimates, doubts = [], []
    for width in _WINDOWS:
        middle = _box(reference, width)
        spread = _variance(reference, width) + _FLAT
        shared = _box(removed * reference, width) - _box(removed, width) * middle
        slope = shared / spread
        chi2 = width**3 * shared.square() / spread
        shrunk = slope * chi2 / (chi2 + _DOUBT)
        estimates.append(slope * (reference - middle))
        estimates.append(_box(shrunk, width) * reference - _box(shrunk * middle, width))
        doubts += [torch.log1p(chi2), torch.log(spread / _FLAT) / 4]
    return torch.cat(estimates, dim=1).clamp(-_MOST, _MOST), torch.cat(doubts, dim=1)


def _variance(image: Tensor, width: int) -> Tensor:
    """Over a cube of `width` voxels around each one."""
    return (_box(image.square(), width) - _box(image, width).square()).clamp_min(0)


def _box(image: Tensor, width: int) -> Tensor:
    """Mean over a cube of `width` voxels, of what is there of it."""
    for axis in range(3):
        size, pad = [1, 1, 1], [0, 0, 0]
        size[axis], pad[axis] = width, width // 2
        image = F.avg_pool3d(image, size, stride=1, padding=pad, count_include_pad=False)
    return image
