"""Whole heads drawn scale by scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from medddpm.diffusion.samplers import sampler_of, truncated_start
from medddpm.diffusion.schedule import CLEAN, NoiseLevel
from medddpm.generation.options import PriorSpec
from medddpm.generation.prior import (
    SCHEDULE,
    FineStructure,
    HeadPrior,
    Sharpening,
    blurred,
    halved,
)

SAMPLER = "ddpm"
_FEWER = 8
"""Times less network evaluations where a grid is sharpened."""


class Cascade(nn.Module):
    """Whole heads, scale by scale: the head at twice the spacing, its fine structure, a finer grid.

    The coarse scale says what is drawn where, at an eighth of the cost; what is fine follows
    from it and from its own neighbours.

    Args:
        spec: Of the grid in the middle.
    """

    def __init__(self, spec: PriorSpec) -> None:
        super().__init__()
        self.spec = spec
        half, twice = (tuple(int(n * f) for n in spec.shape) for f in (0.5, 2))
        coarse = replace(spec, shape=half, spacing=2 * spec.spacing, channels=spec.coarse_channels)
        self.coarse = HeadPrior(coarse)
        self.fine = FineStructure(spec)
        self.finer: Sharpening | None = None
        if spec.finer:
            self.finer = Sharpening(replace(spec, shape=twice, spacing=spec.spacing / 2))

    @property
    def finest(self) -> PriorSpec:
        """Of the finest grid."""
        return self.spec if self.finer is None else self.finer.spec

    def leave_out_finer(self) -> None:
        """Draw on the grid in the middle at finest."""
        self.spec, self.finer = replace(self.spec, finer=False), None

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
        spec: PriorSpec | None = None,
        sampler: str = SAMPLER,
        like: Tensor | None = None,
        level: NoiseLevel = SCHEDULE.terminal,
    ) -> Tensor:
        """A head (1, 1, *shape); the same seed gives the same one.

        Args:
            seed: Of all noise.
            steps: Network evaluations of each scale; an eighth of them where a grid is sharpened,
                since a copy says nearly all.
            spec: `spec` or `finest`, whose grid is drawn on; the first if not given.
            sampler: By its name, see `diffusion.samplers`.
            like: (1, 1, *shape), a head that noise of `level` is added to; none is drawn anew.
            level: Where the draw of each scale begins.
        """
        generator = torch.Generator().manual_seed(seed)
        scales: list[HeadPrior] = [self.coarse, self.fine]
        if self.finer is not None and spec is not None and spec == self.finer.spec:
            scales.append(self.finer)
        image = torch.zeros(0)
        for prior, own in zip(scales, self._of_each(like, scales), strict=True):
            coarse = prior.seen_of(image, generator)
            eps = torch.randn(1, *prior.mean.shape, generator=generator).to(prior.mean)
            u = torch.zeros_like(eps) if own is None else prior.standardised(own, coarse)
            if level is not CLEAN:
                count = math.ceil(steps / _FEWER) if prior is self.finer else steps
                start, levels = truncated_start(u, level, eps), SCHEDULE.steps(count, level)
                denoiser = prior.denoiser(1, coarse)
                u = sampler_of(sampler)(denoiser, start, levels, generator=generator)
            image = prior.image(u, coarse)
        return image

    def _of_each(self, like: Tensor | None, scales: Sequence[HeadPrior]) -> list[Tensor | None]:
        """A head on the grid of the last scale, as each scale sees it."""
        if like is None:
            return [None] * len(scales)
        own = [like]
        for prior in scales[:0:-1]:
            own.insert(0, blurred(own[0]) if prior is self.finer else halved(own[0]))
        return [*own]
