"""Raw data of a scan that was never measured: coils, phase and noise on a clean image."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from medddpm.errors import ConfigError
from medddpm.io.raw_scan import RawScan
from medddpm.operators.fourier import fft
from medddpm.operators.nufft import nufft
from medddpm.preprocess.acquisition import simulated_coils
from medddpm.preprocess.intensity import intensity_scale
from medddpm.reconstruction.trajectories import TrajectoryKind, simulated_trajectory
from medddpm.volume import Volume

_NOISE_SAMPLES = 4096
_PHASE = 1.0
"""Radians: standard deviation of the slopes of the object's phase from middle to edge."""


def simulate_raw(
    volume: Volume,
    sigma: float,
    *,
    coils: int = 8,
    seed: int = 0,
    trajectory: TrajectoryKind | None = None,
) -> RawScan:
    """K-space of one frame as a receiver of smooth, complex coils measures it.

    The coils are `simulated_coils`, whose sum of squares is 1, so that the magnitude without noise
    is the scan itself; the noise is white, and a noise scan comes with it. The first axis of the
    scan is the readout. With a trajectory each slice across the third axis is measured alone.

    Args:
        volume: 3D, or the first frame of it.
        sigma: Standard deviation of a real component of each sample, as a fraction of the
            intensity scale; the transform is unitary, so it is that of the image too.
        coils: Of the receiver.
        seed: Of coils, phase and noise.
        trajectory: Samples on no grid; see `simulated_trajectory`.

    Raises:
        MissingExtraError: There is a trajectory, and finufft is not installed.
        ConfigError: Sigma is no finite fraction of zero or more, or there is no coil.
    """
    if not (np.isfinite(sigma) and sigma >= 0) or coils < 1:
        raise ConfigError(f"sigma is {sigma} and coils {coils}; sigma is a fraction, coils 1 up")
    rng = np.random.default_rng(seed)
    image = volume.frame(0)
    x, y, z = image.shape
    level = np.float32(sigma * intensity_scale(image))
    turned = image * _phase((x, y, z), rng)
    maps = simulated_coils((x, y, z), coils, rng)
    seen = (torch.from_numpy(maps[c] * turned) for c in range(coils))
    path = None if trajectory is None else simulated_trajectory(trajectory, (x, y))
    if path is None:
        kspace = np.stack([fft(one).numpy() for one in seen])[None]
        depth = z
    else:
        places = torch.from_numpy(path.places[0, 0])
        each = [nufft(one.movedim(2, 0)[..., None], places.reshape(-1, 3)) for one in seen]
        kspace = torch.stack(each, dim=1).reshape(z, coils, *places.shape[:-1]).numpy()
        depth = 1
    for one in kspace.reshape(-1, *kspace.shape[2:]):
        one += level * _noise(one.shape, rng)
    dx, dy, dz = volume.spacing
    fov = (x * dx, y * dy, depth * dz)
    return RawScan(
        kspace[None],
        np.ones((1, len(kspace), *kspace.shape[2:]), bool),
        fov,
        (x, y, depth),
        fov,
        volume.affine,
        noise=level * _noise((coils, _NOISE_SAMPLES), rng) if sigma else None,
        case_id=volume.case_id,
        facts={"simulated": True, "sigma_fraction": sigma, "seed": seed},
        trajectory=path,
    )


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.complex64]:
    parts = rng.standard_normal((2, *shape), dtype=np.float32)
    out: NDArray[np.complex64] = parts[0] + 1j * parts[1]
    return out


def _phase(shape: tuple[int, int, int], rng: np.random.Generator) -> NDArray[np.complex64]:
    """exp(i p) of a smooth object phase: linear and quadratic in space."""
    x, y, z = np.meshgrid(
        *(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij", sparse=True
    )
    terms = (x, y, z, x * y, y * z, x * x + y * y + z * z)
    total = sum(np.float32(w) * t for w, t in zip(rng.normal(0, _PHASE, 6), terms, strict=True))
    return np.asarray(np.exp(1j * total), np.complex64)
