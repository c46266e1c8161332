"""A grid made coarser or finer in the frequency domain, without a jump at the edges of the scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

Image = NDArray[np.float32]


def resampled(image: Image, shape: Sequence[int]) -> Image:
    """The same field of view on another grid: k-space cropped, or filled with zeros.

    In the cosine basis (DCT-II), which continues the image by its mirror image: voxel j of n lies
    at (j + 1/2) / n of the field of view. Intensities stay. From coarse to fine and back nothing
    is lost; fine to coarse loses what lies beyond the new Nyquist frequency.

    Args:
        image: (X, Y, Z).
        shape: Voxels along each axis.
    """
    shape = tuple(shape)
    out = np.asarray(image, np.float32)
    for axis, (n, m) in enumerate(zip(image.shape, shape, strict=True)):
        if n != m:
            out = _along(out, axis, m)
    return out


def _along(image: Image, axis: int, length: int) -> Image:
    n = image.shape[axis]
    coefficients = fft.dct(image, axis=axis, norm="ortho")
    kept = [slice(None)] * 3
    kept[axis] = slice(0, min(n, length))
    out = np.zeros([length if a == axis else s for a, s in enumerate(image.shape)], np.float32)
    out[tuple(kept)] = coefficients[tuple(kept)]
    out = fft.idct(out, axis=axis, norm="ortho", overwrite_x=True)
    return np.asarray(out * np.float32(np.sqrt(length / n)), np.float32)


def resampled_affine(
    affine: NDArray[Any], shape: Sequence[int], other: Sequence[int]
) -> NDArray[np.float64]:
    """The affine of the grid that `resampled` makes: the same field of view, edge to edge."""
    ratio = np.array(shape, dtype=float) / np.array(other, dtype=float)
    out = np.array(affine, dtype=np.float64)
    out[:3, 3] += out[:3, :3] @ ((ratio - 1) / 2)
    out[:3, :3] = out[:3, :3] * ratio
    return out


def zoomed(image: Image, shape: Sequence[int]) -> Image:
    """The same field of view by linear interpolation, which keeps a positive map positive."""
    if image.shape == tuple(shape):
        return image
    factors = [m / n for m, n in zip(shape, image.shape, strict=True)]
    out = ndimage.zoom(image, factors, order=1, mode="nearest", grid_mode=True)
    return np.asarray(out, np.float32)
