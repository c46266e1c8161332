"""Scans without noise from label maps: an intensity is drawn for each label.

Any contrast, and none of a scanner's noise (Billot et al., SynthSeg, Med Image Anal 86:102789,
2023, section 3.1): what no real scan can give.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.data.cache import Case
from medddpm.errors import ConfigError
from medddpm.io import atomic_path, read_volume
from medddpm.preprocess.resample import resampled

Rng = np.random.Generator
_MARGIN = 8
_COARSEST = 1.6


class LabelMaps:
    """Label maps of heads as a source of clean patches.

    Args:
        folder: NIfTI files of labels, of about 1 mm.
        cache: Where they are packed at first use.
        patch: Edge of a patch in voxels.

    Raises:
        ConfigError: The folder holds no NIfTI file.
    """

    def __init__(self, folder: Path, cache: Path, patch: int) -> None:
        files = sorted(p for p in folder.glob("*") if p.name.endswith((".nii", ".nii.gz")))
        if not files:
            raise ConfigError(f"data.labels is {folder}, which holds no NIfTI file")
        self.patch = patch
        self.paths = [_packed(path, cache) for path in files]
        self.cases: list[Case] = []  # nobody's scan: no subject that a split could mix up

    def subject(self, case: Case) -> str:
        """Nobody."""
        return ""

    def draw(
        self, rng: Rng, *, thicken: float = 0.0, coarsen: float = 0.0
    ) -> tuple[NDArray[np.float32], list[float]]:
        """One random patch (P, P, P) with its spacing in mm, as `PackedScans.draw`."""
        (image,), spacing = self.draw_contrasts(rng, 1, thicken=thicken, coarsen=coarsen)
        return image, spacing

    def draw_contrasts(
        self, rng: Rng, count: int, *, thicken: float = 0.0, coarsen: float = 0.0
    ) -> tuple[list[NDArray[np.float32]], list[float]]:
        """One random patch in several contrasts that lie on each other, with its spacing in mm."""
        labels = np.load(self.paths[int(rng.integers(len(self.paths)))], mmap_mode="r")
        ratio = float(rng.uniform(1, _COARSEST)) if rng.random() < max(coarsen, 0.5) else 1.0
        slices = int(rng.integers(2, 6)) if rng.random() < thicken else 1
        axis = int(rng.integers(3))
        width = [round(self.patch * (slices if a == axis else ratio)) for a in range(3)]
        box = _box_with_body(labels, width, rng)
        images = [painted(box, rng) for _ in range(count)]
        spacing = [w / self.patch for w in width]
        if slices > 1:
            shape = [*box.shape]
            shape[axis : axis + 1] = [self.patch, slices]
            images = [image.reshape(shape).mean(axis=axis + 1) for image in images]
        return [resampled(image, (self.patch,) * 3) for image in images], spacing


def painted(labels: NDArray[np.uint8], rng: Rng) -> NDArray[np.float32]:
    """A scan of these labels: a mean for each, a texture, and soft borders; (X, Y, Z)."""
    means = rng.uniform(0.05, 1.0, 256).astype(np.float32)
    means[0] = 0.0
    image = means[labels]
    texture = np.zeros_like(image)
    for reach in (1.0, 3.0):
        grain = ndimage.gaussian_filter(rng.standard_normal(labels.shape, dtype=np.float32), reach)
        texture += rng.uniform(0, 0.04) * grain / grain.std()
    share = rng.uniform(0, 1.5, 256).astype(np.float32)
    share[0] = 0.0
    image = np.maximum(image + share[labels] * texture, 0)
    image = ndimage.gaussian_filter(image, rng.uniform(0.3, 0.7))
    top = float(np.percentile(image, 99.5))
    return np.asarray(image / max(top, 0.05), np.float32)


def _box_with_body(labels: NDArray[np.uint8], width: Sequence[int], rng: Rng) -> NDArray[np.uint8]:
    """A random box; mirrored where the map is too small, drawn anew where it is mostly air."""
    box = np.zeros(tuple(width), np.uint8)
    for _ in range(8):
        starts = [
            int(rng.integers(0, max(n - w, 0) + 1))
            for n, w in zip(labels.shape, width, strict=True)
        ]
        picked = labels[tuple(slice(s, s + w) for s, w in zip(starts, width, strict=True))]
        pad = [(0, w - n) for w, n in zip(width, picked.shape, strict=True)]
        box = np.pad(np.asarray(picked), pad, mode="symmetric")
        if np.mean(box > 0) > 0.3:
            break
    return box


def _packed(path: Path, cache: Path) -> Path:
    """The map cropped to its head, its labels numbered from 0, as bytes."""
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / (path.name.split(".")[0] + ".npy")
    if not target.exists():
        labels = read_volume(path).frame(0)
        numbers = np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.uint8)
        body = np.nonzero(numbers)
        box = tuple(slice(max(int(i.min()) - _MARGIN, 0), int(i.max()) + _MARGIN) for i in body)
        with atomic_path(target) as partial, partial.open("wb") as file:
            np.save(file, np.ascontiguousarray(numbers[box]))
    return target
