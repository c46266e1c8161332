"""How the restored scan itself looks: blurred, ringing, or flat between its edges."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.guard.residual import Finding
from medddpm.preprocess.noise import fine_axes

Image = NDArray[np.float32]
_FINE, _MIDDLE = 0.7, 1.4
"""Voxels: standard deviations of the Gaussians that part fine from middle detail."""


def quality_findings(
    x_hat: NDArray[Any], mask: NDArray[Any], spacing: tuple[float, float, float]
) -> dict[str, Finding]:
    """Sharpness and flatness of a restored scan.

    "sharpness" is the root mean square of fine over that of middle detail. "flatness" is the
    entropy of equal slopes less that of the slopes over the voxels (McGee et al. 2000, J Magn
    Reson Imaging 11:174, equation 8): 0 where all voxels slope alike, the higher the flatter the
    scan is between its edges.

    Args:
        x_hat: (X, Y, Z) restored scan.
        mask: (X, Y, Z) foreground.
        spacing: Voxel edges in mm; thick slices are not looked at across.
    """
    axes = fine_axes(spacing)
    box = ndimage.find_objects(np.asarray(mask, np.uint8))[0]
    image = np.asarray(x_hat[box], np.float32)
    inside = ndimage.binary_erosion(np.asarray(mask[box], bool), iterations=2)
    inside = inside if inside.sum() > 1000 else np.asarray(mask[box], bool)
    fine, middle = (_blurred(image, axes, width) for width in (_FINE, _MIDDLE))
    detail = _power((image - fine)[inside]), _power((fine - middle)[inside])
    sharpness = float(np.sqrt(detail[0] / detail[1])) if detail[1] > 0 else 0.0
    slope = _slope(image, axes)[inside].astype(np.float64)
    return {"sharpness": Finding(sharpness), "flatness": Finding(_flatness(slope))}


def _blurred(image: Image, axes: tuple[int, ...], width: float) -> Image:
    out: Image = ndimage.gaussian_filter(image, [width if a in axes else 0.0 for a in range(3)])
    return out


def _slope(image: Image, axes: tuple[int, ...]) -> Image:
    square = np.zeros_like(image)
    for axis in axes:
        if image.shape[axis] > 1:
            square += np.square(np.gradient(image, axis=axis))
    slope: Image = np.sqrt(square)
    return slope


def _power(values: Image) -> float:
    return float(np.mean(np.square(values), dtype=np.float64))


def _flatness(slope: NDArray[np.float64]) -> float:
    total = slope.sum()
    if total == 0:
        return 0.0
    share = slope[slope > 0] / total
    return float((share * np.log(share)).sum() + np.log(slope.size))
