"""MONAI's AutoencoderKL behind a space-to-depth stem, with the interface of `CompactVae`."""

from __future__ import annotations

import math

import torch
from monai.networks.nets.autoencoderkl import AutoencoderKL
from torch import Tensor, nn

from medddpm.model.blocks import depth_to_space, space_to_depth

_STEM = 2


class StemmedAutoencoderKL(nn.Module):
    """AutoencoderKL (Rombach et al. 2022) that starts at half resolution.

    Args:
        latent_channels: Channels of the latent.
        factor: Downsampling an axis in all; the stem does 2 of it.
        channels: Width at half resolution and at each coarser level; the last one is repeated.
    """

    def __init__(self, latent_channels: int, factor: int, channels: tuple[int, int]) -> None:
        super().__init__()
        levels = int(math.log2(factor // _STEM)) + 1
        widths = [channels[0], *[channels[1]] * (levels - 1)]
        self.factor = factor
        self.network = AutoencoderKL(
            spatial_dims=3,
            in_channels=_STEM**3,
            out_channels=_STEM**3,
            channels=widths,
            num_res_blocks=1,
            attention_levels=[False] * levels,
            latent_channels=latent_channels,
            norm_num_groups=min(16, *widths),
            with_encoder_nonlocal_attn=False,
            with_decoder_nonlocal_attn=False,
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As `CompactVae.encode`."""
        mean, std = self.network.encode(space_to_depth(x, _STEM))
        return mean, std

    def decode(self, z: Tensor) -> Tensor:
        """As `CompactVae.decode`."""
        return depth_to_space(self.network.decode(z).float(), _STEM)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `CompactVae.forward`."""
        mean, std = self.encode(x)
        mean, std = mean.float(), std.float()
        return self.decode(mean + std * torch.randn_like(mean)), mean, std
