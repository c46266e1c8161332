"""Grids made coarser and finer in the frequency domain."""

import numpy as np
import pytest

from medddpm.preprocess.resample import resampled, resampled_affine


def test_finer_and_back_loses_nothing(rng) -> None:
    image = rng.normal(size=(20, 24, 15)).astype(np.float32)
    fine = resampled(image, (32, 24, 20))
    assert fine.shape == (32, 24, 20)
    np.testing.assert_allclose(resampled(fine, image.shape), image, atol=1e-5)
    np.testing.assert_array_equal(resampled(image, image.shape), image)


def test_intensities_stay_and_a_ramp_does_not_ring_at_its_ends() -> None:
    ramp = np.broadcast_to(np.linspace(1, 2, 40, dtype=np.float32)[:, None, None], (40, 8, 8))
    coarse = resampled(np.array(ramp), (24, 8, 8))
    expected = np.interp((np.arange(24) + 0.5) * 40 / 24 - 0.5, np.arange(40), ramp[:, 0, 0])
    np.testing.assert_allclose(coarse[:, 4, 4], expected, atol=0.01)


def test_band_limited_noise_keeps_its_level(rng) -> None:
    white = rng.normal(size=(30, 30, 30)).astype(np.float32)
    fine = resampled(white, (50, 50, 30))
    assert fine[8:-8, 8:-8].std() == pytest.approx(white.std(), rel=0.05)


def test_the_affine_keeps_the_edges_of_the_field_of_view() -> None:
    affine = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -7], [0, 0, 3.0, 2], [0, 0, 0, 1]])
    shape, other = (40, 30, 20), (24, 30, 15)
    moved = resampled_affine(affine, shape, other)
    for corner in ((0, 0, 0), (1, 1, 1), (1, 0, 1)):
        edge, edge_other = (
            [c * n - 0.5 for c, n in zip(corner, s, strict=True)] for s in (shape, other)
        )
        np.testing.assert_allclose(affine @ [*edge, 1], moved @ [*edge_other, 1], atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(moved[:3, 0]), 1.5 * 40 / 24)
