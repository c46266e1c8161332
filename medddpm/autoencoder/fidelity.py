"""The fidelity decoder: the image from the latent *and* the scan, x_hat = D(z0, y, sigma).

A plain decoder can give back no more than the bottleneck holds. This one also sees the noisy
scan and predicts its noise in units of sigma, x_hat = y - sigma * F(y, z0, sigma, spacing, t):
as sigma goes to 0 the output is the input by construction; at high noise z0 carries the image.

It is trained on x0-predictions of the diffusion network from every noise level t, with t as a
condition. At the terminal level the prediction is E[z0 | y], and F learns E[x | y]; near the
clean level it is a posterior sample, and F learns E[x | y, z0], so that another sample of z0
gives another plausible image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medddpm.networks import (
    ConditionEmbedding,
    UNet,
    depth_to_space,
    log_spacing,
    scaled_log_sigma,
    space_to_depth,
)


class FidelityDecoder(nn.Module):
    """Half-resolution U-Net over y that takes z0 on the level of the latent grid.

    Args:
        latent_channels: Channels of z0.
        factor: Voxels a latent voxel along one axis; a power of two, at least 2.
        channels: Width of each level; the first runs at half resolution.
        num_blocks: Residual blocks a level and direction.
        embedding_width: Width of the condition vector.
    """

    def __init__(
        self,
        latent_channels: int = 16,
        factor: int = 4,
        channels: Sequence[int] = (64, 96, 128),
        num_blocks: int = 2,
        embedding_width: int = 128,
    ) -> None:
        super().__init__()
        self.embed = ConditionEmbedding(5, embedding_width)
        level = int(math.log2(factor)) - 1
        self.unet = UNet(
            17, 8, channels, num_blocks, embedding_width, injected=(level, latent_channels)
        )

    def forward(
        self, y: Tensor, z0: Tensor, sigma: Tensor, spacing: Tensor, angle: Tensor
    ) -> Tensor:
        """The restored image.

        Args:
            y: (B, 1, X, Y, Z) float32, noisy scan on the intensity scale.
            z0: (B, C, X/f, Y/f, Z/f), standardised latent.
            sigma: (B, 1, 1, 1, 1), or (B, 1, X, Y, Z) for a map, on the intensity scale.
            spacing: (B, 3) mm.
            angle: (B,) noise level, in radians, that z0 was predicted from; pi/2 = terminal.

        Returns:
            (B, 1, X, Y, Z) float32.
        """
        return y - sigma * self.noise(y, z0, sigma, spacing, angle)

    def noise(self, y: Tensor, z0: Tensor, sigma: Tensor, spacing: Tensor, angle: Tensor) -> Tensor:
        """(y - x_hat) / sigma, shape of y: what the network itself predicts."""
        smooth = F.avg_pool3d(y, 3, stride=1, padding=1, count_include_pad=False)
        # The high-pass keeps noise visible in bfloat16; asinh keeps edges from swamping it.
        detail = torch.asinh((y - smooth) / sigma.clamp_min(1e-4))
        log_map = scaled_log_sigma(sigma).expand_as(y)[..., ::2, ::2, ::2]
        inputs = torch.cat([space_to_depth(y, 2), space_to_depth(detail, 2), log_map], dim=1)
        mean_sigma = scaled_log_sigma(sigma).flatten(1).mean(dim=1, keepdim=True)
        scalars = [mean_sigma, log_spacing(spacing), angle[:, None].float() / (math.pi / 2)]
        out = self.unet(inputs, self.embed(torch.cat(scalars, dim=1)), z0)
        return depth_to_space(out.float(), 2)
