"""Synthetic lesions have the volume of their sphere and lie where they should."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.errors import ConfigError
from medddpm.lesions.planted import clear_around, even_places, lesion_places, lesion_profile

SPACING = (0.9, 1.0, 1.2)
SHAPE = (40, 44, 36)


@pytest.mark.parametrize("diameter", [2.0, 3.0, 6.0, 10.0])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.72, 0.72, 3.0)])
def test_volume_is_that_of_the_sphere(diameter: float, spacing: tuple[float, ...]) -> None:
    profile = lesion_profile(SHAPE, (20.3, 21.6, 17.9), diameter, spacing)
    volume = float(profile.sum()) * np.prod(spacing)
    assert volume == pytest.approx(np.pi / 6 * diameter**3, rel=0.04)
    assert profile.min() == 0
    assert profile.max() <= 1


def test_edge_is_at_most_about_a_voxel_wide() -> None:
    profile = lesion_profile(SHAPE, (20, 22, 18), 10.0, (1.0, 1.0, 1.0))
    row = profile[20:, 22, 18]
    assert (row[:5] == 1).all()
    assert 0 < row[5] < 1
    assert (row[6:] == 0).all()


def test_sphere_is_round_in_millimetres() -> None:
    profile = lesion_profile(SHAPE, (20, 22, 18), 10.0, (1.0, 1.0, 2.0))
    along_x, along_z = profile[:, 22, 18].sum(), profile[20, 22].sum() * 2
    assert along_x == pytest.approx(along_z, rel=0.1)


def test_sphere_at_the_border_is_cut_and_one_outside_is_empty() -> None:
    half = lesion_profile(SHAPE, (-0.5, 22, 18), 10.0, (1.0, 1.0, 1.0))
    assert half.sum() == pytest.approx(np.pi / 12 * 1000, rel=0.02)
    assert lesion_profile(SHAPE, (-30, 22, 18), 10.0, (1.0, 1.0, 1.0)).sum() == 0


@pytest.mark.parametrize(("diameter", "spacing"), [(0.0, (1, 1, 1)), (2.0, (1, 0, 1))])
def test_no_sphere_without_a_size(diameter: float, spacing: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="has no volume"):
        lesion_profile(SHAPE, (20, 22, 18), diameter, spacing)


def test_places_are_inside_apart_and_the_same_for_a_seed(
    head: Callable[..., NDArray[np.float32]],
) -> None:
    image = head(SHAPE)
    mask = image > 0
    found = lesion_places(image, mask, 4.0, SPACING, 6, np.random.default_rng(1))
    again = lesion_places(image, mask, 4.0, SPACING, 6, np.random.default_rng(1))
    assert len(found) == 6
    np.testing.assert_array_equal(found, again)
    for place in found:
        assert mask[lesion_profile(SHAPE, place, 4.0, SPACING) > 0].all()
    gaps = np.linalg.norm((found[:, None] - found[None]) * SPACING, axis=2)
    assert gaps[~np.eye(6, dtype=bool)].min() >= 4.0 + 4 * 0.9


def test_places_avoid_the_edges_of_the_anatomy() -> None:
    image = np.zeros(SHAPE, np.float32)
    image[20:] = 1
    mask = np.ones(SHAPE, dtype=bool)
    places = np.argwhere(even_places(image, mask, 4.0, (1.0, 1.0, 1.0)))
    assert len(places)
    assert np.abs(places[:, 0] - 19.5).min() > 2


def test_other_sizes_keep_clear(head: Callable[..., NDArray[np.float32]]) -> None:
    image = head(SHAPE)
    rng = np.random.default_rng(3)
    large = lesion_places(image, image > 0, 6.0, SPACING, 2, rng)
    left = clear_around(image > 0, large, 6.0, SPACING)
    small = lesion_places(image, left, 3.0, SPACING, 5, rng)
    assert len(large) == 2
    assert len(small) == 5
    union = sum(lesion_profile(SHAPE, p, 6.0, SPACING) > 0 for p in large)
    union = union + sum(lesion_profile(SHAPE, p, 3.0, SPACING) > 0 for p in small)
    assert union.max() == 1


def test_no_place_in_a_mask_that_is_too_thin() -> None:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[18:22] = True
    image = np.ones(SHAPE, np.float32)
    found = lesion_places(image, mask, 10.0, SPACING, 5, np.random.default_rng(0))
    assert found.shape == (0, 3)
