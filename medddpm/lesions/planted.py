"""Synthetic lesions: soft spheres of known size and contrast, and where to put them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.errors import ConfigError
from medddpm.preprocess.intensity import Mask

Image = NDArray[np.float32]
Places = NDArray[np.int64]

_SAMPLES_ACROSS = 12
"""Samples over a diameter, and at least three a voxel: volumes are right to about 2 %."""
_EVEN_SHARE = 0.5
_SHELL_VOXELS = 2


def lesion_profile(
    shape: Sequence[int],
    centre_voxel: Sequence[float],
    diameter_mm: float,
    spacing: Sequence[float],
) -> Image:
    """The share of each voxel (X, Y, Z) that lies in a sphere: 1 inside, 0 outside.

    The edge is partial volume, at most about one voxel wide; a sphere that sticks out of the
    image is cut.

    Args:
        shape: Of the image.
        centre_voxel: Centre of the sphere, in voxels; whole numbers are centres of voxels.
        diameter_mm: Of the sphere.
        spacing: Millimetres a voxel, for each axis.

    Raises:
        ConfigError: The diameter or a spacing is not positive.

    Example:
        >>> int(lesion_profile((9, 9, 9), (4, 4, 4), 2.0, (1, 1, 1)).sum().round())
        4
    """
    if not (0 < diameter_mm < math.inf) or not all(0 < s < math.inf for s in spacing):
        raise ConfigError(f"a sphere of {diameter_mm} mm on {tuple(spacing)} mm has no volume")
    radius = diameter_mm / 2
    box, distances, parts = [], [], []
    for length, centre, step in zip(shape, centre_voxel, spacing, strict=True):
        reach = radius / step + 0.5
        start = min(max(math.floor(centre - reach), 0), length)
        stop = max(min(math.ceil(centre + reach) + 1, length), start)
        samples = max(3, math.ceil(_SAMPLES_ACROSS * step / diameter_mm))
        offsets = (np.arange(samples) + 0.5) / samples - 0.5
        fine = (np.arange(start, stop)[:, None] + offsets).ravel()
        box.append(slice(start, stop))
        distances.append(((fine - centre) * step) ** 2)
        parts += [stop - start, samples]
    x, y, z = distances
    inside = x[:, None, None] + y[None, :, None] + z <= radius**2
    profile: Image = np.zeros(tuple(shape), np.float32)
    profile[tuple(box)] = inside.reshape(parts).mean(axis=(1, 3, 5))
    return profile


def even_places(
    image: Image, mask: Mask, diameter_mm: float, spacing: Sequence[float]
) -> NDArray[np.bool_]:
    """Centres where a sphere and a shell of two voxels lie in the mask, in even tissue.

    Even is the half of those places where the image varies least over the sphere; what the lesion
    does is then not mistaken for an edge of the anatomy.

    Args:
        image: (X, Y, Z), clean.
        mask: (X, Y, Z): white matter, or the foreground.
        diameter_mm: Of the sphere.
        spacing: Millimetres a voxel, for each axis.
    """
    reach = diameter_mm / 2 + _SHELL_VOXELS * min(spacing)
    inside = np.pad(mask, 1)  # the edge of the image is an edge too
    depth = ndimage.distance_transform_edt(inside, sampling=tuple(spacing))[1:-1, 1:-1, 1:-1]
    places: NDArray[np.bool_] = depth > reach
    if places.any():
        unevenness = _local_spread(image, [2 * reach / step for step in spacing])
        places &= unevenness <= np.quantile(unevenness[places], _EVEN_SHARE)
    return places


def lesion_places(
    image: Image,
    mask: Mask,
    diameter_mm: float,
    spacing: Sequence[float],
    count: int,
    rng: np.random.Generator,
) -> Places:
    """Up to `count` centres (N, 3) in voxels, in even tissue and clear of each other.

    Each sphere and its shell of two voxels touch no other's and no edge of the mask. There are
    fewer than `count` where the mask holds no more. Further lesions of another size keep clear of
    these if `mask` is False in a ball around each (`clear_around`).

    Args:
        image: (X, Y, Z), clean.
        mask: (X, Y, Z): white matter, or the foreground.
        diameter_mm: Of the spheres.
        spacing: Millimetres a voxel, for each axis.
        count: At most so many.
        rng: Chooses among the places.
    """
    free = even_places(image, mask, diameter_mm, spacing)
    apart = diameter_mm + 2 * _SHELL_VOXELS * min(spacing)
    found: list[NDArray[np.int64]] = []
    for place in rng.permutation(np.argwhere(free)):
        if len(found) == count:
            break
        gaps = [np.linalg.norm((place - other) * spacing) for other in found]
        if all(gap >= apart for gap in gaps):
            found.append(place)
    return np.asarray(found, dtype=np.int64).reshape(-1, 3)


def clear_around(mask: Mask, places: Places, diameter_mm: float, spacing: Sequence[float]) -> Mask:
    """The mask without a ball around each place: the sphere and its shell of two voxels."""
    left = mask.copy()
    around = diameter_mm + 2 * _SHELL_VOXELS * min(spacing)
    for place in places:
        left &= lesion_profile(mask.shape, place, around, spacing) == 0
    return left


def _local_spread(image: Image, widths: Sequence[float]) -> NDArray[np.float64]:
    """Standard deviation over a box around each voxel."""
    size = [max(1, round(width)) for width in widths]
    values = np.asarray(image, np.float64)
    mean = ndimage.uniform_filter(values, size)
    power = ndimage.uniform_filter(values**2, size)
    spread: NDArray[np.float64] = np.sqrt(np.maximum(power - mean**2, 0))
    return spread
