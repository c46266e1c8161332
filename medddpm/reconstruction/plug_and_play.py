"""Ours: plug-and-play half-quadratic splitting with the shipped restorer as the prior.

x <- argmin |A x - y|^2 / sigma^2 + |x - D(x; s)|^2 / s^2, with s falling from the error of the warm
start to the noise of the measurement (Zhang et al., IEEE TPAMI 44:6360, 2022, eq. 6 and 7). Each
data step is a few conjugate gradients on A^H A + (sigma / s)^2; D is `mean`, E[x | x + s n].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from medddpm.operators.phase import smooth_phase
from medddpm.operators.solve import conjugate_gradients
from medddpm.reconstruction.classical import OnStep, cg_sense
from medddpm.reconstruction.problem import Problem

Denoise = Callable[[Tensor, float, bool], Tensor]
"""Real images (B, X, Y, Z) of scale 1, sigma, and whether the networks shall, to clean ones."""

_WARM_STEPS = 12
"""Conjugate gradients of the warm start: noise grows with more."""


@dataclass(frozen=True)
class PlugOptions:
    """How the splitting runs.

    Attributes:
        steps: Evaluations of the denoiser.
        first: Its sigma at the first, in units of the noise of a fully measured image.
        last: Its sigma at the last, in the same units.
        trust: Weight of the denoised image in the data step; 1 is the formula's.
        inner: Conjugate gradients a data step.
        warm: Weight of Tikhonov's term of the warm start.
        rounds: How many of the steps, the last ones, draw ("sample" and "ensemble" only).
        evaluations: Of the networks a draw.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    steps: Annotated[int, Ge(1)] = 6
    first: Annotated[float, Gt(0)] = 4.0
    last: Annotated[float, Gt(0)] = 0.7
    trust: Annotated[float, Gt(0)] = 1.0
    inner: Annotated[int, Ge(1)] = 6
    warm: Annotated[float, Gt(0)] = 0.02
    rounds: Annotated[int, Ge(1)] = 3
    evaluations: Annotated[int, Ge(1)] = 2


def plug_and_play(
    problem: Problem,
    denoise: Denoise,
    options: PlugOptions | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """The image, (B, X, Y, Z) complex.

    Args:
        problem: What was measured, at intensity scale 1.
        denoise: The prior.
        options: How; the defaults if not given.
        on_step: Called as (steps done, steps in all).
    """
    o = options or PlugOptions()
    return rounds_of_mean(problem, denoise, o, levels(o, problem.sigma), on_step)


def rounds_of_mean(
    problem: Problem,
    denoise: Denoise,
    options: PlugOptions,
    sigmas: Sequence[float],
    on_step: OnStep | None = None,
) -> Tensor:
    """The image (B, X, Y, Z) after a round of denoising and a data step at each of `sigmas`."""
    o = options
    x = cg_sense(problem, o.warm, _WARM_STEPS)
    right = problem.start
    for step, level in enumerate(sigmas):
        prior = denoised(x, level, denoise)
        x = agreeing(problem, right, prior, o.trust * (problem.sigma / level) ** 2, o.inner)
        if on_step:
            on_step(step + 1, len(sigmas))
    return x


def agreeing(problem: Problem, right: Tensor, prior: Tensor, mu: float, steps: int) -> Tensor:
    """Argmin |A x - y|^2 + mu |x - prior|^2, from the prior on."""
    normal = problem.sense.normal
    return conjugate_gradients(
        lambda x: normal(x) + mu * x,
        right + mu * prior,
        prior,
        iterations=steps,
        tolerance=1e-4,
    )


def levels(options: PlugOptions, sigma: float) -> list[float]:
    """Sigma of the denoiser at each step: a geometric series."""
    if options.steps == 1:
        return [options.last * sigma]
    ratio = options.last / options.first
    return [
        options.first * sigma * ratio ** (step / (options.steps - 1))
        for step in range(options.steps)
    ]


def denoised(x: Tensor, level: float, denoise: Denoise) -> Tensor:
    """A complex image through a denoiser of real ones, its phase taken off and given back.

    Where the phase is known, the object lies in the real part, as networks know it; what is left in
    the imaginary part is noise and what the phase was wrong by, and is denoised without them.
    """
    turn = smooth_phase(x)
    turned = x * turn.conj()
    real = denoise(turned.real.contiguous(), level, True)
    return torch.complex(real, denoise(turned.imag.contiguous(), level, False)) * turn
