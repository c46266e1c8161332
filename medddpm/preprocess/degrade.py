"""Noise of known kind and size, added to a tensor or to a whole scan.

A magnitude image of L coils, combined as the root of the sum of squares, is

    y = sqrt( sum_c |x_c + n_c|^2 ),   Re n_c, Im n_c ~ N(0, sigma^2),  c = 1..L,

a non-central chi variable with 2 L degrees of freedom (Constantinides et al., Magn Reson Med
38:852, 1997); L = 1 is the Rician case (Gudbjartsson and Patz, Magn Reson Med 34:910, 1995). Its
law depends on the signal only through sum_c |x_c|^2, so the whole signal is put, without loss,
into the real part of one coil. `sigma` is always the standard deviation of one real component.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medddpm.errors import ConfigError, GeometryError, ShapeError
from medddpm.preprocess.intensity import intensity_scale
from medddpm.preprocess.noise_law import RICIAN, NoiseLaw
from medddpm.preprocess.values import require_signs
from medddpm.volume import Volume

__all__ = [
    "add_noise",
    "signal_bias_corrected",
    "simulate",
    "volume_seed",
]


def add_noise(
    x: Tensor,
    sigma: float | Tensor,
    *,
    law: NoiseLaw = RICIAN,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The image as a noisy scanner would have shown it, in float32 (float64 stays float64).

    Args:
        x: Clean magnitudes, any shape.
        sigma: Standard deviation of one real noise component, in the units of `x`; a tensor
            must broadcast to the shape of `x`.
        law: Kind and coils: "gaussian" adds n, the others are the magnitude of complex noise.
        generator: Source of the noise; its device need not be that of `x`.
    """
    x = x if x.dtype == torch.float64 else x.float()
    level = _level(sigma, x)

    def noise() -> Tensor:
        device = x.device if generator is None else generator.device
        n = torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype)
        return n.to(x.device).mul_(level)

    if not law.is_magnitude:
        return x + noise()
    power = (x + noise()).square_()
    for _ in range(law.dof - 1):
        power += noise().square_()
    return power.sqrt_()


def signal_bias_corrected(y: Tensor, sigma: float | Tensor, *, law: NoiseLaw = RICIAN) -> Tensor:
    """The signal estimate sqrt(max(y^2 - 2 L sigma^2, 0)), from E[y^2] = x^2 + 2 L sigma^2."""
    y = y if y.dtype == torch.float64 else y.float()
    if not law.is_magnitude:
        return y
    bias = law.dof * _level(sigma, y) ** 2
    return (y.square() - bias).clamp_min(0).sqrt()


def volume_seed(seed: int, case_id: str, frame: int = 0) -> int:
    """A 63-bit seed for one frame of one scan: the same on every machine and in any order."""
    digest = hashlib.sha256(f"{seed}:{case_id}:{frame}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def simulate(
    volume: Volume,
    sigma_fraction: float,
    *,
    law: NoiseLaw = RICIAN,
    gmap: NDArray[Any] | None = None,
    seed: int = 0,
) -> Volume:
    """The scan with noise of a known size, in its own units and place.

    Args:
        volume: A clean scan; in 4D every frame gets its own noise of the same sigma.
        sigma_fraction: Noise standard deviation as a fraction of the intensity scale of the
            first frame.
        law: As in `add_noise`.
        gmap: Optional (X, Y, Z) noise amplification of parallel imaging; multiplies sigma.
        seed: With the case id and the frame number it fixes the noise.
    """
    if not (math.isfinite(sigma_fraction) and sigma_fraction >= 0):
        raise ConfigError(f"sigma is {sigma_fraction}; give a finite fraction, zero or more")
    require_signs(volume, law.kind)
    sigma: float | Tensor = sigma_fraction * intensity_scale(volume.frame(0))
    if gmap is not None:
        sigma = sigma * _gmap_tensor(gmap, volume.geometry.shape)
    out = np.empty_like(volume.data)
    for index in range(volume.num_frames):
        seed_here = volume_seed(seed, volume.case_id, index)
        generator = torch.Generator().manual_seed(seed_here)
        x = torch.from_numpy(np.array(volume.frame(index), dtype=np.float32))
        y = add_noise(x, sigma, law=law, generator=generator)
        frame = out if out.ndim == 3 else out[..., index]
        frame[...] = y.numpy()
    return volume.with_data(out)


def _level(sigma: float | Tensor, x: Tensor) -> Tensor:
    level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    if not bool((torch.isfinite(level) & (level >= 0)).all()):
        raise ConfigError("sigma holds negative or non-finite values; it must be zero or more")
    try:
        level.expand(x.shape)
    except RuntimeError as error:
        raise ShapeError(
            f"sigma of shape {tuple(level.shape)} does not fit {tuple(x.shape)}"
        ) from error
    return level


def _gmap_tensor(gmap: NDArray[Any], shape: tuple[int, int, int]) -> Tensor:
    if gmap.shape != shape:
        raise GeometryError(f"the g-map has shape {gmap.shape}, the scan {shape}")
    values = np.array(gmap, dtype=np.float32)
    if not np.isfinite(values).all() or values.min() < 0:
        raise ConfigError("the g-map holds negative or non-finite values")
    return torch.from_numpy(values)
