"""What of an image the mark lies in: its fine structure, made even.

The host is whitened twice: in space, by its local strength, and in frequency, by its own spectrum
(`detect`), so that neither edges nor smooth anatomy rule the correlation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.marking.pattern import PITCH_MM

Image = NDArray[np.float32]
_COARSE_MM = 3.0
"""Sigma of the smooth image that is taken off: waves of over 12 mm go."""
_LOCAL_MM = 4.0
"""Sigma of the neighbourhood that local strength is measured in."""
_LEAST = 0.1
"""Of the mean strength; where there is less, as in air, there is nothing to see."""
_MOST = 3.0
"""Of the local strength: larger values are cut, so that no edge counts for many voxels."""


def fine_structure(image: Image, spacing: tuple[float, float, float]) -> Image:
    """The image less its smooth part; voxels finer than the lattice are averaged first."""
    excess = [PITCH_MM / 2 * np.sqrt(max(0.0, 1 - (s / PITCH_MM) ** 2)) / s for s in spacing]
    image = ndimage.gaussian_filter(image, excess, mode="nearest") if any(excess) else image
    coarse = ndimage.gaussian_filter(image, [_COARSE_MM / s for s in spacing], mode="nearest")
    fine: Image = image - coarse
    return fine


def local_strength(fine: Image, spacing: tuple[float, float, float]) -> Image:
    """Root mean square of the fine structure around each voxel."""
    square = ndimage.gaussian_filter(
        np.square(fine), [_LOCAL_MM / s for s in spacing], mode="nearest"
    )
    strength: Image = np.sqrt(np.maximum(square, 0))
    return strength


def evened(image: Image, spacing: tuple[float, float, float]) -> Image:
    """(X, Y, Z) fine structure in units of its local strength, cut at three of them."""
    fine = fine_structure(image, spacing)
    strength = local_strength(fine, spacing)
    least = _LEAST * float(np.sqrt(np.mean(np.square(strength, dtype=np.float64))))
    if least == 0:
        return np.zeros_like(image)
    even: Image = np.clip(fine / (strength + least), -_MOST, _MOST)
    return even
