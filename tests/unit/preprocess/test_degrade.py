"""The noise has the moments that its law demands, and is the same whenever it is asked for."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import gammaln, hyp1f1

from medddpm.errors import ConfigError, GeometryError, ShapeError
from medddpm.preprocess.degrade import add_noise, signal_bias_corrected, simulate, volume_seed
from medddpm.preprocess.intensity import intensity_scale
from medddpm.preprocess.noise_law import NoiseLaw
from medddpm.volume import Volume

NUM = 400_000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def chi_mean(signal: float, sigma: float, coils: int) -> float:
    """Mean of the non-central chi law, Constantinides et al. 1997, eq. 6."""
    centre = math.sqrt(2) * math.exp(gammaln(coils + 0.5) - gammaln(coils))
    return sigma * centre * float(hyp1f1(-0.5, coils, -(signal**2) / (2 * sigma**2)))


def test_no_signal_is_rayleigh() -> None:
    y = add_noise(torch.zeros(NUM), 3.0, generator=generator())
    assert y.mean().item() == pytest.approx(3.0 * math.sqrt(math.pi / 2), rel=5e-3)
    assert y.var().item() == pytest.approx(9.0 * (2 - math.pi / 2), rel=1e-2)
    assert y.median().item() == pytest.approx(3.0 * math.sqrt(2 * math.log(2)), rel=5e-3)


@pytest.mark.parametrize("signal", [0.5, 2.0, 20.0])
def test_rician_moments(signal: float) -> None:
    y = add_noise(
        torch.full((NUM,), signal), 1.5, law=NoiseLaw("rician"), generator=generator()
    ).double()
    assert y.mean().item() == pytest.approx(chi_mean(signal, 1.5, 1), rel=5e-3)
    assert y.square().mean().item() == pytest.approx(signal**2 + 2 * 1.5**2, rel=1e-2)


@pytest.mark.parametrize("coils", [1, 4, 8])
@pytest.mark.parametrize("signal", [0.0, 3.0])
def test_non_central_chi_moments(signal: float, coils: int) -> None:
    y = add_noise(
        torch.full((NUM,), signal), 1.0, law=NoiseLaw("ncchi", coils), generator=generator()
    )
    assert y.mean().item() == pytest.approx(chi_mean(signal, 1.0, coils), rel=5e-3)
    assert y.square().mean().item() == pytest.approx(signal**2 + 2 * coils, rel=1e-2)


def test_gaussian_keeps_mean_and_sign() -> None:
    y = add_noise(torch.full((NUM,), 0.5), 2.0, law=NoiseLaw("gaussian"), generator=generator())
    assert y.mean().item() == pytest.approx(0.5, abs=0.02)
    assert y.std().item() == pytest.approx(2.0, rel=1e-2)
    assert (y < 0).any()


def test_a_map_of_sigma_broadcasts() -> None:
    sigma = torch.tensor([0.0, 1.0, 4.0]).view(3, 1)
    y = add_noise(torch.full((3, NUM // 4), 50.0), sigma, generator=generator())
    assert y.shape == (3, NUM // 4)
    torch.testing.assert_close(y.std(dim=1), sigma.view(3), rtol=0.02, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_half_precision_comes_back_as_float32(dtype: torch.dtype) -> None:
    x = torch.ones(64, dtype=dtype)
    y = add_noise(x, 0.1, generator=generator(3))
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, add_noise(x.float(), 0.1, generator=generator(3)))


def test_float64_stays_and_the_input_is_not_touched() -> None:
    x = torch.ones(64, dtype=torch.float64)
    assert add_noise(x, 0.1).dtype == torch.float64
    assert (x == 1).all()


def test_noise_follows_the_generator() -> None:
    x = torch.ones(100)
    first, again, other = (add_noise(x, 1.0, generator=generator(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("sigma", [-1.0, math.nan, math.inf])
def test_impossible_sigma(sigma: float) -> None:
    with pytest.raises(ConfigError, match="sigma"):
        add_noise(torch.ones(4), sigma)
    with pytest.raises(ConfigError, match="sigma"):
        add_noise(torch.ones(4), torch.tensor([1.0, 1.0, sigma, 1.0]))


@pytest.mark.parametrize("shape", [(3,), (2, 4), (1, 1, 4)])
def test_sigma_that_does_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="does not fit"):
        add_noise(torch.ones(4), torch.ones(shape))


def test_unknown_kind_and_no_coils() -> None:
    with pytest.raises(ConfigError, match="rician, gaussian, ncchi"):
        add_noise(torch.ones(4), 1.0, law=NoiseLaw("poisson"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="coil"):
        add_noise(torch.ones(4), 1.0, law=NoiseLaw("ncchi", 0))


@pytest.mark.parametrize(("kind", "coils"), [("rician", 1), ("ncchi", 4)])
def test_bias_correction_recovers_the_mean_power(kind: str, coils: int) -> None:
    y = add_noise(torch.full((NUM,), 6.0), 1.0, law=NoiseLaw(kind, coils), generator=generator())  # type: ignore[arg-type]
    x = signal_bias_corrected(y, 1.0, law=NoiseLaw(kind, coils))  # type: ignore[arg-type]
    assert x.square().mean().sqrt().item() == pytest.approx(6.0, rel=2e-3)
    assert y.square().mean().sqrt().item() > 6.1


def test_bias_correction_never_goes_below_zero_and_leaves_gaussian_alone() -> None:
    y = torch.tensor([0.1, 1.0, 5.0])
    assert signal_bias_corrected(y, 1.0)[0] == 0
    assert torch.equal(signal_bias_corrected(y, 1.0, law=NoiseLaw("gaussian")), y)


def test_volume_seed_is_a_hash_of_its_parts() -> None:
    digest = hashlib.sha256(b"7:sub-01:2").hexdigest()
    assert volume_seed(7, "sub-01", 2) == int(digest[:16], 16) >> 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.text(max_size=8), st.integers(0, 99))
def test_volume_seed_fits_a_generator(seed: int, case_id: str, frame: int) -> None:
    value = volume_seed(seed, case_id, frame)
    assert 0 <= value < 2**63
    torch.Generator().manual_seed(value)
    assert value != volume_seed(seed, case_id, frame + 1)


def test_simulate_keeps_place_and_units(phantom: Volume) -> None:
    noisy = simulate(phantom, 0.05, seed=1)
    assert noisy.geometry == phantom.geometry
    assert noisy.data.dtype == np.float32
    air = phantom.data == 0
    sigma = 0.05 * intensity_scale(phantom.data)
    assert np.sqrt(np.mean(noisy.data[air] ** 2) / 2) == pytest.approx(sigma, rel=0.02)


def test_simulate_depends_on_seed_and_case_only(phantom: Volume) -> None:
    from dataclasses import replace

    first = simulate(phantom, 0.05, seed=1).data
    np.testing.assert_array_equal(first, simulate(phantom, 0.05, seed=1).data)
    assert not np.array_equal(first, simulate(phantom, 0.05, seed=2).data)
    assert not np.array_equal(first, simulate(replace(phantom, case_id="b"), 0.05, seed=1).data)


def test_simulate_zero_sigma_changes_nothing(phantom: Volume) -> None:
    np.testing.assert_allclose(simulate(phantom, 0.0).data, phantom.data, rtol=1e-6)


def test_simulate_gives_each_frame_its_own_noise(phantom: Volume) -> None:
    pair = Volume(np.stack([phantom.data] * 2, axis=-1), phantom.geometry, case_id="phantom")
    noisy = simulate(pair, 0.05, seed=1)
    assert noisy.data.shape == pair.data.shape
    assert not np.array_equal(noisy.frame(0), noisy.frame(1))
    np.testing.assert_array_equal(noisy.frame(0), simulate(phantom, 0.05, seed=1).data)


def test_gmap_multiplies_sigma(phantom: Volume) -> None:
    gmap = np.ones(phantom.data.shape)
    gmap[:20] = 3.0
    noisy = simulate(phantom, 0.05, gmap=gmap, seed=1)
    air = phantom.data == 0
    low, high = (
        np.sqrt(np.mean(noisy.data[half][air[half]] ** 2)) for half in (np.s_[20:], np.s_[:20])
    )
    assert high / low == pytest.approx(3.0, rel=0.05)


def test_bad_requests_to_simulate(phantom: Volume) -> None:
    with pytest.raises(ConfigError, match="sigma"):
        simulate(phantom, -0.1)
    with pytest.raises(ConfigError, match="sigma"):
        simulate(phantom, math.nan)
    with pytest.raises(GeometryError, match="g-map"):
        simulate(phantom, 0.1, gmap=np.ones((3, 3, 3)))
    with pytest.raises(ConfigError, match="g-map"):
        simulate(phantom, 0.1, gmap=-np.ones(phantom.data.shape))
