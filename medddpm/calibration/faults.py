"""Ways for a restoration to be wrong, made on purpose: does the guard see them?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.restoration import denoise_nl_means

from medddpm.benchmark.degradation import NoiseModel, degrade
from medddpm.lesions.planted import lesion_places, lesion_profile
from medddpm.preprocess.degrade import volume_seed
from medddpm.preprocess.intensity import foreground_mask
from medddpm.volume import Volume

Image = NDArray[np.float32]
NONE = "none"
CONTRAST = 0.15
"""Of a lesion, as a fraction of the intensity scale."""
DIAMETERS = (4.0, 6.0, 10.0)
_CORRELATED = 2.0
_POSES, _TURN, _STEP = 5, 2.0, 2.0


@dataclass(frozen=True)
class Fault:
    """What is wrong before the restoration.

    Attributes:
        spoil: (clean scan, sigma in scan units, noise) -> noisy scan.
        sigma_factor: The restoration is told so many times the noise that it would estimate; 1
            lets it estimate.
    """

    spoil: Callable[[Volume, float, NoiseModel], Volume]
    sigma_factor: float = 1.0


def _moved(clean: Volume, sigma: float, noise: NoiseModel) -> Volume:
    return degrade(moved(clean), sigma, noise)


def _correlated(clean: Volume, sigma: float, noise: NoiseModel) -> Volume:
    return degrade(clean, sigma, replace(noise, correlated=_CORRELATED))


def _denoised(clean: Volume, sigma: float, noise: NoiseModel) -> Volume:
    noisy = degrade(clean, sigma, noise)
    found = denoise_nl_means(
        noisy.data, patch_size=3, patch_distance=3, h=0.6 * sigma, sigma=sigma, fast_mode=True
    )
    return noisy.with_data(found.astype(np.float32))


FAULTS: dict[str, Fault] = {
    NONE: Fault(degrade),
    "half sigma": Fault(degrade, 0.5),
    "double sigma": Fault(degrade, 2.0),
    "motion": Fault(_moved),
    "denoised before": Fault(_denoised),
    "correlated noise": Fault(_correlated),
}


def moved(volume: Volume) -> Volume:
    """The scan of a head that moved four times, as its k-space would show it.

    Each pose but the first is turned by up to 2 degrees and shifted by up to 2 mm. The poses fill
    the phase encoding lines (axis 1) from the middle outwards, in random shares.
    """
    rng = np.random.default_rng(volume_seed(1, volume.case_id))
    image = np.asarray(volume.data, np.float32)
    ends = np.sort(np.append(rng.uniform(0.2, 1.0, _POSES - 1), 1.0))
    order = np.abs(np.fft.fftfreq(image.shape[1])) * 2  # centric: the middle comes first
    pose_of = np.searchsorted(ends, order)
    lines = np.zeros(image.shape, np.complex64)
    for pose in range(_POSES):
        here = pose_of == pose
        if here.any():
            turned = image if pose == 0 else _posed(image, volume.spacing, rng)
            lines[:, here] = np.fft.fftn(turned)[:, here]
    return volume.with_data(np.abs(np.fft.ifftn(lines)).astype(np.float32))


def _posed(image: Image, spacing: tuple[float, float, float], rng: np.random.Generator) -> Image:
    shift = [rng.uniform(-_STEP, _STEP) / step for step in spacing]
    turned = ndimage.rotate(
        image, rng.uniform(-_TURN, _TURN), axes=(0, 1), reshape=False, order=1, mode="nearest"
    )
    out: Image = ndimage.shift(turned, shift, order=1, mode="nearest")
    return out


def lesion_in(clean: Volume, scale: float, diameter_mm: float) -> Image | None:
    """(X, Y, Z) a darker sphere in even tissue, in scan units; None where none fits.

    Args:
        clean: The scan, without noise.
        scale: Its intensity scale; the contrast is `CONTRAST` of it.
        diameter_mm: Of the sphere.
    """
    image = np.asarray(clean.data, np.float32)
    inside = foreground_mask(image) & (image > 0.3 * scale)
    rng = np.random.default_rng(volume_seed(2, clean.case_id))
    places = lesion_places(image, inside, diameter_mm, clean.spacing, 1, rng)
    if not len(places):
        return None
    profile = lesion_profile(image.shape, places[0], diameter_mm, clean.spacing)
    out: Image = np.float32(-CONTRAST * scale) * profile
    return out
