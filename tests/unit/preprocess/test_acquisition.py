"""The simulated acquisition: energy, spectrum, g-factor and law of the noise that it adds."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy import fft, ndimage

from medddpm.errors import ConfigError
from medddpm.preprocess.acquisition import (
    Acquisition,
    acquire,
    filter_window,
    filtered,
    g_factor,
    simulated_coils,
)
from medddpm.preprocess.noise_law import Colour

SHAPE = (48, 40, 32)


@pytest.fixture
def body(rng) -> np.ndarray:
    """Bright everywhere, so that the magnitude hardly bends the noise, and smooth."""
    smooth = ndimage.gaussian_filter(rng.normal(size=SHAPE), 3, mode="reflect")
    return (1 + 0.5 * smooth / smooth.std() * 0.3).astype(np.float32)


ACQUISITIONS = [
    Acquisition(0.03),
    Acquisition(0.03, matrix=(0.6, 0.7, 1.0), elliptical=(0, 1)),
    Acquisition(0.03, matrix=(0.8, 0.8, 0.8), filter="hann", filter_strength=0.8),
    Acquisition(0.03, filter="fermi", filter_strength=0.7, partial_fourier=0.75),
    Acquisition(0.03, partial_fourier=0.7, homodyne=True, blur=0.4),
    Acquisition(0.03, blur=-0.5, kind="ncchi", coils=4),
    Acquisition(0.03, rotation=(4.0, -3.0, 6.0), interpolation=1),
    Acquisition(0.03, rotation=(4.0, -3.0, 6.0), interpolation=3, matrix=(0.9, 0.9, 0.9)),
]


@pytest.mark.parametrize("acquisition", ACQUISITIONS)
def test_noise_has_the_level_and_the_spectrum_that_are_said(acquisition, body, rng) -> None:
    draws = [acquire(body, acquisition, rng) for _ in range(12)]
    noise = np.stack([d.noisy - d.clean for d in draws])
    noise -= noise.mean(axis=0)  # of a sum of squares: its bias
    law = draws[0].law
    inner = (slice(None), *(slice(6, -6),) * 3)
    factor = np.sqrt(12 / 11)
    assert factor * noise[inner].std() == pytest.approx(float(np.mean(law.sigma)), rel=0.04)
    blocks = (
        noise[:, 4:44, 4:36, 4:28].reshape(12, 10, 4, 8, 4, 6, 4).transpose(0, 1, 3, 5, 2, 4, 6)
    )
    coefficients = fft.dctn(blocks, axes=(4, 5, 6), norm="ortho").reshape(-1, 64)
    measured = factor * coefficients.std(axis=0) / float(np.mean(law.sigma))
    said = law.colour.block_std(4)
    loud = said > 0.15
    np.testing.assert_allclose(measured[loud], said[loud], rtol=0.12)


def test_no_noise_gives_the_clean_image_of_the_same_chain(body, rng) -> None:
    a = Acquisition(0.0, matrix=(0.7, 0.7, 1.0), filter="tukey", filter_strength=0.4, masked=True)
    made = acquire(body, a, rng)
    np.testing.assert_allclose(made.noisy, made.clean, atol=1e-6)
    kept = np.sum(made.clean.astype(float) ** 2) / np.sum(body.astype(float) ** 2)
    assert 0.9 < kept <= 1 + 1e-6  # a filter never adds energy


def test_whole_k_space_changes_nothing(body, rng) -> None:
    made = acquire(body, Acquisition(0.0), rng)
    np.testing.assert_allclose(made.clean, body, rtol=1e-6)
    assert filtered(body, Colour()) is not body


def test_g_factor_is_the_loss_of_signal_to_noise_that_sense_measures(rng) -> None:
    g = g_factor(SHAPE, 8, 2, 1, np.random.default_rng(3))
    assert g.shape == SHAPE
    assert g.min() >= 1
    assert g_factor(SHAPE, 8, 3, 1, np.random.default_rng(3)).mean() > g.mean()
    assert g_factor(SHAPE, 32, 3, 1, np.random.default_rng(3)).mean() < 2
    # Monte Carlo of one pair of folded voxels, unfolded by least squares.
    maps = simulated_coils((24, 24, 24), 8, np.random.default_rng(3))
    s = maps[:, 10, [3, 15], 12]
    noise = rng.normal(size=(8, 20000)) + 1j * rng.normal(size=(8, 20000))
    unfolded = np.linalg.lstsq(s, noise, rcond=None)[0]
    best = (np.conj(s) * 1).T @ noise / np.sum(np.abs(s) ** 2, axis=0)[:, None]
    measured = unfolded.real.std(axis=1) / best.real.std(axis=1)
    said = g_factor((24, 24, 24), 8, 2, 1, np.random.default_rng(3))[10, [3, 15], 12]
    np.testing.assert_allclose(measured, said, rtol=0.03)


def test_acceleration_makes_the_noise_louder_by_its_root_and_g(body) -> None:
    a = Acquisition(0.02, acceleration=2, coils=8)
    made = acquire(body, a, np.random.default_rng(5))
    assert made.law.kind == "rician"
    assert isinstance(made.law.sigma, np.ndarray)
    assert made.law.sigma.min() >= 0.02 * np.sqrt(2) - 1e-6
    noise = (made.noisy - made.clean) / made.law.sigma
    assert noise.std() == pytest.approx(1, rel=0.03)


def test_normalisation_multiplies_signal_and_noise(body) -> None:
    made = acquire(body, Acquisition(0.02, normalised=0.4), np.random.default_rng(5))
    assert np.std(made.law.sigma) > 0
    noise = (made.noisy - made.clean) / made.law.sigma
    assert noise.std() == pytest.approx(1, rel=0.03)


def test_rounding_and_masking_act_on_the_finished_image(body, rng) -> None:
    body = body.copy()
    body[:10] = 0
    made = acquire(body, Acquisition(0.05, bits=8, masked=True), rng)
    assert len(np.unique(made.noisy)) <= 256
    assert (made.noisy[:9] == 0).all()


@pytest.mark.parametrize("kind", ["tukey", "hann", "hamming", "fermi", "kaiser"])
def test_filters_fall_from_one_and_do_nothing_at_strength_zero(kind) -> None:
    f = np.linspace(0, 1, 33)
    window = filter_window(kind, 0.8, f)
    assert window[0] == pytest.approx(1)
    assert (np.diff(window) <= 1e-9).all()
    assert window[-1] < 0.95
    if kind in ("hann", "hamming", "kaiser"):
        np.testing.assert_allclose(filter_window(kind, 0.0, f), 1)


def test_it_is_seeded_and_a_sidecar_holds_it(body) -> None:
    a = Acquisition(0.05, matrix=(0.6, 0.6, 0.9), elliptical=(0, 1, 2), acceleration=2, coils=8)
    one, two = (acquire(body, a, np.random.default_rng(9)) for _ in range(2))
    np.testing.assert_array_equal(one.noisy, two.noisy)
    assert (
        Acquisition(
            **{
                k: tuple(v) if isinstance(v, list) else v
                for k, v in json.loads(json.dumps(asdict(a))).items()
            }
        )
        == a
    )


@pytest.mark.parametrize(
    "wrong",
    [{"sigma": -1.0}, {"sigma": np.nan}, {"partial_fourier": 0.4}, {"acceleration": 0}],
)
def test_what_cannot_be_acquired_is_refused(wrong) -> None:
    with pytest.raises(ConfigError):
        Acquisition(**{"sigma": 0.1, **wrong})


def test_too_few_coils_are_refused(body, rng) -> None:
    with pytest.raises(ConfigError, match="coils"):
        acquire(body, Acquisition(0.1, coils=1, acceleration=2), rng)
