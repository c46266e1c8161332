"""A reference lies where its affine says, whatever its grid."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.reference.grid import on_grid, share_inside


def blob(affine: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A smooth blob around the origin of the world, 6 mm wide, as a grid sees it."""
    place = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    world = place @ affine[:3, :3].T + affine[:3, 3]
    return np.exp(-np.square(world).sum(-1) / (2 * 6.0**2)).astype(np.float32)


def grid(spacing: tuple[float, float, float], shape: tuple[int, ...]) -> NDArray[np.float64]:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -affine[:3, :3] @ [(n - 1) / 2 for n in shape]
    return affine


def test_another_grid_sees_the_same_thing() -> None:
    fine, coarse = (48, 48, 48), (20, 24, 30)
    here, there = grid((1.0, 1.0, 1.0), fine), grid((-1.6, 1.3, 1.0), coarse)
    angle = np.radians(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    there = turn @ there
    out = on_grid(blob(here, fine), here, there, coarse)
    assert np.abs(out - blob(there, coarse)).max() < 0.02


def test_the_same_grid_changes_nothing() -> None:
    shape = (16, 18, 20)
    affine = grid((1.0, 2.0, 3.0), shape)
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    np.testing.assert_allclose(on_grid(image, affine, affine, shape), image, atol=1e-5)


def test_thick_slices_see_the_mean_of_thin_ones() -> None:
    thin, thick = (8, 8, 60), (8, 8, 10)
    stripes = np.zeros(thin, np.float32)
    stripes[..., ::2] = 1.0
    here, there = grid((1, 1, 1), thin), grid((1, 1, 6), thick)
    middle = on_grid(stripes, here, there, thick)[2:-2, 2:-2, 2:-2]
    assert np.abs(middle - 0.5).max() < 0.02


@pytest.mark.parametrize(("moved", "share"), [(0.0, 1.0), (10.0, 0.5), (40.0, 0.0)])
def test_the_share_that_is_covered(moved: float, share: float) -> None:
    shape = (20, 20, 20)
    affine = np.eye(4)
    other = affine.copy()
    other[0, 3] = moved
    inside = np.ones(shape, bool)
    assert share_inside(affine, shape, other, inside) == pytest.approx(share)
    assert share_inside(affine, shape, other, ~inside) == 0
