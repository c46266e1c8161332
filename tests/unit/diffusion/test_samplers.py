from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from medddpm.diffusion.samplers import (
    SAMPLERS,
    SampleStep,
    ddim,
    ddpm,
    euler,
    truncated_start,
)
from medddpm.diffusion.schedule import CLEAN, NoiseLevel, Schedule
from medddpm.errors import ConfigError, SamplingDivergedError

SHAPE = (2, 1, 2, 2, 2)
LEVELS = Schedule("cosine", 100).steps(6)


def _z(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(
        dtype
    )


def _denoise(z: Tensor, level: NoiseLevel) -> Tensor:
    return torch.tanh(z) * level.alpha + 0.1


def _noise(i: int) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(100 + i))


every_sampler = pytest.mark.parametrize("name", list(SAMPLERS))


@every_sampler
def test_the_last_prediction_is_the_result(name: str) -> None:
    steps: list[SampleStep] = []
    found = SAMPLERS[name](_denoise, _z(), LEVELS, noise=_noise, on_step=steps.append)
    assert [step.i for step in steps] == list(range(6))
    assert {step.n for step in steps} == {6}
    assert [step.level for step in steps] == LEVELS[:-1]
    torch.testing.assert_close(found, steps[-1].x0)  # the clean level holds nothing else


@every_sampler
def test_one_step_from_pure_noise_is_the_posterior_mean(name: str) -> None:
    z = _z()
    levels = [NoiseLevel(0.0, 1.0), CLEAN]
    found = SAMPLERS[name](_denoise, z, levels, noise=_noise)
    torch.testing.assert_close(found, _denoise(z, levels[0]))


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_consistency_draws_the_right_spread_from_the_ends_of_paths(steps: int) -> None:
    """x0 ~ N(0, s^2): paths keep z over its standard deviation, so their ends are known."""
    s = 0.6

    def end(z: Tensor, level: NoiseLevel) -> Tensor:
        return z * s / math.hypot(level.alpha * s, level.sigma)

    z = torch.randn((1, 1, 40, 40, 40), generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    levels = Schedule("cosine", 100).steps(steps)
    found = SAMPLERS["consistency"](end, z, levels, generator=generator)
    assert float(found.std()) == pytest.approx(s, rel=0.01)
    assert float(found.mean()) == pytest.approx(0, abs=0.01)


@every_sampler
def test_dtype_is_kept(name: str) -> None:
    found = SAMPLERS[name](_denoise, _z(torch.float32), LEVELS, noise=_noise)
    assert found.dtype == torch.float32


@every_sampler
def test_the_input_is_left_alone(name: str) -> None:
    z = _z()
    SAMPLERS[name](_denoise, z, LEVELS, noise=_noise)
    assert torch.equal(z, _z())


@every_sampler
def test_an_item_does_not_depend_on_its_batch(name: str) -> None:
    both = SAMPLERS[name](_denoise, _z(), LEVELS, noise=_noise)
    one = SAMPLERS[name](_denoise, _z()[1:], LEVELS, noise=lambda i: _noise(i)[1:])
    assert torch.equal(both[1:], one)


@every_sampler
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_divergence_names_the_step(name: str, value: float) -> None:
    def diverge(z: Tensor, level: NoiseLevel) -> Tensor:
        return z * (value if level == LEVELS[2] else 1.0)

    step = "step 2 of 6" if name == "heun" else "step 3 of 6"  # heun looks one level ahead
    with pytest.raises(SamplingDivergedError, match=step):
        SAMPLERS[name](diverge, _z(), LEVELS, noise=_noise)


@every_sampler
def test_levels_must_fall(name: str) -> None:
    for levels in (LEVELS[::-1], LEVELS[:1], [LEVELS[0], LEVELS[0], CLEAN]):
        with pytest.raises(ConfigError, match="less noise than the last"):
            SAMPLERS[name](_denoise, _z(), levels, noise=_noise)


@every_sampler
def test_a_callback_may_cancel(name: str) -> None:
    seen: list[int] = []

    def cancel(step: SampleStep) -> None:
        seen.append(step.i)
        if step.i == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SAMPLERS[name](_denoise, _z(), LEVELS, noise=_noise, on_step=cancel)
    assert seen == [0, 1]


@every_sampler
def test_rescaled_levels_make_the_same_samples(name: str) -> None:
    """Only sigma / alpha matters: variance-exploding levels and z are the same process."""
    inner = Schedule("cosine", 100).steps(5, NoiseLevel(0.6, 0.8))
    exploding = [NoiseLevel(1.0, level.ve_sigma) for level in inner]

    def denoise(z: Tensor, level: NoiseLevel) -> Tensor:
        return torch.tanh(z / level.alpha) / (1 + level.ve_sigma)

    z = _z()
    found = SAMPLERS[name](denoise, z, inner, noise=_noise)
    torch.testing.assert_close(
        SAMPLERS[name](denoise, z / inner[0].alpha, exploding, noise=_noise), found
    )


def test_ddpm_is_ddim_with_all_the_noise() -> None:
    found = ddpm(_denoise, _z(), LEVELS, noise=_noise)
    assert torch.equal(found, ddim(_denoise, _z(), LEVELS, eta=1.0, noise=_noise))
    assert not torch.allclose(found, ddim(_denoise, _z(), LEVELS, eta=0.5, noise=_noise))


@pytest.mark.parametrize("kind", ["cosine", "rectified_flow"])
def test_euler_takes_the_steps_of_ddim(kind: str) -> None:
    levels = Schedule(kind, 100).steps(6)  # type: ignore[arg-type]
    torch.testing.assert_close(euler(_denoise, _z(), levels), ddim(_denoise, _z(), levels))


@pytest.mark.parametrize(
    ("name", "num_calls"),
    [("ddpm", 6), ("ddim", 6), ("dpm_solver_pp_2m", 6), ("euler", 6), ("heun", 11)],
)
def test_number_of_network_calls(name: str, num_calls: int) -> None:
    calls: list[NoiseLevel] = []

    def denoise(z: Tensor, level: NoiseLevel) -> Tensor:
        calls.append(level)
        return _denoise(z, level)

    SAMPLERS[name](denoise, _z(), LEVELS, noise=_noise)
    assert len(calls) == num_calls
    assert CLEAN not in calls


def test_noise_is_drawn_for_every_step_but_the_last() -> None:
    drawn: list[int] = []

    def noise(i: int) -> Tensor:
        drawn.append(i)
        return _noise(i)

    ddpm(_denoise, _z(), LEVELS, noise=noise)
    assert drawn == [0, 1, 2, 3, 4]


def test_a_generator_repeats_itself() -> None:
    first, second, other = (
        ddpm(_denoise, _z(), LEVELS, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.allclose(first, other)


def test_randomness_must_come_from_somewhere() -> None:
    with pytest.raises(ConfigError, match="generator or a noise"):
        ddpm(_denoise, _z(), LEVELS)


@pytest.mark.parametrize("eta", [-0.1, 1.1])
def test_eta_is_a_fraction(eta: float) -> None:
    with pytest.raises(ConfigError, match="eta in"):
        ddim(_denoise, _z(), LEVELS, eta=eta, noise=_noise)


def test_no_gradient_is_kept_of_the_network() -> None:
    weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
    found = ddim(lambda z, _: z * weight, _z(), LEVELS)
    assert not found.requires_grad


def test_truncated_start_is_the_guess_and_its_noise() -> None:
    guess, eps = _z(), _noise(0).double()
    level = NoiseLevel(0.6, 0.8)
    torch.testing.assert_close(truncated_start(guess, level, eps), 0.6 * guess + 0.8 * eps)
    assert torch.equal(truncated_start(guess, NoiseLevel(0.0, 1.0), eps), eps)
