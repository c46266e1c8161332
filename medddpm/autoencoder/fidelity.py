"""The fidelity decoder: the image from the latent *and* the scan, x_hat = D(z0, y, sigma).

A plain decoder can give back no more than the bottleneck holds. This one also sees the noisy
scan y, its shrunk estimate b and the plain decoding d of z0, and corrects b in units of sigma,
x_hat = b - sigma * F(y, b, d, z0, sigma, spacing, t): as sigma goes to 0 so does b - y, and the
output is the input by construction; at high noise z0 carries the image.

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
from medddpm.shrinkage import Evidence


class FidelityDecoder(nn.Module):
    """Half-resolution U-Net over the scan that takes z0 on the level of the latent grid.

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
            41, 8, channels, num_blocks, embedding_width, injected=(level, latent_channels)
        )

    def forward(self, evidence: Evidence, z0: Tensor, prior: Tensor, angle: Tensor) -> Tensor:
        """The restored image.

        Args:
            evidence: The noisy scan and what is known of it.
            z0: (B, C, X/f, Y/f, Z/f), standardised latent.
            prior: (B, 1, X, Y, Z), the plain decoding of z0.
            angle: (B,) noise level, in radians, that z0 was predicted from; pi/2 = terminal.

        Returns:
            (B, 1, X, Y, Z) float32.
        """
        return evidence.base - evidence.sigma * self.error(evidence, z0, prior, angle)

    def error(self, evidence: Evidence, z0: Tensor, prior: Tensor, angle: Tensor) -> Tensor:
        """(base - x_hat) / sigma, shape of y: what the network itself predicts."""
        y, base, sigma = evidence.y, evidence.base, evidence.sigma
        smooth = F.avg_pool3d(base, 3, stride=1, padding=1, count_include_pad=False)
        # Differences keep noise and detail visible in bfloat16; asinh tames the large ones.
        unit = sigma.clamp_min(1e-4)
        details = [torch.asinh(d / unit) for d in (y - base, base - smooth, prior - base)]
        log_map = scaled_log_sigma(sigma).expand_as(y)[..., ::2, ::2, ::2]
        inputs = [space_to_depth(image, 2) for image in (y, base, *details)]
        mean_sigma = scaled_log_sigma(sigma).flatten(1).mean(dim=1, keepdim=True)
        scalars = [
            mean_sigma,
            log_spacing(evidence.spacing),
            angle[:, None].float() / (math.pi / 2),
        ]
        condition = self.embed(torch.cat(scalars, dim=1))
        out = self.unet(torch.cat([*inputs, log_map], dim=1), condition, z0)
        return depth_to_space(out.float(), 2)
