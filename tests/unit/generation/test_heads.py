"""Heads on the prior's grid: orientation, place and random poses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import ndimage
from scipy.spatial.transform import Rotation
from unit.generation.conftest import ellipsoid

from medddpm.generation.align import straightened
from medddpm.generation.heads import STRAIGHT, head_of, placed, pose_points, random_pose
from medddpm.generation.options import PriorOptions, PriorSpec
from medddpm.io import read_volume
from medddpm.volume import Geometry, Volume

EXAMPLE = Path(__file__).parents[3] / "example"
SPEC = PriorSpec(shape=(32, 32, 32), spacing=6.0)


def _volume(data: np.ndarray, affine: np.ndarray) -> Volume:
    return Volume(data, Geometry(data.shape, affine), case_id="sub-01_T1w")


def test_head_is_the_same_however_its_file_counts() -> None:
    data, affine = ellipsoid(1), np.diag([4.0, 4.0, 4.0, 1.0])
    turned = affine.copy()
    turned[:3, :3] = turned[:3, :3] @ np.diag([-1, 1, -1])
    turned[:3, 3] = [4 * (data.shape[0] - 1), 0, 4 * (data.shape[2] - 1)]
    a = placed(head_of(_volume(data, affine), 6.0), SPEC)
    b = placed(head_of(_volume(data[::-1, :, ::-1].copy(), turned), 6.0), SPEC)
    assert_allclose(a, b, atol=2e-3)
    assert float(a.max()) > 0.5


def test_head_keeps_its_place_in_space() -> None:
    """The centre of mass in mm is that of the scan."""
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = [-70.0, 15.0, 33.0]
    volume = _volume(ellipsoid(2), affine)
    head = head_of(volume, SPEC.spacing)
    on_grid = head.on_grid(SPEC.spacing, SPEC.shape)

    def middle(image: np.ndarray, where: np.ndarray) -> np.ndarray:
        index = np.argwhere(image > 0.1 * image.max())
        weights = image[tuple(index.T)]
        return where[:3, :3] @ (weights @ index / weights.sum()) + where[:3, 3]

    before = middle(volume.data, affine)
    assert_allclose(middle(placed(head, SPEC)[0, 0].numpy(), on_grid), before, atol=1.0)
    assert_allclose(np.diag(on_grid)[:3], 6.0)


def test_mirrored_pose_swaps_left_and_right() -> None:
    head = head_of(_volume(ellipsoid(3), np.diag([4.0, 4.0, 4.0, 1.0])), 6.0)
    plain, flipped = (placed(head, SPEC, p) for p in (STRAIGHT, replace(STRAIGHT, flipped=True)))
    assert_allclose(flipped, plain.flip(2), atol=1e-5)
    assert not np.allclose(flipped, plain, atol=0.05)


def test_straight_pose_moves_nothing_and_a_bend_folds_nothing() -> None:
    points = pose_points(SPEC, STRAIGHT)
    assert_allclose(points[0, 0, 0], [-93, -93, -93])
    assert_allclose(points[31, 0, 31], [93, -93, 93])
    options = PriorOptions(shape=SPEC.shape, spacing=6.0, turn=0, stretch=0, warp=2.0)
    pose = replace(random_pose(options, np.random.default_rng(1)), flipped=False)
    bent = pose_points(SPEC, pose)
    assert 0.5 < (bent - points).std() < 4
    for axis in range(3):  # nothing folds: neighbours keep their order
        assert np.diff(bent[..., axis], axis=axis).min() > 0


@pytest.mark.parametrize("turn", [0.0, 8.0])
def test_poses_keep_the_volume(turn: float) -> None:
    options = PriorOptions(shape=SPEC.shape, spacing=6.0, turn=turn, stretch=0, warp=0)
    pose = random_pose(options, np.random.default_rng(2))
    assert np.linalg.det(pose.matrix) == pytest.approx(1)
    assert np.allclose(pose.matrix, np.eye(3)) == (turn == 0)


def test_straight_heads_lie_as_the_target_and_keep_their_place() -> None:
    """A brain that is turned by 8 degrees and moved by 4 mm comes back, not stretched."""
    scan = read_volume(EXAMPLE / "sub-example_T1w_clean.nii.gz").to_ras()
    data, spec = np.pad(scan.frame(0), 16), PriorSpec()
    turn = Rotation.from_rotvec([6, -4, 4], degrees=True).as_matrix()
    middle = (np.array(data.shape) - 1) / 2
    corner = middle - turn @ (middle + np.array([2, -3, 1]))
    moved = ndimage.affine_transform(data, turn, corner, order=1)
    target = placed(head_of(_volume(data, scan.affine), 4.0), spec)
    head = head_of(_volume(moved, scan.affine), 4.0)
    straight = straightened([head], spec, target)[0]
    assert_allclose(straight.turn @ straight.turn.T, np.eye(3), atol=1e-6)
    assert np.degrees(Rotation.from_matrix(straight.turn @ turn).magnitude()) < 1.5
    before, after = (float((placed(h, spec) - target).square().mean()) for h in (head, straight))
    assert after < 0.4 * before
    # the grid says where each voxel lies in the scan: there the scan has the same intensity
    image, grid = placed(straight, spec)[0, 0].numpy(), straight.on_grid(4.0, spec.shape)
    inside = np.argwhere(image > 0)
    index = nib.affines.apply_affine(np.linalg.inv(scan.affine) @ grid, inside)
    there = ndimage.map_coordinates(ndimage.gaussian_filter(moved, 2.0), index.T, order=1)
    assert np.corrcoef(there, image[image > 0])[0, 1] > 0.99
