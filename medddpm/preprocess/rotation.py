"""A rigid rotation of a scan by a spline, and what the spline does to the noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.preprocess.noise_law import Image


def rotated(image: NDArray[np.generic], degrees: Sequence[float], order: int) -> Image:
    """The image (X, Y, Z), turned about its centre, by a spline of that order; 0 is the nearest."""
    matrix = _rotation(degrees)
    centre = (np.array(image.shape) - 1) / 2
    offset = centre - matrix @ centre
    out: Image = ndimage.affine_transform(
        image, matrix, offset, order=order, mode="mirror", output=np.float32
    )
    return out


def _rotation(degrees: Sequence[float]) -> NDArray[np.float64]:
    out = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        out = turn @ out
    return out


def spline_power(order: int, f: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean power that interpolation between the samples leaves at frequency f of Nyquist."""
    shift = (np.arange(16) + 0.5) / 16
    if order == 1:
        taps, weights = np.array([0, 1]), np.stack([1 - shift, shift])
        prefilter = np.ones_like(f)
    else:
        taps = np.array([-1, 0, 1, 2])
        t = shift
        weights = (
            np.stack([(1 - t) ** 3, 4 - 6 * t**2 + 3 * t**3, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3])
            / 6
        )
        prefilter = 6 / (4 + 2 * np.cos(np.pi * f))
    response = np.einsum("ts,tf->sf", weights, np.exp(1j * np.pi * taps[:, None] * f))
    return np.asarray(np.mean(np.abs(response) ** 2, axis=0) * prefilter**2, np.float64)
