"""The pattern that a key stands for: noise of a narrow band that repeats every 64 mm.

Spread spectrum (Cox et al. 1997, "Secure spread spectrum watermarking for multimedia"), in 3D and
in mm: the pattern belongs to places in space, not to voxels, so that resampling moves it along with
the image as long as the header is kept. It repeats (Kutter 1998), so that one Fourier transform
tries every shift where the header is lost. Its power falls with frequency as that of images does,
which costs an attacker who filters the most (Su and Girod 2002, "Power-spectrum condition for
energy-efficient watermarking").
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.marking.key import Key

PERIOD = 64
"""Points of the lattice along each axis, after which the pattern repeats."""
PITCH_MM = 1.0
LOW, HIGH = 0.08, 0.33
"""Cycles a mm: waves of 12 to 3 mm."""
_SLOPE = 1.0
"""Amplitude falls as frequency to this power."""
_CARRIED = 0.45
"""Cycles a voxel, up to which a grid carries a wave well."""

Spectrum = NDArray[np.complex128]
Band = NDArray[np.bool_]


def waves() -> NDArray[np.float64]:
    """(3, P, P, P/2 + 1) frequencies of `rfftn` over the lattice, in cycles a mm."""
    full, half = np.fft.fftfreq(PERIOD, PITCH_MM), np.fft.rfftfreq(PERIOD, PITCH_MM)
    return np.stack(np.meshgrid(full, full, half, indexing="ij"))


def spectrum(key: Key) -> Spectrum:
    """(P, P, P/2 + 1) of the key's pattern: phases of SHAKE-256 (FIPS 202), even and independent.

    The plane at 0 along the last axis is left out: its waves come in pairs of one phase.
    """
    k = waves()
    radius = np.linalg.norm(k, axis=0)
    band = (radius >= LOW) & (radius <= HIGH) & (k[2] > 0)
    stream = hashlib.shake_256(b"medddpm mark 1\0" + key.secret).digest(4 * band.size)
    phases = np.frombuffer(stream, dtype="<u4").reshape(band.shape) * (2 * np.pi / 2**32)
    amplitude = np.where(band, np.where(band, radius, 1.0) ** -_SLOPE, 0.0)
    waves_of_key: Spectrum = amplitude * np.exp(1j * phases)
    return waves_of_key


def carried(matrix: NDArray[np.float64]) -> Band:
    """(P, P, P/2 + 1): which waves a grid can carry.

    Args:
        matrix: (3, 3), voxel steps in mm of the lattice.
    """
    steps = np.abs(np.einsum("wv,wxyz->vxyz", matrix, waves()))
    carries: Band = (steps < _CARRIED).all(axis=0)
    return carries


def field(
    key: Key, affine: NDArray[np.float64], shape: tuple[int, int, int]
) -> NDArray[np.float32]:
    """(X, Y, Z) of the pattern on a grid, variance 1 over a period; 0 where it carries no wave.

    Args:
        key: Whose.
        affine: (4, 4) voxel index to mm, RAS+.
        shape: Of the grid.
    """
    chosen = np.where(carried(affine[:3, :3]), spectrum(key), 0.0)
    lattice = np.fft.irfftn(chosen, s=(PERIOD,) * 3, axes=(0, 1, 2))
    deviation = float(lattice.std())
    if deviation == 0:
        return np.zeros(shape, dtype=np.float32)
    placed: NDArray[np.float32] = ndimage.affine_transform(
        lattice / deviation,
        affine[:3, :3] / PITCH_MM,
        affine[:3, 3] / PITCH_MM,
        output_shape=shape,
        output=np.float32,
        mode="grid-wrap",
    )
    return placed
