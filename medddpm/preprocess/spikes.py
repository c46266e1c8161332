"""Single voxels that are far too bright: found, hidden from the networks, and told."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.preprocess.intensity import SCALE_PERCENTILE, Mask

Image = NDArray[np.float32]

_SPIKE = 10.0
"""Times the intensity scale: the brightest vessel and fat of 50 scans have 3.6."""
_MOST_NEIGHBOURS = 13
"""Of 125 voxels, itself included: what has more as bright as itself is an object."""


def find_spikes(image: Image) -> Mask | None:
    """Voxels that stand alone, many times brighter or darker than all tissue; None if none does."""
    magnitude = np.abs(image)
    top = float(magnitude.max())
    sample = magnitude.ravel()[:: max(1, image.size // 100_000)]
    sample = sample[sample > 0]
    if sample.size and top <= _SPIKE * float(np.percentile(sample, 90)):
        return None  # without a closer look: so it is in nearly every scan
    limit = _SPIKE * _tissue_level(magnitude)
    if not 0 < limit < top:
        return None
    far = magnitude > limit
    near = ndimage.uniform_filter(far.astype(np.float32), 5, mode="constant") * 5**3
    alone: Mask = far & (near < _MOST_NEIGHBOURS + 0.5)
    return alone if alone.any() else None


def _tissue_level(magnitude: Image) -> float:
    """The intensity scale of medians of 3 x 3 x 3 voxels, which know nothing of single ones."""
    size = tuple(min(3, n) for n in magnitude.shape)
    x, y, z = (n // s for n, s in zip(magnitude.shape, size, strict=True))
    part = magnitude[: x * size[0], : y * size[1], : z * size[2]]
    blocks = part.reshape(x, size[0], y, size[1], z, size[2]).transpose(0, 2, 4, 1, 3, 5)
    medians = np.median(blocks.reshape(x * y * z, -1), axis=1)
    medians = medians[medians > 0]
    return float(np.percentile(medians, SCALE_PERCENTILE)) if medians.size else 0.0


def without_spikes(image: Image, spikes: Mask) -> Image:
    """The image with the mean of their other neighbours in place of spikes."""
    weight = ndimage.uniform_filter((~spikes).astype(np.float32), 3)
    total = ndimage.uniform_filter(np.where(spikes, 0, image), 3)
    around = np.where(weight > 1e-3, total / np.maximum(weight, 1e-3), 0)
    out: Image = np.where(spikes, around, image).astype(np.float32)
    return out


def words_of_spikes(spikes: Mask) -> str:
    """What a person is told of them."""
    count = int(spikes.sum())
    place = ", ".join(str(int(n)) for n in np.argwhere(spikes)[0])
    which = f"1 voxel ({place})" if count == 1 else f"{count} voxels (the first is {place})"
    return (
        f"{which} more than {_SPIKE:g} times as bright as all tissue: taken for spikes, hidden "
        "from the networks, and kept as they are"
    )
