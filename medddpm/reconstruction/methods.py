"""The reconstructions by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from medddpm.errors import ConfigError
from medddpm.reconstruction.classical import (
    OnStep,
    cg_sense,
    l1_wavelet,
    total_variation,
    zero_filled,
)
from medddpm.reconstruction.held_out import HeldOut, hold_out
from medddpm.reconstruction.options import ReconstructOptions
from medddpm.reconstruction.plug_and_play import Denoise, plug_and_play
from medddpm.reconstruction.problem import Problem
from medddpm.reconstruction.sampling import draws

TIKHONOV = 0.02
SPARSE = {"tv": 0.5, "l1-wavelet": 0.5}
"""Weights that are good in the middle of the range of R and noise; in units of the noise."""
_WARM = 12


def solve(
    problem: Problem,
    options: ReconstructOptions,
    denoise: Denoise | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """The complex image (B, X, Y, Z) of a problem.

    Args:
        problem: What was measured, at intensity scale 1.
        options: Method and settings.
        denoise: The prior of "ours".
        on_step: Called as (steps done, steps in all).

    Raises:
        ConfigError: "ours" without a prior.
    """
    method = options.method
    if method == "zero-filled":
        return zero_filled(problem)
    if method == "cg-sense":
        return cg_sense(problem, options.weight or TIKHONOV, options.iterations or 30)
    if method == "ours":
        if denoise is None:
            raise ConfigError("method ours needs the networks: give weights")
        return plug_and_play(problem, denoise, options.plug, on_step)
    start = cg_sense(problem, TIKHONOV, _WARM)
    run = total_variation if method == "tv" else l1_wavelet
    weight = (options.weight or SPARSE[method]) * problem.sigma
    return run(problem, weight, options.iterations or 40, start, on_step)


class DrawingPrior(Protocol):
    """A denoiser that gives the expected clean image, and makes ones that draw."""

    def __call__(self, images: Tensor, sigma: float, learned: bool = True) -> Tensor:
        """See `Denoise`."""

    def drawing(self, seed: int, evaluations: int) -> Denoise:
        """A denoiser that gives one plausible clean image."""


@dataclass(frozen=True)
class Solved:
    """One frame.

    Attributes:
        image: (B, X, Y, Z) complex; of an ensemble the mean of its draws.
        draws: The draws; none in mode "mean".
        facts: JSON-able: what was held out and how well it is predicted.
    """

    image: Tensor
    draws: list[Tensor] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def solve_frame(
    problem: Problem,
    options: ReconstructOptions,
    prior: DrawingPrior | None = None,
    on_step: OnStep | None = None,
) -> Solved:
    """One frame in any mode, with the check on samples that were held out.

    Args:
        problem: What was measured, at intensity scale 1.
        options: Method, mode and settings.
        prior: Of "ours".
        on_step: Called as (steps done, steps in all).

    Raises:
        ConfigError: "ours" without a prior, or nothing can be held out.
    """
    held: HeldOut | None = None
    share = options.share_held_out
    if share:
        problem, held = hold_out(problem, share, options.seed)
    if options.mode == "mean":
        images = [solve(problem, options, prior, on_step)]
    elif prior is None:
        raise ConfigError("method ours needs the networks: give weights")
    else:
        draw = partial(prior.drawing, evaluations=options.plug.evaluations)
        images = list(draws(problem, prior, draw, options.plug, options.seeds, on_step))
    image = torch.stack(images).mean(dim=0)
    facts = {} if held is None else {"held_out": _held_facts(held, image, images)}
    return Solved(image, images if options.mode != "mean" else [], facts)


def _held_facts(held: HeldOut, image: Tensor, images: Sequence[Tensor]) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "share": round(held.share, 4),
        "lines": held.lines,
        "error_in_noise": round(held.error(image), 4),
    }
    each = [round(held.error(one), 4) for one in images]
    if len(images) == 1:
        return facts
    return {
        **facts,
        "error_of_each_draw": each,
        "spread_in_noise": round(held.spread(images), 4),
    }
