"""Building blocks that the autoencoder, the denoiser and the fidelity decoder share.

No normalisation layers: a result then never depends on the tile that a voxel was in, and
convolutions, not memory traffic, take the time on a CPU. Conditions enter each block as a
scale and a shift (FiLM, Perez et al. 2018, eq. 2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F


def space_to_depth(x: Tensor, factor: int) -> Tensor:
    """(B, C, X, Y, Z) -> (B, C f^3, X/f, Y/f, Z/f): moves voxel blocks into channels."""
    return rearrange(x, "b c (x i) (y j) (z k) -> b (c i j k) x y z", i=factor, j=factor, k=factor)


def depth_to_space(x: Tensor, factor: int) -> Tensor:
    """The inverse of `space_to_depth`."""
    return rearrange(x, "b (c i j k) x y z -> b c (x i) (y j) (z k)", i=factor, j=factor, k=factor)


class RowLinear(nn.Linear):
    """Linear layer that takes row by row, so that no row depends on how many there are.

    A matrix product of one row and of eight round differently, and tiles would differ with the
    memory budget.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, in) -> (B, out)."""
        if torch.compiler.is_exporting():  # a graph for any B
            return super().forward(x)
        rows = torch.split(x, 1)
        return torch.cat([super(RowLinear, self).forward(row) for row in rows])


class ConditionEmbedding(nn.Module):
    """Maps scalar conditions (B, N) to one vector (B, width) by Fourier features and an MLP.

    The caller scales the scalars to about [-1, 1].
    """

    def __init__(self, num_scalars: int, width: int = 128, num_frequencies: int = 8) -> None:
        super().__init__()
        self.frequencies: Tensor
        frequencies = math.pi * 2.0 ** torch.arange(-1.0, num_frequencies / 2 - 1, 0.5)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.mlp = nn.Sequential(
            RowLinear(num_scalars * (1 + 2 * num_frequencies), width),
            nn.SiLU(),
            RowLinear(width, width),
            nn.SiLU(),
        )

    def forward(self, scalars: Tensor) -> Tensor:
        """(B, N) float32 -> (B, width)."""
        phases = scalars[..., None] * self.frequencies
        features = torch.cat([scalars[..., None], phases.sin(), phases.cos()], dim=-1)
        embedding: Tensor = self.mlp(features.flatten(1))
        return embedding


class ResBlock(nn.Module):
    """Two 3x3x3 convolutions around a residual, modulated by the condition vector if any."""

    def __init__(self, channels: int, embedding_width: int = 0) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)
        self.film = RowLinear(embedding_width, 2 * channels) if embedding_width else None
        # Small, not zero: a stack of blocks starts near the identity, and gradients flow.
        with torch.no_grad():
            self.conv2.weight.mul_(0.2)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """(B, C, X, Y, Z) -> the same shape."""
        h: Tensor = self.conv1(F.silu(x))
        if self.film is not None and embedding is not None:
            scale, shift = self.film(embedding)[:, :, None, None, None].chunk(2, dim=1)
            h = torch.addcmul(shift, h, 1 + scale)
        h = self.conv2(F.silu(h))
        return x + h


class _Stage(nn.ModuleList):
    """The residual blocks of one level and direction."""

    def __init__(self, width: int, num_blocks: int, embedding_width: int) -> None:
        super().__init__(ResBlock(width, embedding_width) for _ in range(num_blocks))

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        for block in self:
            h = block(h, embedding)
        return h


class UNet(nn.Module):
    """Residual U-Net with additive skips.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        channels: Width of each level, finest first; each level halves the grid.
        num_blocks: Residual blocks a level on the way down, and again on the way up.
        embedding_width: Width of the condition vector.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        num_blocks: int,
        embedding_width: int,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv3d(in_channels, channels[0], 3, padding=1)

        def stage(width: int) -> _Stage:
            return _Stage(width, num_blocks, embedding_width)

        self.down = nn.ModuleList(stage(width) for width in channels)
        self.up = nn.ModuleList(stage(width) for width in channels[:-1])
        pairs = list(pairwise(channels))
        self.shrink = nn.ModuleList(nn.Conv3d(a, b, 2, stride=2) for a, b in pairs)
        self.grow = nn.ModuleList(nn.Conv3d(b, 8 * a, 1) for a, b in pairs)
        self.head = nn.Conv3d(channels[0], out_channels, 3, padding=1)
        with torch.no_grad():
            self.head.weight.mul_(0.2)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, in, X, Y, Z), (B, width) -> (B, out, X, Y, Z); the grid halves at each level."""
        h = self.stem(x)
        skips = []
        for level, blocks in enumerate(self.down):
            if level:
                skips.append(h)
                h = self.shrink[level - 1](h)
            h = blocks(h, embedding)
        for level in reversed(range(len(self.up))):
            h = skips[level] + depth_to_space(self.grow[level](h), 2)
            h = self.up[level](h, embedding)
        out: Tensor = self.head(F.silu(h))
        return out


class NormedConv(nn.Module):
    """Convolution whose filters have unit norm, so that it keeps the variance of its input.

    Training renormalises them in place: weights cannot grow, nothing dies, and a high learning
    rate is safe with no normalisation of activations (Karras et al. 2024, "Analyzing and
    improving the training dynamics of diffusion models", section 2.3 and algorithm 1).
    """

    def __init__(
        self, inputs: int, outputs: int, size: int = 3, stride: int = 1, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.gain = gain
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size, size))
        self.stride = stride
        self.padding = size // 2 if stride == 1 else 0

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, X, Y, Z) -> (B, outputs, X/stride, Y/stride, Z/stride)."""
        size = self.weight[0].numel() ** 0.5
        with torch.no_grad():
            norm = self.weight.flatten(1).norm(dim=1)[:, None, None, None, None] + 1e-6
            if self.training:
                self.weight.mul_(size / norm)
        # In training the norm is now `size`; a step along the weight itself is undone by the next.
        weight = self.weight * (self.gain / (size if self.training else norm))
        return F.conv3d(x, weight, stride=self.stride, padding=self.padding)


SILU_GAIN = 1 / 0.596
"""Keeps the variance of normal input after SiLU (Karras et al. 2024, eq. 81)."""


def blend(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Weighted sum that keeps the variance of uncorrelated inputs (Karras et al. 2024, eq. 88)."""
    norm = math.hypot(1 - share, share)
    return torch.add(a * ((1 - share) / norm), b, alpha=share / norm)


class NormedBlock(nn.Module):
    """Residual block of two `NormedConv`, scaled by the condition vector."""

    def __init__(self, channels: int, embedding_width: int) -> None:
        super().__init__()
        self.conv1 = NormedConv(channels, channels, gain=SILU_GAIN)
        self.conv2 = NormedConv(channels, channels, gain=SILU_GAIN)
        self.film = RowLinear(embedding_width, channels)
        self.film_gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, C, X, Y, Z), (B, width) -> (B, C, X, Y, Z)."""
        h = self.conv1(F.silu(x))
        h = h * (1 + self.film_gain * self.film(embedding))[:, :, None, None, None]
        return blend(x, self.conv2(F.silu(h)), 0.3)


class NormedUNet(nn.Module):
    """U-Net of `NormedBlock`s that returns features; others are injected at one level.

    Args:
        in_channels: Channels of the input.
        channels: Width of each level, finest first; each level halves the grid.
        num_blocks: Residual blocks a level on the way down, and again on the way up.
        embedding_width: Width of the condition vector.
        injected: (level, channels) of the features that are mixed in on that level, if any.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        num_blocks: int,
        embedding_width: int,
        injected: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        # One channel of ones takes the place of all biases.
        self.stem = NormedConv(in_channels + 1, channels[0])
        self.inject_level = -1 if injected is None else injected[0]
        if injected is not None:
            self.inject = NormedConv(injected[1], channels[injected[0]], 1)

        def stage(width: int) -> nn.ModuleList:
            return nn.ModuleList(NormedBlock(width, embedding_width) for _ in range(num_blocks))

        self.down = nn.ModuleList(stage(width) for width in channels)
        self.up = nn.ModuleList(stage(width) for width in channels[:-1])
        pairs = list(pairwise(channels))
        self.shrink = nn.ModuleList(NormedConv(a, b, 2, stride=2) for a, b in pairs)
        self.grow = nn.ModuleList(NormedConv(b, 8 * a, 1) for a, b in pairs)

    def forward(self, x: Tensor, embedding: Tensor, injected: Tensor | None = None) -> Tensor:
        """(B, in, X, Y, Z), (B, width) -> (B, channels[0], X, Y, Z), after a SiLU."""
        h = self.stem(torch.cat([x, torch.ones_like(x[:, :1])], dim=1))
        skips = []
        for level, stage in enumerate(self.down):
            if level:
                skips.append(h)
                h = self.shrink[level - 1](h)
            if level == self.inject_level and injected is not None:
                h = blend(h, self.inject(injected), 0.3)
            for block in cast(nn.ModuleList, stage):
                h = block(h, embedding)
        for level in reversed(range(len(self.up))):
            h = blend(skips[level], depth_to_space(self.grow[level](h), 2), 0.5)
            for block in cast(nn.ModuleList, self.up[level]):
                h = block(h, embedding)
        return F.silu(h)


def channels_last(network: nn.Module) -> nn.Module:
    """The network with its weights in channels_last_3d, which CPUs and GPUs run fastest."""
    for parameter in network.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    return network


def log_spacing(spacing: Tensor) -> Tensor:
    """(B, 3) mm -> (B, 3), about [-1, 1] for 0.5 to 6 mm; 0 at 1 mm."""
    return torch.log(spacing.float().clamp(0.1, 20.0)) / 1.8


def colour_features(colour: Tensor) -> Tensor:
    """(B, 64) noise of a block's coefficients -> (B, 7), in [-1, 0.2]: the faces and corners.

    Log of the standard deviation of the highest coefficient along each axis, each pair, and all.
    """
    block = colour.float().reshape(-1, 4, 4, 4)
    corners = [(3, 0, 0), (0, 3, 0), (0, 0, 3), (0, 3, 3), (3, 0, 3), (3, 3, 0), (3, 3, 3)]
    picked = torch.stack([block[:, i, j, k] for i, j, k in corners], dim=1)
    return picked.clamp(0.03, 2).log() / 3.5


def scaled_log_sigma(sigma: Tensor) -> Tensor:
    """Sigma as a fraction of the intensity scale -> about [-1, 1] for 0.005 to 0.25."""
    return (torch.log(sigma.float().clamp(1e-4, 1.0)) + 3.3) / 2.0
