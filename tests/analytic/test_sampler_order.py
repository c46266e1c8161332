"""Gaussian data N(mu, c^2) has a closed-form denoiser and a closed-form probability flow.

Every sampler is measured against them: the mean and variance that it reaches, and the order
at which its error falls with the number of steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from medddpm.diffusion.denoiser import Denoiser
from medddpm.diffusion.samplers import SAMPLERS, ddim, ddpm
from medddpm.diffusion.schedule import CLEAN, NoiseLevel, Schedule

MU, C = 1.3, 0.5
STEPS = (32, 64, 128, 256)
HALF_PI = math.pi / 2
Levels = Callable[[int], list[NoiseLevel]]


def denoise(z: Tensor, level: NoiseLevel) -> Tensor:
    """E[x0 | z] for x0 ~ N(MU, C^2)."""
    a, s = level.alpha, level.sigma
    return MU + a * C**2 / (a**2 * C**2 + s**2) * (z - a * MU)


def _std(level: NoiseLevel) -> float:
    return math.hypot(level.alpha * C, level.sigma)


def flow(z: Tensor, start: NoiseLevel, end: NoiseLevel) -> Tensor:
    """Where the probability-flow ODE takes z: its quantile stays the same."""
    return end.alpha * MU + _std(end) / _std(start) * (z - start.alpha * MU)


def _end(z: Tensor, level: NoiseLevel) -> Tensor:
    return flow(z, level, CLEAN)


def _preserving(first: float, last: float) -> Levels:
    """Variance-preserving levels, evenly spaced in angle."""

    def levels(n: int) -> list[NoiseLevel]:
        angles = [first + (last - first) * i / n for i in range(n + 1)]
        return [_level(angle) for angle in angles]

    return levels


def _level(angle: float) -> NoiseLevel:
    return NoiseLevel(0.0 if angle == HALF_PI else math.cos(angle), math.sin(angle))


def _straight(first: float, last: float) -> Levels:
    """Rectified-flow levels, evenly spaced in t."""

    def levels(n: int) -> list[NoiseLevel]:
        times = [first + (last - first) * i / n for i in range(n + 1)]
        return [NoiseLevel(1 - t, t) for t in times]

    return levels


def _error(sampler: str, levels: list[NoiseLevel]) -> float:
    z = torch.tensor([-1.0, 0.3, 2.0], dtype=torch.float64)
    found = SAMPLERS[sampler](denoise, z, levels)
    return (found - flow(z, levels[0], levels[-1])).abs().max().item()


def _order(sampler: str, levels: Levels) -> float:
    errors = [_error(sampler, levels(n)) for n in STEPS]
    return float(-np.polyfit(np.log(STEPS), np.log(errors), 1)[0])


@pytest.mark.parametrize(
    "levels",
    [
        _preserving(1.4, 0.2),
        _preserving(HALF_PI, 0.2),
        _preserving(HALF_PI, 0.0),
        _straight(0.9, 0.1),
        _straight(1.0, 0.0),
    ],
    ids=["vp inner", "vp from zero SNR", "vp whole", "flow inner", "flow whole"],
)
class TestOrder:
    @pytest.mark.parametrize("sampler", ["ddim", "euler"])
    def test_first_order(self, sampler: str, levels: Levels) -> None:
        assert 0.95 < _order(sampler, levels) < 1.05

    def test_heun_is_second_order(self, levels: Levels) -> None:
        assert 1.9 < _order("heun", levels) < 2.1


@pytest.mark.parametrize(
    "levels", [_preserving(1.4, 0.2), _straight(0.9, 0.1)], ids=["vp inner", "flow inner"]
)
def test_dpm_solver_pp_2m_is_second_order(levels: Levels) -> None:
    assert 1.9 < _order("dpm_solver_pp_2m", levels) < 2.1


@pytest.mark.parametrize(
    "levels", [_preserving(HALF_PI, 0.0), _straight(1.0, 0.0)], ids=["vp whole", "flow whole"]
)
def test_dpm_solver_pp_2m_from_zero_snr_to_clean(levels: Levels) -> None:
    """Both ends are first-order steps; a factor log(n) in the error hides the full order."""
    coarse, fine = (_error("dpm_solver_pp_2m", levels(n)) for n in (64, 512))
    assert math.log(coarse / fine, 8) > 1.5
    for n in (8, 32, 128):
        assert _error("dpm_solver_pp_2m", levels(n)) < _error("ddim", levels(n)) / 2


@pytest.mark.parametrize("sampler", ["ddim", "dpm_solver_pp_2m", "heun", "euler"])
@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "cosine", "sigmoid", "rectified_flow"])
def test_shipped_schedules_reach_the_data(kind: str, sampler: str) -> None:
    schedule = Schedule(kind)  # type: ignore[arg-type]
    for start in (schedule.terminal, schedule.nearest(1.0)):
        coarse, fine = (_error(sampler, schedule.steps(n, start)) for n in (20, 80))
        assert fine < 0.07
        assert fine < max(coarse / 2, 1e-3)


def _moments(
    sampler: Callable[..., Tensor],
    levels: list[NoiseLevel],
    n: int = 100_000,
    denoiser: Denoiser = denoise,
) -> tuple[float, float]:
    generator = torch.Generator().manual_seed(0)
    eps = torch.randn(n, generator=generator, dtype=torch.float64)
    z = levels[0].alpha * MU + _std(levels[0]) * eps
    x = sampler(denoiser, z, levels, generator=generator)
    return float(x.mean()), float(x.std())


@pytest.mark.parametrize("kind", ["cosine", "linear", "rectified_flow"])
@pytest.mark.parametrize("name", list(SAMPLERS))
def test_mean_and_variance_of_the_data(name: str, kind: str) -> None:
    levels = Schedule(kind).steps(200)  # type: ignore[arg-type]
    # a distilled network answers with the end of the path, not with the mean over all ends
    answers = _end if name == "consistency" else denoise
    mean, std = _moments(SAMPLERS[name], levels, 20_000, answers)
    assert mean == pytest.approx(MU, abs=0.02)
    assert std == pytest.approx(C, abs=0.03)


def _stochastic_std(eta: float, levels: list[NoiseLevel]) -> float:
    """The exact standard deviation of z after DDIM steps: each one is linear in z."""
    variance = _std(levels[0]) ** 2
    for level, after in pairwise(levels):
        ratio = (level.alpha * after.sigma / (after.alpha * level.sigma)) ** 2
        added = eta**2 * after.sigma**2 * (1 - ratio)
        kept = math.sqrt(after.sigma**2 - added) / level.sigma
        gain = level.alpha * C**2 / _std(level) ** 2
        variance = (kept + (after.alpha - kept * level.alpha) * gain) ** 2 * variance + added
    return math.sqrt(variance)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_few_stochastic_steps_have_the_predicted_variance(eta: float) -> None:
    levels = _preserving(HALF_PI, 0.0)(6)

    def sampler(*args: object, generator: torch.Generator) -> Tensor:
        return ddim(*args, eta=eta, generator=generator)  # type: ignore[arg-type]

    mean, std = _moments(sampler, levels)
    assert mean == pytest.approx(MU, abs=0.006)
    assert std == pytest.approx(_stochastic_std(eta, levels), rel=0.01)


def test_ancestral_steps_of_a_perfect_guess_are_the_forward_process() -> None:
    """Data that is one point: x0 is known, and every ddpm step keeps z ~ N(alpha mu, sigma^2)."""
    levels = _preserving(HALF_PI, 0.3)(5)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(100_000, generator=generator, dtype=torch.float64)
    found = ddpm(lambda z, _: torch.full_like(z, MU), z, levels, generator=generator)
    assert float(found.mean()) == pytest.approx(levels[-1].alpha * MU, abs=0.005)
    assert float(found.std()) == pytest.approx(levels[-1].sigma, rel=0.01)
