"""Measured samples that a reconstruction does not get: how well it predicts them.

An honest check without a truth: an image that invents or loses anatomy mispredicts k-space by more
than its noise. Self-supervised reconstruction holds samples out in the same way (Yaman et al., Magn
Reson Med 84:3172, 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from medddpm.errors import ConfigError
from medddpm.operators.nufft import NufftSense
from medddpm.reconstruction.problem import Problem


@dataclass(frozen=True)
class HeldOut:
    """Samples that were kept out of a problem.

    Attributes:
        whole: The problem with these samples, and others.
        mask: (B or 1, X, Y, Z), 1 where a sample was kept out, as the mask of `whole.sense`.
        share: Of the measured samples.
        lines: How many lines, planes or readouts they are.
    """

    whole: Problem
    mask: Tensor
    share: float
    lines: int

    def error(self, image: Tensor) -> float:
        """Root mean square error of the prediction in units of the noise: 1 is noise alone.

        Args:
            image: (B, X, Y, Z) that was reconstructed without them.
        """
        mask, there = self.mask[:, None], (self.mask[:, None] > 0)
        gap = self.predicted(image) - self.whole.data * there
        gap = gap / torch.where(there, mask, 1)  # samples on no grid are weighted
        count = float(there.expand(gap.shape).sum())
        square = gap.real.square().sum() + gap.imag.square().sum()
        return float((square / (2 * count)).sqrt()) / (self.whole.sigma * self.whole.sample_noise)

    def spread(self, images: Sequence[Tensor]) -> float:
        """Standard deviation over images of what they predict, in units of the noise.

        Args:
            images: Two or more of (B, X, Y, Z).
        """
        weight = torch.where(self.mask[:, None] > 0, self.mask[:, None], 1)
        told = torch.stack([self.predicted(image) / weight for image in images])
        away = told - told.mean(dim=0)
        count = float((self.mask[:, None] > 0).expand(told.shape[1:]).sum())
        square = (away.real.square().sum() + away.imag.square().sum()) / (len(images) - 1)
        return float((square / (2 * count)).sqrt()) / (self.whole.sigma * self.whole.sample_noise)

    def predicted(self, image: Tensor) -> Tensor:
        """What was held out as an image (B, X, Y, Z) tells it, shaped as `whole.data`."""
        return self.whole.sense.masked(self.mask).forward(image)


def held_out_notices(held: dict[str, Any] | None) -> list[str]:
    """What is to be known of the check itself, one sentence each.

    A single line is no sample: with a 1D mask of R 8 it told zero-filled k-space from no other
    method (docs/reconstruct.md).

    Args:
        held: Facts of what was held out, if anything was.
    """
    if held is None or held["lines"] > 1:
        return []
    return [
        "one line alone was held out, which tells nothing of what is lost between the lines: trust "
        "neither the held-out error nor a 90 % interval; hold out a larger share, or measure more "
        "lines outside of the calibration"
    ]


def hold_out(problem: Problem, share: float, seed: int = 0) -> tuple[Problem, HeldOut]:
    """The problem without a share of its lines, and those lines.

    Whole lines along the readout are kept out, at random, none of them of the calibration. Where
    one encoded axis alone was undersampled, they are whole planes; of radial or spiral data they
    are whole readouts, the middle included.

    Args:
        problem: What was measured.
        share: Of the measured lines, more than 0 and less than 1.
        seed: Of the choice.

    Raises:
        ConfigError: All measured lines belong to the calibration, or there are too few.
    """
    mask = problem.sense.mask
    on_grid = not isinstance(problem.sense, NufftSense)
    is_full = on_grid and bool((mask > 0).all())
    lines = mask.amax(dim=(0, 1)) > 0
    if is_full:
        lines = torch.ones(problem.sense.maps.shape[-2:], dtype=torch.bool)
    free = lines & ~_middle(lines, problem.centre.shape[-2:]) if on_grid else lines
    count = round(share * int(lines.sum()))
    if count < 1 or count >= int(free.sum()):
        raise ConfigError(
            f"{share:g} of the {int(lines.sum())} measured lines cannot be held out: "
            f"{int(free.sum())} lie outside of the calibration; give another share, or 0"
        )
    generator = torch.Generator().manual_seed(seed)
    places = free.nonzero()
    chosen = places[torch.randperm(len(places), generator=generator)[:count]]
    out = torch.zeros_like(lines)
    out[chosen[:, 0], chosen[:, 1]] = True
    if is_full:
        only = problem.undersampled(out)
        return problem.undersampled(~out), HeldOut(
            only, only.sense.mask, count / lines.numel(), count
        )
    held, kept = mask * out, mask * ~out
    lost = float(held.square().sum() / mask.square().sum())
    fewer = replace(
        problem,
        sense=problem.sense.masked(kept),
        data=problem.data * (kept > 0)[:, None],
        acceleration=problem.acceleration / (1 - lost),
    )
    return fewer, HeldOut(problem, held, lost, count)


def _middle(lines: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """The lines of the calibration; all of an axis that the mask does not have."""
    out = torch.ones_like(lines)
    for axis, size in enumerate(sizes):
        length = lines.shape[axis]
        if length > 1:
            place = torch.arange(length)
            start = length // 2 - size // 2
            inside = (place >= start) & (place < start + size)
            out &= inside[:, None] if axis == 0 else inside[None]
    return out
