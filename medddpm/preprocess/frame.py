"""One frame of a scan as the networks see it: on its acquired grid, at intensity scale 1.

A scanner fills k-space with zeros, so that a finished image has more voxels than were measured
and its neighbours share their noise. Cropping k-space to what was measured undoes that: there are
fewer voxels, their noise is nearly white again, and what comes out goes back by the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medddpm.preprocess.found_noise import FoundNoise
from medddpm.preprocess.intensity import Mask
from medddpm.preprocess.noise import NoiseEstimate
from medddpm.preprocess.noise_law import Colour, NoiseLaw
from medddpm.preprocess.resample import resampled, resampled_affine, zoomed

Image = NDArray[np.float32]
Triple = tuple[float, float, float]

_MARGIN = 0.03
"""Of Nyquist, beyond the edge that was found: an edge is known to a few hundredths."""
_WORTH = 0.93
"""Grids are left as they are where cropping would keep more of an axis than this."""
_LEAST = 8
"""Voxels along an axis, below which there is nothing to crop."""


@dataclass(frozen=True)
class Frame:
    """What is known of one frame; made once.

    Attributes:
        image: (X, Y, Z), the scan in its own units.
        scale: Its intensity scale, without the noise.
        noise: How noisy it was found to be.
        law: That noise on the acquired grid, at intensity scale 1.
        noise_map: Sigma at each voxel of the scan in its own units, or None if it is even.
        y: The scan on the acquired grid, at intensity scale 1.
        mask: Its body there.
        spacing: Voxel edges there, in mm.
        affine: Of that grid.
    """

    image: Image
    scale: float
    noise: NoiseEstimate
    law: NoiseLaw
    noise_map: Image | None
    y: Image
    mask: Mask
    spacing: Triple
    affine: NDArray[np.float64]

    def onto_scan(self, x_hat: Image) -> Image:
        """A restoration of `y` on the grid of the scan, at intensity scale 1.

        What was removed goes back by the way that the scan came: what lies outside of the
        measured k-space stays as it was.
        """
        y = self.image / np.float32(self.scale)
        if x_hat.shape == y.shape:
            return x_hat
        return np.asarray(y + resampled(x_hat - self.y, y.shape), np.float32)

    def from_scan(self, image: Image) -> Image:
        """An image on the scan's grid and in its units as `y` is: the inverse of `onto_scan`."""
        return resampled(image / np.float32(self.scale), self.y.shape)

    def enlarged(self, spread: Image) -> Image:
        """A positive map of the acquired grid, such as a standard deviation, on the scan's."""
        return zoomed(spread, self.image.shape)


def make_frame(
    image: Image,
    mask: Mask,
    found: FoundNoise,
    spacing: Triple,
    affine: NDArray[np.float64],
) -> Frame:
    """The frame of one image.

    Args:
        image: (X, Y, Z) in any unit.
        mask: Its body.
        found: Its noise, in the same unit and on its grid.
        spacing: Voxel edges in mm.
        affine: Of the scan.
    """
    noise, law = found.estimate, found.law
    y = image / np.float32(noise.scale)
    grid = acquired_shape(image.shape, law.colour)
    noise_map = law.sigma if isinstance(law.sigma, np.ndarray) else None
    sigma: float | Image = noise.fraction
    if noise_map is not None:
        sigma = zoomed(noise_map / np.float32(noise.scale), grid)
    if grid != image.shape:
        y = resampled(y, grid)
        mask = zoomed(mask.astype(np.float32), grid) > 0.5
    ratio = [m / n for m, n in zip(grid, image.shape, strict=True)]
    a, b, c = (s / r for s, r in zip(spacing, ratio, strict=True))
    here = replace(law, sigma=sigma, colour=law.colour.on_grid(ratio))
    turned = resampled_affine(affine, image.shape, grid)
    return Frame(image, noise.scale, noise, here, noise_map, y, mask, (a, b, c), turned)


def acquired_shape(shape: Sequence[int], colour: Colour) -> tuple[int, int, int]:
    """Voxels of the grid that holds all of the measured k-space."""
    wanted = [
        int(np.ceil(min(1.0, e + _MARGIN) * n / 2)) * 2
        for e, n in zip(colour.edge, shape, strict=True)
    ]
    x, y, z = (
        m if m < _WORTH * n and m >= _LEAST else n for m, n in zip(wanted, shape, strict=True)
    )
    return x, y, z
