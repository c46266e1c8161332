"""Samplers: from a noisy latent down a list of levels to a clean one.

Each is a stateless function over a denoiser (z, level) -> x0 and is written once for any
z = alpha * x0 + sigma * eps. Two facts make that possible, and finite where alpha = 0:

- A DDIM step from (alpha, sigma) to (alpha', sigma') is linear in z and x0,
  z' = (sigma' / sigma) * z + (alpha' - alpha * sigma' / sigma) * x0,
  and does not change when all levels are rescaled.
- With tau = sigma / (alpha + sigma) and w = z / (alpha + sigma), every interpolant is the
  straight one, w = (1 - tau) * x0 + tau * eps, whose ODE dw/dtau = (w - x0) / tau is finite
  at pure noise (tau = 1). Euler and Heun integrate that one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from medddpm.diffusion.denoiser import Denoiser
from medddpm.diffusion.prediction import interpolate
from medddpm.diffusion.schedule import NoiseLevel
from medddpm.errors import ConfigError, SamplingDivergedError
from medddpm.named import named

Noise = Callable[[int], Tensor]
"""The unit noise that step i adds, in the shape of z."""


@dataclass(frozen=True)
class SampleStep:
    """What a sampler reports after each step.

    Attributes:
        i: Number of the step, from 0.
        n: How many there are.
        level: The level that the step started from.
        x0: (B, C, X, Y, Z), the clean latent as predicted there.
    """

    i: int
    n: int
    level: NoiseLevel
    x0: Tensor


OnStep = Callable[[SampleStep], None]


class Sampler(Protocol):
    """The signature that all samplers share.

    Args of a call: a denoiser; z (B, C, X, Y, Z) at levels[0]; levels, falling, the last one
    clean or nearly so; generator or noise, the source of randomness of a stochastic sampler
    (deterministic ones use neither); on_step, called after each step, may raise to cancel.
    """

    def __call__(
        self,
        denoiser: Denoiser,
        z: Tensor,
        levels: Sequence[NoiseLevel],
        *,
        generator: torch.Generator | None = None,
        noise: Noise | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Return z at levels[-1]."""
        ...


def ddim(
    denoiser: Denoiser,
    z: Tensor,
    levels: Sequence[NoiseLevel],
    *,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """A sample by DDIM, Song et al. 2021, eq. 12; first order.

    `eta` scales the noise that each step adds, std = eta * sigma' * sqrt(1 - SNR / SNR')
    (eq. 16 written for any interpolant): 0 is deterministic, 1 is DDPM.
    """
    if not 0 <= eta <= 1:
        raise ConfigError(f"ddim needs eta in [0, 1], got {eta}")
    for i, level, following in _steps(levels):
        x0 = _denoise(denoiser, z, level, i, len(levels) - 1)
        added = eta * following.sigma * math.sqrt(1 - _snr_ratio(level, following))
        kept = math.sqrt(following.sigma**2 - added**2) / level.sigma
        z = kept * z + (following.alpha - kept * level.alpha) * x0
        if added > 0:
            z = z + added * _draw(i, z, generator, noise)
        _report(on_step, i, levels, x0)
    return z


def ddpm(
    denoiser: Denoiser,
    z: Tensor,
    levels: Sequence[NoiseLevel],
    *,
    generator: torch.Generator | None = None,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """A sample by ancestral steps, Ho et al. 2020, eq. 7, over levels of any spacing.

    The mean and variance of each step are those of q(z' | z, x0): DDIM with eta = 1.
    """
    return ddim(denoiser, z, levels, eta=1.0, generator=generator, noise=noise, on_step=on_step)


def dpm_solver_pp_2m(
    denoiser: Denoiser,
    z: Tensor,
    levels: Sequence[NoiseLevel],
    *,
    generator: torch.Generator | None = None,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """A sample by DPM-Solver++(2M), Lu et al. 2022, algorithm 2; second order, one call a step.

    The step is DDIM's with x0 extrapolated linearly in lambda = log(alpha / sigma) from the
    last two predictions. Where lambda is infinite (from pure noise, to the clean level) no
    line can be drawn and the step is first order.
    """
    previous: Tensor | None = None
    h_previous = math.inf
    for i, level, following in _steps(levels):
        x0 = _denoise(denoiser, z, level, i, len(levels) - 1)
        h = -0.5 * math.log(ratio) if (ratio := _snr_ratio(level, following)) > 0 else math.inf
        half = h / h_previous / 2 if math.isfinite(h) else 0.0
        ahead = x0 if previous is None or half == 0 else x0 + half * (x0 - previous)
        z = _ddim_step(z, ahead, level, following)
        previous, h_previous = x0, h
        _report(on_step, i, levels, x0)
    return z


def euler(
    denoiser: Denoiser,
    z: Tensor,
    levels: Sequence[NoiseLevel],
    *,
    generator: torch.Generator | None = None,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """A sample by Euler steps along the straight flow; first order (Liu et al. 2022).

    For rectified flow this is its own sampler. For any interpolant it takes DDIM's step with
    eta = 0, since that one does not depend on the scale of the levels.
    """
    for i, level, following in _steps(levels):
        x0 = _denoise(denoiser, z, level, i, len(levels) - 1)
        w = z / _scale(level)
        w = w + (following.tau - level.tau) * (w - x0) / level.tau
        z = w * _scale(following)
        _report(on_step, i, levels, x0)
    return z


def heun(
    denoiser: Denoiser,
    z: Tensor,
    levels: Sequence[NoiseLevel],
    *,
    generator: torch.Generator | None = None,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """A sample by Heun's method, Karras et al. 2022, algorithm 1; second order, two calls a step.

    Integrates the straight flow instead of their dz/dsigma, so that it can start at pure
    noise. As there, a step to the clean level is Euler's.
    """
    n = len(levels) - 1
    for i, level, following in _steps(levels):
        w, tau, tau_next = z / _scale(level), level.tau, following.tau
        x0 = _denoise(denoiser, z, level, i, n)
        slope = (w - x0) / tau
        ahead = w + (tau_next - tau) * slope
        if following.sigma > 0:
            x0_next = _denoise(denoiser, ahead * _scale(following), following, i, n)
            ahead = w + (tau_next - tau) * (slope + (ahead - x0_next) / tau_next) / 2
        z = ahead * _scale(following)
        _report(on_step, i, levels, x0)
    return z


def consistency(
    denoiser: Denoiser,
    z: Tensor,
    levels: Sequence[NoiseLevel],
    *,
    generator: torch.Generator | None = None,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """A sample of a distilled network, by multistep consistency sampling.

    Song et al. 2023, algorithm 1. Such a network answers with the end of a path, not with a mean
    over all ends. So each answer is a sample, to which the noise of the next level is added anew.
    A network that was not distilled ends too smooth.
    """
    for i, level, following in _steps(levels):
        x0 = _denoise(denoiser, z, level, i, len(levels) - 1)
        z = following.alpha * x0
        if following.sigma > 0:
            z = z + following.sigma * _draw(i, x0, generator, noise)
        _report(on_step, i, levels, x0)
    return z


SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        "ddpm": ddpm,
        "ddim": ddim,
        "dpm_solver_pp_2m": dpm_solver_pp_2m,
        "heun": heun,
        "euler": euler,
        "consistency": consistency,
    }
)


def sampler_of(name: str) -> Sampler:
    """The sampler of this name: ours, a package's (entry point), or that of an import path.

    Raises:
        ConfigError: There is none.
    """
    return named(name, SAMPLERS, "sampler", "medddpm.samplers")


def truncated_start(z0_guess: Tensor, level: NoiseLevel, eps: Tensor) -> Tensor:
    """A noisy latent at `level` around a first guess, to sample from there on.

    Args:
        z0_guess: (B, C, X, Y, Z), such as the latent of the noisy scan or its E[z0 | y].
        level: Where the reverse process starts, the first of the levels to sample.
        eps: Unit noise in the shape of `z0_guess`.
    """
    return interpolate(z0_guess, eps, level.alpha, level.sigma)


def _steps(levels: Sequence[NoiseLevel]) -> Iterator[tuple[int, NoiseLevel, NoiseLevel]]:
    angles = [level.angle for level in levels]
    if len(levels) < 2 or any(b >= a for a, b in pairwise(angles)):
        raise ConfigError(
            f"a sampler needs at least two levels, each with less noise than the last, got {levels}"
        )
    return ((i, *pair) for i, pair in enumerate(pairwise(levels)))


def _denoise(denoiser: Denoiser, z: Tensor, level: NoiseLevel, i: int, n: int) -> Tensor:
    with torch.no_grad():
        x0 = denoiser(z, level)
    if not bool(torch.isfinite(x0).all()):
        raise SamplingDivergedError(
            f"step {i + 1} of {n}: the denoiser answered NaN or infinity at alpha "
            f"{level.alpha:.4g}, sigma {level.sigma:.4g}; check the weights and the scan, lower "
            "the guidance scale, or compute in float32"
        )
    return x0


def _ddim_step(z: Tensor, x0: Tensor, level: NoiseLevel, following: NoiseLevel) -> Tensor:
    kept = following.sigma / level.sigma
    return kept * z + (following.alpha - kept * level.alpha) * x0


def _snr_ratio(level: NoiseLevel, following: NoiseLevel) -> float:
    """SNR / SNR' in [0, 1]: 0 from pure noise or to the clean level."""
    return (level.alpha * following.sigma / (following.alpha * level.sigma)) ** 2


def _scale(level: NoiseLevel) -> float:
    return level.alpha + level.sigma


def _draw(i: int, z: Tensor, generator: torch.Generator | None, noise: Noise | None) -> Tensor:
    if noise is not None:
        return noise(i).to(z)
    if generator is None:
        raise ConfigError("a stochastic sampler needs a generator or a noise function")
    return torch.randn(z.shape, generator=generator, device=generator.device).to(z)


def _report(on_step: OnStep | None, i: int, levels: Sequence[NoiseLevel], x0: Tensor) -> None:
    if on_step is not None:
        on_step(SampleStep(i=i, n=len(levels) - 1, level=levels[i], x0=x0))
