"""Texture like that of drawn scans: a weak hint where there is no mark, and never a proof.

Two numbers of the fine structure within the body, at 4 mm: how evenly strong it is, and how white.
How far each lies from what real scans have, whichever way, goes into a logistic regression whose
coefficients lie in texture.json (`tests/tools/texture_fit.py`): a generator that nobody has seen
yet errs too, but not in the same direction. Generators leave traces in spectra (Durall et al. 2020,
"Watch your up-convolution", section 3) and in residuals (Marra et al. 2019, "Do GANs leave
artificial fingerprints?"). The air is left out: it tells who took the skull off, not who made the
head.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.errors import ConfigError
from medddpm.preprocess.intensity import foreground_mask, intensity_scale
from medddpm.preprocess.resample import zoomed
from medddpm.volume import Volume

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

SPACING = 4.0
"""Edge of a voxel in mm at which texture is looked at: the one at which heads are drawn."""
_COARSEST = 1.25
"""How many times larger a voxel of the file may be, along any axis."""
_LEAST_VOXELS = 2000
"""Of the body at 4 mm: about 0.13 litres."""
_FINE, _AROUND = 0.7, 1.5
"""Widths of Gaussians, in voxels: of what fine structure is not, and of its local strength."""
_TINY = 1e-4
_FAR = 4.0
"""Deviations."""


@dataclass(frozen=True)
class Texture:
    """What texture says.

    Attributes:
        probability: That the scan was drawn, were half of all scans drawn, and like the drawn and
            real ones that the coefficients are of; nan where there is too little to look at.
        threshold: Above it the texture is called like that of drawn scans.
    """

    probability: float
    threshold: float

    @property
    def is_like_drawn(self) -> bool:
        """Whether the texture is like that of drawn scans."""
        return self.probability > self.threshold

    @property
    def facts(self) -> dict[str, Any] | None:
        """For a program; None where there is too little to look at."""
        if math.isnan(self.probability):
            return None
        return {
            "like_drawn": self.is_like_drawn,
            "probability": round(self.probability, 4),
            "threshold": self.threshold,
        }

    @property
    def sentence(self) -> str:
        """In words."""
        if math.isnan(self.probability):
            return "Texture was not looked at: too little of a body, or voxels of over 5 mm."
        said = "likely" if self.is_like_drawn else "unlikely"
        return (
            f"Texture like that of drawn heads: {said} ({self.probability:.2f}, more than "
            f"{self.threshold:.2f} counts). This is a hint that often errs, and no proof."
        )


def texture_of(volume: Volume) -> Texture:
    """How like that of drawn heads the texture of a scan is; its first frame is looked at."""
    fitted = fit_of_file()
    found = features(volume)
    if found is None:
        return Texture(math.nan, fitted["threshold"])
    return Texture(probability(found, fitted), fitted["threshold"])


def probability(found: Mapping[str, float], fitted: Mapping[str, Any]) -> float:
    """Of a logistic regression on squared distances from real scans.

    Args:
        found: Of `features`.
        fitted: Intercept, and mean and deviation in real scans and weight of each feature.
    """
    score = fitted["intercept"]
    for name, (mean, deviation, weight) in fitted["features"].items():
        # far outside of what was seen a feature says no more than at the edge of it
        score += weight * min(((found[name] - mean) / deviation) ** 2, _FAR**2)
    return float(1 / (1 + np.exp(-score)))


@cache
def fit_of_file() -> dict[str, Any]:
    """The coefficients, and what they were fitted to."""
    text = Path(__file__).with_name("texture.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def features(volume: Volume) -> dict[str, float] | None:
    """The numbers that the regression takes; None where there is too little to look at."""
    if max(volume.spacing) > _COARSEST * SPACING:
        return None
    image = volume.frame(0)
    if not np.ptp(image) > 0:  # constant, or with NaN
        return None
    try:
        mask = foreground_mask(image)
        scaled = np.where(mask, image / intensity_scale(image, mask), 0).astype(np.float32)
    except ConfigError:  # no body: the mark and the sidecar are told all the same
        return None
    shape = [
        max(round(n * s / SPACING), 1) for n, s in zip(image.shape, volume.spacing, strict=True)
    ]
    width = [0.5 * math.sqrt(max((SPACING / s) ** 2 - 1, 0)) for s in volume.spacing]
    coarse = zoomed(ndimage.gaussian_filter(scaled, width, mode="constant"), shape)
    body = ndimage.binary_erosion(ndimage.binary_closing(coarse > 0.1, iterations=2), iterations=2)
    if int(body.sum()) < _LEAST_VOXELS:
        return None
    return _features(coarse, body)


def _features(image: Image, body: Mask) -> dict[str, float]:
    fine = image - ndimage.gaussian_filter(image, _FINE)
    strength = np.sqrt(ndimage.gaussian_filter(fine**2, _AROUND)) + _TINY
    low, middle = np.quantile(strength[body], [0.1, 0.5])
    return {
        "evenness": math.log(middle / low),  # how the strength of the fine structure varies
        "whiteness": _whiteness(fine / strength, body),
    }


def _whiteness(residual: Image, body: Mask) -> float:
    """Mean correlation of a voxel with its neighbours along the axes."""
    found = []
    for axis in range(3):
        one, other = (
            np.take(residual, range(i, residual.shape[axis] - 1 + i), axis) for i in (0, 1)
        )
        both = np.take(body, range(residual.shape[axis] - 1), axis)
        found.append(float(np.corrcoef(one[both], other[both])[0, 1]))
    return float(np.mean(found))
