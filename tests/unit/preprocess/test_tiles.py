from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medddpm.errors import ConfigError
from medddpm.preprocess.tiles import batches, filled, noise_tile, pad_mirrored, plan_tiles

sizes = st.integers(1, 90)


@settings(deadline=None)
@given(shape=st.tuples(sizes, sizes, sizes), overlap=st.sampled_from([0, 8, 16]))
def test_blended_tiles_give_back_the_volume(shape: tuple[int, int, int], overlap: int) -> None:
    plan = plan_tiles(shape, tile=32, overlap=overlap, multiple=16)
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    padded = pad_mirrored(image, plan.padded)
    total, weight = np.zeros(plan.padded, np.float32), np.zeros(plan.padded, np.float32)
    for start in plan.starts:
        assert all(s % 16 == 0 for s in start)
        total[plan.slices(start)] += plan.window() * padded[plan.slices(start)]
        weight[plan.slices(start)] += plan.window()
    x, y, z = (slice(0, n) for n in shape)
    np.testing.assert_allclose((total / weight)[x, y, z], image, atol=1e-5)


def test_a_thin_stack_is_mirrored_as_often_as_it_takes() -> None:
    image = np.arange(3, dtype=np.float32).reshape(1, 1, 3)
    padded = pad_mirrored(image, (1, 1, 16))
    assert padded[0, 0].tolist() == [0, 1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1, 2, 2]


def test_tiles_are_no_larger_than_they_must_be() -> None:
    """Three tiles of 96 voxels cover 208 with much to spare, three of 80 with none."""
    plan = plan_tiles((200, 40, 20), tile=96, overlap=16, multiple=16)
    assert plan.tile == (80, 48, 32)
    assert plan.padded == (208, 48, 32)
    assert [s[0] for s in plan.starts] == [0, 64, 128]


def test_tiles_of_a_box_cover_it_and_no_more_than_they_must() -> None:
    image = np.zeros((200, 64, 64), np.float32)
    image[70:130, 20:40, 10:50] = 1
    box = filled(image, 8)
    assert box == ((62, 138), (12, 48), (2, 58))
    plan = plan_tiles(image.shape, tile=48, overlap=16, multiple=8, inside=box)
    covered = np.zeros(plan.padded, bool)
    for start in plan.starts:
        covered[plan.slices(start)] = True
    assert covered[62:138, 12:48, 2:58].all()
    assert covered.sum() == 88 * 40 * 64
    assert filled(np.zeros((4, 5, 6)), 8) == ((0, 4), (0, 5), (0, 6))


def test_windows_of_the_noise_field_agree_where_they_overlap() -> None:
    a = noise_tile(2, (0, 4, 8), (16, 8, 8), seed=7, stream=(0, 1))
    b = noise_tile(2, (6, 4, 8), (18, 6, 8), seed=7, stream=(0, 1))
    np.testing.assert_array_equal(a[:, 6:, :6], b[:, :10])


@pytest.mark.parametrize(("seed", "stream"), [(8, (0, 1)), (7, (1, 1)), (7, (0, 2))])
def test_other_seeds_and_streams_are_other_fields(seed: int, stream: tuple[int, int]) -> None:
    a = noise_tile(4, (0, 0, 0), (16, 16, 16), seed=7, stream=(0, 1))
    b = noise_tile(4, (0, 0, 0), (16, 16, 16), seed=seed, stream=stream)
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.03
    assert abs(a.mean()) < 0.03
    assert a.std() == pytest.approx(1, abs=0.03)


def test_the_noise_field_does_not_repeat_itself() -> None:
    a = noise_tile(1, (0, 0, 0), (16, 16, 16), seed=7, stream=(0, 0))[0]
    blocks = a.reshape(4, 4, 4, 4, 4, 4).transpose(0, 2, 4, 1, 3, 5).reshape(64, 64)
    assert np.abs(np.corrcoef(blocks) - np.eye(64)).max() < 0.6


def test_empty_tiles_are_left_out() -> None:
    plan = plan_tiles((64, 32, 32), tile=32, overlap=0, multiple=16)
    skip = np.zeros(plan.padded, bool)
    skip[:32] = True
    assert list(batches(plan, 4, skip)) == [[(32, 0, 0)]]


@pytest.mark.parametrize(("tile", "overlap"), [(40, 8), (8, 0), (32, 17), (32, -1)])
def test_tiles_that_do_not_fit_are_refused(tile: int, overlap: int) -> None:
    with pytest.raises(ConfigError, match="restore"):
        plan_tiles((64, 64, 64), tile=tile, overlap=overlap, multiple=16)
