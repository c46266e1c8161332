from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medddpm.errors import ShapeError, VolumeReadError
from medddpm.io.raw import read_raw
from medddpm.io.raw_ismrmrd import REVERSE
from medddpm.io.raw_ismrmrd_write import write_ismrmrd
from medddpm.io.raw_scan import RawScan, Trajectory, unplaced_affine

h5py: Any = pytest.importorskip("h5py")
MATRIX = (16, 12, 1)


def scan_of(
    rng: np.random.Generator,
    *,
    matrix: tuple[int, int, int] = MATRIX,
    slices: int = 1,
    frames: int = 1,
    own: tuple[int, int] = (1, 1),
) -> RawScan:
    """Noise at random places; `own` says how many frames and slices have places of their own."""
    size = (frames, slices, 2, 20, 5, 1)
    kspace = (rng.normal(size=size) + 1j * rng.normal(size=size)).astype(np.complex64)
    reach = np.asarray(matrix) / 2 * (np.asarray(matrix) > 1)
    places = rng.uniform(-reach, reach, (*own, 20, 5, 1, 3)).astype(np.float32)
    fov = tuple(2.0 * n for n in matrix)
    return RawScan(
        kspace,
        np.ones((frames, slices, 20, 5, 1), bool),
        (fov[0], fov[1], fov[2]),
        matrix,
        (fov[0], fov[1], fov[2]),
        unplaced_affine((2, 2, 2), (*matrix[:2], matrix[2] * slices)),
        noise=kspace[0, 0, :, :, 0, 0],
        frames=tuple(f"contrast {n}" if n else "" for n in range(frames)),
        trajectory=Trajectory(places, matrix, "radial"),
    )


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"slices": 3},
        {"slices": 3, "own": (1, 3)},
        {"frames": 2, "own": (2, 1)},
        {"matrix": (16, 12, 10)},
    ],
)
def test_readouts_come_back_with_their_places(
    kind: dict[str, Any], rng: np.random.Generator, tmp_path: Path
) -> None:
    scan = scan_of(rng, **kind)
    again = read_raw(write_ismrmrd(scan, tmp_path / "scan.h5"))
    assert scan.trajectory is not None
    assert again.trajectory is not None
    np.testing.assert_array_equal(again.kspace, scan.kspace)
    np.testing.assert_allclose(again.trajectory.places, scan.trajectory.places, atol=1e-5)
    assert again.trajectory.places.shape == scan.trajectory.places.shape
    assert (again.trajectory.kind, again.encoded_matrix) == ("radial", scan.encoded_matrix)
    np.testing.assert_array_equal(again.noise, scan.noise)
    np.testing.assert_allclose(again.affine, scan.affine, atol=1e-4)
    assert again.words.startswith("5 readouts (radial) of 20 samples for 16 x 12")


def test_readouts_that_were_left_out_are_not_written(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    scan = scan_of(rng)
    lines = np.array([1, 0, 1, 0, 0], bool)[:, None]
    again = read_raw(write_ismrmrd(scan.undersampled(lines), tmp_path / "scan.h5"))
    np.testing.assert_array_equal(again.kspace[..., 0], scan.kspace[..., [0, 2], 0])
    assert again.trajectory is not None
    assert scan.trajectory is not None
    np.testing.assert_allclose(
        again.trajectory.places, scan.trajectory.places[:, :, :, [0, 2]], atol=1e-5
    )


def edit(path: Path, change: Callable[[Any], None]) -> None:
    """The readouts of the image changed one by one."""
    with h5py.File(path, "r+") as file:
        data = file["dataset/data"]
        table = data[:]
        for row in table:
            if not int(row["head"]["flags"]) >> 18 & 1:
                change(row)
        data[:] = table


def flat(row: Any) -> NDArray[np.float32]:
    return np.asarray(row["traj"], np.float32)


def test_cycles_per_field_of_view_are_read_too(rng: np.random.Generator, tmp_path: Path) -> None:
    scan = scan_of(rng)
    path = write_ismrmrd(scan, tmp_path / "scan.h5")

    def scaled(row: Any) -> None:
        row["traj"] = flat(row) * np.tile(np.float32([16, 12]), 20)

    edit(path, scaled)
    again = read_raw(path)
    assert scan.trajectory is not None
    assert again.trajectory is not None
    np.testing.assert_allclose(again.trajectory.places, scan.trajectory.places, atol=1e-5)


def test_a_third_number_of_a_plane_is_no_place(rng: np.random.Generator, tmp_path: Path) -> None:
    """Some files keep the weight of each sample there."""
    scan = scan_of(rng)
    path = write_ismrmrd(scan, tmp_path / "scan.h5")

    def weighted(row: Any) -> None:
        told = np.full((20, 3), 7, np.float32)
        told[:, :2] = flat(row).reshape(20, 2)
        row["traj"], row["head"]["trajectory_dimensions"] = told.ravel(), 3

    edit(path, weighted)
    again = read_raw(path)
    assert scan.trajectory is not None
    assert again.trajectory is not None
    np.testing.assert_allclose(again.trajectory.places, scan.trajectory.places, atol=1e-5)


def test_a_stack_of_stars_lies_on_planes_of_kz(rng: np.random.Generator, tmp_path: Path) -> None:
    path = write_ismrmrd(scan_of(rng, matrix=(16, 12, 10)), tmp_path / "scan.h5")
    step = iter(range(5))

    def flattened(row: Any) -> None:
        row["traj"] = np.ascontiguousarray(flat(row).reshape(20, 3)[:, :2]).ravel()
        row["head"]["trajectory_dimensions"] = 2
        row["head"]["idx"]["kspace_encode_step_2"] = 2 * next(step)

    edit(path, flattened)
    again = read_raw(path)
    assert again.trajectory is not None
    kz = again.trajectory.places[0, 0, :, :, 0, 2]
    np.testing.assert_array_equal(kz, np.broadcast_to([-5, -3, -1, 1, 3], (20, 5)))


def test_samples_to_discard_take_their_places_along(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    scan = scan_of(rng)
    path = write_ismrmrd(scan, tmp_path / "scan.h5")

    def shorter(row: Any) -> None:
        row["head"]["discard_pre"], row["head"]["discard_post"] = 3, 2

    edit(path, shorter)
    again = read_raw(path)
    assert scan.trajectory is not None
    assert again.trajectory is not None
    np.testing.assert_array_equal(again.kspace, scan.kspace[:, :, :, 3:18])
    np.testing.assert_allclose(
        again.trajectory.places, scan.trajectory.places[:, :, 3:18], atol=1e-5
    )


def test_a_trajectory_tells_the_direction_itself(rng: np.random.Generator, tmp_path: Path) -> None:
    scan = scan_of(rng)
    path = write_ismrmrd(scan, tmp_path / "scan.h5")

    def backwards(row: Any) -> None:
        row["head"]["flags"] |= np.uint64(1 << (REVERSE - 1))

    edit(path, backwards)
    np.testing.assert_array_equal(read_raw(path).kspace, scan.kspace)


def no_places(row: Any) -> None:
    row["traj"], row["head"]["trajectory_dimensions"] = np.zeros(0, np.float32), 0


def too_far(row: Any) -> None:
    row["traj"] = flat(row) * 100


def not_finite(row: Any) -> None:
    row["traj"] = flat(row) * np.float32(np.nan)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (no_places, "does not tell where its samples lie"),
        (too_far, "expected cycles per voxel"),
        (not_finite, "expected cycles per voxel"),
    ],
)
def test_bad_trajectories_are_refused(
    change: Callable[[Any], None], words: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    path = write_ismrmrd(scan_of(rng), tmp_path / "scan.h5")
    edit(path, change)
    with pytest.raises(VolumeReadError, match=words):
        read_raw(path)


def test_places_fit_the_samples(rng: np.random.Generator) -> None:
    scan = scan_of(rng)
    assert scan.trajectory is not None
    short = replace(scan.trajectory, places=scan.trajectory.places[:, :, :10])
    with pytest.raises(ShapeError, match="places for"):
        replace(scan, trajectory=short)
