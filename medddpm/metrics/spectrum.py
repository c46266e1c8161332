"""How much of the power of the clean scan a restored one has, frequency by frequency.

A mean over all plausible scans is smoother than any of them: its PSNR is best, its power at high
frequencies is too low. A sample should have the power of the truth.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.preprocess.intensity import Mask

Image = NDArray[np.float32]

SHELLS = 8
"""Of a tenth of the Nyquist frequency each, so up to 0.8 of it."""
_SOFT = 2.0
"""Voxels by which the edge of the mask is softened."""


def power_ratios(clean: Image, found: Image, mask: Mask) -> NDArray[np.float64]:
    """(8,) power of `found` over that of `clean` in shells of 0 to 0.8 of the Nyquist frequency.

    Both are seen through the same window, the softened mask, whose edge would else rule. The
    frequency of each axis is in units of its own Nyquist frequency, so that thick slices count.

    Args:
        clean: (X, Y, Z).
        found: Same shape and units.
        mask: (X, Y, Z), where they are compared.
    """
    window = ndimage.gaussian_filter(mask.astype(np.float32), _SOFT, mode="constant")
    mean = float(np.average(clean, weights=window))
    axes = (2 * np.fft.fftfreq(clean.shape[0]), 2 * np.fft.fftfreq(clean.shape[1]))
    last = 2 * np.fft.rfftfreq(clean.shape[2])
    radius = np.sqrt(
        axes[0][:, None, None] ** 2 + axes[1][None, :, None] ** 2 + last[None, None, :] ** 2
    )
    shell = np.minimum((radius * 10).astype(int), SHELLS).ravel()
    powers = []
    for image in (clean, found):
        spectrum = np.abs(np.fft.rfftn(window * (image - mean))) ** 2
        powers.append(np.bincount(shell, spectrum.ravel(), SHELLS + 1)[:SHELLS])
    ratios: NDArray[np.float64] = (powers[1] + 1e-12) / (powers[0] + 1e-12)
    return ratios


def power_scores(clean: Image, found: Image, mask: Mask) -> dict[str, float]:
    """`power_high`, the ratio at 0.5 to 0.8 of Nyquist, and `power_worst`, the furthest from 1."""
    ratios = power_ratios(clean, found, mask)
    worst = ratios[np.argmax(np.abs(np.log(ratios)))]
    return {"power_high": float(ratios[5:].mean()), "power_worst": float(worst)}
