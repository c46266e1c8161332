"""A reference that fits is told from one that was moved, and from that of somebody else."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.reference.fit import MOST_MISFIT, misfit_of

SPACING = (1.5, 1.5, 1.5)


def tissue(seed: int, size: float = 0.8) -> NDArray[np.int64]:
    """A head of three tissues with folded borders between them."""
    rng = np.random.default_rng(seed)
    bumps = ndimage.gaussian_filter(rng.standard_normal((48, 48, 48)), 3)
    place = np.stack(np.meshgrid(*[np.linspace(-1, 1, 48)] * 3, indexing="ij"))
    radius = np.sqrt(np.square(place).sum(0)) + 0.25 * bumps / bumps.std()
    inside = np.square(place).sum(0) < size
    return np.where(inside, np.digitize(radius, [0.4, 0.75]) + 1, 0)


def contrast(labels: NDArray[np.int64], means: list[float]) -> NDArray[np.float32]:
    return ndimage.gaussian_filter(np.array(means)[labels].astype(np.float32), 0.5)


T1 = contrast(tissue(0), [0, 0.9, 0.6, 0.3])
FLAIR = contrast(tissue(0), [0, 0.5, 0.8, 0.1])
INSIDE = tissue(0) > 0


def test_another_contrast_in_its_place_fits() -> None:
    assert misfit_of(FLAIR, T1, INSIDE, SPACING) < 0.83
    noisy = FLAIR + np.random.default_rng(0).normal(0, 0.03, FLAIR.shape).astype(np.float32)
    assert misfit_of(noisy, T1, INSIDE, SPACING) < MOST_MISFIT


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_moved_one_does_not(axis: int) -> None:
    assert misfit_of(FLAIR, np.roll(T1, 2, axis), INSIDE, SPACING) > MOST_MISFIT


def test_that_of_another_person_does_not() -> None:
    other = contrast(tissue(1, size=0.65), [0, 0.9, 0.6, 0.3])
    assert misfit_of(FLAIR, other, INSIDE, SPACING) > MOST_MISFIT


def test_too_little_of_it_is_no_fit() -> None:
    assert misfit_of(FLAIR, np.zeros_like(T1), INSIDE, SPACING) == 99
    flat = np.full_like(T1, 0.5)
    assert misfit_of(FLAIR, flat, INSIDE, SPACING) > MOST_MISFIT
