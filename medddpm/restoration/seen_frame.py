"""One frame of a scan with its noise: as told, or as found in it."""

from __future__ import annotations

from medddpm.io.acquired import read_acquired
from medddpm.preprocess.found_noise import FoundNoise
from medddpm.preprocess.frame import Frame, make_frame
from medddpm.preprocess.noise_support import first_known
from medddpm.preprocess.values import Looked, measure_noise
from medddpm.restoration.options import RestoreOptions
from medddpm.restoration.told import Told
from medddpm.volume import Volume


def noise_of(
    seen: Looked, volume: Volume, options: RestoreOptions, told: Told = None
) -> FoundNoise:
    """The noise of a frame, on the grid of the scan."""
    noise = measure_noise(
        seen,
        options.sigma if told is None else told,
        law=options.law,
        spacing=volume.spacing,
        colour=options.known_colour,
        hint=first_known(seen.edges, read_acquired(volume).edge),
    )
    return noise.evened if options.noise_map == "off" else noise


def frame_of(seen: Looked, volume: Volume, noise: FoundNoise) -> Frame:
    """The frame on its acquired grid."""
    return make_frame(seen.image, seen.mask, noise, volume.spacing, volume.affine)
