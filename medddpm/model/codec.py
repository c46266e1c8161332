"""The only place that scales latents.

Raw latents (what the VAE emits) are standardised channel by channel with statistics of the
training set: everything outside this file sees latents of mean 0 and variance 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LatentCodec(nn.Module):
    """Image (B, 1, X, Y, Z) float32 <-> standardised latent (B, C, X/f, Y/f, Z/f) float32.

    Args:
        vae: Has `encode(x) -> (mean, std)`, `decode(z) -> x`, as MONAI's AutoencoderKL.
        latent_channels: Channels of the latent.
        factor: Voxels a latent voxel along one axis.
    """

    def __init__(self, vae: nn.Module, latent_channels: int, factor: int) -> None:
        super().__init__()
        self.vae = vae
        self.latent_channels = latent_channels
        self.factor = factor
        self.latent_mean: Tensor
        self.latent_std: Tensor
        self.latent_noise_gain: Tensor
        self.register_buffer("latent_mean", torch.zeros(latent_channels))
        self.register_buffer("latent_std", torch.ones(latent_channels))
        self.register_buffer("latent_noise_gain", torch.ones(()))

    def encode(self, x: Tensor) -> Tensor:
        """The posterior mean, standardised: sampling it would put a floor of noise under z."""
        mean, _ = self.raw(x)
        return (mean - self._column(self.latent_mean)) / self._column(self.latent_std)

    def decode(self, z: Tensor) -> Tensor:
        """The image of a standardised latent."""
        return self.decode_raw(
            z.float() * self._column(self.latent_std) + self._column(self.latent_mean)
        )

    def raw(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and deviation as the VAE emits them, float32."""
        mean, std = self.vae.encode(x)  # type: ignore[operator]
        return mean.float(), std.float()

    def decode_raw(self, z: Tensor) -> Tensor:
        """The image of a raw latent, float32."""
        image: Tensor = self.vae.decode(z)  # type: ignore[operator]
        return image.float()

    @torch.no_grad()
    def measure_noise_gain(self, x: Tensor, sigma: float, generator: torch.Generator) -> None:
        """Store how many standard deviations of latent one unit of image noise makes.

        Args:
            x: (B, 1, X, Y, Z), clean training images.
            sigma: Noise to probe with, on the intensity scale.
            generator: Its source.
        """
        n = sigma * torch.randn(x.shape, generator=generator).to(x)
        self.latent_noise_gain.copy_((self.encode(x + n) - self.encode(x)).std() / sigma)

    @torch.no_grad()
    def set_statistics(self, total: Tensor, total_of_squares: Tensor, count: int) -> None:
        """Store mean and std from sums over raw training latents, each (C,) float64."""
        mean = total / count
        variance = (total_of_squares / count - mean.square()).clamp_min(1e-12)
        self.latent_mean.copy_(mean)
        self.latent_std.copy_(variance.sqrt())

    @staticmethod
    def _column(values: Tensor) -> Tensor:
        return values[None, :, None, None, None]
