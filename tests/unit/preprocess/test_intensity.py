"""The mask finds the body through noise, and the scale does not depend on where the scan ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.errors import ConfigError, ShapeError
from medddpm.preprocess.intensity import (
    emptied,
    foreground_mask,
    intensity_scale,
    zero_background,
)

Head = Callable[..., NDArray[np.float32]]
SHAPE = (72, 76, 70)


def rician(image: NDArray[Any], sigma: float, seed: int = 0) -> NDArray[np.float32]:
    real, imaginary = np.random.default_rng(seed).normal(0, sigma, (2, *image.shape))
    return np.hypot(image + real, imaginary).astype(np.float32)


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("fraction", [0.005, 0.05, 0.15])
@pytest.mark.parametrize("shape", [SHAPE, (65, 80, 20), (40, 44, 36)])
def test_head_in_noisy_air(head: Head, fraction: float, shape: tuple[int, int, int]) -> None:
    clean = head(shape)
    mask = foreground_mask(rician(clean, fraction * 950))
    assert mask.shape == shape
    assert dice(mask, clean > 0) > 0.93


@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.15])
def test_masked_brain_is_all_that_is_not_zero(head: Head, fraction: float) -> None:
    clean = head(SHAPE)
    image = np.where(clean > 0, rician(clean, fraction * 950 + 1e-3), 0)
    mask = foreground_mask(image)
    assert not mask[image == 0].any()
    assert dice(mask, clean > 0) > 0.98


def test_head_in_air_with_padding_of_the_scanner(head: Head) -> None:
    clean = head(SHAPE)
    image = rician(clean, 20.0)
    image[:9], image[-9:], image[:, :5], image[:, -5:] = 0, 0, 0, 0
    assert zero_background(image) is not None
    body = (clean > 0) & (image > 0)
    assert dice(foreground_mask(image), body) > 0.93


def test_specks_are_dropped_and_holes_filled(head: Head) -> None:
    image = rician(head(SHAPE), 10.0)
    image[2:5, 2:5, 2:5] = 900
    image[34:38, 36:40, 33:37] = 0
    mask = foreground_mask(image)
    assert not mask[:6, :6, :6].any()
    assert mask[34:38, 36:40, 33:37].all()


def test_bright_fluid_does_not_hide_the_grey_tissue() -> None:
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    radius = np.sqrt(sum(a**2 for a in axes))
    clean = np.select([radius < 0.4, radius < 0.85], [1500.0, 300.0], 0.0)
    assert dice(foreground_mask(rician(clean, 60.0)), clean > 0) > 0.93


def test_zero_background(head: Head) -> None:
    clean = head(SHAPE)
    zeros = zero_background(clean)
    assert zeros is not None
    np.testing.assert_array_equal(zeros, clean == 0)
    assert zero_background(rician(clean, 10.0)) is None


def test_a_solid_part_of_few_zeros_is_empty(head: Head) -> None:
    clean = head(SHAPE)
    np.testing.assert_array_equal(emptied(clean), clean == 0)  # a masked scan
    crop = rician(clean, 10.0)
    assert emptied(crop) is None
    crop[20:50, 20:40, 30:50] = 0
    crop[5, 5, 5] = crop[60, 60] = 0  # a voxel, a line: no background
    found = emptied(crop)
    assert found is not None
    assert zero_background(crop) is None
    expected = np.zeros_like(found)
    expected[20:50, 20:40, 30:50] = True
    np.testing.assert_array_equal(found, expected)


def test_scale_is_the_percentile_of_the_mask(head: Head) -> None:
    clean = head(SHAPE)
    expected = np.percentile(clean[clean > 600], 99.5)
    assert intensity_scale(clean, clean > 600) == pytest.approx(float(expected), rel=1e-6)


def test_scale_follows_units_and_ignores_air(head: Head) -> None:
    clean = head(SHAPE)
    scale = intensity_scale(clean)
    assert intensity_scale(1000 * clean) == pytest.approx(1000 * scale, rel=1e-4)
    assert intensity_scale(np.pad(clean, 12)) == pytest.approx(scale, rel=1e-3)


def test_scale_without_the_lift_of_noise(head: Head) -> None:
    clean = head(SHAPE)
    noisy, truth = rician(clean, 140.0), intensity_scale(clean)
    assert intensity_scale(noisy) > 1.1 * truth
    assert intensity_scale(noisy, sigma=140.0) == pytest.approx(truth, rel=0.1)
    assert intensity_scale(noisy, sigma=1e6) < intensity_scale(noisy)


def test_integer_scans_are_taken(head: Head) -> None:
    clean = head(SHAPE)
    whole = np.rint(clean).astype(np.int16)
    assert intensity_scale(whole) == pytest.approx(intensity_scale(clean), rel=2e-3)


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_constant_images_have_no_scale(value: float) -> None:
    image = np.full((12, 12, 12), value)
    for function in (foreground_mask, intensity_scale):
        with pytest.raises(ConfigError, match="constant"):
            function(image)


def test_other_impossible_images(head: Head) -> None:
    with pytest.raises(ShapeError, match=r"\(X, Y, Z\)"):
        foreground_mask(np.ones((4, 4)))
    broken = head((16, 16, 16))
    broken[3, 3, 3] = np.nan
    with pytest.raises(ConfigError, match="NaN"):
        foreground_mask(broken)
    with pytest.raises(ConfigError, match="empty"):
        intensity_scale(head((16, 16, 16)), np.zeros((16, 16, 16), dtype=bool))


def test_the_scale_of_a_shifted_scan_is_that_of_the_scan(head: Head) -> None:
    image = head((32, 32, 32))
    everywhere = np.ones(image.shape, dtype=bool)
    scale = intensity_scale(image, everywhere)
    assert intensity_scale(image - 2000, everywhere) == pytest.approx(scale, rel=1e-3)


def test_a_scan_without_air_is_all_foreground() -> None:
    image = np.random.default_rng(0).normal(500, 5, (20, 20, 20))
    assert foreground_mask(image).mean() > 0.4


def test_two_levels_only() -> None:
    image = np.zeros((24, 24, 24))
    image[6:18, 6:18, 6:18] = 100
    mask = foreground_mask(image)
    np.testing.assert_array_equal(mask, image > 0)
    image[image == 0] = 1
    assert dice(foreground_mask(image), image > 50) > 0.75


def test_a_masked_body_with_a_dark_skin() -> None:
    """The voxels next to the zeros are dark, yet few others are: a masked body, not air."""
    image = np.zeros((30, 30, 30))
    image[5:25, 5:25, 5:25] = 10
    image[6:24, 6:24, 6:24] = 100
    np.testing.assert_array_equal(foreground_mask(image), image > 0)


def test_scattered_zeros_without_a_body_beside_them() -> None:
    image = np.full((10, 10, 10), 50.0)
    image[:5] = 0
    mask = foreground_mask(image)
    np.testing.assert_array_equal(mask, image > 0)


def test_flat_smooth_image_is_all_foreground() -> None:
    """A stray dark voxel that smoothing at half the grid leaves out does not split the body."""
    image = np.full((65, 64, 64), 50.0)
    image[64, 0, 0] = 40.0  # the odd last plane is not in the halved image
    assert foreground_mask(image).all()
