"""Draws from what raw data and the prior leave open: split Gibbs sampling with the restorer.

The splitting of `plug_and_play`, its two steps drawn instead of solved (Vono et al., IEEE Trans
Signal Process 67:1648, 2019; with diffusion as the denoiser Coeurdoux et al., IEEE Trans Image
Process 33:3496, 2024): x from a Gaussian given the data and z, and z from the diffusion model as
one clean image that x with noise of s may have come from. The noise that each x brings is the
re-noising of DiffPIR (Zhu et al., CVPR Workshops 2023) and of DDS (Chung et al., ICLR 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from medddpm.reconstruction.classical import OnStep
from medddpm.reconstruction.plug_and_play import (
    Denoise,
    PlugOptions,
    agreeing,
    denoised,
    levels,
    rounds_of_mean,
)
from medddpm.reconstruction.problem import Problem

Draw = Callable[[int], Denoise]
"""A denoiser that gives one plausible clean image, by its seed."""


def draws(
    problem: Problem,
    mean: Denoise,
    draw: Draw,
    options: PlugOptions,
    seeds: Sequence[int],
    on_step: OnStep | None = None,
) -> Iterator[Tensor]:
    """One image (B, X, Y, Z) a seed; the rounds before those that draw are done once.

    Args:
        problem: What was measured, at intensity scale 1.
        mean: The prior of the rounds before.
        draw: The prior of the last rounds.
        options: How.
        seeds: One a draw.
        on_step: Called as (steps done, steps in all).
    """
    every = levels(options, problem.sigma)
    count = min(options.rounds, len(every))
    early, late = every[: len(every) - count], every[len(every) - count :]
    total = len(early) + count * len(seeds)
    done = 0

    def step(_: int, __: int) -> None:
        nonlocal done
        done += 1
        if on_step:
            on_step(done, total)

    x = rounds_of_mean(problem, mean, options, early, step)
    for seed in seeds:
        yield _drawn(problem, x, draw, options, late, seed, step)


def _drawn(
    problem: Problem,
    start: Tensor,
    draw: Draw,
    options: PlugOptions,
    late: Sequence[float],
    seed: int,
    step: OnStep,
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    z = start
    for number, level in enumerate(late):
        measured = problem.data + problem.sigma * _noise(problem.data, generator)
        right = problem.sense.adjoint(measured)
        trust = options.trust * (problem.sigma / level) ** 2
        # the minimum of a quadratic whose terms are all perturbed by their own noise is a draw from
        # its Gaussian (Papandreou and Yuille, NeurIPS 2010)
        x = agreeing(problem, right, z + level * _noise(z, generator), trust, options.inner)
        z = denoised(x, level, draw(seed * len(late) + number))
        step(0, 0)
    return agreeing(problem, problem.start, z, trust, options.inner)


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Complex noise with a standard deviation of 1 in each part."""
    noise = torch.randn(like.shape, dtype=like.dtype, generator=generator)
    return (noise * 2**0.5).to(like.device)
