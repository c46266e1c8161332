"""Sharpness and flatness move the way that blur, ringing and denoising move a scan."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.guard.quality import quality_findings

Array = NDArray[np.float32]
ISOTROPIC = (1.0, 1.0, 1.0)


@pytest.fixture
def scan(head: Callable[..., Array]) -> Array:
    shape = (56, 58, 54)
    texture = ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 1, shape), 1.0)
    return (head(shape) / 1000 * (1 + 0.3 * texture)).astype(np.float32)


def numbers(image: Array, mask: Array, spacing: tuple[float, float, float] = ISOTROPIC) -> Array:
    found = quality_findings(image, mask, spacing)
    return np.array([found["sharpness"].value, found["flatness"].value], np.float32)


def test_blur_and_sharpening(scan: Array) -> None:
    mask = scan > 0.2
    blurred = ndimage.gaussian_filter(scan, 0.8)
    plain = numbers(scan, mask)
    assert numbers(blurred, mask)[0] < 0.8 * plain[0]
    assert numbers(scan + (scan - blurred), mask)[0] > 1.1 * plain[0]


def test_flat_between_edges_and_noise(scan: Array) -> None:
    mask = scan > 0.2
    flat = ndimage.median_filter(np.round(scan * 4) / 4, 3)
    noisy = scan + np.random.default_rng(1).normal(0, 0.1, scan.shape).astype(np.float32)
    assert numbers(flat, mask)[1] > numbers(scan, mask)[1] + 0.2
    assert numbers(noisy, mask)[1] < numbers(scan, mask)[1] - 0.02


def test_equal_slopes_are_not_flat() -> None:
    ramp = np.broadcast_to(np.arange(30.0)[:, None, None], (30, 30, 30)).astype(np.float32)
    assert numbers(ramp, ramp >= 0)[1] == pytest.approx(0.0, abs=1e-3)
    assert list(numbers(np.ones((20, 20, 20), np.float32), np.ones((20, 20, 20)))) == [0, 0]


def test_thick_slices_are_not_looked_at_across(scan: Array) -> None:
    mask = scan > 0.2
    stacked = scan.copy()
    stacked[:, :, ::2] *= 1.3
    far = (1.0, 1.0, 4.0)
    change = abs(numbers(stacked, mask, far)[0] - numbers(scan, mask, far)[0])
    assert change < 0.01 < abs(numbers(stacked, mask)[0] - numbers(scan, mask)[0])
