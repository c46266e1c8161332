"""Building blocks that the autoencoder, the denoiser and the fidelity decoder share.

No normalisation layers: a result then never depends on the tile that a voxel was in, and
convolutions, not memory traffic, take the time on a CPU. Conditions enter each block as a
scale and a shift (FiLM, Perez et al. 2018, eq. 2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

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
            nn.Linear(num_scalars * (1 + 2 * num_frequencies), width),
            nn.SiLU(),
            nn.Linear(width, width),
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
        self.film = nn.Linear(embedding_width, 2 * channels) if embedding_width else None
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
    """Residual U-Net with additive skips; features may be injected at one level.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        channels: Width of each level, finest first; each level halves the grid.
        num_blocks: Residual blocks a level on the way down, and again on the way up.
        embedding_width: Width of the condition vector.
        injected: (level, channels) of features that are added on that level, if any.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        num_blocks: int,
        embedding_width: int,
        injected: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv3d(in_channels, channels[0], 3, padding=1)
        self.inject_level = injected[0] if injected else -1
        self.inject = nn.Conv3d(injected[1], channels[injected[0]], 1) if injected else None

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

    def forward(self, x: Tensor, embedding: Tensor, injected: Tensor | None = None) -> Tensor:
        """(B, in, X, Y, Z), (B, width) -> (B, out, X, Y, Z); the grid halves at each level."""
        h = self.stem(x)
        skips = []
        for level, blocks in enumerate(self.down):
            if level:
                skips.append(h)
                h = self.shrink[level - 1](h)
            if level == self.inject_level and self.inject is not None and injected is not None:
                h = h + self.inject(injected)
            h = blocks(h, embedding)
        for level in reversed(range(len(self.up))):
            h = skips[level] + depth_to_space(self.grow[level](h), 2)
            h = self.up[level](h, embedding)
        out: Tensor = self.head(F.silu(h))
        return out


def channels_last(network: nn.Module) -> nn.Module:
    """The network with its weights in channels_last_3d, which CPUs and GPUs run fastest."""
    for parameter in network.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    return network


def log_spacing(spacing: Tensor) -> Tensor:
    """(B, 3) mm -> (B, 3), about [-1, 1] for 0.5 to 6 mm; 0 at 1 mm."""
    return torch.log(spacing.float().clamp(0.1, 20.0)) / 1.8


def scaled_log_sigma(sigma: Tensor) -> Tensor:
    """Sigma as a fraction of the intensity scale -> about [-1, 1] for 0.005 to 0.25."""
    return (torch.log(sigma.float().clamp(1e-4, 1.0)) + 3.3) / 2.0
