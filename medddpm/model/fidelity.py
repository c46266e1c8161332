"""The fidelity decoder: the image from the latent *and* the scan, x_hat = D(z0, y, sigma).

A plain decoder can give back no more than the bottleneck holds. This one also sees the noisy
scan y, its shrunk estimate b and the plain decoding d of z0. It decides how much of each DCT
coefficient of y is kept, where the shrinkage itself knows no more than that one coefficient, and
adds a correction of its own: x_hat = b - sigma * F(y, b, d, z0, sigma, spacing, t), with F the
difference that its gains make plus that correction. Gains are far quicker to learn than pixels
(as in Bako et al. 2017, section 4). As sigma goes to 0 so does b - y, and the output is the input
by construction; at high noise z0 carries the image.

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

from medddpm.model.blocks import (
    SILU_GAIN,
    ConditionEmbedding,
    NormedConv,
    NormedUNet,
    colour_features,
    depth_to_space,
    log_spacing,
    scaled_log_sigma,
    space_to_depth,
)
from medddpm.model.shrinkage import Evidence, Shrinkage


class FidelityDecoder(nn.Module):
    """Half-resolution U-Net over the scan that takes z0 on the level of the latent grid.

    Args:
        latent_channels: Channels of z0.
        factor: Voxels a latent voxel along one axis; a power of two, at least 2.
        channels: Width of each level; the first runs at half resolution.
        num_blocks: Residual blocks a level and direction.
        embedding_width: Width of the condition vector.
        prior: False hides z0 and its decoding: a supervised denoiser, to compare with.
        coloured: The network is told the colour of the noise.
    """

    def __init__(
        self,
        latent_channels: int = 16,
        factor: int = 4,
        channels: Sequence[int] = (64, 96, 128),
        num_blocks: int = 2,
        embedding_width: int = 128,
        *,
        prior: bool = True,
        coloured: bool = False,
    ) -> None:
        super().__init__()
        self.prior, self.coloured = prior, coloured
        self.embed = ConditionEmbedding(12 if coloured else 5, embedding_width)
        level = int(math.log2(factor)) - 1
        self.unet = NormedUNet(
            41, channels, num_blocks, embedding_width, injected=(level, latent_channels)
        )
        self.shrinkage = Shrinkage()
        self.gains = NormedConv(channels[0], 130, 1, gain=SILU_GAIN)
        self.gains_scale = nn.Parameter(torch.tensor(0.3))
        self.pixels = NormedConv(channels[0], 8, gain=SILU_GAIN)
        self.pixels_scale = nn.Parameter(torch.tensor(0.1))

    def forward(
        self,
        evidence: Evidence,
        z0: Tensor,
        prior: Tensor,
        angle: Tensor,
        noise: Tensor | None = None,
    ) -> Tensor:
        """The restored image: its mean for this z0, or with noise a draw around it.

        Args:
            evidence: The noisy scan and what is known of it.
            z0: (B, C, X/f, Y/f, Z/f), standardised latent.
            prior: (B, 1, X, Y, Z), the plain decoding of z0.
            angle: (B,) noise level, in radians, that z0 was predicted from; pi/2 = terminal.
            noise: (B, 1, X, Y, Z), white and Gaussian; its strength is that of the draw.

        Returns:
            (B, 1, X, Y, Z) float32.
        """
        gains, pixels = self._gains_and_pixels(evidence, z0, prior, angle)
        x_hat = evidence.base - evidence.sigma * self._error(evidence, gains, pixels)
        if noise is None:
            return x_hat
        texture = self.shrinkage.texture(noise, evidence.power, evidence.colour, gains)
        return x_hat + evidence.sigma * texture

    def error(self, evidence: Evidence, z0: Tensor, prior: Tensor, angle: Tensor) -> Tensor:
        """(base - x_hat) / sigma, shape of y: what the network itself predicts."""
        return self._error(evidence, *self._gains_and_pixels(evidence, z0, prior, angle))

    def _error(self, evidence: Evidence, gains: Tensor, pixels: Tensor) -> Tensor:
        removed = self.shrinkage.removed(
            evidence.coefficients, evidence.power, evidence.colour, gains
        )
        return removed - evidence.removed + pixels

    def _gains_and_pixels(
        self, evidence: Evidence, z0: Tensor, prior: Tensor, angle: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(B, x, y, z, 130), as `Shrinkage.removed` takes them, and (B, 1, X, Y, Z)."""
        y, base, sigma = evidence.y, evidence.base, evidence.sigma
        if not self.prior:
            z0, prior, angle = torch.zeros_like(z0), base, torch.zeros_like(angle)
        smooth = F.avg_pool3d(base, 3, stride=1, padding=1, count_include_pad=False)
        # Differences keep noise and detail visible in bfloat16; asinh tames the large ones.
        unit = sigma.clamp_min(1e-4)
        details = [torch.asinh(d / unit) for d in (y - base, base - smooth, prior - base)]
        log_map = scaled_log_sigma(sigma).expand_as(y)[..., ::2, ::2, ::2]
        inputs = [space_to_depth(image, 2) for image in (2 * y, 2 * base, *details)]
        # In float64 the mean of a map does not depend on how many tiles run together.
        mean_sigma = scaled_log_sigma(sigma).double().flatten(1).mean(dim=1, keepdim=True).float()
        scalars = [
            mean_sigma,
            log_spacing(evidence.spacing),
            angle[:, None].float() / (math.pi / 2),
        ]
        if self.coloured:
            scalars.append(colour_features(evidence.colour))
        condition = self.embed(torch.cat(scalars, dim=1))
        h = self.unet(torch.cat([*inputs, log_map], dim=1), condition, z0)
        # Cells beyond the scan keep the gains of the shrinkage.
        gains = F.pad(self.gains_scale.to(h) * self.gains(h), (1,) * 6).movedim(1, -1)
        return gains, depth_to_space(self.pixels_scale * self.pixels(h).float(), 2)
