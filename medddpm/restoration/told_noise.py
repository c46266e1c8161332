"""The noise of one frame: as it was told, as it is found in the frame, or none to be seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from medddpm.errors import ConfigError
from medddpm.preprocess.found_noise import FoundNoise, find_noise, white_noise
from medddpm.preprocess.intensity import Mask, intensity_scale
from medddpm.preprocess.noise import NoiseEstimate, given_noise
from medddpm.preprocess.noise_law import NoiseLaw
from medddpm.preprocess.values import Looked, found_in, no_noise
from medddpm.restoration.options import RestoreOptions

Triple = tuple[float, float, float]


def noise_of(
    seen: Looked,
    mask: Mask,
    spacing: Triple,
    options: RestoreOptions,
    law: NoiseLaw | None = None,
) -> tuple[NoiseLaw, NoiseEstimate]:
    """The law of a frame's noise in scan units, and its level as one number.

    Args:
        seen: The frame.
        mask: Its body.
        spacing: Voxel edges in mm.
        options: Law, level and colour, as far as they are told.
        law: All of it, where it is known.
    """
    if seen.is_blank:
        return NoiseLaw(options.noise, options.coils), no_noise(seen)
    if law is None and options.sigma is not None:
        law = _given_law(seen, spacing, options, options.sigma)
    if law is None:
        found = _found(seen, spacing, options)
        if found is None:
            return NoiseLaw(options.noise, options.coils), no_noise(seen)
        law, noise = found.law, found.estimate
    else:
        even = law.level(mask)
        noise = given_noise(even, intensity_scale(seen.image, mask, sigma=even))
    if np.ndim(law.sigma) and options.noise_map == "off":
        law = replace(law, sigma=noise.sigma)
    return law, noise


def _given_law(seen: Looked, spacing: Triple, options: RestoreOptions, sigma: float) -> NoiseLaw:
    """A given level with the colour of the scan's noise, as far as the scan tells it."""
    given = NoiseLaw(options.noise, options.coils, sigma)
    try:
        found = _found(seen, spacing, options)
    except ConfigError:  # too small to tell
        return given
    return given if found is None else replace(given, colour=found.law.colour)


def _found(seen: Looked, spacing: Triple, options: RestoreOptions) -> FoundNoise | None:
    """The noise as the scan itself tells it; white where the options say so."""
    find = white_noise if options.colour == "white" else find_noise
    return found_in(seen, find, kind=options.noise, coils=options.coils, spacing=spacing)
