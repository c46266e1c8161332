"""What a scanner measured, before any image: k-space, and where its image lies in space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medddpm.errors import GeometryError, ShapeError, VolumeReadError

KSpace = NDArray[np.complex64]
RawFormat = Literal["ismrmrd", "fastmri", "bart", "twix", "array"]

_EVEN_MM = 0.02
"""Slices of one stack lie as evenly as this."""


@dataclass(frozen=True)
class Trajectory:
    """Where samples on no grid lie.

    Attributes:
        places: (F or 1, S or 1, n, m, 1, 3) k along x, y and z of each sample of each readout, in
            cycles per encoded field of view.
        matrix: The encoded matrix: k reaches half of it.
        kind: "radial", "spiral", ...
    """

    places: NDArray[np.float32]
    matrix: tuple[int, int, int]
    kind: str = "other"


@dataclass(frozen=True)
class RawScan:
    """Raw data of one scan.

    Attributes:
        kspace: (F, S, C, kx, ky, kz) complex64: frames (contrasts, phases, repetitions), slices in
            the order of their places, coils, readout, and two encoded axes; zero where nothing was
            measured; the middle of k-space is at N // 2. Averages are averaged. With a trajectory
            the last three axes are samples of a readout, readouts, and 1.
        mask: (F, S, kx, ky, kz), what was measured.
        fov_mm: Extent that the encoded matrix covers along x, y and z.
        recon_matrix: Voxels of the image along x, y and z of one slice or slab.
        recon_fov_mm: Its extent: less than `fov_mm` where the readout is oversampled.
        affine: (4, 4) of the image, all slices stacked along its third axis, to mm, RAS+.
        placed: Whether the source tells where the image lies; else it lies about the origin.
        noise: (C, N) samples of noise alone, of the variance that those of k-space have, or None.
        calibration: K-space and mask of lines that were measured for calibration alone, or None.
        frames: What each frame is, such as "contrast 1, repetition 0".
        format: Where it came from.
        source: File that was read, if any.
        case_id: Stable name without patient data.
        facts: What else is known of the measurement, JSON-able.
        trajectory: Where the samples lie, if not on the grid of the encoded matrix.
        identity: Patient, study and system by keyword of DICOM; it goes into DICOM alone.

    Raises:
        ShapeError: The arrays do not fit each other.
        VolumeReadError: Samples are NaN or infinite, or all zero.
    """

    kspace: KSpace
    mask: NDArray[np.bool_]
    fov_mm: tuple[float, float, float]
    recon_matrix: tuple[int, int, int]
    recon_fov_mm: tuple[float, float, float]
    affine: NDArray[np.float64]
    placed: bool = True
    noise: NDArray[np.complex64] | None = None
    calibration: tuple[KSpace, NDArray[np.bool_]] | None = field(default=None, repr=False)
    frames: tuple[str, ...] = ("",)
    format: RawFormat = "array"
    source: Path | None = None
    case_id: str = "scan"
    facts: dict[str, Any] = field(default_factory=dict, repr=False)
    trajectory: Trajectory | None = None
    identity: dict[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        name = self.source or self.case_id
        k, m = self.kspace, self.mask
        if k.ndim != 6 or m.shape != (*k.shape[:2], *k.shape[3:]) or len(self.frames) != len(k):
            raise ShapeError(
                f"{name}: k-space is (frames, slices, coils, kx, ky, kz) with a mask of that shape "
                f"without coils, got {k.shape} and {m.shape} for {len(self.frames)} frames"
            )
        bad = int(k.size - np.isfinite(k).sum())
        if bad:
            raise VolumeReadError(
                f"{name} has NaN or infinity in {bad} of {k.size} samples; the file is damaged, or "
                "a step before left them: write it again"
            )
        if not k.any():
            raise VolumeReadError(f"{name} holds no signal: all samples are zero")
        path = self.trajectory
        if path is not None and path.places.shape[2:] != (*k.shape[3:], 3):
            raise ShapeError(
                f"{name}: {path.places.shape[2:-1]} places for {k.shape[3:]} samples of a slice"
            )
        if k.shape[1] > 1 and self.encoded_matrix[2] > 1:
            raise ShapeError(f"{name} has several slabs; give them one by one")

    @property
    def encoded_matrix(self) -> tuple[int, int, int]:
        """Samples along kx, ky and kz."""
        if self.trajectory is not None:
            return self.trajectory.matrix
        x, y, z = self.kspace.shape[3:]
        return x, y, z

    @property
    def num_coils(self) -> int:
        """Receivers."""
        return int(self.kspace.shape[2])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Voxels of the image, slices stacked along the third axis."""
        x, y, z = self.recon_matrix
        return x, y, z * int(self.kspace.shape[1])

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size of the image in mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def acceleration(self) -> float:
        """Lines of the encoded matrix, or readouts of a trajectory, over those measured."""
        return 1 / max(float(self.mask.any(axis=2).mean()), 1e-9)

    @property
    def words(self) -> str:
        """The measurement on one line."""
        frames, slices, coils, x, y, z = self.kspace.shape
        many = "".join(f", {n} {w}" for n, w in ((slices, "slices"), (frames, "frames")) if n > 1)
        if self.trajectory is not None:
            count = int(self.mask.any(axis=(0, 1, 2)).sum())
            words = " x ".join(map(str, self.encoded_matrix))
            return (
                f"{count} readouts ({self.trajectory.kind}) of {x} samples for {words} voxels, "
                f"{coils} coils{many}"
            )
        return f"{x} x {y} x {z} samples, {coils} coils{many}, R {self.acceleration:.2f}"

    def undersampled(self, lines: NDArray[np.bool_]) -> RawScan:
        """The scan with some of its lines alone.

        Args:
            lines: (ky, kz) that are kept, or (readouts, 1) of a trajectory.
        """
        mask = self.mask & lines
        kspace = np.where(lines, self.kspace, np.complex64(0))
        return replace(self, kspace=kspace, mask=mask)


def affine_of(
    position: Sequence[float],
    directions: Sequence[Any],
    spacing: Sequence[float],
    shape: Sequence[int],
) -> NDArray[np.float64]:
    """(4, 4) voxel to mm, RAS+, of an image whose voxel N // 2 lies at a position.

    Args:
        position: Of the middle, mm, LPS (the patient system of DICOM).
        directions: Unit vectors of the three axes of the array, LPS.
        spacing: Voxel size along them, mm.
        shape: Voxels along them.

    Raises:
        GeometryError: The directions are not perpendicular unit vectors.
    """
    axes = np.array(directions, np.float64).T
    if not np.allclose(axes.T @ axes, np.eye(3), atol=1e-3):
        raise GeometryError(
            "the readout, phase and slice directions are not perpendicular unit vectors: "
            f"{np.round(axes.T, 4).tolist()}; repair the header of the raw data"
        )
    affine = np.eye(4)
    affine[:3, :3] = axes * np.asarray(spacing, np.float64)
    middle = affine[:3, :3] @ (np.asarray(shape, np.float64) // 2)
    affine[:3, 3] = np.asarray(position, np.float64) - middle
    affine[:2] *= -1  # LPS to RAS
    return affine


def stack_of(
    positions: NDArray[np.float64], normal: NDArray[np.float64], thickness: float, name: str
) -> tuple[list[int], float]:
    """The order of slices along their normal, and the distance between them in mm.

    Args:
        positions: (S, 3) of their middles.
        normal: Unit vector.
        thickness: Distance of a single slice to none.
        name: Of the file, for messages.

    Raises:
        GeometryError: They are no evenly spaced, parallel stack.
    """
    depth = positions @ normal
    order = [int(i) for i in np.argsort(depth, kind="stable")]
    if len(order) == 1:
        return order, thickness
    steps = np.diff(positions[order], axis=0)
    along = steps @ normal
    aside = np.linalg.norm(steps - along[:, None] * normal, axis=1)
    if along.min() < _EVEN_MM or np.ptp(along) > _EVEN_MM or aside.max() > _EVEN_MM:
        raise GeometryError(
            f"{name}: its {len(order)} slices are no evenly spaced stack (steps of "
            f"{along.min():.3f} to {along.max():.3f} mm); give those of one stack"
        )
    return order, float(along.mean())


def unplaced_affine(spacing: Sequence[float], shape: Sequence[int]) -> NDArray[np.float64]:
    """(4, 4) of an image whose place is unknown: axes as they are, about the origin."""
    affine = np.diag([*map(float, spacing), 1.0])
    affine[:3, 3] = -affine[:3, :3] @ (np.asarray(shape, np.float64) // 2)
    return affine
