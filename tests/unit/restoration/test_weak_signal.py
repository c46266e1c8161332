"""Weak signal returns, and noise does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from medddpm.preprocess.frame import Frame
from medddpm.preprocess.noise import NoiseEstimate
from medddpm.preprocess.noise_law import NoiseLaw
from medddpm.restoration.weak_signal import with_weak_signal

SIGMA, SHAPE = 0.05, (48, 48, 48)
Image = NDArray[np.float32]


def _ball(diameter: float) -> Image:
    grid = np.indices(SHAPE) - 24.0
    return (np.sqrt((grid**2).sum(axis=0)) < diameter / 2).astype(np.float32)


def _frame(y: Image, law: NoiseLaw) -> Frame:
    found = NoiseEstimate(SIGMA, SIGMA, "given", 0.0, 0, 1.0)
    affine, mask = np.eye(4), np.ones(SHAPE, bool)
    return Frame(y, 1.0, found, law, None, y, mask, (1.0, 1.0, 1.0), affine)


@pytest.mark.parametrize("kind", ["gaussian", "rician"])
def test_a_weak_lesion_returns_and_noise_stays_removed(kind: str, rng: np.random.Generator) -> None:
    """One of 5 voxels, a sigma deep: as a single voxel it is noise, as a whole it is not."""
    law = NoiseLaw(kind, 1, SIGMA)  # type: ignore[arg-type]
    tissue = np.full(SHAPE, 0.5, np.float32)
    lesion = SIGMA * _ball(5)
    noise = law.added_to(tissue, rng) - tissue
    # What a restoration leaves of the noise is smooth, so that is missing in what it removed.
    noise -= gaussian_filter(noise, 1.6)

    def kept(truth: Image) -> Image:
        y = np.asarray(truth + noise, np.float32)
        return with_weak_signal(_frame(y, law), tissue, 0.8)

    gain = kept(tissue + lesion) - kept(tissue)
    assert gain[lesion > 0].mean() > 0.4 * SIGMA
    assert np.std(kept(tissue) - tissue) < 0.1 * SIGMA


def test_signal_below_zero_is_given_back_as_any_other(rng: np.random.Generator) -> None:
    """The real part of a complex scan has either sign."""
    law = NoiseLaw("gaussian", 1, SIGMA)
    tissue = np.full(SHAPE, -0.5, np.float32)
    y = law.added_to(tissue, rng)
    out = with_weak_signal(_frame(y + 3 * SIGMA * _ball(5), law), tissue, 0.8)
    assert (out - tissue)[_ball(3) > 0].mean() > SIGMA
    np.testing.assert_array_equal(
        out, -with_weak_signal(_frame(-y - 3 * SIGMA * _ball(5), law), -tissue, 0.8)
    )


@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_noise_alone_is_no_signal_whatever_its_colour(
    smooth: float, rng: np.random.Generator
) -> None:
    law = NoiseLaw("gaussian", 1, SIGMA)
    tissue = np.full(SHAPE, 0.5, np.float32)
    noise = gaussian_filter(law.added_to(tissue, rng) - tissue, smooth)
    out = with_weak_signal(_frame(tissue + noise, law), tissue, 0.8)
    assert np.std(out - tissue) < 0.2 * np.std(noise)


def test_masked_voxels_darken_nothing_beside_them(rng: np.random.Generator) -> None:
    """They are far below what the law of a magnitude expects, also where k-space was cropped."""
    law = NoiseLaw("rician", 1, SIGMA)
    tissue = np.full(SHAPE, 0.5, np.float32)
    y = law.added_to(tissue, rng)
    tissue[:24] = 0
    y[:24] = 1e-3 * SIGMA
    frame = replace(_frame(y, law), mask=tissue > 0)
    out = with_weak_signal(frame, tissue, 0.8)
    assert np.array_equal(out[:24], tissue[:24])
    assert np.abs((out - tissue)[24:26].mean()) < 0.1 * SIGMA
