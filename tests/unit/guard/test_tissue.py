"""Shares of tissue before and after: noise alone does not shift them, a restoration may."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.guard.tissue import tissue_shift

SHAPE = (40, 40, 40)
SHARES = (0.2, 0.45, 0.35)
MEANS = (0.2, 0.6, 0.85)


@pytest.fixture
def brain() -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    label = rng.choice(3, SHAPE, p=SHARES)
    spread = rng.normal(0, 0.03, SHAPE)
    return (np.asarray(MEANS)[label] + spread).clip(0).astype(np.float32)


def rician(x: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    real, imaginary = np.random.default_rng(1).normal(0, sigma, (2, *x.shape))
    return np.hypot(x + real, imaginary).astype(np.float32)


@pytest.mark.parametrize("sigma", [0.02, 0.05, 0.1, 0.15])
def test_the_truth_shifts_nothing(brain: NDArray[np.float32], sigma: float) -> None:
    shift, before, after = tissue_shift(rician(brain, sigma), brain, sigma, brain > -1)
    assert after == pytest.approx(SHARES, abs=0.02)
    assert before == pytest.approx(SHARES, abs=0.03)
    assert shift < 0.02


@pytest.mark.parametrize("sigma", [0.02, 0.05, 0.1])
def test_tissue_that_turned_into_another_is_seen(brain: NDArray[np.float32], sigma: float) -> None:
    """A tenth of what was middle comes out bright."""
    rng = np.random.default_rng(2)
    wrong = brain.copy()
    turned = (np.abs(brain - MEANS[1]) < 0.15) & (rng.random(SHAPE) < 0.2)
    wrong[turned] += np.float32(MEANS[2] - MEANS[1])
    shift, before, after = tissue_shift(rician(brain, sigma), wrong, sigma, brain > -1)
    assert after[2] - before[2] == pytest.approx(0.09, abs=0.03)
    assert shift == pytest.approx(0.09, abs=0.03)


def test_one_tissue_is_no_error() -> None:
    flat = np.full((12, 12, 12), 0.5, np.float32)
    shift, before, after = tissue_shift(rician(flat, 0.05), flat, 0.05, flat > 0)
    assert np.isfinite([shift, *before, *after]).all()
