"""Whole heads on one grid in RAS, moved and bent at random, for the prior to learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation
from torch import Tensor

from medddpm.generation.options import PriorOptions, PriorSpec
from medddpm.io import atomic_path, read_volume
from medddpm.preprocess.intensity import foreground_mask, intensity_scale
from medddpm.volume import Geometry, Volume

_KNOTS = 5
"""Along each axis, of a random displacement: bumps of a quarter of the field of view."""


@dataclass(frozen=True)
class Head:
    """One scan, cropped to its body.

    Attributes:
        name: Of the scan.
        image: (X, Y, Z) float16 in RAS, intensity scale 1, smoothed to the prior's voxel.
        affine: (4, 4), voxel to mm RAS+.
        turn: (3, 3), from the axes of the prior's grid to those of the scan.
        shift: (3,), where the middle of the prior's grid lies, in mm from that of the scan.
    """

    name: str
    image: NDArray[np.float16]
    affine: NDArray[np.float64]
    turn: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))
    shift: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm."""
        return Geometry((1, 1, 1), self.affine).spacing

    def on_grid(self, spacing: float, shape: Sequence[int]) -> NDArray[np.float64]:
        """Affine of the prior's grid where the head is put on it, voxel to mm RAS+ of the scan."""
        axes = self.affine[:3, :3] / np.array(self.spacing)
        middle = self.affine @ [*((n - 1) / 2 for n in self.image.shape), 1]
        affine = np.eye(4)
        affine[:3, :3] = axes @ self.turn * spacing
        corner = [(n - 1) / 2 for n in shape]
        affine[:3, 3] = middle[:3] + axes @ self.shift - affine[:3, :3] @ corner
        return affine


@dataclass(frozen=True)
class Pose:
    """Where a head is put: output coordinates in mm about its middle -> those of the straight head.

    Attributes:
        matrix: (3, 3).
        bumps: (3, K, K, K) displacement in mm, at evenly spaced knots of the field of view.
        flipped: Left and right are swapped.
        curve: Exponent of the intensities.
    """

    matrix: NDArray[np.float64]
    bumps: NDArray[np.float64]
    flipped: bool = False
    curve: float = 1.0


STRAIGHT = Pose(np.eye(3), np.zeros((3, _KNOTS, _KNOTS, _KNOTS)))
BOTH_SIDES = (STRAIGHT, replace(STRAIGHT, flipped=True))
"""A head as it is, and its mirror image."""


def head_of(volume: Volume, spacing: float) -> Head:
    """The first frame of a scan as a head: its body's box, in RAS, at its own spacing.

    It is smoothed to voxels of `spacing` mm, so that nothing folds over on a coarser grid.
    """
    upright = volume.to_ras()
    image = upright.frame(0)
    mask = foreground_mask(image)
    box = tuple(slice(int(i.min()), int(i.max()) + 1) for i in np.nonzero(mask))
    scaled = np.where(mask, image / intensity_scale(image, mask), 0)[box]
    width = [0.5 * np.sqrt(max((spacing / s) ** 2 - 1, 0)) for s in upright.spacing]
    smooth = ndimage.gaussian_filter(scaled.astype(np.float32), width, mode="constant")
    affine = upright.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [b.start for b in box]
    return Head(volume.case_id, np.clip(smooth, 0, 8).astype(np.float16), affine)


def random_pose(options: PriorOptions, rng: np.random.Generator) -> Pose:
    """A random rotation, stretch, smooth bend, side and intensity curve."""
    turn = Rotation.from_rotvec(rng.normal(0, options.turn, 3), degrees=True).as_matrix()
    stretch = np.diag(np.exp(rng.normal(0, options.stretch, 3)))
    bumps = rng.normal(0, options.warp, (3, _KNOTS, _KNOTS, _KNOTS))
    curve = float(np.exp(rng.normal(0, 0.15)))
    return Pose(turn @ stretch, bumps, bool(rng.random() < 0.5), curve)


def placed(head: Head, spec: PriorSpec, pose: Pose = STRAIGHT) -> Tensor:
    """The head on the prior's grid, (1, 1, *shape) float32."""
    points = (pose_points(spec, pose) @ head.turn.T + head.shift) / np.array(head.spacing)
    places = points + (np.array(head.image.shape) - 1) / 2
    image = np.asarray(head.image, np.float32)
    out = ndimage.map_coordinates(
        image, places.reshape(-1, 3).T, np.float32, order=1, mode="constant"
    )
    x = np.power(np.maximum(out.reshape(spec.shape), 0), pose.curve, dtype=np.float32)
    return torch.from_numpy(x)[None, None]


def pose_points(spec: PriorSpec, pose: Pose) -> NDArray[np.float64]:
    """(*shape, 3): where in a straight head each voxel comes from, in mm about its middle."""
    axes = [(np.arange(n) - (n - 1) / 2) * spec.spacing for n in spec.shape]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    points = grid @ pose.matrix.T + np.moveaxis(_smooth(pose.bumps, spec.shape), 0, -1)
    if pose.flipped:
        points[..., 0] *= -1
    return np.asarray(points)


def _smooth(bumps: NDArray[np.float64], shape: Sequence[int]) -> NDArray[np.float64]:
    """The displacement at every voxel, by cubic splines through its knots."""
    x, y, z = (
        CubicSpline(np.arange(k), np.eye(k))(np.linspace(0, k - 1, n))
        for k, n in zip(bumps.shape[1:], shape, strict=True)
    )
    return np.asarray(np.einsum("cijk,xi,yj,zk->cxyz", bumps, x, y, z, optimize=True))


def packed_heads(scans: Sequence[Path], folder: Path, spacing: float) -> list[Head]:
    """The heads of these scans, from `folder` if they were packed before."""
    folder.mkdir(parents=True, exist_ok=True)
    heads = []
    for scan in scans:
        path = folder / f"{scan.name}-{spacing:g}mm.npz"
        if not path.exists():
            head = head_of(read_volume(scan), spacing)
            with atomic_path(path) as partial, open(partial, "wb") as file:
                np.savez(file, image=head.image, affine=head.affine, name=head.name)
        with np.load(path) as kept:
            heads.append(Head(str(kept["name"]), kept["image"], kept["affine"]))
    return heads
