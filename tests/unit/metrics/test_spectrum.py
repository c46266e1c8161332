from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medddpm.metrics.spectrum import power_ratios, power_scores

MASK = np.zeros((48, 40, 36), dtype=bool)
MASK[4:-4, 4:-4, 4:-4] = True


def test_the_same_scan_has_the_same_power() -> None:
    x = np.random.default_rng(0).random(MASK.shape).astype(np.float32)
    np.testing.assert_allclose(power_ratios(x, x, MASK), 1)


def test_smoothing_takes_power_where_its_transfer_function_says() -> None:
    x = np.random.default_rng(1).standard_normal(MASK.shape).astype(np.float32)
    smooth = ndimage.gaussian_filter(x, 1.0, mode="wrap").astype(np.float32)
    middles = (np.arange(8) + 0.5) / 20  # cycles a voxel
    transfer = np.exp(-2 * (2 * np.pi * middles) ** 2 / 2)
    np.testing.assert_allclose(power_ratios(x, smooth, MASK)[:4], transfer[:4], rtol=0.15)
    scores = power_scores(x, smooth, MASK)
    assert scores["power_worst"] < scores["power_high"] < 0.1


def test_noise_adds_power_and_what_lies_outside_does_not_count() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal(MASK.shape).astype(np.float32)
    noisy = x + rng.standard_normal(MASK.shape).astype(np.float32)
    assert power_scores(x, noisy, MASK)["power_high"] == pytest.approx(2, rel=0.1)
    far = x.copy()
    inner = np.zeros_like(MASK)
    inner[16:-16, 14:-14, 12:-12] = True
    far[:2] = 50
    np.testing.assert_allclose(power_ratios(x, far, inner), 1, rtol=0.01)
