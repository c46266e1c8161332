"""MONAI's DiffusionModelUNet with the interface of `LatentUNet`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet
from torch import Tensor, nn

from medddpm.model.unet import with_guess

_TIMESTEPS = 1000
"""The sinusoids of MONAI's time embedding are made for whole steps up to about this."""


class MonaiLatentUNet(nn.Module):
    """DiffusionModelUNet (Rombach et al. 2022) that is told the scan by concatenation.

    Its time embedding takes the angle of the noise level. What else is known of the scan (sigma,
    spacing) enters as constant channels. The first guess of x0 reaches the output as in
    `LatentUNet`. Group norm sees a whole tile, so a result depends a little on the tiling.

    Args:
        latent_channels: Channels of z.
        cond_channels: Channels of the condition, the guess included.
        channels: Width of each level, finest first.
        num_blocks: Residual blocks a level and direction.
        guess_gain: Share of x0 in what is predicted at the terminal level: -1 for v.
        num_conditions: Scalars that are known of the scan.
    """

    def __init__(
        self,
        latent_channels: int,
        cond_channels: int,
        channels: Sequence[int],
        num_blocks: int,
        guess_gain: float,
        num_conditions: int,
    ) -> None:
        super().__init__()
        self.latent_channels = latent_channels
        self.cond_channels = cond_channels
        self.guess_gain = guess_gain
        self.network = DiffusionModelUNet(
            spatial_dims=3,
            in_channels=latent_channels + cond_channels + num_conditions,
            out_channels=latent_channels,
            num_res_blocks=num_blocks,
            channels=list(channels),
            attention_levels=[False] * len(channels),
            norm_num_groups=math.gcd(32, *channels),
        )

    def forward(self, z: Tensor, angle: Tensor, cond: Tensor, conditions: Tensor) -> Tensor:
        """As `LatentUNet.forward`."""
        planes = conditions[:, :, None, None, None].to(z).expand(-1, -1, *z.shape[2:])
        timesteps = angle.float() * (2 * _TIMESTEPS / math.pi)
        out: Tensor = self.network(torch.cat([z, cond.to(z), planes], dim=1), timesteps)
        return with_guess(out, cond, angle, self.guess_gain)
