from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.preprocess.noise import estimate_noise
from medddpm.preprocess.noise_map import noise_map

Head = Callable[..., NDArray[np.float32]]


def gain(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A g-factor of 2.5 in the middle and 1 far from it."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    out: NDArray[np.float64] = 1 + 1.5 * np.exp(-sum(a**2 for a in axes) / 0.3)
    return out


def noisy(x: NDArray[np.float32], sigma: Any, seed: int = 0) -> NDArray[np.float32]:
    real, imaginary = np.random.default_rng(seed).normal(0, 1, (2, *x.shape)) * sigma
    return np.hypot(x + real, imaginary).astype(np.float32)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("fraction", [0.03, 0.09])
def test_a_g_factor_is_found(head: Head, fraction: float, masked: bool) -> None:
    x = head((96, 104, 88))
    sigma = fraction * 1000 * gain(x.shape)
    y = noisy(x, sigma) * (x > 0) if masked else noisy(x, sigma)
    found = noise_map(y, estimate_noise(y))
    assert found is not None
    error = (found / sigma)[x > 0] - 1
    assert abs(np.median(error)) < 0.06
    assert np.sqrt(np.mean(error**2)) < 0.09


@pytest.mark.parametrize("masked", [False, True])
def test_even_noise_has_no_map(head: Head, masked: bool) -> None:
    x = head((96, 104, 88))
    y = noisy(x, 50.0) * (x > 0) if masked else noisy(x, 50.0)
    assert noise_map(y, estimate_noise(y)) is None


def test_thick_slices(head: Head) -> None:
    x = head((128, 128, 20))
    sigma = 60 * gain((128, 128, 3))[:, :, 1:2]
    y, spacing = noisy(x, sigma), (1.0, 1.0, 5.0)
    found = noise_map(y, estimate_noise(y, spacing=spacing), spacing=spacing)
    assert found is not None
    assert found.shape == x.shape
    assert np.sqrt(np.mean(((found / sigma)[x > 0] - 1) ** 2)) < 0.1


def test_ghosts_in_the_air_are_no_noise(head: Head) -> None:
    """A faint copy of the head, shifted by half the field of view, leaves the map even."""
    x = head((96, 104, 88))
    y = noisy(x + 0.04 * np.roll(x, 52, axis=1), 20.0)
    assert noise_map(y, estimate_noise(y)) is None
