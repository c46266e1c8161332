"""The conditional denoising network on latents."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medddpm.model.blocks import SILU_GAIN, ConditionEmbedding, NormedConv, NormedUNet, UNet
from medddpm.model.spec import DiffusionSpec


class LatentUNet(nn.Module):
    """U-Net over (noisy latent, condition), with noise level, sigma and spacing embedded.

    Conditions on the scan by concatenation (Saharia et al. 2022, section 2.2). It knows nothing
    of schedules: what its output means (eps, x0, v) is the business of `diffusion.prediction`.

    The last channels of the condition are a first guess of x0, the latent of the shrunk scan. It
    reaches the output directly, times `guess_gain` and the noise of the level: the network
    learns what the guess lacks.

    Args:
        spec: Widths and depth; a coloured network has filters of unit norm (`NormedUNet`), which
            take a higher learning rate.
        latent_channels: Channels of z.
        cond_channels: Channels of the condition, the guess included.
        guess_gain: Share of x0 in what is predicted at the terminal level: -1 for v.
        num_conditions: Scalars that are known of the scan.
    """

    def __init__(
        self,
        spec: DiffusionSpec,
        latent_channels: int,
        cond_channels: int,
        guess_gain: float,
        num_conditions: int,
    ) -> None:
        super().__init__()
        self.latent_channels = latent_channels
        self.cond_channels = cond_channels
        self.guess_gain = guess_gain
        self.embed = ConditionEmbedding(1 + num_conditions, spec.embedding_width)
        inputs = latent_channels + cond_channels
        network: type[nn.Module] = _NormedNetwork if spec.coloured else UNet
        self.unet = network(
            inputs, latent_channels, spec.channels, spec.num_blocks, spec.embedding_width
        )

    def forward(self, z: Tensor, angle: Tensor, cond: Tensor, conditions: Tensor) -> Tensor:
        """The network's prediction.

        Args:
            z: (B, C, X, Y, Z) noisy latent; X, Y, Z multiples of 2^(levels - 1).
            angle: (B,) atan2(sigma_t, alpha_t), radians in [0, pi/2].
            cond: (B, cond_channels, X, Y, Z); zeros for the unconditional network.
            conditions: (B, N), what is known of the scan: `Model.conditions`.

        Returns:
            (B, C, X, Y, Z) float32.
        """
        scalars = torch.cat([angle[:, None].float() / (math.pi / 2), conditions], dim=1)
        out: Tensor = self.unet(torch.cat([z, cond], dim=1), self.embed(scalars))
        return with_guess(out, cond, angle, self.guess_gain)


def with_guess(out: Tensor, cond: Tensor, angle: Tensor, gain: float) -> Tensor:
    """What a network adds to the first guess of x0, the last channels of its condition, float32.

    Args:
        out: (B, C, X, Y, Z), of the network.
        cond: (B, cond_channels, X, Y, Z), the guess last.
        angle: (B,) of the noise level, in radians.
        gain: Share of x0 in what is predicted at the terminal level.
    """
    guess = cond[:, -out.shape[1] :].float()
    return out.float() + gain * angle.float().sin()[:, None, None, None, None] * guess


class _NormedNetwork(nn.Module):
    """A `NormedUNet` with a head that starts small."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        num_blocks: int,
        embedding_width: int,
    ) -> None:
        super().__init__()
        self.body = NormedUNet(in_channels, channels, num_blocks, embedding_width)
        self.head = NormedConv(channels[0], out_channels, gain=SILU_GAIN)
        self.scale = nn.Parameter(torch.tensor(0.1))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, in, X, Y, Z), (B, width) -> (B, out, X, Y, Z)."""
        out: Tensor = self.scale * self.head(self.body(x, embedding)).float()
        return out
