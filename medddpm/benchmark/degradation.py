"""Noise on a finished scan: white or correlated noise, even or amplified in places."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Ge
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.errors import ConfigError
from medddpm.preprocess.degrade import add_noise, volume_seed
from medddpm.preprocess.intensity import Mask
from medddpm.preprocess.noise_law import WHITE, Colour, NoiseKind, NoiseLaw, check_noise
from medddpm.volume import Volume

Image = NDArray[np.float32]
_FWHM = 2.3548
"""Full width at half maximum of a Gaussian, in standard deviations."""
_GAIN, _GAIN_REACH = 1.5, 0.3
_KNOTS = 33
"""Of the window of a colour along an axis."""


@dataclass(frozen=True)
class NoiseModel:
    """Noise that is added to a finished scan; that of a scanner is `preprocess.acquisition`.

    Attributes:
        kind: Law of the noise.
        coils: Coils of "ncchi".
        gfactor: Multiply sigma by a smooth map of 1 to 2.5, as parallel imaging would.
        correlated: Full width at half maximum, in voxels, of a Gaussian that smooths the complex
            noise before the magnitude; 0 is white noise. Sigma stays what was asked for.
        seed: With the name of the scan it fixes the noise.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    kind: NoiseKind = "rician"
    coils: Annotated[int, Ge(1)] = 1
    gfactor: bool = False
    correlated: Annotated[float, Ge(0)] = 0.0
    seed: int = 0

    @property
    def law(self) -> NoiseLaw:
        """Kind and coils."""
        return NoiseLaw(self.kind, self.coils)

    def __post_init__(self) -> None:
        check_noise(self.kind, self.coils)
        if not 0 <= self.correlated < float("inf"):
            raise ConfigError(f"correlated is {self.correlated}; give a width in voxels, 0 or more")


def degrade(volume: Volume, sigma: float, model: NoiseModel, gain: Image | None = None) -> Volume:
    """The scan with noise, each frame with its own; the same for every call with these arguments.

    Args:
        volume: Clean.
        sigma: Standard deviation of one real component, in scan units.
        model: The noise.
        gain: (X, Y, Z) that multiplies sigma, or None.
    """
    level = np.float32(sigma) * (np.float32(1) if gain is None else gain)
    frames = []
    for index in range(volume.num_frames):
        seed = volume_seed(model.seed, volume.case_id, index)
        generator = torch.Generator().manual_seed(seed)
        frames.append(_degraded(volume.frame(index), level, model, generator))
    return volume.with_data(frames[0] if volume.data.ndim == 3 else np.stack(frames, axis=-1))


def _degraded(
    image: Image, level: np.float32 | Image, model: NoiseModel, generator: torch.Generator
) -> Image:
    """One frame (X, Y, Z) with noise of this level."""
    if model.correlated == 0:
        x = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
        white: Image = add_noise(
            x, torch.as_tensor(level), law=model.law, generator=generator
        ).numpy()
        return white
    y: Image = image + level * _correlated_noise(image.shape, model.correlated, generator)
    if not model.law.is_magnitude:
        return y
    power = y**2
    for _ in range(model.law.dof - 1):
        noise = level * _correlated_noise(image.shape, model.correlated, generator)
        power += noise**2
    return np.sqrt(power)


def added_law(model: NoiseModel, sigma: float, gain: Image | None = None) -> NoiseLaw:
    """What `degrade` adds with these arguments."""
    level = float(sigma) if gain is None else np.float32(sigma) * gain
    return replace(model.law, sigma=level, colour=_colour(model.correlated))


def rms_sigma(law: NoiseLaw, mask: Mask) -> float:
    """Sigma as one number: where it varies, the root mean square over the mask."""
    if not isinstance(law.sigma, np.ndarray):
        return float(law.sigma)
    return float(np.sqrt(np.mean(np.square(law.sigma[mask]), dtype=np.float64)))


def simulated_gfactor(shape: tuple[int, ...]) -> Image:
    """A smooth map (X, Y, Z): 2.5 in the middle, 1 far from it."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    distance = np.sum([a**2 for a in axes], axis=0)
    gain: Image = (1 + _GAIN * np.exp(-distance / _GAIN_REACH)).astype(np.float32)
    return gain


def _colour(fwhm: float) -> Colour:
    """Spectrum of noise that a Gaussian smoothed; white if it has no width."""
    if fwhm == 0:
        return WHITE
    length = 2 * (_KNOTS - 1)
    line = tuple(float(amplitude) for amplitude in np.abs(np.fft.rfft(_kernel(length, fwhm))))
    return Colour(window=(line, line, line))


def _correlated_noise(shape: tuple[int, ...], fwhm: float, generator: torch.Generator) -> Image:
    """Gaussian noise of unit variance, smoothed on a periodic grid so that it is so everywhere."""
    noise: Image = torch.randn(shape, generator=generator).numpy()
    spread = fwhm / _FWHM
    for axis, length in enumerate(shape):
        noise = ndimage.gaussian_filter1d(noise, spread, axis=axis, mode="wrap")
        noise /= np.float32(np.linalg.norm(_kernel(length, fwhm)))
    return noise


def _kernel(length: int, fwhm: float) -> NDArray[np.float64]:
    """What the smoothing makes of one voxel, on a periodic line."""
    impulse = np.zeros(length)
    impulse[0] = 1
    out: NDArray[np.float64] = ndimage.gaussian_filter1d(impulse, fwhm / _FWHM, mode="wrap")
    return out
