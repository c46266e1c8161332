from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from medddpm.memorisation.nearest import (
    ORIENTATIONS,
    _correlation_map,
    correlate,
    find_nearest,
    turn,
    turn_back,
)


def texture(seed: int, shape: tuple[int, int, int] = (30, 34, 28)) -> NDArray[np.float32]:
    """A smooth random image, different for each seed."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    smooth = ndimage.gaussian_filter(noise, 2.0)
    image: NDArray[np.float32] = (0.5 + 0.1 * smooth / smooth.std()).astype(np.float32)
    return image


def flat(images: Tensor) -> Tensor:
    return images.flatten(1)


def test_the_orientations_are_all_48_and_turn_back() -> None:
    patch = torch.arange(2 * 27.0).reshape(2, 3, 3, 3)
    turned = [turn(patch, orientation) for orientation in ORIENTATIONS]
    assert len({tuple(t.flatten().tolist()) for t in turned}) == 48
    for orientation, image in zip(ORIENTATIONS, turned, strict=True):
        assert torch.equal(turn_back(image, orientation), patch)


def test_the_correlation_map_is_that_of_every_window() -> None:
    region = torch.from_numpy(texture(1, (9, 8, 10)))
    template = torch.from_numpy(texture(2, (6, 6, 6)))
    scores = _correlation_map(region, template)
    assert scores.shape == (4, 3, 5)
    for place in ((0, 0, 0), (3, 2, 4), (1, 2, 3)):
        window = region[tuple(slice(p, p + 6) for p in place)]
        wanted = np.corrcoef(window.flatten(), template.flatten())[0, 1]
        assert float(scores[place]) == pytest.approx(wanted, abs=1e-5)


def test_a_flat_window_correlates_with_nothing() -> None:
    template = torch.from_numpy(texture(2, (6, 6, 6)))
    assert float(_correlation_map(torch.ones(8, 8, 8), template).abs().max()) == 0
    assert correlate(torch.ones(1, 4), torch.rand(1, 4)).tolist() == [0]


@pytest.mark.parametrize("orientation", [0, 13, 30, 47])
def test_a_copy_is_found_wherever_and_whichever_way_round_it_lies(orientation: int) -> None:
    scans = [texture(i) for i in range(4)]
    patch = torch.from_numpy(scans[2][5:21, 9:25, 3:19].copy())
    rng = np.random.default_rng(0)
    query = 0.2 + 1.3 * turn(patch, ORIENTATIONS[orientation]) ** 0.8
    query = query + 0.01 * torch.from_numpy(rng.standard_normal(query.shape).astype(np.float32))
    (found,) = find_nearest(query[None], scans, flat)
    assert (found.scan, found.start) == (2, (5, 9, 3))
    assert found.correlation > 0.98
    assert found.embedding == pytest.approx(found.correlation, abs=1e-3)
    turned = turn(patch, ORIENTATIONS[orientation]).numpy()
    np.testing.assert_array_equal(found.patch, turned)


def test_another_image_is_far_from_all_of_them() -> None:
    query = torch.from_numpy(texture(9)[:16, :16, :16].copy())
    (found,) = find_nearest(query[None], [texture(i) for i in range(3)], flat)
    assert found.correlation < 0.8


@pytest.mark.parametrize(("flip", "start"), [(False, 0), (True, -10)])
def test_scans_thinner_than_a_patch_are_mirrored_at_either_end(flip: bool, start: int) -> None:
    thin = texture(1, (30, 30, 6))
    seen = thin[:, :, ::-1] if flip else thin
    query = torch.from_numpy(np.pad(seen, ((0, 0), (0, 0), (0, 10)), mode="symmetric")[4:20, 3:19])
    (found,) = find_nearest(query[None].contiguous(), [texture(0), thin], flat)
    assert (found.scan, found.start) == (1, (4, 3, start))
    assert found.correlation == pytest.approx(1, abs=1e-4)
