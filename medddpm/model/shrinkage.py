"""A transform-domain estimate of the clean scan: where the learned networks start from.

Every 4x4x4 block of the scan, at every position, is shrunk in the DCT domain, twice: by a hard
threshold, and then by the Wiener gain that the first estimate suggests; overlapping blocks are
averaged, sparse ones counting more. It is the collaborative filter of Maggioni et al. 2013
(IEEE TIP 22:119, sections II and III) without its grouping of similar blocks, which is what
takes its time. Nothing in it is learned, and it returns its input as sigma goes to 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from medddpm.model.blocks import depth_to_space, space_to_depth
from medddpm.preprocess.noise import chi_moments

_BLOCK = 4
_THRESHOLD = 2.7
"""Of the first pass, in units of sigma (Maggioni et al. 2013, table II)."""
_SLAB = 2
"""Cells that are weighed together where no gradient is needed."""
_MOST = 8.0
"""Of the log of a learned factor: what is beyond changes nothing, but may overflow."""
_STEP = 0.01
"""Of the table that takes the noise bias off, in units of sigma."""


@dataclass(frozen=True)
class Evidence:
    """What is known of a batch of tiles before a learned network has seen it.

    Attributes:
        y: (B, 1, X, Y, Z) float32, the noisy scan on the intensity scale.
        base: (B, 1, X, Y, Z) float32, its shrunk estimate.
        sigma: (B, 1, 1, 1, 1), or (B, 1, X, Y, Z) for a map, on the intensity scale.
        spacing: (B, 3) mm.
        colour: (B, 64), standard deviation of the noise in each DCT coefficient of a block, in
            units of sigma: 1 everywhere for white noise; see `Colour.block_std`.
        coefficients: (B, X/2 + 2, Y/2 + 2, Z/2 + 2, 2, 64), DCT of both blocks of each cell of y
            in units of that; the grid has a cell more at each side than the scan.
        power: Same shape, the squared coefficients of a first estimate: the odds of keeping each.
        removed: (B, 1, X, Y, Z) float32, what the shrinkage took away, in units of sigma.
    """

    y: Tensor
    base: Tensor
    sigma: Tensor
    spacing: Tensor
    colour: Tensor
    coefficients: Tensor
    power: Tensor
    removed: Tensor


class Shrinkage(nn.Module):
    """Sliding 4x4x4 DCT shrinkage, as convolutions on the half-resolution grid.

    A block starts at one corner of its cell of 2x2x2 voxels or at the opposite one (two of the
    eight places lose 0.1 dB and take a quarter of the time), so a convolution of 3x3x3 cells
    takes all coefficients at once.
    """

    def __init__(self) -> None:
        super().__init__()
        analysis = _dct_kernels()
        self.analysis: Tensor
        self.synthesis: Tensor
        self.cover: Tensor
        self.register_buffer("analysis", analysis, persistent=False)
        adjoint = analysis.transpose(0, 1).flip(2, 3, 4).contiguous()
        self.register_buffer("synthesis", adjoint[:8], persistent=False)
        cover = adjoint[:8, :: _BLOCK**3].sign()  # where the first coefficient, the mean, reaches
        self.register_buffer("cover", cover.contiguous(), persistent=False)
        self.weigh = weigh

    @torch.no_grad()
    def forward(
        self,
        y: Tensor,
        sigma: Tensor,
        spacing: Tensor,
        coils: Tensor | int,
        colour: Tensor | None = None,
    ) -> Evidence:
        """The shrunk scan, without the bias of its noise, and what it was made of.

        Args:
            y: (B, 1, X, Y, Z) float32 on the intensity scale; X, Y, Z even and over 4.
            sigma: (B, 1, 1, 1, 1), or (B, 1, X, Y, Z) for a map, on the same scale.
            spacing: (B, 3) mm, handed on.
            coils: (B,) whole numbers, or one for all, coils of the magnitude: 1 is Rician noise, 0
                Gaussian.
            colour: (B, 64), as in `Evidence`; white if not given.

        Returns:
            The evidence; its base is not negative unless the noise is Gaussian.
        """
        # In units of the noise what is removed is about 1: safe in bfloat16.
        unit = (y.float() / sigma.float().clamp_min(1e-6)).clamp(-1e5, 1e5)
        if colour is None:
            colour = torch.ones(len(y), _BLOCK**3, device=y.device)
        coefficients = self._transform(unit, colour)
        ratio = coefficients / _THRESHOLD
        first = unit - self.removed(coefficients, ratio.square_().square_().square_(), colour)
        power = self._transform(first, colour).square_()
        removed = self.removed(coefficients, power, colour)
        mean = unit - removed
        if isinstance(coils, int):
            signal = _signal(mean, coils)
        else:
            each = zip(mean[:, None], coils, strict=True)
            signal = torch.cat([_signal(m, int(c)) for m, c in each])
        base = y - sigma * (unit - signal)
        return Evidence(y, base, sigma, spacing, colour, coefficients, power, removed)

    def removed(
        self, coefficients: Tensor, odds: Tensor, colour: Tensor, gains: Tensor | None = None
    ) -> Tensor:
        """What the gain odds / (odds + 1) takes away from the image: (B, 1, X, Y, Z) float32.

        Blocks that keep few coefficients count most in the average over blocks.

        Args:
            coefficients: As in `Evidence`.
            odds: Same shape, not negative.
            colour: (B, 64), as in `Evidence`.
            gains: (B, x, y, z, 130), log of factors of the odds and of both blocks' weights.
        """
        if torch.is_grad_enabled() or torch.compiler.is_exporting():
            lost, weight = self.weigh(coefficients, odds, colour, gains)
        else:  # slabs stay in the cache of a CPU: four times as fast
            places = [slice(i, i + _SLAB) for i in range(0, coefficients.shape[1], _SLAB)]
            parts = [
                self.weigh(
                    coefficients[:, p], odds[:, p], colour, None if gains is None else gains[:, p]
                )
                for p in places
            ]
            lost, weight = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
        total = F.conv3d(rearrange(lost, "b x y z k -> b k x y z"), self.synthesis)
        share = F.conv3d(rearrange(weight, "b x y z p -> b p x y z"), self.cover)
        return depth_to_space(total.float() / share.float(), 2)

    def texture(self, noise: Tensor, odds: Tensor, colour: Tensor, gains: Tensor) -> Tensor:
        """What the gains leave unknown of the scan, drawn once: (B, 1, X, Y, Z) in units of sigma.

        Where g of a coefficient y is kept, its signal has mean g y and variance g sigma^2 (Wiener
        filter of a Gaussian signal): unit noise times sqrt(g) turns the mean into a draw that has
        the power of the signal, g^2 (P + sigma^2) + g sigma^2 = P.

        Args:
            noise: (B, 1, X, Y, Z), white, of unit variance.
            odds: As in `removed`.
            colour: As in `removed`; the draw has it, as the noise of the scan has.
            gains: As in `removed`.
        """
        logs = gains[..., : 2 * _BLOCK**3].float().clamp(-_MOST, _MOST).reshape(odds.shape)
        root = (odds.float() * logs.exp()).add_(1).reciprocal_().neg_().add_(1).sqrt_()
        odds = root / (1 - root).clamp_min(1e-6)
        weights = F.pad(gains[..., 2 * _BLOCK**3 :], (2 * _BLOCK**3, 0))
        noise = self._coloured(noise, colour)
        return noise - self.removed(self._transform(noise, colour), odds, colour, weights)

    def _coloured(self, white: Tensor, colour: Tensor) -> Tensor:
        """White noise with the standard deviations of a colour in its blocks."""
        flat = torch.ones_like(colour)
        if torch.equal(colour, flat):
            return white
        coefficients = self._transform(white, flat)
        odds = torch.zeros_like(coefficients)
        means = white - self.removed(coefficients, odds, flat)
        first = colour[:, 0, None, None, None, None]
        return first * means + self.removed(coefficients, odds, colour)

    def _transform(self, image: Tensor, colour: Tensor) -> Tensor:
        """(B, 1, X, Y, Z) -> (B, x, y, z, 2, 64): two blocks a cell, over colour."""
        cells = space_to_depth(F.pad(image, (_BLOCK,) * 6, mode="reflect"), 2)
        # Two terms of bfloat16 hold an image that is hundreds of sigma bright.
        high = cells.bfloat16().float()
        both = torch.cat([high, cells - high], dim=1).contiguous(
            memory_format=torch.channels_last_3d
        )
        out = F.conv3d(both, self.analysis)
        out = rearrange(out, "b (p k) x y z -> b x y z p k", k=_BLOCK**3)
        return out / colour[:, None, None, None, None].to(out)


def weigh(
    coefficients: Tensor, odds: Tensor, colour: Tensor, gains: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Weighted lost coefficients (B, x, y, z, 128), and weights (B, x, y, z, 2); see `removed`."""
    kind, num = coefficients.dtype, _BLOCK**3
    if gains is None:
        odds, factor = odds.float(), None
    else:
        gains = gains.float().clamp(-_MOST, _MOST)
        odds = odds.float() * gains[..., : 2 * num].reshape(odds.shape).exp()
        factor = gains[..., 2 * num :].exp()
    # The first coefficient, the mean, is always kept.
    lost = F.pad((1 + odds[..., 1:]).reciprocal(), (1, 0))
    weight = (num - lost.sum(dim=-1)).reciprocal()
    if factor is not None:
        weight = weight * factor
    lost = lost * coefficients.float() * (weight[..., None] * colour[:, None, None, None, None])
    return lost.flatten(-2).to(kind), weight.to(kind)


def _signal(mean: Tensor, coils: int) -> Tensor:
    """The signal whose magnitude has this mean, both in units of sigma (Koay and Basser 2006)."""
    if coils == 0:
        return mean
    table = signal_table(coils).to(mean.device)
    place = (mean / _STEP).clamp(0, len(table) - 2)
    low = place.long()
    near = torch.lerp(table[low], table[low + 1], place - low)
    far = (mean.square() - (2 * coils - 1)).clamp_min(0).sqrt()
    return torch.where(mean < (len(table) - 2) * _STEP, near, far)


def signal_table(coils: int) -> Tensor:
    """The signal for means of 0, _STEP, 2 _STEP ... sigma, until its law is nearly Gaussian.

    Kept once made: who traces or compiles the shrinkage asks for it before.
    """
    if coils not in _TABLES:
        signal = np.concatenate([np.linspace(0, 1, 1001) ** 2, np.linspace(1, 30, 6001)[1:]])
        means, _ = chi_moments(signal, 2 * coils)
        grid = np.arange(0, means[-1], _STEP)
        _TABLES[coils] = torch.from_numpy(np.interp(grid, means, signal).astype(np.float32))
    return _TABLES[coils]


_TABLES: dict[int, Tensor] = {}


def _dct_kernels() -> Tensor:
    """(128, 16, 3, 3, 3): DCT-II of the blocks that start in a cell, for both input terms."""
    n = torch.arange(_BLOCK, dtype=torch.float64)
    basis = torch.cos(math.pi / _BLOCK * (n + 0.5) * n[:, None]) * math.sqrt(2 / _BLOCK)
    basis[0] /= math.sqrt(2)
    block = torch.einsum("ai,bj,ck->abcijk", basis, basis, basis).flatten(0, 2)
    kernels = torch.zeros(2, _BLOCK**3, 6, 6, 6, dtype=torch.float64)
    for place in (0, 1):
        inside = slice(place, place + _BLOCK)
        kernels[place, :, inside, inside, inside] = block
    cells = space_to_depth(kernels.flatten(0, 1)[:, None], 2)
    return torch.cat([cells, cells], dim=1).float()
