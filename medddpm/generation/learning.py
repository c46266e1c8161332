"""What the prior learns from, step by step, and how it is validated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from medddpm.diffusion.loss import diffusion_loss, min_snr_weight, sample_levels
from medddpm.diffusion.prediction import interpolate, target, to_x0
from medddpm.diffusion.samplers import dpm_solver_pp_2m
from medddpm.diffusion.schedule import Schedule
from medddpm.generation.heads import STRAIGHT, Head, placed, random_pose
from medddpm.generation.options import PriorOptions
from medddpm.generation.prior import SCHEDULE, HeadPrior
from medddpm.model.codec import LatentCodec
from medddpm.training.batches import Share
from medddpm.training.validation import chunked, write_preview

_PROBED = (0.3, 0.8, 1.3)
"""Angles of the noise levels at which the error on held-out heads is measured, in radians."""
_PREVIEW_STEPS = 24
_PROBE = 0.3
"""Noise that tells what a channel does, in its standard deviations over training patches."""
_SHOWN = 3
_POSES = 4
"""Of each head, to measure how heads differ at each place."""


class PriorStage:
    """Learns p(z0) of whole heads: min-SNR weighted error of its prediction (Hang et al. 2023).

    All samples of a step are of one head in one pose, each at a noise level of its own: the codec
    costs as much as the network, and the noise is what varies most.

    Args:
        prior: To train.
        codec: Trained; stays as it is.
        heads: Training scans.
        held: Held-out scans.
        options: Of the run.
        schedule: Noise levels that it learns, and is drawn with.
    """

    name = "prior"
    figure = "explained"

    def __init__(
        self,
        prior: HeadPrior,
        codec: LatentCodec,
        heads: Sequence[Head],
        held: Sequence[Head],
        options: PriorOptions,
        schedule: Schedule = SCHEDULE,
    ) -> None:
        self.network: nn.Module = prior
        self.schedule = schedule
        self.prior, self.heads, self.options = prior, list(heads), options
        self.codec = codec.eval().requires_grad_(False)
        self.steps, self.batch = options.steps, options.batch
        self.learning_rate = options.learning_rate
        self.held = torch.cat([placed(head, options) for head in held])

    def start(self) -> None:
        """Store the mean head of the training set, and what each channel does to the image."""
        latents = [self._encoded(placed(head, self.options)) for head in self.heads]
        self.prior.set_statistics(torch.cat(latents), self._gain(latents[0]))
        rng = np.random.default_rng(4)
        poses = [(head, random_pose(self.options, rng)) for head in self.heads * _POSES]
        posed = [placed(head, self.options, pose) for head, pose in poses]
        self.prior.set_spread(torch.cat([self.standardised(x) for x in posed]))

    @torch.no_grad()
    def _gain(self, z: Tensor) -> Tensor:
        """(C,) change of the image, root mean square, for a unit of noise on each channel of z."""
        noise = _PROBE * torch.randn(z.shape[2:], generator=torch.Generator().manual_seed(0)).to(z)
        plain, gains = self.codec.decode(z), []
        for channel in range(z.shape[1]):
            moved = z.clone()
            moved[:, channel] += noise
            gains.append((self.codec.decode(moved) - plain).square().mean().sqrt() / _PROBE)
        return torch.stack(gains)

    def standardised(self, x: Tensor) -> Tensor:
        """What the prior draws, of images (B, 1, *shape)."""
        return self.prior.standardised(self._encoded(x))

    @torch.no_grad()
    def decoded(self, u: Tensor) -> Tensor:
        """Images (B, 1, *shape) of standardised heads, on the CPU."""
        z = self.prior.latent(u)
        self.codec.to(z.device)
        return torch.cat([self.codec.decode(one[None]).clamp_min(0).cpu() for one in z])

    def both_sides(self, head: Head) -> list[Tensor]:
        """A head and its mirror image, standardised."""
        poses = (STRAIGHT, replace(STRAIGHT, flipped=True))
        return [self.standardised(placed(head, self.options, pose)) for pose in poses]

    def draw(self, share: Share) -> Tensor:
        """One head in a random pose, (1, 1, *shape)."""
        rng = share.rngs()[0]
        head = self.heads[int(rng.integers(len(self.heads)))]
        return placed(head, self.options, random_pose(self.options, rng))

    def loss(self, x: Tensor, share: Share) -> Tensor:
        """Its error at the noise levels of the batch."""
        u = self.standardised(x).expand(share.count, -1, -1, -1, -1)
        levels = sample_levels(self.schedule, share.total, generator=share.step_generator())
        alpha, sigma = (share.of(level).to(u) for level in levels)
        eps = share.normal(u.shape[1:], u.device)
        noisy = interpolate(u, eps, alpha, sigma)
        output = self.prior(noisy, torch.atan2(sigma, alpha))
        weight = min_snr_weight(alpha, sigma, self.prior.prediction)
        wanted = target(u, eps, alpha, sigma, self.prior.prediction)
        return diffusion_loss(output, wanted, weight)

    def validate(self, device: torch.device, preview: Path) -> dict[str, float]:
        """Figures of `explained`; the preview shows draws beside held-out heads."""
        figures = self.explained(device)
        self.show(preview, device)
        return figures

    def sample(self, eps: Tensor, steps: int) -> Tensor:
        """Standardised heads (B, C, *grid) of as much white noise, in so many evaluations."""
        denoiser = self.prior.denoiser(len(eps))
        return dpm_solver_pp_2m(denoiser, eps, self.schedule.steps(steps))

    def noise(self, count: int, seed: int) -> Tensor:
        """White noise (count, C, *grid) that heads are drawn from."""
        generator = torch.Generator().manual_seed(seed)
        shape = (count, *self.prior.mean.shape)
        return torch.randn(shape, generator=generator).to(self.prior.mean)

    def show(self, preview: Path, device: torch.device) -> None:
        """Write a preview: draws beside held-out heads."""
        shown = self.held[:_SHOWN]
        u = self.sample(self.noise(len(shown), seed=1), _PREVIEW_STEPS)
        drawn = chunked(self.codec.decode, self.prior.latent(u), device)
        write_preview(preview, {"drawn": drawn, "held-out scan": shown})

    def explained(self, device: torch.device) -> dict[str, float]:
        """Share of the variance among held-out heads that is found again, by noise level."""
        u = self.standardised(self.held.to(device))
        eps = torch.randn(u.shape, generator=torch.Generator().manual_seed(1)).to(u)
        figures: dict[str, float] = {}
        for angle in _PROBED:
            level = self.schedule.nearest(math.tan(angle))
            noisy = interpolate(u, eps, level.alpha, level.sigma)
            output = self.prior(noisy, torch.full((len(u),), level.angle, device=device))
            found = to_x0(output, noisy, level.alpha, level.sigma, self.prior.prediction)
            figures[f"explained_{angle}"] = float(1 - (found - u).square().mean() / u.var())
        return {"explained": sum(figures.values()) / len(figures), **figures}

    def finish(self) -> None:
        """Nothing to store."""

    def _encoded(self, x: Tensor) -> Tensor:
        device = self.prior.mean.device
        self.codec.to(device)
        with torch.no_grad():
            return torch.cat([self.codec.encode(part[None].to(device)) for part in x])
