"""The prior over whole heads: a diffusion network on their wavelet coefficients."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medddpm.diffusion.denoiser import Denoiser, as_denoiser
from medddpm.diffusion.prediction import Prediction, target
from medddpm.diffusion.schedule import Schedule
from medddpm.generation.options import PriorSpec
from medddpm.model.spec import DiffusionSpec
from medddpm.model.unet import LatentUNet
from medddpm.model.wavelet import haar, image_of

SCHEDULE = Schedule("shifted_cosine")
PREDICTION: Prediction = "v"
STATISTICS = ("mean", "unit", "spread")
"""Buffers that hold what was measured of the training set."""
CHANNELS = 8
"""Haar coefficients of each block of 2 x 2 x 2 voxels."""
_NUM_PLACES = 3
_LEAST_SPREAD = 1e-4
"""Of the mean variance among heads: no place is wholly fixed."""


class HeadPrior(nn.Module):
    """Wavelet diffusion of one field of view (Friedrich et al. 2024, "WDM"), without a condition.

    What is drawn is the difference of the Haar coefficients from those of the mean head of the
    training set: the transform is orthonormal, so white noise on them is white noise in the image,
    and the coarse shape, which stands out of the noise longest, is drawn first. The network
    is told where each place lies and what the mean head holds there, so that a convolution knows
    front from back.

    What follows from the variance among heads at each place alone, a Wiener filter, is in closed
    form; the network learns the rest, in units of what that leaves open (the preconditioning of
    Karras et al. 2022, section 5, with a sigma_data for each element). Where all heads are alike,
    as in the air, nothing is left to draw.

    Args:
        spec: Network and grid.
        prediction: What the network answers.
    """

    def __init__(self, spec: PriorSpec, prediction: Prediction = PREDICTION) -> None:
        super().__init__()
        self.spec, self.prediction = spec, prediction
        self.grid = tuple(n // 2 for n in spec.shape)
        network = DiffusionSpec(
            channels=spec.channels,
            num_blocks=spec.num_blocks,
            embedding_width=spec.embedding_width,
            coloured=True,  # filters of unit norm
        )
        seen = _NUM_PLACES + CHANNELS
        self.unet = LatentUNet(network, CHANNELS, seen, guess_gain=0.0, num_conditions=0)
        self.mean: Tensor
        self.unit: Tensor
        self.spread: Tensor
        self.places: Tensor
        self.register_buffer("mean", torch.zeros(CHANNELS, *self.grid))
        self.register_buffer("unit", torch.ones(()))
        self.register_buffer("spread", torch.ones(CHANNELS, *self.grid))
        axes = [torch.linspace(-1, 1, n) for n in self.grid]
        places = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        self.register_buffer("places", places, persistent=False)

    @torch.no_grad()
    def set_statistics(self, straight: Tensor, posed: Tensor) -> None:
        """Store the mean head, and the variance around it in all and, smoothed, at each place.

        Args:
            straight: (N, 1, *shape), the training set.
            posed: (M, 1, *shape), the same in random poses.
        """
        self.mean.copy_(haar(straight).mean(0))
        self.unit.copy_((haar(posed) - self.mean).square().mean().sqrt().clamp_min(1e-12))
        variance = self.standardised(posed).square().mean(0)
        smooth = F.avg_pool3d(variance, 3, stride=1, padding=1, count_include_pad=False)
        self.spread.copy_(smooth.clamp_min(_LEAST_SPREAD))

    @torch.no_grad()
    def take_statistics(self, other: HeadPrior) -> None:
        """Take what was measured of the training set, and nothing of what was learned."""
        for name in STATISTICS:
            getattr(self, name).copy_(getattr(other, name))

    def standardised(self, x: Tensor) -> Tensor:
        """Images (B, 1, *shape) as differences (B, 8, *grid) from the mean head, of variance 1."""
        return (haar(x) - self.mean) / self.unit

    def image(self, u: Tensor) -> Tensor:
        """Images (B, 1, *shape), not below 0, of standardised differences."""
        return image_of(u.float() * self.unit + self.mean).clamp_min(0)

    def condition(self, batch: int) -> Tensor:
        """(B, 3 + 8, *grid): place, and mean head."""
        one = torch.cat([self.places, self.mean])[None]
        return one.expand(batch, *one.shape[1:])

    def forward(self, u: Tensor, angle: Tensor) -> Tensor:
        """Prediction (B, 8, *grid) of noisy differences; `angle` (B,) is atan2(sigma, alpha)."""
        alpha, sigma = self._levels(angle.float()[:, None, None, None, None])
        total = alpha.square() * self.spread + sigma.square()
        none = torch.zeros(len(u), 0, device=u.device)
        out = self.unet(u / total.sqrt(), angle, self.condition(len(u)), none)
        x0, eps = alpha * self.spread / total * u, sigma / total * u
        guess = target(x0, eps, alpha, sigma, self.prediction)
        answer: Tensor = guess + (self.spread / total).sqrt() * out
        return answer

    def _levels(self, angle: Tensor) -> tuple[Tensor, Tensor]:
        """Alpha and sigma: their squares add up to 1, or for a flow they themselves."""
        alpha, sigma = angle.cos(), angle.sin()
        scale = alpha + sigma if self.prediction == "flow" else 1.0
        return alpha / scale, sigma / scale

    def denoiser(self, batch: int) -> Denoiser:
        """The denoiser that a sampler takes, of `batch` draws at once."""
        none = torch.zeros(batch, 0, device=self.mean.device)

        def network(u: Tensor, angle: Tensor, _: Tensor, __: Tensor) -> Tensor:
            answer: Tensor = self(u, angle)
            return answer

        return as_denoiser(network, self.prediction, cond=none, conditions=none)
