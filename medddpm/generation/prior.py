"""The prior over whole heads: a diffusion network on the latents of the shipped codec."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medddpm.diffusion.denoiser import Denoiser, as_denoiser
from medddpm.diffusion.prediction import Prediction
from medddpm.diffusion.schedule import Schedule
from medddpm.generation.options import PriorSpec
from medddpm.model.unet import LatentUNet

SCHEDULE = Schedule("cosine")
PREDICTION: Prediction = "v"
_NUM_PLACES = 3


class HeadPrior(nn.Module):
    """Latent diffusion of one field of view (Rombach et al. 2022), without a scan as condition.

    What is drawn is the difference from the mean head of the training set. Each channel counts by
    what it does to the image, up to fifty times more or less: white noise on it is then about white
    noise in the image, and the coarse shape, which stands out of the noise longest, is drawn
    first. The network is told where each latent voxel lies and what the mean head
    holds there, so that a convolution knows front from back.

    Args:
        spec: Network and grid.
        latent_channels: Of the codec.
        factor: Of the codec.
        prediction: What the network answers.
    """

    def __init__(
        self,
        spec: PriorSpec,
        latent_channels: int,
        factor: int,
        prediction: Prediction = PREDICTION,
    ) -> None:
        super().__init__()
        self.spec, self.prediction = spec, prediction
        self.grid = tuple(n // factor for n in spec.shape)
        self.unet = LatentUNet(
            latent_channels,
            _NUM_PLACES + latent_channels,
            spec.channels,
            spec.num_blocks,
            spec.embedding_width,
            guess_gain=0.0,
            num_conditions=0,
            normed=True,
        )
        self.mean: Tensor
        self.unit: Tensor
        self.places: Tensor
        self.register_buffer("mean", torch.zeros(latent_channels, *self.grid))
        self.register_buffer("unit", torch.ones(latent_channels))
        axes = [torch.linspace(-1, 1, n) for n in self.grid]
        places = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        self.register_buffer("places", places, persistent=False)

    @torch.no_grad()
    def set_statistics(self, latents: Tensor, gain: Tensor) -> None:
        """Store the mean head, and what one unit of each channel stands for.

        Args:
            latents: (N, C, *grid) of the training set.
            gain: (C,), what a unit of each channel changes in the image, root mean square.
        """
        self.mean.copy_(latents.mean(0))
        weighed = (latents - self.mean) * gain[:, None, None, None]
        self.unit.copy_(weighed.square().mean().sqrt().clamp_min(1e-12) / gain.clamp_min(1e-6))

    def standardised(self, z: Tensor) -> Tensor:
        """Latents (B, C, *grid) as differences from the mean head; their mean variance is 1."""
        return (z - self.mean) / self.unit[:, None, None, None]

    def latent(self, u: Tensor) -> Tensor:
        """Latents of the codec from standardised differences."""
        return u.float() * self.unit[:, None, None, None] + self.mean

    def condition(self, batch: int) -> Tensor:
        """(B, 3 + C, *grid): place, and mean head."""
        one = torch.cat([self.places, self.mean])[None]
        return one.expand(batch, *one.shape[1:])

    def forward(self, u: Tensor, angle: Tensor) -> Tensor:
        """Prediction (B, C, *grid) of noisy differences; `angle` (B,) is atan2(sigma, alpha)."""
        none = torch.zeros(len(u), 0, device=u.device)
        out: Tensor = self.unet(u, angle, self.condition(len(u)), none)
        return out

    def denoiser(self, batch: int) -> Denoiser:
        """The denoiser that a sampler takes, of `batch` draws at once."""
        none = torch.zeros(batch, 0, device=self.mean.device)
        return as_denoiser(self.unet, self.prediction, cond=self.condition(batch), conditions=none)
