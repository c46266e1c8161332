"""An orthonormal wavelet transform in one, two or three dimensions, periodic, in torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_DAUBECHIES_2 = (0.48296291314453416, 0.8365163037378079, 0.2241438680420134, -0.12940952255126037)
"""The low-pass of four taps (Daubechies 1988, table 1), as in BART."""
_LEVELS = 4
_SHORTEST = 8
"""Voxels along an axis that is still split."""


class Wavelet:
    """Daubechies' wavelets of four taps on a grid of any size.

    Args:
        shape: X, Y, Z; an axis is split while its length is even and 8 or more.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.plans: list[list[int]] = []
        sizes = list(shape)
        for _ in range(_LEVELS):
            axes = [a for a in range(3) if sizes[a] % 2 == 0 and sizes[a] >= _SHORTEST]
            if not axes:
                break
            self.plans.append(axes)
            sizes = [n // 2 if a in axes else n for a, n in enumerate(sizes)]
        self.coarse = sizes

    def forward(self, image: Tensor) -> Tensor:
        """Coefficients (..., X, Y, Z); the smooth part lies in the first corner."""
        out = image.clone()
        sizes = list(image.shape[-3:])
        for axes in self.plans:
            box = out[..., : sizes[0], : sizes[1], : sizes[2]]
            part = box
            for axis in axes:
                part = _split(part, axis - 3)
            box.copy_(part)
            sizes = [n // 2 if a in axes else n for a, n in enumerate(sizes)]
        return out

    def inverse(self, coefficients: Tensor) -> Tensor:
        """The image; `forward` is orthonormal."""
        out = coefficients.clone()
        sizes = list(self.coarse)
        for axes in reversed(self.plans):
            sizes = [2 * n if a in axes else n for a, n in enumerate(sizes)]
            box = out[..., : sizes[0], : sizes[1], : sizes[2]]
            part = box
            for axis in reversed(axes):
                part = _joined(part, axis - 3)
            box.copy_(part)
        return out

    def shrunk(self, coefficients: Tensor, threshold: float) -> Tensor:
        """Soft thresholding of all but the smooth part."""
        x, y, z = self.coarse
        smooth = coefficients[..., :x, :y, :z].clone()
        size = coefficients.abs()
        out = coefficients * ((size - threshold).clamp_min(0) / size.clamp_min(1e-30))
        out[..., :x, :y, :z] = smooth
        return out


def _taps(like: Tensor) -> tuple[Tensor, Tensor]:
    low = torch.tensor(_DAUBECHIES_2, device=like.device)
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0], device=like.device)
    return low, low.flip(0) * sign


def _split(x: Tensor, axis: int) -> Tensor:
    """Low and then high frequencies along an axis: sum_k h[k] x[2 n + k]."""
    low, high = _taps(x)
    even, odd = x.unfold(axis, 2, 2).unbind(-1)
    later = (even, odd, torch.roll(even, -1, axis), torch.roll(odd, -1, axis))
    return torch.cat([_summed(low, later), _summed(high, later)], dim=axis)


def _joined(x: Tensor, axis: int) -> Tensor:
    """The adjoint of `_split`, and its inverse."""
    taps = _taps(x)
    half = x.shape[axis] // 2
    parts = x.narrow(axis, 0, half), x.narrow(axis, half, half)
    out = torch.empty_like(x)
    for place in (0, 1):
        here = _summed([t[place] for t in taps], parts)
        before = _summed([t[place + 2] for t in taps], parts)
        out.unfold(axis, 2, 2).select(-1, place).copy_(here + torch.roll(before, 1, axis))
    return out


def _summed(weights: Sequence[Tensor] | Tensor, parts: Sequence[Tensor]) -> Tensor:
    out = weights[0] * parts[0]
    for weight, part in zip(weights[1:], parts[1:], strict=True):
        out = out + weight * part
    return out
