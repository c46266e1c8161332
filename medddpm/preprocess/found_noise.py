"""The noise of a scan, found from the scan alone: its level, its map and its colour."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.preprocess.intensity import foreground_mask, intensity_scale
from medddpm.preprocess.noise import (
    NoiseEstimate,
    degrees_of_freedom,
    estimate_noise,
    fine_axes,
)
from medddpm.preprocess.noise_blocks import BlockFit, body_blocks, fit_blocks, flat_tissue
from medddpm.preprocess.noise_law import NoiseKind, NoiseLaw
from medddpm.preprocess.noise_support import Support, crop_shape, cropped, find_support

Triple = tuple[float, float, float]

_FLAT = 0.25
"""Windows whose log amplitude stays below this are those of white noise."""


@dataclass(frozen=True)
class FoundNoise:
    """The noise of one scan and how far to trust it.

    Attributes:
        law: Kind, coils, sigma (number or map) and colour, in scan units and on its grid.
        scale: Intensity scale that the scan would have without its noise.
        fraction: Sigma, or its median over the body, as a fraction of the scale.
        method: Where the level was measured: "air", "foreground" or "given".
        error: Relative standard error of sigma.
        edge_error: Standard error of each edge, in fractions of Nyquist.
        num_voxels: Voxels that were used.
    """

    law: NoiseLaw
    scale: float
    fraction: float
    method: str
    error: float
    edge_error: Triple
    num_voxels: int

    @property
    def sigma(self) -> float:
        """The level as one number, in scan units."""
        return self.fraction * self.scale


def find_noise(
    image: NDArray[Any],
    *,
    kind: NoiseKind = "rician",
    coils: int = 1,
    spacing: Triple = (1.0, 1.0, 1.0),
) -> FoundNoise:
    """The noise of one image.

    Args:
        image: (X, Y, Z) magnitudes in any unit.
        kind: Law of the noise; "ncchi" is the root of the sum of squares of `coils` channels.
        coils: Number of coils, for "ncchi".
        spacing: Voxel edges in mm.
    """
    image = np.asarray(image, dtype=np.float32)
    mask = foreground_mask(image)
    axes = fine_axes(spacing)
    scale = intensity_scale(image, mask)
    support = find_support(image, mask, flat_tissue(image, mask, axes, scale))
    shape = crop_shape(image.shape, support.edge)
    small = cropped(image, shape)
    ratio = [a / b for a, b in zip(shape, image.shape, strict=True)]
    on_grid = support.colour().on_grid(ratio)
    blocks = body_blocks(small, foreground_mask(small), axes, scale)
    fit = None if blocks is None else fit_blocks(blocks, on_grid, degrees_of_freedom(kind, coils))
    if fit is None or (support == Support() and _nearly_flat(fit)):
        return _white(estimate_noise(image, kind=kind, coils=coils, spacing=spacing), kind, coils)
    law = NoiseLaw(kind, coils, fit.sigma, replace(support.colour(), window=fit.windows))
    clean = intensity_scale(image, mask, sigma=fit.sigma)
    return FoundNoise(
        law, clean, fit.sigma / clean, "foreground", fit.error, support.error, fit.num_blocks * 64
    )


def _nearly_flat(fit: BlockFit) -> bool:
    """True if the windows are those of white noise, as far as blocks tell."""
    return all(abs(np.log(max(v, 1e-6))) < _FLAT for window in fit.windows for v in window)


def _white(found: NoiseEstimate, kind: NoiseKind, coils: int) -> FoundNoise:
    law = NoiseLaw(kind, coils, found.sigma)
    return FoundNoise(
        law, found.scale, found.fraction, found.method, found.error, (0.0,) * 3, found.num_voxels
    )
