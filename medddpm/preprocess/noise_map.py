"""How the noise varies over a scan.

Parallel imaging amplifies noise by a smooth g-factor (Pruessmann et al., Magn Reson Med 42:952,
1999). The same two witnesses that `preprocess.noise` asks for one number are asked place by
place, each averaged over a Gaussian of a few centimetres: second differences in the flat half of
the body, and the mean square of the air.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional as F

from medddpm.preprocess.intensity import Mask, foreground_mask
from medddpm.preprocess.noise import (
    LEAK,
    RATIO_TOLERANCE,
    NoiseEstimate,
    air_of,
    block_sum,
    chi_moments,
    degrees_of_freedom,
    fine_axes,
    neighbours,
    second_difference,
    without_law,
)
from medddpm.preprocess.noise_law import NoiseKind

Image = NDArray[np.float32]
_BLOCK = 4
_REACH = 1.5
"""Standard deviation of the averaging, in blocks."""
_EVEN = 0.1
"""Maps that vary by less (standard deviation of their logarithm in the body) say nothing."""
_MOST_LEAK = 0.12
"""Where anatomy makes up this share of the finest differences, they say nothing of noise."""
_MOST_LEAK_IN_ALL = 0.02
"""The same over the whole body, for there to be a map."""
_CLIP = 2.5
"""Differences of more than this many local standard deviations are anatomy."""


def noise_map(
    image: NDArray[Any],
    noise: NoiseEstimate,
    *,
    kind: NoiseKind = "rician",
    coils: int = 1,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Image | None:
    """Sigma at every voxel (X, Y, Z) in scan units, or None where it is the same everywhere.

    Args:
        image: (X, Y, Z) magnitudes in any unit.
        noise: Its level as one number, from `estimate_noise`.
        kind: Law of the noise.
        coils: Number of coils, for "ncchi".
        spacing: Voxel edges in mm.
    """
    image = np.asarray(image, dtype=np.float32)
    mask = foreground_mask(image)
    axes = fine_axes(spacing)
    dof = degrees_of_freedom(kind, coils)
    size = tuple(_BLOCK if a in axes and image.shape[a] >= 8 * _BLOCK else 1 for a in range(3))
    reach = [_REACH if s > 1 else 1.0 for s in size]
    shape = [n // s for n, s in zip(image.shape, size, strict=True)]
    power, weight = np.zeros(shape), np.zeros(shape)
    voxels, blocks = _box(mask, size)
    body = _body(image[voxels], mask[voxels], axes, dof, noise, size, reach)
    if body is None:
        return None
    power[blocks], weight[blocks] = body
    if noise.method == "air" and dof:
        air_power, air_weight = _air(image, air_of(image, mask, axes), dof, size, reach)
        power += air_power
        weight += air_weight
    # Far from both witnesses the map leans to the one number.
    prior = 0.001 * np.prod(size)
    sigma = np.sqrt((power + prior * noise.sigma**2) / (weight + prior))
    full = _enlarged(sigma, image.shape, size)
    return full if float(np.log(full[mask]).std()) > _EVEN else None


def _body(
    image: Image,
    mask: Mask,
    axes: tuple[int, ...],
    dof: int,
    noise: NoiseEstimate,
    size: tuple[int, ...],
    reach: list[float],
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Sums of sigma^2 and of weights over the flat part of the body, on the grid of blocks.

    None where anatomy is too large a part of the differences for a map: what varies over the
    scan may then be the anatomy.
    """
    smooth = ndimage.gaussian_filter(image, [1.5 if a in axes else 0.0 for a in range(3)])
    slope = np.zeros_like(image)
    for axis in axes:
        slope += np.gradient(smooth, axis=axis) ** 2
    inner = ndimage.binary_erosion(mask, neighbours(axes), iterations=2) & (
        smooth > 0.15 * noise.scale
    )
    # Flat for its neighbourhood: a global threshold would empty the loud regions.
    slopes, counts = (
        _smooth(block_sum(np.where(inner, v, 0).astype(np.float32), size), reach)
        for v in (slope, 1.0)
    )
    usual = _enlarged(slopes / np.maximum(counts, 1e-6), image.shape, size)
    flat = (inner & (slope < 0.5 * usual)).astype(np.float32)
    weight = _smooth(block_sum(flat, size), reach)
    mean = _smooth(block_sum(flat * smooth, size), reach) / np.maximum(weight, 1e-6)
    powers = [
        _local_power(second_difference(image, axes, d), flat, weight, size, reach) for d in (1, 2)
    ]
    fine, wide = (without_law(np.sqrt(p), mean, dof) ** 2 for p in powers)
    leak = np.minimum(LEAK * np.maximum(wide - fine, 0), 0.5 * fine)
    if np.sum(leak * weight) > _MOST_LEAK_IN_ALL * np.sum(fine * weight):
        return None
    weight = weight * np.clip(1 - leak / (_MOST_LEAK * np.maximum(fine, 1e-12)), 0, 1)
    return (fine - leak) * weight, weight


def _box(mask: Mask, size: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The box around the body, grown to whole blocks: in voxels, and in blocks."""
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    blocks = tuple(
        slice(b.start // s, min(-(-b.stop // s), n // s))
        for b, s, n in zip(box, size, mask.shape, strict=True)
    )
    voxels = tuple(slice(b.start * s, b.stop * s) for b, s in zip(blocks, size, strict=True))
    return voxels, blocks


def _air(
    image: Image, air: Mask, dof: int, size: tuple[int, ...], reach: list[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of sigma^2 and of weights over air that follows the law of pure noise."""
    weight, total, squares = (
        _smooth(block_sum(np.where(air, values, 0).astype(np.float32), size), reach)
        for values in (1.0, image, image**2)
    )
    mean, variance = (float(m[0]) for m in chi_moments(np.zeros(1), dof))
    law = mean**2 / (mean**2 + variance)
    ratio = total**2 / np.maximum(weight * squares, 1e-12)
    # Ghosts and ringing of the body are no noise, and do not follow its law.
    trust = np.clip(2 - 2 * np.abs(ratio - law) / RATIO_TOLERANCE, 0, 1)
    return trust * squares / dof, trust * weight


def _local_power(
    difference: Image,
    flat: Image,
    weight: NDArray[np.float64],
    size: tuple[int, ...],
    reach: list[float],
) -> NDArray[np.float64]:
    """Variance of the differences around each block, without the largest ones."""
    magnitude = np.abs(difference)
    spread = np.zeros(weight.shape)
    for step in range(3):
        if step:
            limit = _CLIP * _enlarged(spread, magnitude.shape, size)
            magnitude = np.minimum(np.abs(difference), limit)
        total = _smooth(block_sum(flat * magnitude, size), reach)
        spread = np.sqrt(np.pi / 2) * total / np.maximum(weight, 1e-6)
    return np.square(spread * _CLIPPED_MEAN)


_CLIPPED_MEAN = 1.0 / float(1 - np.exp(-(_CLIP**2) / 2) + _CLIP * np.sqrt(np.pi / 2) * 0.01242)
"""Mean of |n| over that of min(|n|, 2.5 sigma) for Gaussian n; 0.01242 = P(|n| > 2.5 sigma)."""


def _smooth(blocks: NDArray[np.float64], reach: list[float]) -> NDArray[np.float64]:
    out: NDArray[np.float64] = ndimage.gaussian_filter(blocks, reach, mode="constant")
    return out


def _enlarged(blocks: NDArray[np.float64], shape: tuple[int, ...], size: tuple[int, ...]) -> Image:
    """The map on the voxel grid; planes beyond the last whole block copy their neighbour."""
    coarse = torch.from_numpy(np.ascontiguousarray(blocks, dtype=np.float32))[None, None]
    full = F.interpolate(coarse, scale_factor=[float(s) for s in size], mode="trilinear")[0, 0]
    pad = [(0, n - m) for n, m in zip(shape, full.shape, strict=True)]
    return np.pad(full.numpy(), pad, mode="edge")
