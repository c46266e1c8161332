"""Does a restoration shift the shares of dark, middle and bright tissue?

In a T1w brain these are about CSF, grey and white matter. Volumes of tissue from commercially
restored scans were found to differ from those of the scans themselves; this looks for that shift
without a segmentation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.preprocess.noise import chi_moments

Array = NDArray[np.float64]
_BINS = 192
_TOP = 1.6
_CLASSES = 3
_ROUNDS = 200
_NARROWEST = 0.02


def tissue_shift(
    y: NDArray[Any],
    x_hat: NDArray[Any],
    sigma: float,
    mask: NDArray[Any],
    *,
    dof: int = 2,
) -> tuple[float, Array, Array]:
    """Largest change of a share, and the shares before and after, (3,) each, dark to bright.

    A mixture of three Gaussians is fitted to the histogram of the restored scan. Seen through the
    noise it predicts the histogram of the noisy scan for any shares; those that fit it best are
    the shares before. Both by expectation maximisation (Dempster, Laird and Rubin 1977).

    Args:
        y: (X, Y, Z) noisy, as a fraction of the intensity scale.
        x_hat: (X, Y, Z) restored, likewise.
        sigma: Noise, likewise.
        mask: (X, Y, Z) foreground.
        dof: Real noise components in a magnitude, as in `chi_moments`.
    """
    inside = np.asarray(mask, dtype=bool)
    noisy, restored = _histogram(y[inside]), _histogram(x_hat[inside])
    centres = (np.arange(_BINS) + 0.5) * _TOP / _BINS
    means, widths = _fit(restored, centres)
    classes = _gaussians(centres, means, widths)
    seen = _through_noise(centres, sigma, dof)
    before, after = _shares(noisy, seen @ classes), _shares(restored, classes)
    return float(np.abs(before - after).max()), before, after


def _histogram(values: NDArray[Any]) -> Array:
    counts, _ = np.histogram(np.clip(values, 0, _TOP * 0.9999), bins=_BINS, range=(0, _TOP))
    out: Array = counts.astype(np.float64) / max(int(counts.sum()), 1)
    return out


def _fit(histogram: Array, centres: Array) -> tuple[Array, Array]:
    """Means (rising) and widths of three Gaussians."""
    total = np.cumsum(histogram)
    means = np.interp((0.1, 0.4, 0.8), total, centres)
    widths, shares = np.full(_CLASSES, 0.08), np.full(_CLASSES, 1 / _CLASSES)
    for _ in range(_ROUNDS):
        parts = shares * _gaussians(centres, means, widths)
        weight = histogram[:, None] * parts / np.maximum(parts.sum(axis=1, keepdims=True), 1e-30)
        mass = np.maximum(weight.sum(axis=0), 1e-9)
        shares, means = mass / mass.sum(), (weight * centres[:, None]).sum(axis=0) / mass
        spread = (weight * np.square(centres[:, None] - means)).sum(axis=0) / mass
        widths = np.maximum(np.sqrt(spread), _NARROWEST)
    order = np.argsort(means)
    return means[order], widths[order]


def _gaussians(centres: Array, means: Array, widths: Array) -> Array:
    """(bins, classes), each column sums to 1."""
    columns = np.exp(-0.5 * np.square((centres[:, None] - means) / widths))
    out: Array = columns / np.maximum(columns.sum(axis=0), 1e-30)
    return out


def _through_noise(centres: Array, sigma: float, dof: int) -> Array:
    """(bins seen, bins true): the law of the noise by its first two moments."""
    mean, variance = chi_moments(centres / sigma, dof)
    width = np.maximum(sigma * np.sqrt(variance), 0.5 * _TOP / _BINS)
    return _gaussians(centres, sigma * mean, width)


def _shares(histogram: Array, columns: Array) -> Array:
    """The mixture of fixed columns that fits the histogram best."""
    shares = np.full(columns.shape[1], 1 / columns.shape[1])
    for _ in range(_ROUNDS):
        parts = shares * columns
        weight = histogram[:, None] * parts / np.maximum(parts.sum(axis=1, keepdims=True), 1e-30)
        shares = weight.sum(axis=0)
        shares = shares / max(shares.sum(), 1e-30)
    return shares
