"""The b-values and directions of a diffusion scan: the .bval and .bvec files beside it (BIDS)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medddpm.errors import VolumeReadError
from medddpm.io.nifti import suffix_of
from medddpm.volume import Volume

Vectors = NDArray[np.float64]

UNWEIGHTED = 50.0
"""b-values (s/mm^2) up to this one are no diffusion weighting."""


@dataclass(frozen=True)
class Gradients:
    """Diffusion weighting of each frame.

    Attributes:
        bvals: (N,) in s/mm^2.
        bvecs: (N, 3) unit vectors along the axes of the array; None if they are not there.
    """

    bvals: Vectors
    bvecs: Vectors | None = None

    @property
    def unweighted(self) -> list[int]:
        """The frames without diffusion weighting."""
        return [int(n) for n in np.nonzero(self.bvals <= UNWEIGHTED)[0]]


def read_gradients(volume: Volume) -> Gradients | None:
    """What the .bval and .bvec files beside a NIfTI file of several frames say; None without.

    Raises:
        VolumeReadError: They do not hold one number, or three, for each frame.
    """
    if volume.format != "nifti" or volume.source is None or volume.num_frames == 1:
        return None
    (bval, bvec), count = _beside(volume.source), volume.num_frames
    if not bval.is_file():
        return None
    values = _numbers(bval)
    if values.size != count:
        raise VolumeReadError(f"{bval} must hold one b-value for each of {count} frames")
    if not bvec.is_file():
        return Gradients(values.ravel())
    vectors = _numbers(bvec)
    if vectors.shape != (3, count):
        raise VolumeReadError(f"{bvec} must hold three rows of {count} numbers, one a frame")
    return Gradients(values.ravel(), vectors.T)


def gradient_files(scan: Path) -> list[Path]:
    """The .bval and .bvec files beside a NIfTI file, as far as they are there."""
    return [path for path in _beside(scan) if path.is_file()]


def _beside(scan: Path) -> tuple[Path, Path]:
    stem = scan.name.removesuffix(suffix_of(scan))
    return scan.with_name(f"{stem}.bval"), scan.with_name(f"{stem}.bvec")


def _numbers(path: Path) -> Vectors:
    """The rows of numbers in a text file, (rows, columns); none if they are no such table."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        rows = [[float(word) for word in line.split()] for line in lines if line.strip()]
        return np.array(rows, np.float64).reshape(len(rows), -1)
    except ValueError:
        return np.zeros((0, 0))
