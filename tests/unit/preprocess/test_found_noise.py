"""The noise of a scan is found with its support: edges, ellipse, level; white noise stays white."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from medddpm.preprocess.acquisition import Acquisition, Filter, acquire
from medddpm.preprocess.found_noise import find_noise, known_noise, white_noise
from medddpm.preprocess.intensity import Body, intensity_scale
from medddpm.preprocess.noise_law import WHITE, Colour, NoiseLaw
from medddpm.preprocess.noise_support import filled_edges

Head = Callable[..., NDArray[np.float32]]
SHAPE = (96, 96, 80)


@pytest.fixture
def clean(head: Head) -> NDArray[np.float32]:
    return head(SHAPE) / 1000


@pytest.mark.parametrize("sigma", [0.05, 0.08])
@pytest.mark.parametrize("elliptical", [(), (0, 1), (0, 1, 2)])
def test_edges_and_level_of_a_zero_filled_scan(
    clean: NDArray[np.float32], sigma: float, elliptical: tuple[int, ...]
) -> None:
    a = Acquisition(sigma, matrix=(0.65, 0.65, 0.8), elliptical=elliptical)
    found = find_noise(acquire(clean, a, np.random.default_rng(1)).noisy)
    np.testing.assert_allclose(found.law.colour.edge, a.matrix, atol=0.08)
    assert found.fraction == pytest.approx(sigma, rel=0.2)
    assert found.method in ("air", "foreground")


@pytest.mark.parametrize("sigma", [0.03, 0.08])
def test_white_noise_stays_white(clean: NDArray[np.float32], sigma: float) -> None:
    made = acquire(clean, Acquisition(sigma), np.random.default_rng(2))
    found = find_noise(made.noisy)
    assert found.law.colour == WHITE
    assert found.fraction == pytest.approx(sigma, rel=0.06)
    assert white_noise(made.noisy).law.colour == WHITE


def test_a_filter_shows_in_the_window(clean: NDArray[np.float32]) -> None:
    a = Acquisition(
        0.06, matrix=(0.7, 0.7, 1.0), filter="hann", filter_strength=0.8, filtered=(0, 1)
    )
    found = find_noise(acquire(clean, a, np.random.default_rng(3)).noisy)
    window = found.law.colour.window[0]
    assert window[-1] < 0.75 * window[0]
    assert found.fraction == pytest.approx(0.06, rel=0.25)


@pytest.mark.parametrize(("name", "strength"), [("hann", 0.7), ("hamming", 1.0)])
def test_a_filter_without_an_edge_shows_in_few_voxels(
    head: Head, name: Filter, strength: float
) -> None:
    a = Acquisition(0.06, filter=name, filter_strength=strength, filtered=(0, 1, 2))
    made = acquire(head((64, 64, 64)) / 1000, a, np.random.default_rng(3))
    found = find_noise(made.noisy)
    assert not found.law.colour.is_white
    assert found.fraction == pytest.approx(made.law.level(made.clean > 0.1), rel=0.15)


def test_folded_anatomy_in_coarse_voxels_is_no_noise() -> None:
    """Every block of 15 mm holds a fold of two tissues; at 0.7 mm the same would be noise."""
    rng = np.random.default_rng(0)
    place = np.stack(np.meshgrid(*[np.linspace(-1, 1, 80)] * 3, indexing="ij"))
    fields = [gaussian_filter(rng.standard_normal((80, 80, 80)), s) for s in (2.5, 8)]
    fold, depth = (field / field.std() for field in fields)
    x = np.where(fold * np.clip(1 + depth, 0, None) > 0.6, 1.0, 0.6)
    x = gaussian_filter(x * (np.square(place).sum(axis=0) < 0.64), 0.5).astype(np.float32)
    a = Acquisition(0.004, matrix=(0.52, 0.52, 0.52), elliptical=(0, 1, 2))
    made = acquire(x, a, np.random.default_rng(1))
    found = find_noise(made.noisy, spacing=(2.0, 2.0, 2.0))
    assert found.sigma == pytest.approx(made.law.level(made.clean > 0.1), rel=0.6)


def test_what_is_known_is_taken(clean: NDArray[np.float32]) -> None:
    law = NoiseLaw(sigma=0.05, colour=Colour((0.7, 0.7, 1.0)))
    noisy = law.added_to(clean, np.random.default_rng(4))
    known = known_noise(noisy, law)
    assert (known.sigma, known.method, known.law) == (0.05, "given", law)
    varied = replace(law, sigma=np.full(SHAPE, 0.05, np.float32))
    assert known_noise(noisy, varied).fraction == pytest.approx(known.fraction, rel=1e-3)
    assert known_noise(noisy, varied).evened.law.sigma == pytest.approx(0.05, rel=1e-3)
    assert known.estimate.sigma == 0.05


@pytest.mark.parametrize("sigma", [0.03, 0.08])
def test_the_level_of_a_known_colour(clean: NDArray[np.float32], sigma: float) -> None:
    window = tuple(float(v) for v in np.linspace(1, 0.4, 5))
    colour = Colour((0.7, 0.7, 1.0), (0, 1), (window, window, (1.0,)))
    noisy = NoiseLaw(sigma=sigma, colour=colour).added_to(clean, np.random.default_rng(5))
    found = find_noise(noisy, colour=colour)
    assert found.law.colour == colour
    assert found.sigma == pytest.approx(sigma, rel=0.15)
    assert find_noise(noisy, colour=WHITE).law == white_noise(noisy).law
    tiny = noisy[24:44, 24:44, 24:44]
    assert find_noise(tiny, colour=colour).law.colour == colour


def test_a_header_places_an_edge_that_the_spectrum_shows_too(head: Head) -> None:
    a = Acquisition(0.01, matrix=(0.75, 0.75, 1.0))
    noisy = acquire(head((64, 64, 48)) / 1000, a, np.random.default_rng(0)).noisy
    alone = find_noise(noisy).law.colour.edge
    told = find_noise(noisy, hint=(0.75, 0.75, None))
    assert told.law.colour.edge == (0.75, 0.75, 1.0)
    assert alone != told.law.colour.edge  # the phantom is one where the spectrum is in doubt
    assert max(told.edge_error) < 0.03


def test_a_header_does_not_override_the_spectrum(clean: NDArray[np.float32]) -> None:
    white = acquire(clean, Acquisition(0.05), np.random.default_rng(2)).noisy
    assert find_noise(white, hint=(0.5, 0.7, 0.6)).law.colour == WHITE
    a = Acquisition(0.05, matrix=(0.65, 0.65, 0.8))
    noisy = acquire(clean, a, np.random.default_rng(1)).noisy
    alone = find_noise(noisy).law.colour.edge
    assert find_noise(noisy, hint=(1.0, 0.8, 0.5)).law.colour.edge == alone
    over = white + acquire(clean, replace(a, sigma=0.0), np.random.default_rng(1)).noisy
    assert find_noise(over, hint=a.matrix).law.colour == WHITE


@pytest.mark.parametrize("sigma", [0.002, 0.1])
def test_zeros_that_were_filled_in_are_seen_in_k_space(
    clean: NDArray[np.float32], sigma: float, rng: np.random.Generator
) -> None:
    noise = rng.normal(size=(2, *SHAPE))
    kspace = np.fft.fftn(clean + sigma * (noise[0] + 1j * noise[1]))
    assert filled_edges(np.fft.ifftn(kspace).astype(np.complex64)) == (None, None, None)
    kspace[24:73] = 0  # planes 0 to 23 and their negatives stay
    kspace[:, :, 31:50] = 0
    edges = filled_edges(np.fft.ifftn(kspace).astype(np.complex64))
    assert edges == pytest.approx((23.5 / 48, None, 30.5 / 40))
    kspace[:80] = 0  # of one sign alone, as in partial Fourier, which has the edge of the other
    assert filled_edges(np.fft.ifftn(kspace).astype(np.complex64))[2] == edges[2]


def test_the_noise_of_a_part_without_a_body_is_found_where_the_body_is(
    clean: NDArray[np.float32], rng: np.random.Generator
) -> None:
    noise = (0.04 * rng.normal(size=SHAPE)).astype(np.float32)
    found = find_noise(noise, law=NoiseLaw("gaussian"), body=Body.of(clean))
    assert found.sigma == pytest.approx(0.04, rel=0.03)
    assert found.law.colour.is_white
    assert found.scale == pytest.approx(intensity_scale(clean), rel=0.02)
