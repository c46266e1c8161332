"""A reference on the grid of the scan that it helps to restore."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.float32]
Affine = NDArray[np.float64]
_WIDTH = 0.42
"""Standard deviation of a Gaussian whose half width is that of a voxel, in voxels."""


def on_grid(image: Image, affine: Affine, target: Affine, shape: Sequence[int]) -> Image:
    """The image where another grid has its voxels, by cubic splines; 0 outside of the image.

    Where that grid is coarser the image is smoothed first, to what its voxels would have seen.

    Args:
        image: (X, Y, Z).
        affine: Of the image, voxel to mm RAS+.
        target: Of the other grid, likewise.
        shape: Of the other grid.
    """
    step = np.linalg.inv(affine) @ target
    # How far one voxel of the other grid reaches along each axis of the image.
    reach = np.abs(step[:3, :3]).max(axis=1)
    width = _WIDTH * np.sqrt(np.maximum(reach**2 - 1, 0))
    smooth = ndimage.gaussian_filter(image, width, truncate=3.0) if width.any() else image
    out = ndimage.affine_transform(
        smooth, step[:3, :3], step[:3, 3], tuple(shape), np.float32, order=3, mode="constant"
    )
    positive: Image = np.maximum(out, 0).astype(np.float32)
    return positive


def share_inside(
    affine: Affine, shape: Sequence[int], target: Affine, inside: NDArray[np.bool_]
) -> float:
    """Share of the voxels `inside` of another grid that lie within an image of `shape`.

    Args:
        affine: Of the image, voxel to mm.
        shape: Of the image.
        target: Affine of the other grid.
        inside: (X, Y, Z), the voxels of that grid that count.
    """
    places = np.argwhere(inside)
    if not len(places):
        return 0.0
    step = np.linalg.inv(affine) @ target
    there = places @ step[:3, :3].T + step[:3, 3]
    held = ((there >= -0.5) & (there <= np.array(shape) - 0.5)).all(axis=1)
    return float(held.mean())
