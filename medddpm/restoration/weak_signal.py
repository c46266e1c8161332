"""What a restoration took for noise and gives back: weak signal that is a few voxels wide."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from medddpm.preprocess.frame import Frame
from medddpm.preprocess.noise import expected_magnitude

Image = NDArray[np.float32]

_WIDER = 1.5
"""How much wider signal is looked for than it is smoothed: noise that is kept is then fine."""
_OPEN, _STEEPNESS = 3.0, 6.0
"""Deviations of the local mean of what was removed at which half of it is given back, and how
soon that is all: of noise, which is most of it, 3 in 1000 voxels are beyond."""
_OF_NORMAL = 0.6745
"""Median of the absolute value of a standard normal number."""
_MOST = np.float32(3.0)
"""Of sigma, in one voxel: more is no weak signal, and must not spread to its neighbours."""
_LEAST = np.float32(1e-6)
"""Of sigma, on the intensity scale: where MPPCA left no noise, all that was removed is signal."""


def with_weak_signal(frame: Frame, x_hat: Image, width: float) -> Image:
    """x_hat with what was removed, where its local mean stands out of the rest of it.

    A shrinkage judges one coefficient at a time, and the energy of a small weak lesion is spread
    over many, each below the noise: it goes with the noise around it. A matched filter (Turin
    1960, IRE Trans. Inf. Theory 6:311) gathers it again in the residual. What it finds returns
    smoothed; the rest stays removed.

    Args:
        frame: What was restored.
        x_hat: (X, Y, Z), its restoration at intensity scale 1.
        width: Standard deviation of the Gaussian that smooths what returns, in voxels along the
            finest axis; in mm it is the same along all.
    """
    law = frame.law
    sigma = np.maximum(np.float32(law.sigma), _LEAST)
    seen = x_hat
    if law.is_magnitude:
        seen = expected_magnitude(np.maximum(x_hat, 0), sigma, law.dof)
    removed = frame.y - seen
    removed[~frame.mask] = 0  # what was masked is far below the law, and dark beside its edge
    np.clip(removed, -_MOST * sigma, _MOST * sigma, out=removed)
    narrow = [width * min(frame.spacing) / edge for edge in frame.spacing]
    found = np.abs(gaussian_filter(removed, [_WIDER * w for w in narrow])) / sigma
    # What the restoration left of the noise is missing here, and how much is not known.
    deviation = float(np.median(found[frame.mask])) / _OF_NORMAL if frame.mask.any() else 0.0
    if deviation == 0:
        return x_hat
    odds = (found / np.float32(_OPEN * deviation)) ** np.float32(_STEEPNESS)
    share = np.where(frame.mask, odds / (1 + odds), 0)
    out: Image = x_hat + share * gaussian_filter(removed, narrow)
    return np.maximum(out, 0, out=out) if law.is_magnitude else out
