"""The estimate finds the sigma that was put in: in air, in a masked body, in thick slices."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage, stats

from medddpm.errors import ConfigError
from medddpm.preprocess.intensity import foreground_mask, intensity_scale
from medddpm.preprocess.noise import (
    chi_moments,
    estimate_noise,
    expected_magnitude,
    fine_axes,
    second_difference,
)
from medddpm.preprocess.noise_law import NoiseLaw

Head = Callable[..., NDArray[np.float32]]
SHAPE = (72, 76, 70)
SCALE = 1000.0


def noisy(
    image: NDArray[Any], sigma: float | NDArray[Any], coils: int = 1, seed: int = 0
) -> NDArray[np.float32]:
    parts = np.random.default_rng(seed).normal(0, 1, (2 * coils, *image.shape)) * sigma
    parts[0] += image
    return np.sqrt(np.square(parts).sum(axis=0)).astype(np.float32)


@pytest.mark.parametrize("fraction", [0.02, 0.05, 0.09, 0.15])
@pytest.mark.parametrize("masked", [False, True])
def test_sigma_within_five_percent(head: Head, fraction: float, masked: bool) -> None:
    clean, sigma = head(SHAPE), fraction * SCALE
    image = noisy(clean, sigma)
    found = estimate_noise(np.where(clean > 0, image, 0) if masked else image)
    assert found.method == ("foreground" if masked else "air")
    assert found.sigma == pytest.approx(sigma, rel=0.05)
    assert found.fraction == pytest.approx(sigma / intensity_scale(clean), rel=0.1)
    assert found.scale == pytest.approx(intensity_scale(clean), rel=0.1)
    assert found.fraction * found.scale == pytest.approx(found.sigma)
    assert 0 < found.error < 0.2
    assert found.num_voxels > 1000


def test_masked_rayleigh_brain_is_corrected_at_low_signal(head: Head) -> None:
    """Most of this body is at a signal of two sigma, where the magnitude's spread is smaller."""
    clean = head(SHAPE) * 0.4
    image = np.where(clean > 0, noisy(clean, 140.0), 0)
    found = estimate_noise(image)
    inside = ndimage.binary_erosion(clean > 0, iterations=3)
    naive = np.std(second_difference(image, (0, 1, 2), 1)[inside])
    assert naive < 0.95 * 140
    assert found.sigma == pytest.approx(140.0, rel=0.05)


@pytest.mark.parametrize("masked", [False, True])
def test_many_coils(head: Head, masked: bool) -> None:
    clean = head(SHAPE)
    image = noisy(clean, 40.0, coils=4)
    image = np.where(clean > 0, image, 0) if masked else image
    assert estimate_noise(image, law=NoiseLaw("ncchi", 4)).sigma == pytest.approx(40.0, rel=0.05)


def test_gaussian_air_has_two_signs(head: Head) -> None:
    clean = head(SHAPE)
    image = clean + np.random.default_rng(0).normal(0, 40.0, SHAPE)
    found = estimate_noise(image, law=NoiseLaw("gaussian"))
    assert found.method == "air"
    assert found.sigma == pytest.approx(40.0, rel=0.04)


def test_a_magnitude_scan_called_gaussian_is_measured_in_the_body(head: Head) -> None:
    found = estimate_noise(noisy(head(SHAPE), 40.0), law=NoiseLaw("gaussian"))
    assert found.method == "foreground"
    assert found.sigma == pytest.approx(40.0, rel=0.08)


@pytest.mark.parametrize("masked", [False, True])
def test_thick_slices_are_differenced_in_plane_only(head: Head, masked: bool) -> None:
    rng = np.random.default_rng(5)
    clean = head((128, 128, 20)) * rng.uniform(0.6, 1.0, (1, 1, 20))
    image = noisy(clean, 30.0)
    image = np.where(clean > 0, image, 0) if masked else image
    found = estimate_noise(image, spacing=(0.7, 0.7, 4.0))
    assert found.sigma == pytest.approx(30.0, rel=0.06)


def test_axes_that_are_not_thick() -> None:
    assert fine_axes((1.0, 1.0, 1.0)) == (0, 1, 2)
    assert fine_axes((0.7, 0.7, 4.0)) == (0, 1)
    assert fine_axes((5.0, 0.9, 1.0)) == (1, 2)
    assert fine_axes((1.0, 1.0, 1.4)) == (0, 1, 2)


def test_whole_numbers_with_some_exact_zeros(head: Head) -> None:
    image = np.rint(noisy(head(SHAPE), 1.5))
    assert 0.01 < (image == 0).mean() < 0.2
    found = estimate_noise(image.astype(np.int16))
    assert found.method == "air"
    assert found.sigma == pytest.approx(1.5, rel=0.04)


def test_corners_filled_with_zeros_do_not_count(head: Head) -> None:
    image = noisy(head(SHAPE), 40.0)
    image[:8], image[:, :, :4] = 0, 0
    found = estimate_noise(image)
    assert found.method == "air"
    assert found.sigma == pytest.approx(40.0, rel=0.04)


def test_a_ghost_in_the_air_does_not_count(head: Head) -> None:
    clean = head(SHAPE)
    ghost = np.roll(clean, 36, axis=1) * 0.2
    found = estimate_noise(noisy(clean + np.where(clean > 0, 0, ghost), 30.0))
    assert found.sigma == pytest.approx(30.0, rel=0.06)


def test_silenced_air_does_not_speak_for_the_body(head: Head) -> None:
    clean = head(SHAPE)
    found = estimate_noise(noisy(clean, np.where(clean > 0, 50.0, 5.0)))
    assert found.method == "foreground"
    assert found.sigma == pytest.approx(50.0, rel=0.06)


def test_dark_tissue_is_no_air(head: Head) -> None:
    """A flat dark structure outside the mask is not Rayleigh, so the body is measured."""
    clean = np.maximum(head(SHAPE), 120.0)
    found = estimate_noise(noisy(clean, 20.0))
    assert found.method == "foreground"
    assert found.sigma == pytest.approx(20.0, rel=0.06)


def test_structured_air_is_overruled_by_a_much_quieter_body(head: Head) -> None:
    clean = head(SHAPE)
    found = estimate_noise(noisy(clean, np.where(clean > 0, 10.0, 90.0)))
    assert found.method == "foreground"
    assert found.sigma == pytest.approx(10.0, rel=0.1)


def test_units_do_not_matter(head: Head) -> None:
    image = noisy(head(SHAPE), 40.0)
    one, thousand = estimate_noise(image), estimate_noise(1000 * image)
    assert thousand.sigma == pytest.approx(1000 * one.sigma, rel=1e-3)
    assert thousand.fraction == pytest.approx(one.fraction, rel=1e-3)


def test_a_clean_scan_has_next_to_none(head: Head) -> None:
    assert estimate_noise(head(SHAPE)).fraction < 0.003


def test_small_phantom(head: Head) -> None:
    found = estimate_noise(noisy(head((40, 44, 36)), 50.0), spacing=(1.0, 1.1, 1.3))
    assert found.sigma == pytest.approx(50.0, rel=0.1)


def test_too_small_to_tell() -> None:
    image = np.zeros((8, 8, 8))
    image[2:6, 2:6, 2:6] = np.random.default_rng(0).uniform(50, 100, (4, 4, 4))
    with pytest.raises(ConfigError, match="too small"):
        estimate_noise(image)


@pytest.mark.parametrize("theta", [0.0, 0.7, 3.0, 12.0])
def test_rician_moments_against_scipy(theta: float) -> None:
    mean, variance = chi_moments(np.array([theta]), 2)
    law = stats.rice(theta)
    assert mean[0] == pytest.approx(law.mean(), rel=1e-6)
    assert variance[0] == pytest.approx(law.var(), rel=1e-5)


@pytest.mark.parametrize("dof", [0, 2, 8])
def test_the_expected_magnitude_is_the_mean_of_the_law(dof: int) -> None:
    signal = np.linspace(0, 5, 777, dtype=np.float32)
    for sigma in (0.08, np.linspace(0.05, 0.2, 777, dtype=np.float32)):
        truth = sigma * chi_moments(signal / sigma, dof)[0]
        found = expected_magnitude(signal, sigma, dof)
        assert found.dtype == np.float32
        assert np.abs((found - truth) / sigma).max() < 0.011


def test_chi_moments_without_signal_and_far_out() -> None:
    mean, variance = chi_moments(np.zeros(1), 8)
    assert mean[0] == pytest.approx(stats.chi(8).mean(), rel=1e-9)
    assert variance[0] == pytest.approx(stats.chi(8).var(), rel=1e-9)
    mean, variance = chi_moments(np.array([5.0]), 0)
    assert (mean[0], variance[0]) == (5.0, 1.0)
    mean, variance = chi_moments(np.array([29.999, 30.001, 500.0]), 2)
    assert mean[1] - mean[0] == pytest.approx(0.002, abs=1e-4)
    assert mean[2] == pytest.approx(500.0, rel=1e-4)
    assert variance[2] == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("distance", [1, 2])
def test_second_difference_keeps_the_spread_of_white_noise(distance: int) -> None:
    image = np.random.default_rng(0).normal(0, 2.0, (60, 60, 60)).astype(np.float32)
    assert second_difference(image, (0, 1, 2), distance)[4:-4, 4:-4, 4:-4].std() == (
        pytest.approx(2.0, rel=0.02)
    )
    x, y, z = np.meshgrid(*[np.arange(20.0)] * 3, indexing="ij")
    plane = (3 * x - y + 0.5 * z + 4).astype(np.float32)
    inner = (slice(2, -2),) * 3
    np.testing.assert_allclose(second_difference(plane, (0,), distance)[inner], 0, atol=1e-4)


def real_scans() -> list[Path]:
    folder = os.environ.get("MEDDDPM_DATA")
    return sorted(Path(folder).glob("ds002748_sub-0*_T1w.nii.gz"))[:2] if folder else []


@pytest.mark.slow
@pytest.mark.skipif(not real_scans(), reason="MEDDDPM_DATA is not set")
@pytest.mark.parametrize("fraction", [0.02, 0.09, 0.15])
@pytest.mark.parametrize("masked", [False, True])
def test_real_brains_within_eight_percent(fraction: float, masked: bool) -> None:
    for path in real_scans():
        scan: Any = nib.load(path)
        clean = np.asarray(scan.dataobj, dtype=np.float32)
        mask = foreground_mask(clean)
        sigma = fraction * intensity_scale(clean, mask)
        image = noisy(clean, sigma)
        found = estimate_noise(np.where(mask, image, 0) if masked else image)
        assert found.sigma == pytest.approx(sigma, rel=0.08)


def test_dark_tissue_that_reads_louder_than_white_noise_is_no_air() -> None:
    """A box of tissue without air, with a dark part whose signal is about the noise."""
    rng = np.random.default_rng(5)
    x = np.full((72, 72, 72), 700.0)
    x[:30, :, :36] = 40 * (1 + ndimage.gaussian_filter(rng.standard_normal((30, 72, 36)), 3) * 8)
    real, imaginary = 30 * rng.standard_normal((2, *x.shape))
    y = np.hypot(x + real, imaginary).astype(np.float32)
    found = estimate_noise(y)
    assert found.method == "foreground"
    assert found.sigma == pytest.approx(30, rel=0.05)
