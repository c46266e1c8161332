"""The grid and the scan."""

from __future__ import annotations

import numpy as np
import pytest

from medddpm.errors import GeometryError, ShapeError, VolumeReadError
from medddpm.volume import Geometry, Volume, ras_axes

FLIPPED = np.array([[0, 0, -3.0, 5], [-1.0, 0, 0, 6], [0, 2.0, 0, 7], [0, 0, 0, 1]])


def test_spacing_and_orientation() -> None:
    grid = Geometry((4, 5, 6), FLIPPED)
    assert grid.spacing == (1.0, 2.0, 3.0)
    assert grid.orientation == "PSL"


def test_affine_is_a_read_only_copy() -> None:
    affine = np.eye(4)
    grid = Geometry((2, 2, 2), affine)
    affine[0, 0] = 9
    assert grid.affine[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 2


@pytest.mark.parametrize("affine", [np.zeros((4, 4)), np.full((4, 4), np.nan), np.eye(3)])
def test_affines_that_place_nothing(affine: np.ndarray) -> None:
    with pytest.raises(GeometryError, match="affine"):
        Geometry((2, 2, 2), affine)


def test_match() -> None:
    grid = Geometry((4, 5, 6), FLIPPED)
    near, far = FLIPPED.copy(), FLIPPED.copy()
    near[0, 3] += 1e-4
    far[0, 3] += 1e-2
    assert grid.matches(Geometry((4, 5, 6), near))
    assert not grid.matches(Geometry((4, 5, 7), FLIPPED))
    grid.require_match(Geometry((4, 5, 6), near), "the mask")
    with pytest.raises(GeometryError, match="the mask lies on another grid"):
        grid.require_match(Geometry((4, 5, 6), far), "the mask")


def test_volume_frames_and_dtype() -> None:
    grid = Geometry((2, 3, 4), np.eye(4))
    still = Volume(np.ones((2, 3, 4), np.float64), grid)  # type: ignore[arg-type]
    film = Volume(np.arange(48, dtype=np.float32).reshape(2, 3, 4, 2), grid)
    assert still.data.dtype == np.float32
    assert (still.num_frames, film.num_frames) == (1, 2)
    assert still.frame(0) is still.data
    assert np.array_equal(film.frame(1), film.data[..., 1])
    assert still.spacing == (1.0, 1.0, 1.0)
    assert np.array_equal(still.affine, np.eye(4))
    assert still.with_data(np.zeros((2, 3, 4))).data.sum() == 0


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 5), (2, 3, 4, 1, 1)])
def test_volume_needs_its_grid(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="its grid"):
        Volume(np.ones(shape, np.float32), Geometry((2, 3, 4), np.eye(4)))


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "AIL", "PSR"])
def test_orientation_brings_any_array_into_ras(orientation: str) -> None:
    """A ramp along each world axis must rise along the array's own axis after the turn."""
    order, flips = ras_axes(orientation)
    for world, pair in enumerate(("LR", "PA", "IS")):
        axis = next(a for a in range(3) if orientation[a] in pair)
        ramp = np.arange(4.0) if orientation[axis] == pair[1] else np.arange(4.0)[::-1]
        array = np.broadcast_to(
            ramp.reshape([-1 if a == axis else 1 for a in range(3)]), (4, 4, 4)
        ).transpose(order)[flips]
        np.testing.assert_array_equal(np.diff(array, axis=world), 1)


def test_an_orientation_names_three_axes() -> None:
    with pytest.raises(ShapeError, match="three different axes"):
        ras_axes("RAL")


@pytest.mark.parametrize("kind", [np.complex64, np.complex128, np.clongdouble])
def test_nothing_of_complex_numbers_is_dropped(kind: type) -> None:
    values = np.full((4, 4, 4), 1 + 1j, kind)
    grid = Geometry((4, 4, 4), np.eye(4))
    with pytest.raises(VolumeReadError, match=r"np\.abs\(data\)"):
        Volume(values, grid)
    with pytest.raises(VolumeReadError, match="imaginary"):
        Volume(np.ones((4, 4, 4), np.float32), grid).with_data(values)


@pytest.mark.parametrize("kind", ["U3", "O", "M8[s]", "m8[s]", [("R", "u1"), ("G", "u1")], "V4"])
def test_arrays_of_no_numbers(kind: object) -> None:
    with pytest.raises(VolumeReadError, match="real numbers"):
        Volume(np.zeros((4, 4, 4), kind), Geometry((4, 4, 4), np.eye(4)))  # type: ignore[call-overload]


@pytest.mark.parametrize("kind", ["?", "u1", "i8", "f2", "f8", "g", ">f4"])
def test_any_real_numbers(kind: str) -> None:
    volume = Volume(np.ones((4, 4, 4), kind), Geometry((4, 4, 4), np.eye(4)))  # type: ignore[arg-type]
    assert volume.data.dtype == np.float32
    listed = Volume(volume.data.tolist(), volume.geometry)  # type: ignore[arg-type]
    assert np.array_equal(listed.data, volume.data)
