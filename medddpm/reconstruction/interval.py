"""How wide the interval of an ensemble must be: what was held out tells it, in each scan anew.

The spread of draws is too small, and by how much depends on mask, acceleration and noise. Both the
error of the mean and the spread of the draws are seen at the samples that were held out, where no
truth is needed: their ratio, raised to a power that was fitted on training subjects, widens the
interval (a scale factor of the interval, as in conformal prediction and as `calibrate` finds it
for restorations, but known for this very scan).
"""

from __future__ import annotations

import math

_FACTOR, _POWER = 1.18, 0.62
"""Least squares, in logarithms, of the scale that 90 % needed over the ratio seen: 10 ensembles of
four draws of two training subjects (ds002748 sub-01 and sub-12; 2D masks of R 4 and 8, 1D of R 3
and 4, sigma 0.02 and 0.05, voxels of 1 and 2 mm). The fit is within 11 % in each of them."""
_LEAST, _MOST = 0.7, 6.0


def interval_scale(error: float, spread: float) -> float:
    """What the spread of the draws is multiplied by, so that the nominal 90 % hold about 90 %.

    Args:
        error: Root mean square error of the prediction of held-out samples by the mean of the
            draws, in units of their noise, which it contains.
        spread: Standard deviation of the draws' own predictions there, in the same units.

    Returns:
        1 where the spread says nothing, as that of equal draws.
    """
    if not spread > 0:
        return 1.0
    ratio = math.sqrt(max(error**2 - 1, 0.0)) / spread
    return min(max(_FACTOR * math.pow(ratio, _POWER), _LEAST), _MOST)
