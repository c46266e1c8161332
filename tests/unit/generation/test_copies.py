"""What is called a copy: the same head in any pose, and no other head."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation
from torch import Tensor

from medddpm.generation.align import aligned
from medddpm.generation.copies import Resemblance, memory_of, structure, threshold_of
from medddpm.generation.heads import STRAIGHT, Head, placed, random_pose
from medddpm.generation.options import PriorOptions

OPTIONS = PriorOptions(shape=(32, 32, 32), spacing=6.0)


def person(seed: int) -> Head:
    """An ellipsoid with folds of its own, 3 mm."""
    rng = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*(np.arange(52) - 25.5,) * 3, indexing="ij"), -1)
    inside = np.square(places / [20, 25, 20]).sum(-1) < 1
    shade = 0.2 * (places[..., 1] / 25 + 1)  # front and back differ, as in all people
    folds = ndimage.gaussian_filter(rng.standard_normal(inside.shape), 3)
    image = inside * (0.6 + shade + 0.15 * folds / folds.std())
    return Head(f"sub-{seed}", image.clip(0).astype(np.float16), np.diag([3.0, 3.0, 3.0, 1.0]))


PEOPLE = [person(seed) for seed in range(8)]


def posed(people: list[Head], seed: int) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.cat([placed(head, OPTIONS, random_pose(OPTIONS, rng)) for head in people])


@pytest.fixture(scope="module")
def straight() -> Tensor:
    """Four people and their mirror images."""
    sides = (STRAIGHT, replace(STRAIGHT, flipped=True))
    return torch.cat([placed(head, OPTIONS, pose) for head in PEOPLE[:4] for pose in sides])


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def test_a_head_in_another_pose_is_brought_back(straight: Tensor) -> None:
    turn = Rotation.from_rotvec([6.0, -8.0, 7.0], degrees=True).as_matrix()
    moved = placed(PEOPLE[0], OPTIONS, replace(STRAIGHT, matrix=turn @ np.diag([1.08, 0.95, 1.0])))
    back = aligned(moved, straight[:1])
    assert 1 - correlation(back, straight[:1]) < 0.3 * (1 - correlation(moved, straight[:1]))


def test_each_head_is_aligned_by_itself(straight: Tensor) -> None:
    two = posed(PEOPLE[:2], 1)
    together = aligned(two, straight[:1])
    assert torch.allclose(together[:1], aligned(two[:1], straight[:1]), atol=1e-3)


def test_people_are_known_in_another_pose_and_others_are_not(straight: Tensor) -> None:
    mean = straight.mean(0, keepdim=True)
    memory = memory_of(straight, mean)
    assert memory.rows.shape == (8, 2048)
    own = memory.nearest(posed(PEOPLE[:4], 2), mean)
    others = memory.nearest(posed(PEOPLE[4:], 3), mean)
    assert float(own.min()) > float(others.max()) + 0.1


def test_gain_and_curve_do_not_count(straight: Tensor) -> None:
    mean = straight.mean(0, keepdim=True)
    one, other = structure(torch.cat([straight[:1], 0.8 * straight[:1] ** 1.1]), mean)
    assert correlation(one, other) > 0.95


def test_alignment_works_where_no_gradients_are_wanted(straight: Tensor) -> None:
    with torch.inference_mode():
        image = straight[:1] + 0
        assert correlation(aligned(image, image), image) > 0.99


def test_threshold_leaves_the_share_below() -> None:
    held = torch.arange(101) / 100
    assert threshold_of(held) == float(torch.tensor(0.99))
    assert Resemblance(0.995, 0.99).is_copy
    assert not Resemblance(0.99, 0.99).is_copy
