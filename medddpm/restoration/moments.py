"""Mean and spread over samples that are never all in memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Array = NDArray[np.float32]
_REACH = 1.0
"""Voxels (standard deviation of a Gaussian) over which the variance of an ensemble is smoothed:
eight samples alone know it to a quarter, and it changes slowly."""


class Moments:
    """Running mean and variance over samples (Welford 1962)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Array = np.zeros(0, np.float32)
        self._squares: Array = np.zeros(0, np.float32)

    def add(self, x: Array) -> None:
        """Count one sample; the first is kept, so its owner makes a new array for each."""
        self.count += 1
        if self.count == 1:
            self.mean = x
            return
        if self.count == 2:
            self._squares = np.zeros_like(self.mean)
        delta = x - self.mean
        self.mean += delta / self.count
        self._squares += delta * (x - self.mean)

    def std(self) -> Array:
        """Standard deviation over the samples, of which there are two or more."""
        out: Array = np.sqrt(self._squares / (self.count - 1))
        return out


def smooth_spread(std: Array) -> Array:
    """The standard deviation over few samples as its neighbours tell it, too."""
    out: Array = np.sqrt(gaussian_filter(np.square(std), _REACH))
    return out
