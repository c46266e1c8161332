from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from medddpm.diffusion.prediction import Prediction, interpolate, target, to_eps, to_x0
from medddpm.errors import ConfigError

angles = st.floats(0.0, math.pi / 2)
inner_angles = st.floats(0.02, math.pi / 2 - 0.02)
radii = st.floats(0.5, 2.0)
seeds = st.integers(0, 2**31)
everywhere = st.sampled_from(["x0", "v", "flow"])
every_prediction = st.sampled_from(["eps", "x0", "v", "flow"])


def _pair(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x0, eps = torch.randn(2, 3, 2, 2, 2, 2, generator=generator, dtype=torch.float64)
    return x0, eps


def _level(angle: float, radius: float) -> tuple[float, float]:
    return radius * max(math.cos(angle), 0.0), radius * math.sin(angle)


@given(seeds, angles, radii, everywhere)
def test_x0_comes_back_at_any_level(
    seed: int, angle: float, radius: float, prediction: Prediction
) -> None:
    x0, eps = _pair(seed)
    alpha, sigma = _level(angle, radius)
    z = interpolate(x0, eps, alpha, sigma)
    output = target(x0, eps, alpha, sigma, prediction)
    torch.testing.assert_close(to_x0(output, z, alpha, sigma, prediction), x0)


@given(seeds, inner_angles, radii, every_prediction)
def test_x0_and_eps_come_back_where_there_are_signal_and_noise(
    seed: int, angle: float, radius: float, prediction: Prediction
) -> None:
    x0, eps = _pair(seed)
    alpha, sigma = _level(angle, radius)
    z = interpolate(x0, eps, alpha, sigma)
    found = to_x0(target(x0, eps, alpha, sigma, prediction), z, alpha, sigma, prediction)
    torch.testing.assert_close(found, x0)
    torch.testing.assert_close(to_eps(found, z, alpha, sigma), eps)


@given(seeds, inner_angles)
def test_v_is_the_velocity_of_z_in_the_angle(seed: int, angle: float) -> None:
    x0, eps = _pair(seed)
    step = 1e-5
    ahead = interpolate(x0, eps, *_level(angle + step, 1.0))
    behind = interpolate(x0, eps, *_level(angle - step, 1.0))
    v = target(x0, eps, *_level(angle, 1.0), "v")
    torch.testing.assert_close(v, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-8)


@given(seeds, st.floats(0.01, 0.99))
def test_flow_is_the_velocity_of_z_in_rectified_time(seed: int, t: float) -> None:
    x0, eps = _pair(seed)
    step = 0.005
    ahead = interpolate(x0, eps, 1 - t - step, t + step)
    behind = interpolate(x0, eps, 1 - t + step, t - step)
    torch.testing.assert_close(target(x0, eps, 1 - t, t, "flow"), (ahead - behind) / (2 * step))


@given(seeds, st.lists(inner_angles, min_size=3, max_size=3), every_prediction)
def test_a_batch_of_levels_is_each_of_them(
    seed: int, batch: list[float], prediction: Prediction
) -> None:
    x0, eps = _pair(seed)
    alpha = torch.tensor(batch, dtype=torch.float64).cos()
    sigma = torch.tensor(batch, dtype=torch.float64).sin()
    z = interpolate(x0, eps, alpha, sigma)
    output = target(x0, eps, alpha, sigma, prediction)
    together = to_x0(output, z, alpha, sigma, prediction)
    for i in range(3):
        one = slice(i, i + 1)
        a, s = float(alpha[i]), float(sigma[i])
        torch.testing.assert_close(z[one], interpolate(x0[one], eps[one], a, s))
        torch.testing.assert_close(output[one], target(x0[one], eps[one], a, s, prediction))
        torch.testing.assert_close(together[one], to_x0(output[one], z[one], a, s, prediction))


def test_float64_levels_do_not_widen_a_float32_latent() -> None:
    x0, eps = (tensor.float() for tensor in _pair(0))
    level = torch.full((3,), 0.5, dtype=torch.float64)
    z = interpolate(x0, eps, level, level)
    assert z.dtype == to_x0(eps, z, level, level, "v").dtype == torch.float32


@pytest.mark.parametrize("alpha", [0.0, torch.tensor([0.5, 0.0, 1.0])])
def test_eps_prediction_is_refused_at_zero_snr(alpha: float | Tensor) -> None:
    x0, eps = _pair(0)
    with pytest.raises(ConfigError, match="undefined at zero SNR"):
        to_x0(eps, x0, alpha, 1.0, "eps")
    with pytest.raises(ConfigError, match="undefined at zero SNR"):
        target(x0, eps, alpha, 1.0, "eps")


def test_eps_of_the_clean_level_is_refused() -> None:
    x0, _ = _pair(0)
    with pytest.raises(ConfigError, match="holds no noise"):
        to_eps(x0, x0, 1.0, 0.0)


def test_unknown_prediction_is_refused() -> None:
    x0, eps = _pair(0)
    with pytest.raises(ConfigError, match="'score' is unknown"):
        target(x0, eps, 0.5, 0.5, "score")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'score' is unknown"):
        to_x0(eps, x0, 0.5, 0.5, "score")  # type: ignore[arg-type]
