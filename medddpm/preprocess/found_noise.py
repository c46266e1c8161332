"""The noise of a scan, found from the scan alone: its level, its map and its colour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.preprocess.intensity import foreground_mask, intensity_scale
from medddpm.preprocess.noise import (
    NoiseEstimate,
    degrees_of_freedom,
    estimate_noise,
    fine_axes,
    without_law,
)
from medddpm.preprocess.noise_blocks import fit_blocks, flat_blocks, flat_tissue
from medddpm.preprocess.noise_law import NoiseKind, NoiseLaw
from medddpm.preprocess.noise_support import Support, crop_shape, cropped, find_support

Triple = tuple[float, float, float]


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
    if support == Support():
        return _white(estimate_noise(image, kind=kind, coils=coils, spacing=spacing), kind, coils)
    shape = crop_shape(image.shape, support.edge)
    small = cropped(image, shape)
    small_mask = foreground_mask(small)
    blocks = flat_blocks(small, flat_tissue(small, small_mask, axes, scale), axes)
    ratio = [a / b for a, b in zip(shape, image.shape, strict=True)]
    fit = fit_blocks(blocks, support.colour().on_grid(ratio), axes)
    dof = degrees_of_freedom(kind, coils)
    sigma = float(without_law(fit.sigma, np.median(blocks.means), dof))
    colour = support.colour()
    windows = fit.colour.window
    law = NoiseLaw(kind, coils, sigma, type(colour)(colour.edge, colour.elliptical, windows))
    clean = intensity_scale(image, mask, sigma=sigma)
    return FoundNoise(
        law, clean, sigma / clean, "foreground", fit.error, support.error, blocks.means.size * 64
    )


def _white(found: NoiseEstimate, kind: NoiseKind, coils: int) -> FoundNoise:
    law = NoiseLaw(kind, coils, found.sigma)
    return FoundNoise(
        law, found.scale, found.fraction, found.method, found.error, (0.0,) * 3, found.num_voxels
    )
