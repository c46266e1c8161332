"""The prior over whole heads: a diffusion network on their wavelet coefficients."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medddpm.diffusion.denoiser import Denoiser, as_denoiser
from medddpm.diffusion.prediction import Prediction, target
from medddpm.diffusion.samplers import sampler_of, truncated_start
from medddpm.diffusion.schedule import CLEAN, NoiseLevel, Schedule
from medddpm.generation.options import PriorSpec
from medddpm.model.spec import DiffusionSpec
from medddpm.model.unet import LatentUNet
from medddpm.model.wavelet import haar, image_of

SCHEDULE = Schedule("shifted_cosine")
PREDICTION: Prediction = "v"
SAMPLER = "dpm_solver_pp_2m"
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
        given: The image at twice the spacing is known, and the seven channels of differences are
            drawn: a scale of a cascade (Guth et al. 2022, "Wavelet score-based generative
            modeling", section 3).
        prediction: What the network answers.
    """

    def __init__(
        self, spec: PriorSpec, *, given: bool = False, prediction: Prediction = PREDICTION
    ) -> None:
        super().__init__()
        self.spec, self.given, self.prediction = spec, given, prediction
        drawn = CHANNELS - given
        self.grid = tuple(n // 2 for n in spec.shape)
        network = DiffusionSpec(
            channels=spec.channels,
            num_blocks=spec.num_blocks,
            embedding_width=spec.embedding_width,
            coloured=True,  # filters of unit norm
        )
        seen = _NUM_PLACES + CHANNELS  # what is given is one channel, and one is drawn less
        self.unet = LatentUNet(network, drawn, seen, guess_gain=0.0, num_conditions=0)
        self.mean: Tensor
        self.unit: Tensor
        self.spread: Tensor
        self.places: Tensor
        self.register_buffer("mean", torch.zeros(drawn, *self.grid))
        self.register_buffer("unit", torch.ones(()))
        self.register_buffer("spread", torch.ones(drawn, *self.grid))
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
        self.mean.copy_(self._coefficients(straight).mean(0))
        self.unit.copy_(
            (self._coefficients(posed) - self.mean).square().mean().sqrt().clamp_min(1e-12)
        )
        variance = self.standardised(posed).square().mean(0)
        smooth = F.avg_pool3d(variance, 3, stride=1, padding=1, count_include_pad=False)
        self.spread.copy_(smooth.clamp_min(_LEAST_SPREAD))

    @torch.no_grad()
    def take_statistics(self, other: HeadPrior) -> None:
        """Take what was measured of the training set, and nothing of what was learned."""
        for name in STATISTICS:
            getattr(self, name).copy_(getattr(other, name))

    def standardised(self, x: Tensor) -> Tensor:
        """Images (B, 1, *shape) as differences (B, C, *grid) from the mean head, of variance 1."""
        return (self._coefficients(x) - self.mean) / self.unit

    def image(self, u: Tensor, coarse: Tensor | None = None) -> Tensor:
        """Images (B, 1, *shape), not below 0, of standardised differences and what is given."""
        z = u.float() * self.unit + self.mean
        if coarse is not None:
            z = torch.cat([coarse * CHANNELS**0.5, z], dim=1)
        return image_of(z).clamp_min(0)

    def condition(self, batch: int, coarse: Tensor | None = None) -> Tensor:
        """(B, 3 + 8, *grid): place, mean head, and the image (B, 1, *grid) that may be given."""
        one = torch.cat([self.places, self.mean])[None]
        known = one.expand(batch, *one.shape[1:])
        return known if coarse is None else torch.cat([known, coarse], dim=1)

    def _coefficients(self, x: Tensor) -> Tensor:
        return haar(x)[:, int(self.given) :]

    def forward(self, u: Tensor, angle: Tensor, coarse: Tensor | None = None) -> Tensor:
        """Prediction (B, C, *grid) of noisy differences; `angle` (B,) is atan2(sigma, alpha)."""
        alpha, sigma = self._levels(angle.float()[:, None, None, None, None])
        total = alpha.square() * self.spread + sigma.square()
        none = torch.zeros(len(u), 0, device=u.device)
        out = self.unet(u / total.sqrt(), angle, self.condition(len(u), coarse), none)
        x0, eps = alpha * self.spread / total * u, sigma / total * u
        guess = target(x0, eps, alpha, sigma, self.prediction)
        answer: Tensor = guess + (self.spread / total).sqrt() * out
        return answer

    def _levels(self, angle: Tensor) -> tuple[Tensor, Tensor]:
        """Alpha and sigma: their squares add up to 1, or for a flow they themselves."""
        alpha, sigma = angle.cos(), angle.sin()
        scale = alpha + sigma if self.prediction == "flow" else 1.0
        return alpha / scale, sigma / scale

    def denoiser(self, batch: int, coarse: Tensor | None = None) -> Denoiser:
        """The denoiser that a sampler takes, of `batch` draws at once."""
        none = torch.zeros(batch, 0, device=self.mean.device)

        def network(u: Tensor, angle: Tensor, _: Tensor, __: Tensor) -> Tensor:
            answer: Tensor = self(u, angle, coarse)
            return answer

        return as_denoiser(network, self.prediction, cond=none, conditions=none)


class Cascade(nn.Module):
    """Whole heads in two scales: the head at twice the spacing, then its fine structure.

    The coarse scale says what is drawn where, at an eighth of the cost; what is fine follows
    from it and from its own neighbours.

    Args:
        spec: Of the finest grid.
    """

    def __init__(self, spec: PriorSpec) -> None:
        super().__init__()
        self.spec = spec
        half = tuple(n // 2 for n in spec.shape)
        coarse = replace(spec, shape=half, spacing=2 * spec.spacing, channels=spec.coarse_channels)
        self.coarse = HeadPrior(coarse)
        self.fine = HeadPrior(spec, given=True)

    def mean_image(self) -> Tensor:
        """(1, 1, *shape), the mean of the training heads."""
        return self.fine.image(
            torch.zeros_like(self.fine.mean)[None],
            self.coarse.image(torch.zeros_like(self.coarse.mean)[None]),
        )

    def draw(
        self,
        seed: int,
        steps: int,
        *,
        sampler: str = SAMPLER,
        like: Tensor | None = None,
        level: NoiseLevel = SCHEDULE.terminal,
    ) -> Tensor:
        """A head (1, 1, *shape); the same seed gives the same one.

        Args:
            seed: Of all noise.
            steps: Network evaluations of each scale.
            sampler: By its name, see `diffusion.samplers`.
            like: (1, 1, *shape), a head that noise of `level` is added to; none is drawn anew.
            level: Where the draw of each scale begins.
        """
        generator = torch.Generator().manual_seed(seed)
        coarse: Tensor | None = None
        for prior in (self.coarse, self.fine):
            eps = torch.randn(1, *prior.mean.shape, generator=generator).to(prior.mean)
            guess = torch.zeros_like(eps)
            if like is not None:
                guess = prior.standardised(like if prior is self.fine else halved(like))
            u = guess
            if level is not CLEAN:
                start, levels = truncated_start(guess, level, eps), SCHEDULE.steps(steps, level)
                denoiser = prior.denoiser(1, coarse)
                u = sampler_of(sampler)(denoiser, start, levels, generator=generator)
            coarse = prior.image(u, coarse)
        assert coarse is not None
        return coarse


def halved(x: Tensor) -> Tensor:
    """Images (B, 1, *shape) at twice the spacing: the mean of each block of 2 x 2 x 2 voxels."""
    return F.avg_pool3d(x, 2)
