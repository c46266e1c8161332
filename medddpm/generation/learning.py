"""What the prior learns from, step by step, and how it is validated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from medddpm.diffusion.loss import diffusion_loss, sample_levels
from medddpm.diffusion.prediction import interpolate, target, to_x0
from medddpm.diffusion.samplers import dpm_solver_pp_2m
from medddpm.diffusion.schedule import Schedule
from medddpm.generation.heads import Head, placed, random_pose
from medddpm.generation.options import PriorOptions
from medddpm.generation.prior import (
    SCHEDULE,
    HeadPrior,
    Sharpening,
    Window,
    blurred,
    cut,
    halved,
)
from medddpm.training.batches import Share, normal, seed_of
from medddpm.training.validation import write_preview

_PROBED = (0.3, 0.8, 1.3, 1.5)
"""Angles of the noise levels at which the error on held-out heads is measured, in radians."""


class PriorStage:
    """Learns p(z0) of whole heads: what it leaves open, as a share of what the closed form does.

    So each noise level counts alike (Karras et al. 2022, section 5); min-SNR weights (Hang et al.
    2023) hardly look at the low ones, which decide whether the grain of a draw becomes folds.

    Args:
        prior: To train.
        heads: Training scans.
        held: Held-out scans.
        options: Of the run.
        schedule: Noise levels that it learns, and is drawn with.
    """

    name = "prior"
    figure = "explained"
    samples_a_head = 4
    """Of a step: to pose a head costs as much as a sample of the coarse network."""
    shown, preview_steps = 3, 32
    """Heads of a preview, and network evaluations of each."""
    poses = 4
    """Of each head, to measure how heads differ at each place."""

    def __init__(
        self,
        prior: HeadPrior,
        heads: Sequence[Head],
        held: Sequence[Head],
        options: PriorOptions,
        schedule: Schedule = SCHEDULE,
    ) -> None:
        self.network: nn.Module = prior
        self.schedule = schedule
        self.prior, self.heads, self.options = prior, list(heads), options
        self.steps, self.batch = options.steps, options.batch
        self.learning_rate = options.learning_rate
        self.held = torch.cat([placed(head, options) for head in held])

    def start(self) -> None:
        """Store the mean of the training heads, and how they differ from it in random poses."""
        rng = np.random.default_rng(4)
        poses = [(head, random_pose(self.options, rng)) for head in self.heads * self.poses]
        posed = torch.cat([placed(head, self.options, pose) for head, pose in poses])
        straight = torch.cat([placed(head, self.options) for head in self.heads])
        told = self.given(straight), self.given(posed)
        self.prior.set_statistics(self.own(straight), self.own(posed), told)

    def standardised(self, x: Tensor) -> Tensor:
        """What the prior draws, of images (B, 1, *shape)."""
        return self.prior.standardised(self.own(x))

    def given(self, x: Tensor) -> Tensor | None:
        """What the prior is told of images (B, 1, *shape): these at twice the spacing, or None."""
        return halved(x).to(self.prior.mean) if self.prior.told else None

    def own(self, x: Tensor) -> Tensor:
        """Images on the grid of the prior, which may be coarser."""
        return (x if x.shape[2:] == self.prior.spec.shape else halved(x)).to(self.prior.mean)

    def draw(self, share: Share) -> Tensor:
        """Heads in random poses, (B, 1, *shape), each for a few samples."""
        samples = range(share.start, share.start + share.count)
        numbers = [i // self.samples_a_head for i in samples]
        posed = {n: self._posed(seed_of(share.seed, "head", n)) for n in dict.fromkeys(numbers)}
        return torch.cat([posed[n] for n in numbers])

    def _posed(self, seed: int) -> Tensor:
        rng = np.random.default_rng(seed)
        head = self.heads[int(rng.integers(len(self.heads)))]
        return placed(head, self.options, random_pose(self.options, rng))

    def loss(self, x: Tensor, share: Share) -> Tensor:
        """Its error at the noise levels of the batch."""
        return self.error(self.standardised(x), self.given(x), share)

    def error(
        self, u: Tensor, coarse: Tensor | None, share: Share, window: Window | None = None
    ) -> Tensor:
        """The same of what the prior draws and is told; both may be a window of its grid."""
        levels = sample_levels(self.schedule, share.total, generator=share.step_generator())
        alpha, sigma = (share.of(level).to(u) for level in levels)
        eps = share.normal(u.shape[1:], u.device)
        noisy = interpolate(u, eps, alpha, sigma)
        angle = torch.atan2(sigma, alpha)
        output = self.prior(noisy, angle, coarse, window)
        wanted = target(u, eps, alpha, sigma, self.prior.prediction)
        return diffusion_loss(output, wanted, 1 / self.prior.left_open(angle, window))

    def validate(self, device: torch.device, preview: Path) -> dict[str, float]:
        """Figures of `explained`; the preview shows draws beside held-out heads."""
        figures = self.explained(device)
        self.show(preview)
        return figures

    def sample(self, eps: Tensor, steps: int, coarse: Tensor | None = None) -> Tensor:
        """Standardised heads (B, C, *grid) of as much white noise, in so many evaluations."""
        denoiser = self.prior.denoiser(len(eps), coarse)
        return dpm_solver_pp_2m(denoiser, eps, self.schedule.steps(steps))

    def noise(self, count: int, seed: int) -> Tensor:
        """White noise (count, C, *grid) that heads are drawn from."""
        generator = torch.Generator().manual_seed(seed)
        shape = (count, *self.prior.mean.shape)
        return torch.randn(shape, generator=generator).to(self.prior.mean)

    def show(self, preview: Path) -> None:
        """Write a preview: draws beside held-out heads."""
        shown = self.held[: self.shown]
        coarse = self.given(shown)
        u = self.sample(self.noise(len(shown), seed=1), self.preview_steps, coarse)
        drawn = self.prior.image(u, coarse).cpu()
        write_preview(preview, {"drawn": drawn, "held-out scan": self.own(shown).cpu()})

    def explained(self, device: torch.device) -> dict[str, float]:
        """Share of the variance among held-out heads that is found again, by noise level."""
        held = self.held.to(device)
        u, coarse = self.standardised(held), self.given(held)
        eps = torch.randn(u.shape, generator=torch.Generator().manual_seed(1)).to(u)
        figures: dict[str, float] = {}
        for angle in _PROBED:
            level = self.schedule.nearest(math.tan(angle))
            noisy = interpolate(u, eps, level.alpha, level.sigma)
            told = torch.full((len(u),), level.angle, device=device)
            output = self.prior(noisy, told, coarse)
            found = to_x0(output, noisy, level.alpha, level.sigma, self.prior.prediction)
            figures[f"explained_{angle}"] = float(1 - (found - u).square().mean() / u.var())
        return {"explained": sum(figures.values()) / len(figures), **figures}

    def finish(self) -> None:
        """Nothing to store."""


class DetailStage(PriorStage):
    """Learns the fine structure of heads, given them at twice the spacing."""

    name = "detail"

    def __init__(
        self,
        prior: HeadPrior,
        heads: Sequence[Head],
        held: Sequence[Head],
        options: PriorOptions,
    ) -> None:
        super().__init__(prior, heads, held, options)
        self.steps = options.detail_steps


class FinerStage(PriorStage):
    """Learns to sharpen heads at twice the spacing, in a window of the grid a step.

    Args:
        prior: To train.
        heads: Training scans, packed for its spacing.
        held: Held-out scans; the first is looked at.
        options: Of the run; shape and spacing are those of the prior.
    """

    name = "finer"
    shown, preview_steps, poses = 1, 12, 1
    window = 16
    """Of the grid, along each axis: what is drawn anew here depends on what is near."""

    def __init__(
        self, prior: Sharpening, heads: Sequence[Head], held: Sequence[Head], options: PriorOptions
    ) -> None:
        spec = prior.spec
        here = replace(options, shape=spec.shape, spacing=spec.spacing)
        super().__init__(prior, heads, held[: self.shown], here)
        self.sharpening, self.steps = prior, options.finer_steps

    def given(self, x: Tensor) -> Tensor:
        """What the prior is told of images when it draws, with the same noise each time."""
        return self.sharpening.seen_of(blurred(self.own(x)), torch.Generator().manual_seed(2))

    def standardised(self, x: Tensor) -> Tensor:
        """What the prior draws, of images (B, 1, *shape)."""
        return self.prior.standardised(self.own(x), self.given(x))

    def loss(self, x: Tensor, share: Share) -> Tensor:
        """Its error in a window; each sample has a noise of its own in what is told."""
        x, prior = self.own(x), self.sharpening
        chosen = torch.Generator().manual_seed(seed_of(share.seed, "window"))
        copy = blurred(x)
        coarse = prior.with_noise(copy, normal(copy.shape[1:], share.seeds("told"), x.device))
        size = [min(self.window, n) for n in prior.grid]
        corner = [
            int(torch.randint(n - s + 1, (), generator=chosen))
            for n, s in zip(prior.grid, size, strict=True)
        ]
        a, b, c = (slice(k, k + s) for k, s in zip(corner, size, strict=True))
        window = a, b, c
        u = prior.standardised(x, coarse)
        return self.error(cut(u, window), cut(coarse, window), share, window)
