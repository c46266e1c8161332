"""Clean 4D phantoms from label maps of whole heads, for `medddpm benchmark`.

    python tests/tools/series_phantom.py diffusion labels.nii.gz out/dwi-1.nii.gz
    python tests/tools/series_phantom.py activation labels.nii.gz out/bold-1.nii.gz

The labels are those of FreeSurfer, as in the training label maps of SynthSeg. Tissue gets typical
brightness, diffusivity and smooth random fibres, with texture; voxels of 1 mm are averaged to
2.5 mm, so that many hold two tissues. A diffusion phantom has 3 frames at b 0 and 15 directions
at 1000 and at 2000 s/mm^2; an activation phantom 40 frames alike, but for balls of grey matter
that are 2 % brighter in every second block of 8.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[Any]

WHITE, FLUID = (2, 41, 7, 46, 16), (4, 43, 14, 15, 24, 5, 44)
SLAB_MM, VOXEL_MM = 40, 2.5
SHELLS = ((0, 3), (1000, 15), (2000, 15))
FRAMES, BLOCK, ACTIVATION, BALLS, RADIUS_MM = 40, 8, 0.02, 12, 6.0


class Head:
    """Tissue of one head on a grid of 1 mm: a slab through its middle."""

    def __init__(self, path: Path, seed: int) -> None:
        image = nib.as_closest_canonical(nib.load(path))
        labels = np.asarray(image.dataobj).astype(int)
        where = np.nonzero((labels > 0) & (labels < 100))
        middle = int(np.median(where[2]))
        x, y = (slice(max(int(w.min()) - 8, 0), int(w.max()) + 8) for w in where[:2])
        self.labels = labels[x, y, middle - SLAB_MM // 2 : middle + SLAB_MM // 2]
        self.rng = np.random.default_rng(seed)
        self.fluid, self.white = (np.isin(self.labels, part) for part in (FLUID, WHITE))
        self.grey = (self.labels > 0) & (self.labels < 100) & ~self.fluid & ~self.white
        self.other = self.labels >= 100
        brightness = 1000 * self.fluid + 600 * self.grey + 450 * self.white + 250 * self.other
        self.signal = brightness * self.texture(12, 0.08) * self.texture(1, 0.04)

    def smooth(self, reach: float) -> Image:
        """A random field of standard deviation 1."""
        field = ndimage.gaussian_filter(self.rng.standard_normal(self.labels.shape), reach)
        out: Image = field / field.std()
        return out

    def texture(self, reach: float, depth: float) -> Image:
        """A random field around 1."""
        return 1 + depth * self.smooth(reach)

    def seen(self, image: Image) -> Image:
        """The image in voxels of 2.5 mm."""
        blurred = ndimage.gaussian_filter(np.asarray(image, np.float32), VOXEL_MM / 2.355)
        grid = [int(n / VOXEL_MM) for n in image.shape]
        factors = [n / m for n, m in zip(grid, image.shape, strict=True)]
        small = ndimage.zoom(blurred, factors, order=1, grid_mode=True, mode="nearest")
        out: Image = np.maximum(small, 0).astype(np.float32)
        return out


def directions(count: int, turn: float) -> Image:
    """Unit vectors, evenly over the sphere (a Fibonacci spiral)."""
    index = np.arange(count) + 0.5
    polar, azimuth = np.arccos(1 - 2 * index / count), np.pi * (1 + 5**0.5) * index + turn
    parts = [np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)]
    return np.stack(parts, axis=1)


def diffusion(head: Head, target: Path) -> list[Image]:
    """Frames of S0 exp(-b (r + (a - r) (v g)^2)), and their .bval and .bvec files."""
    fibres = np.stack([head.smooth(6) for _ in range(3)], axis=-1)
    fibres /= np.linalg.norm(fibres, axis=-1, keepdims=True)
    along = 3.0 * head.fluid + 0.9 * head.grey + 1.7 * head.white + 1.2 * head.other
    along = 1e-3 * along * head.texture(3, 0.08)
    across = np.where(head.white, 0.35e-3, np.where(head.grey, 0.75e-3, along))
    across = np.minimum(across * head.texture(3, 0.08), along)
    bvals, bvecs, frames = [], [], []
    for turn, (b, count) in enumerate(SHELLS):
        for vector in directions(count, turn):
            bvals.append(b)
            bvecs.append(vector if b else np.zeros(3))
            cosine = np.square(fibres @ vector)
            attenuation = np.exp(-b * (across + (along - across) * cosine))
            frames.append(head.seen(head.signal * attenuation))
    stem = target.name.removesuffix(".nii.gz")
    np.savetxt(target.with_name(f"{stem}.bval"), np.array([bvals]), fmt="%d")
    np.savetxt(target.with_name(f"{stem}.bvec"), np.array(bvecs).T, fmt="%.6f")
    return frames


def activation(head: Head) -> list[Image]:
    """Frames of one contrast, with balls of grey matter that switch on and off."""
    places = np.argwhere(head.grey)[head.rng.integers(int(head.grey.sum()), size=BALLS)]
    grid = np.indices(head.labels.shape).transpose(1, 2, 3, 0)
    near = [np.linalg.norm(grid - place, axis=-1) < RADIUS_MM for place in places]
    active = head.grey & np.any(near, axis=0)
    rest, busy = head.seen(head.signal), head.seen(head.signal * (1 + ACTIVATION * active))
    return [busy if index // BLOCK % 2 else rest for index in range(FRAMES)]


def main() -> None:
    kind, source, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    head = Head(source, seed=int(sys.argv[4]) if len(sys.argv) > 4 else 0)
    target.parent.mkdir(parents=True, exist_ok=True)
    frames = diffusion(head, target) if kind == "diffusion" else activation(head)
    image = nib.nifti1.Nifti1Image(np.stack(frames, axis=-1), np.diag([VOXEL_MM] * 3 + [1.0]))
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, target)


if __name__ == "__main__":
    main()
