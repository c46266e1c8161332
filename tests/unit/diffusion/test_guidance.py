from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor

from medddpm.diffusion.guidance import guided, log_bessel, log_likelihood
from medddpm.diffusion.samplers import ddim
from medddpm.diffusion.schedule import NoiseLevel, Schedule
from medddpm.errors import ConfigError
from medddpm.preprocess.noise_law import RICIAN, Colour, NoiseKind, NoiseLaw

LEVEL = NoiseLevel(0.6, 0.8)
SHAPE = (1, 1, 2, 2, 2)
every_kind = pytest.mark.parametrize(
    ("kind", "coils"), [("gaussian", 1), ("rician", 1), ("ncchi", 1), ("ncchi", 8), ("ncchi", 32)]
)


def _randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _gradient(x: Tensor, y: Tensor, sigma: float | Tensor, law: NoiseLaw) -> Tensor:
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(log_likelihood(x, y, sigma, law).sum(), x)
    return gradient


# ---- log I_m


@pytest.mark.parametrize("order", [0, 1, 2, 7, 31])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_bessel_is_scipys(order: int, dtype: torch.dtype) -> None:
    z = torch.logspace(-2, 6, 200, dtype=torch.float64)
    scaled = special.ive(order, z.numpy())
    inside = scaled > 1e-280
    expected = np.log(scaled[inside]) - order * np.log(z.numpy()[inside])
    found = log_bessel(z.to(dtype), order).double().numpy()[inside]
    assert inside.sum() > 100
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-6)


def test_log_i0_at_high_snr_is_finite_and_right() -> None:
    """At 1e4, I0 itself is about e^9994 and overflows; log I0(z) = z - log(2 pi z) / 2 + 1 / 8z."""
    z = torch.tensor([1e4], dtype=torch.float64)
    assert torch.isinf(torch.special.i0(z)).all()
    expected = -0.5 * math.log(2 * math.pi * 1e4) + 1 / 8e4 + 1 / 16e8
    assert log_bessel(z, 0).item() == pytest.approx(expected, rel=1e-12)
    assert log_bessel(z.float(), 0).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("order", [0, 1, 5, 31])
def test_log_bessel_at_zero_is_its_limit(order: int) -> None:
    z = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    value = log_bessel(z, order)
    assert value.item() == pytest.approx(-order * math.log(2) - math.lgamma(order + 1), rel=1e-6)


@pytest.mark.parametrize("order", [0, 1, 7, 31])
def test_bessel_ratio_is_scipys(order: int) -> None:
    z = torch.logspace(-3, 6, 100, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(log_bessel(z, order).sum(), z)
    x = z.detach().numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = special.ive(order + 1, x) / special.ive(order, x)
    inside = special.ive(order + 1, x) > 1e-280
    np.testing.assert_allclose(found.numpy()[inside] + 1, expected[inside], rtol=1e-6)


@pytest.mark.parametrize("order", [0, 1, 7])
def test_log_bessel_passes_gradcheck(order: int) -> None:
    z = torch.tensor([0.3, 2.0, 15.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: log_bessel(t, order), (z,), eps=1e-4, atol=1e-6)


# ---- log p(y | x)


def _one_by_one(x: Tensor, y: Tensor, sigma: float, law: NoiseLaw = RICIAN) -> Tensor:
    return log_likelihood(x.reshape(-1, 1), y.reshape(-1, 1), sigma, law)


def test_rician_is_scipys() -> None:
    x, y = torch.meshgrid(torch.linspace(0, 2, 9), torch.linspace(0.01, 2, 9), indexing="ij")
    x, y = x.double().flatten(), y.double().flatten()
    for sigma in (0.02, 0.3):
        expected = stats.rice.logpdf(y.numpy(), x.numpy() / sigma, scale=sigma)
        usable = np.isfinite(expected)
        found = _one_by_one(x, y, sigma).numpy()
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found[usable], expected[usable], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("coils", [1, 4, 16])
def test_ncchi_is_scipys(coils: int) -> None:
    """(y / sigma)^2 is noncentral chi squared with 2 n degrees of freedom."""
    sigma = 0.2
    y = torch.linspace(0.1, 3, 30, dtype=torch.float64)
    for signal in (0.05, 0.5, 2.0):
        found = _one_by_one(torch.full_like(y, signal), y, sigma, NoiseLaw("ncchi", coils)).numpy()
        squared = (y.numpy() / sigma) ** 2
        expected = stats.ncx2.logpdf(squared, 2 * coils, (signal / sigma) ** 2)
        expected = expected + np.log(2 * y.numpy() / sigma**2)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@every_kind
def test_densities_integrate_to_one(kind: NoiseKind, coils: int) -> None:
    sigma = 0.3
    y = torch.linspace(-5, 8, 20001, dtype=torch.float64)
    for signal in (0.0, 0.4, 2.0):
        density = _one_by_one(torch.full_like(y, signal), y, sigma, NoiseLaw(kind, coils)).exp()
        assert torch.trapezoid(density, y).item() == pytest.approx(1.0, abs=1e-4)


def test_gaussian_is_scipys() -> None:
    x, y = _randn(2, 5), _randn(2, 5, seed=1)
    expected = stats.norm.logpdf(y.numpy(), x.numpy(), 0.3).sum(1)
    np.testing.assert_allclose(log_likelihood(x, y, 0.3, NoiseLaw("gaussian")).numpy(), expected)


def test_one_coil_is_rician() -> None:
    x, y = _randn(3, 50).abs(), _randn(3, 50, seed=1).abs()
    first, second = (_gradient(x, y, 0.1, NoiseLaw(kind)) for kind in ("rician", "ncchi"))
    assert torch.equal(first, second)
    assert torch.equal(
        log_likelihood(x, y, 0.1, NoiseLaw("rician")),
        log_likelihood(x, y, 0.1, NoiseLaw("ncchi", 1)),
    )


def test_coils_do_not_matter_to_rician() -> None:
    x, y = _randn(3, 50).abs(), _randn(3, 50, seed=1).abs()
    assert torch.equal(
        log_likelihood(x, y, 0.1, NoiseLaw("rician", 8)),
        log_likelihood(x, y, 0.1, NoiseLaw("rician", 1)),
    )


@every_kind
def test_gradient_is_that_of_finite_differences(kind: NoiseKind, coils: int) -> None:
    x, y = _randn(1, 40).abs() + 0.1, _randn(1, 40, seed=1).abs() + 0.1
    sigma, step = 0.4, 1e-4
    ahead = _one_by_one(x + step, y, sigma, NoiseLaw(kind, coils))
    behind = _one_by_one(x - step, y, sigma, NoiseLaw(kind, coils))
    found = _gradient(x, y, sigma, NoiseLaw(kind, coils)).flatten()
    torch.testing.assert_close(found, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-5)


@every_kind
def test_likelihood_is_right_at_high_snr_in_float32(kind: NoiseKind, coils: int) -> None:
    """SNR 100, z = 1e4: everything is close to a Gaussian of mean sqrt(x^2 + (2n - 1) sigma^2)."""
    x, sigma = torch.ones(1, 1), 0.01
    y = torch.tensor([[1.02]])
    n = 1 if kind == "gaussian" else coils
    bias = 0 if kind == "gaussian" else (2 * n - 1) * sigma**2 / 2
    expected = (1.02 - 1 - bias) / sigma**2
    assert _gradient(x, y, sigma, NoiseLaw(kind, coils)).item() == pytest.approx(expected, rel=0.04)
    exact = log_likelihood(x.double(), y.double(), sigma, NoiseLaw(kind, coils))
    torch.testing.assert_close(
        log_likelihood(x, y, sigma, NoiseLaw(kind, coils)).double(), exact, rtol=1e-4, atol=1e-3
    )


@every_kind
def test_extremes_are_finite(kind: NoiseKind, coils: int) -> None:
    x = torch.tensor([[0.0, 1e-20, 1.0, 1.0, 10.0, -0.5]])
    y = torch.tensor([[0.0, 1.0, 1e-20, 1.0, 10.0, 0.5]])
    gradient = _gradient(x, y, 1e-4, NoiseLaw(kind, coils))
    assert torch.isfinite(gradient).all()
    assert torch.isfinite(log_likelihood(x[:, 1:], y[:, 1:], 1e-4, NoiseLaw(kind, coils))).all()


def test_a_magnitude_of_zero_has_no_density() -> None:
    x = torch.ones(1, 1)
    assert log_likelihood(x, torch.zeros(1, 1), 0.1, NoiseLaw("rician")).item() == -math.inf


def test_a_map_of_sigma_and_the_batch_are_taken_one_by_one() -> None:
    x, y = _randn(2, 3).abs(), _randn(2, 3, seed=1).abs()
    sigma = torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64)
    found = log_likelihood(x, y, sigma, NoiseLaw("rician"))
    for b in range(2):
        parts = [_one_by_one(x[b, i : i + 1], y[b, i : i + 1], float(sigma[i])) for i in range(3)]
        assert found[b].item() == pytest.approx(sum(part.item() for part in parts))


@pytest.mark.parametrize("sigma", [0.0, -0.1, math.nan])
def test_sigma_must_be_positive(sigma: float) -> None:
    with pytest.raises(ConfigError, match="sigma > 0"):
        log_likelihood(torch.ones(1, 1), torch.ones(1, 1), sigma, NoiseLaw("rician"))


def test_unknown_noise_and_coils_are_refused() -> None:
    one = torch.ones(1, 1)
    with pytest.raises(ConfigError, match="'poisson' is unknown"):
        log_likelihood(one, one, 0.1, NoiseLaw("poisson"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least one coil"):
        guided(lambda z, _: z, lambda x: x, one, 0.1, law=NoiseLaw("ncchi", 0))


# ---- guidance


def _denoise(z: Tensor, level: NoiseLevel) -> Tensor:
    return 0.5 * z


@pytest.mark.parametrize("gain", [0.5, 3.0])
@pytest.mark.parametrize("sigma", [0.01, 0.1, 10.0])
def test_linear_gaussian_guidance_is_the_posterior_mean(gain: float, sigma: float) -> None:
    """Prior N(x0, r^2), y = gain * x + N(0, sigma^2): Bayes in closed form."""
    z, y = _randn(*SHAPE), _randn(*SHAPE, seed=1)
    found = guided(_denoise, lambda x: gain * x, y, sigma, law=NoiseLaw("gaussian"))(z, LEVEL)
    x0, r2 = _denoise(z, LEVEL), 0.64
    expected = (x0 / r2 + gain * y / sigma**2) / (1 / r2 + gain**2 / sigma**2)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("wave", [0, 1, 2, 4])
def test_coloured_noise_counts_frequency_by_frequency(wave: int) -> None:
    """A residual of one frequency, in noise of variance sigma^2 S there: Bayes in closed form."""
    colour = Colour(window=((1.0, 0.5), (1.0,), (1.0,)))
    z, sigma, r2 = _randn(1, 1, 8, 4, 4), 0.3, 0.64
    line = torch.cos(2 * math.pi * wave * torch.arange(8, dtype=torch.float64) / 8)
    residual = line[:, None, None].expand(8, 4, 4)
    y = _denoise(z, LEVEL) + residual
    law = NoiseLaw("gaussian", colour=colour)
    moved = guided(_denoise, lambda x: x, y, sigma, law=law)(z, LEVEL) - _denoise(z, LEVEL)
    amplitude = np.interp(np.abs(np.fft.fftfreq(8) * 2), [0, 1], [1.0, 0.5])
    power = float(amplitude[wave] ** 2 / np.mean(amplitude**2))
    expected = r2 / (r2 + sigma**2 * power) * residual
    torch.testing.assert_close(moved[0, 0], expected, rtol=1e-5, atol=1e-6)


def test_where_there_is_no_noise_a_scan_is_not_believed_without_bound() -> None:
    law = NoiseLaw("gaussian", colour=Colour((0.5, 1.0, 1.0)))
    z = _randn(1, 1, 16, 4, 4)
    found = guided(_denoise, lambda x: x, _randn(1, 1, 16, 4, 4, seed=1), 1e-3, law=law)(z, LEVEL)
    assert torch.isfinite(found).all()
    assert found.abs().max() < 10


@pytest.mark.parametrize("level", [NoiseLevel(0.0, 1.0), LEVEL, NoiseLevel(0.9, 0.1)])
@every_kind
def test_guidance_raises_the_likelihood(kind: NoiseKind, coils: int, level: NoiseLevel) -> None:
    def decode(x: Tensor) -> Tensor:
        return 0.3 * torch.nn.functional.softplus(x).repeat_interleave(2, -1)

    z = _randn(2, 1, 4, 4, 4)
    y = decode(_randn(2, 1, 4, 4, 4, seed=1)) + 0.05 * _randn(2, 1, 4, 4, 8, seed=2).abs()
    moved = guided(_denoise, decode, y, 0.05, law=NoiseLaw(kind, coils))(z, level)
    before = log_likelihood(decode(_denoise(z, level)), y, 0.05, NoiseLaw(kind, coils))
    after = log_likelihood(decode(moved), y, 0.05, NoiseLaw(kind, coils))
    assert (after > before).all()


def test_guidance_does_not_overshoot_at_vanishing_noise() -> None:
    z, y = _randn(*SHAPE), _randn(*SHAPE, seed=1)
    found = guided(_denoise, lambda x: 2 * x, y, 1e-4, law=NoiseLaw("gaussian"))(z, LEVEL)
    torch.testing.assert_close(2 * found, y, rtol=1e-4, atol=1e-4)


def test_scale_is_linear_and_zero_is_no_guidance() -> None:
    z, y = _randn(*SHAPE), _randn(*SHAPE, seed=1).abs()
    assert guided(_denoise, torch.exp, y, 0.3, scale=0.0) is _denoise
    full = guided(_denoise, torch.exp, y, 0.3)(z, LEVEL) - 0.5 * z
    half = guided(_denoise, torch.exp, y, 0.3, scale=0.5)(z, LEVEL) - 0.5 * z
    assert full.abs().max() > 0.01
    torch.testing.assert_close(full, 2 * half)


def test_a_measurement_that_agrees_moves_nothing() -> None:
    z = _randn(*SHAPE)
    found = guided(_denoise, torch.exp, torch.exp(0.5 * z), 0.3, law=NoiseLaw("gaussian"))(z, LEVEL)
    assert torch.equal(found, 0.5 * z)


def test_items_of_a_batch_are_guided_apart() -> None:
    z, y = _randn(2, 1, 2, 2, 2), _randn(2, 1, 2, 2, 2, seed=1).abs()
    y[1] *= 50
    both = guided(_denoise, torch.exp, y, 0.3)(z, LEVEL)
    torch.testing.assert_close(both[:1], guided(_denoise, torch.exp, y[:1], 0.3)(z[:1], LEVEL))


def test_the_network_is_not_differentiated() -> None:
    grad_modes: list[bool] = []

    def denoise(z: Tensor, level: NoiseLevel) -> Tensor:
        grad_modes.append(torch.is_grad_enabled())
        return 0.5 * z

    y = _randn(*SHAPE).abs()
    ddim(guided(denoise, torch.exp, y, 0.3), _randn(*SHAPE), Schedule().steps(3))
    assert grad_modes == [False] * 3


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_guidance_works_where_gradients_are_off(context: Callable[[], torch.no_grad]) -> None:
    expected = guided(_denoise, torch.exp, _randn(*SHAPE).abs(), 0.3)(_randn(*SHAPE), LEVEL)
    with context():
        z, y = _randn(*SHAPE), _randn(*SHAPE).abs()
        found = guided(_denoise, torch.exp, y, 0.3)(z, LEVEL)
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad


def test_guidance_is_computed_outside_autocast() -> None:
    weight = torch.full((1, 1, 1, 1, 1), 1.5)

    def decode(x: Tensor) -> Tensor:
        return torch.nn.functional.conv3d(x, weight)

    z, y = _randn(*SHAPE).float(), _randn(*SHAPE, seed=1).float().abs()
    expected = guided(_denoise, decode, y, 0.3)(z, LEVEL)
    with torch.autocast("cpu", torch.bfloat16):
        found = guided(_denoise, decode, y, 0.3)(z, LEVEL)
    torch.testing.assert_close(found, expected)


def test_guidance_takes_a_map_of_sigma() -> None:
    z, y = _randn(*SHAPE), _randn(*SHAPE, seed=1).abs()
    one = guided(_denoise, torch.exp, y, 0.3)(z, LEVEL)
    with torch.inference_mode():
        sigma = torch.full(SHAPE, 0.3, dtype=torch.float64)
        torch.testing.assert_close(guided(_denoise, torch.exp, y, sigma)(z, LEVEL), one)
        sigma[..., 0] = 1e6  # nothing is known there, so nothing is moved
        moved = guided(_denoise, torch.exp, y, sigma)(z, LEVEL) - 0.5 * z
    assert moved[..., 0].abs().max() < 1e-6
    assert moved[..., 1].abs().min() > 1e-4


def test_guided_sampling_reaches_the_posterior_of_a_gaussian() -> None:
    """Data N(0, 1), one noisy look at it: the sampled mean lies where Bayes puts it."""
    sigma, y = 0.5, torch.full((1, 1), 1.2, dtype=torch.float64)

    def prior(z: Tensor, level: NoiseLevel) -> Tensor:
        return level.alpha * z / (level.alpha**2 + level.sigma**2)

    z = _randn(20_000, 1)
    levels = Schedule("cosine").steps(100)
    found = ddim(guided(prior, lambda x: x, y, sigma, law=NoiseLaw("gaussian")), z, levels)
    assert found.mean().item() == pytest.approx(1.2 / (1 + sigma**2), abs=0.02)
    assert found.std().item() == pytest.approx(sigma / math.sqrt(1 + sigma**2), abs=0.02)
