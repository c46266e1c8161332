from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from pydantic import BaseModel, ValidationError

from medddpm.diffusion.schedule import (
    CLEAN,
    NoiseLevel,
    Schedule,
    alphas_cumprod,
    cosine_alphas_cumprod,
    linear_alphas_cumprod,
    rescale_zero_terminal_snr,
    sigmoid_alphas_cumprod,
)
from medddpm.errors import ConfigError

VP_KINDS = ("linear", "scaled_linear", "cosine", "sigmoid")
KINDS = (*VP_KINDS, "rectified_flow")


@pytest.mark.parametrize("num_timesteps", [2, 10, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_noise_grows_strictly(kind: str, num_timesteps: int) -> None:
    alpha, sigma = Schedule(kind, num_timesteps).levels_tensor()
    assert alpha.dtype == sigma.dtype == torch.float64
    assert alpha.shape == sigma.shape == (num_timesteps,)
    assert (alpha.diff() < 0).all()
    assert (sigma.diff() > 0).all()
    assert alpha[0] < 1


@pytest.mark.parametrize("kind", KINDS)
def test_zero_terminal_snr_is_exact(kind: str) -> None:
    terminal = Schedule(kind).terminal
    assert terminal == NoiseLevel(0.0, 1.0)
    assert terminal.snr == 0
    assert terminal.ve_sigma == math.inf
    assert terminal.angle == math.pi / 2


@pytest.mark.parametrize("kind", VP_KINDS)
def test_variance_is_preserved(kind: str) -> None:
    for zero in (False, True):
        alpha, sigma = Schedule(kind, 100, zero).levels_tensor()
        torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(100, dtype=torch.float64))
        torch.testing.assert_close(alpha**2, alphas_cumprod(kind, 100, zero))


@pytest.mark.parametrize("kind", VP_KINDS)
def test_without_the_rescale_some_signal_is_left(kind: str) -> None:
    assert 0 < alphas_cumprod(kind, zero_terminal_snr=False)[-1] < 1e-3


def test_rectified_flow_is_straight() -> None:
    alpha, sigma = Schedule("rectified_flow", 4).levels_tensor()
    assert sigma.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert alpha.tolist() == [0.75, 0.5, 0.25, 0.0]


def test_linear_is_the_product_of_the_papers_betas() -> None:
    expected = 1.0
    for i in range(1000):
        expected *= 1 - (1e-4 + (0.02 - 1e-4) * i / 999)
    assert linear_alphas_cumprod(1000)[-1].item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("kind", ["linear", "scaled_linear"])
def test_total_noise_does_not_depend_on_the_length(kind: str) -> None:
    logs = [alphas_cumprod(kind, n, zero_terminal_snr=False)[-1].log() for n in (500, 1000, 4000)]
    torch.testing.assert_close(logs[0], logs[1], rtol=0.02, atol=0)
    torch.testing.assert_close(logs[2], logs[1], rtol=0.02, atol=0)


def test_cosine_is_equation_17() -> None:
    def f(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    abar = cosine_alphas_cumprod(1000)
    for i in (0, 300, 800):
        assert abar[i].item() == pytest.approx(f((i + 1) / 1000) / f(0), rel=1e-10)


def test_sigmoid_is_half_in_the_middle_and_clipped_at_the_end() -> None:
    abar = sigmoid_alphas_cumprod(1000)
    assert abar[499].item() == pytest.approx(0.5, abs=1e-12)
    assert abar[-1].item() == pytest.approx(1e-9)
    torch.testing.assert_close(abar[:-1] + abar[:-1].flip(0), torch.ones(999, dtype=torch.float64))


def test_rescale_keeps_the_first_level() -> None:
    abar = linear_alphas_cumprod(1000)
    rescaled = rescale_zero_terminal_snr(abar)
    assert rescaled[0].item() == pytest.approx(abar[0].item(), rel=1e-12)
    assert rescaled[-1] == 0
    slope = rescaled.sqrt().diff() / abar.sqrt().diff()
    torch.testing.assert_close(slope, slope[:1].expand(999))  # the roots change linearly


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 7, 1000, 1500])
def test_steps_fall_from_the_terminal_to_the_clean_level(kind: str, n: int) -> None:
    schedule = Schedule(kind)
    levels = schedule.steps(n)
    assert len(levels) == n + 1
    assert levels[0] == schedule.terminal
    assert levels[-1] == CLEAN
    assert all(b.angle < a.angle for a, b in pairwise(levels))


def test_steps_are_trailing() -> None:
    schedule = Schedule("linear", 1000)
    expected = [schedule.level(t) for t in (999, 799, 599, 399, 199)]
    assert schedule.steps(5) == [*expected, CLEAN]


def test_steps_start_exactly_where_they_are_told() -> None:
    schedule = Schedule("cosine")
    start = NoiseLevel(math.cos(0.4321), math.sin(0.4321))
    levels = schedule.steps(4, start)
    assert levels[0] is start
    assert len(levels) == 5
    gaps = [a.angle - b.angle for a, b in pairwise(levels)]
    assert max(gaps) / min(gaps) < 1.2


@pytest.mark.parametrize("ve_sigma", [1e-4, 0.0123, 0.9, 50.0])
@pytest.mark.parametrize("kind", KINDS)
def test_any_start_has_room_for_any_number_of_steps(kind: str, ve_sigma: float) -> None:
    schedule = Schedule(kind)
    start = NoiseLevel(1 / math.hypot(1, ve_sigma), ve_sigma / math.hypot(1, ve_sigma))
    levels = schedule.steps(50, start)
    assert levels[0] == start
    assert all(b.angle < a.angle for a, b in pairwise(levels))


@pytest.mark.parametrize("kind", KINDS)
def test_levels_between_timesteps_belong_to_the_schedule(kind: str) -> None:
    schedule = Schedule(kind, 10)
    levels = schedule.steps(20)
    assert levels[0::2] == [schedule.level(t) for t in reversed(range(10))] + [CLEAN]
    for level in levels[1::2]:
        total = level.alpha + level.sigma
        norm = total if kind == "rectified_flow" else math.hypot(level.alpha, level.sigma)
        assert norm == pytest.approx(1, abs=1e-12)
    for before, level, after in zip(levels[0::2], levels[1::2], levels[2::2], strict=False):
        assert level.tau == pytest.approx((before.tau + after.tau) / 2)


def test_a_start_above_the_terminal_level_is_followed_by_the_schedule() -> None:
    schedule = Schedule("linear", zero_terminal_snr=False)
    levels = schedule.steps(4, NoiseLevel(0.0, 1.0))
    assert levels[0].alpha == 0
    assert levels[1:] == schedule.steps(4)[1:]


def test_nearest_inverts_ve_sigma() -> None:
    for kind in KINDS:
        schedule = Schedule(kind)
        for t in (0, 17, 500, 998, 999):
            assert schedule.nearest(schedule.level(t).ve_sigma) == schedule.level(t)
        assert schedule.nearest(0.0) == schedule.level(0)


def test_levels_are_not_shared_between_callers() -> None:
    schedule = Schedule("linear", 10)
    before = schedule.level(3)
    schedule.levels_tensor()[0].zero_()
    assert schedule.level(3) == before


def test_level_of_equal_parts() -> None:
    level = NoiseLevel(0.5, 0.5)
    assert level.angle == pytest.approx(math.pi / 4)
    assert level.snr == level.ve_sigma == 1
    assert CLEAN.angle == CLEAN.ve_sigma == 0
    assert CLEAN.snr == math.inf


@pytest.mark.parametrize(
    ("alpha", "sigma"), [(0.0, 0.0), (-0.1, 1.0), (1.0, -0.1), (math.nan, 1.0), (1.0, math.inf)]
)
def test_impossible_levels_are_refused(alpha: float, sigma: float) -> None:
    with pytest.raises(ConfigError, match="noise level"):
        NoiseLevel(alpha, sigma)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Schedule("karras"), "kind 'karras' is unknown"),  # type: ignore[arg-type]
        (lambda: alphas_cumprod("karras"), "kind 'karras' is unknown"),  # type: ignore[arg-type]
        (lambda: Schedule("linear", 1), "at least 2 timesteps"),
        (lambda: alphas_cumprod("linear", 1), "at least 2 timesteps"),
        (lambda: Schedule("rectified_flow", zero_terminal_snr=False), "ends in pure noise"),
        (lambda: Schedule().level(1000), "timestep 1000 is outside"),
        (lambda: Schedule().level(-1), "timestep -1 is outside"),
        (lambda: Schedule().steps(0), "at least 1 step"),
        (lambda: Schedule().steps(4, CLEAN), "cannot start at the clean level"),
        (lambda: Schedule().nearest(-0.1), "cannot be -0.1"),
        (lambda: Schedule().nearest(math.nan), "cannot be nan"),
    ],
)
def test_user_mistakes_are_config_errors(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ConfigError, match=message):
        make()


class _Config(BaseModel):
    schedule: Schedule = Schedule()


def test_a_config_can_embed_a_schedule() -> None:
    config = _Config.model_validate({"schedule": {"kind": "linear", "num_timesteps": 50}})
    assert config.schedule == Schedule("linear", 50)
    assert _Config.model_validate(config.model_dump()) == config


@pytest.mark.parametrize(
    ("field", "value", "where"),
    [
        ("kind", "karras", "schedule.kind"),
        ("num_timesteps", 1, "schedule.num_timesteps"),
        ("betas", 3, "schedule.betas"),
    ],
)
def test_a_config_names_the_bad_field(field: str, value: object, where: str) -> None:
    with pytest.raises(ValidationError, match=where):
        _Config.model_validate({"schedule": {field: value}})
