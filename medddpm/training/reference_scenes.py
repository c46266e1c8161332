"""What the reference network learns from: noisy patches, restored once, with their references.

A restoration by `mean` takes a hundred times as long as a step of this small network, so patches
are restored once and kept; what is random about the reference is drawn anew at every step.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from medddpm.errors import ConfigError
from medddpm.io import atomic_path, read_volume
from medddpm.io.outputs import file_stem
from medddpm.io.tables import read_table
from medddpm.model.model import Model
from medddpm.preprocess.acquisition import Acquired, Acquisition, acquire, draw_acquisition
from medddpm.preprocess.intensity import foreground_mask, intensity_scale
from medddpm.preprocess.resample import resampled
from medddpm.reference.grid import on_grid
from medddpm.restoration.options import RestoreOptions
from medddpm.restoration.tile import TileRestorer
from medddpm.training.batches import seed_of
from medddpm.training.data import PackedScans, coarser_by, crop, toned, turned, with_spots
from medddpm.training.labels import LabelMaps
from medddpm.training.options import DataOptions, ReferenceOptions

Rng = np.random.Generator
Image = NDArray[np.float32]
Drawn = tuple[list[Image], list[float]]
"""Clean patches that lie on each other, the first one to be restored, and their spacing."""
_KNOTS = np.array([0, 0.05, 0.15, 0.3, 0.45, 0.6, 0.8, 1.0, 1.3])
_ONLY_IN_SCAN, _ONLY_IN_REFERENCE = 0.5, 0.3
"""Shares of the scenes with spots in one of them alone: a border in one tells nothing there."""
_CONTRASTS = 3
_CENTRES = 20_000


@dataclass(frozen=True)
class Scene:
    """A noisy patch with all that is known of it; images are (P, P, P) float16.

    Attributes:
        x: Clean, as acquired.
        y: Noisy.
        mean: Restored.
        sigma: On the intensity scale.
        references: (K, P, P, P), the same place in other contrasts.
        spacing: (3,) mm.
    """

    x: NDArray[np.float16]
    y: NDArray[np.float16]
    mean: NDArray[np.float16]
    sigma: NDArray[np.float16]
    references: NDArray[np.float16]
    spacing: NDArray[np.float32]


class PairedScans:
    """Scans with their references, on the grid of each scan.

    Args:
        table: CSV with the columns `scan` and `reference`, paths relative to it: two contrasts of
            one person that lie on each other by their affines. A scan may have several lines.
        cache: Where they are packed at first use.
        patch: Edge of a patch in voxels.
        holdout: Patterns of scans that training never sees.
        validation: Take these instead.

    Raises:
        ConfigError: No pair is left, or the table names a file that does not exist.
    """

    def __init__(
        self,
        table: Path,
        cache: Path,
        patch: int,
        holdout: Sequence[str],
        *,
        validation: bool = False,
    ) -> None:
        self.patch = patch
        found: dict[Path, list[Path]] = {}
        for line in read_table(table, ("scan", "reference")):
            scan, reference = (line.path(table.parent, c) for c in ("scan", "reference"))
            for path in (scan, reference):
                if not path.is_file():
                    raise ConfigError(f"{table} names {path}, which does not exist")
            names = (file_stem(scan), file_stem(reference))
            held = any(fnmatch.fnmatch(n, pattern) for n in names for pattern in holdout)
            if held == validation:
                found.setdefault(scan, []).append(reference)
        if not found:
            side = "held out by" if validation else "left to train on by"
            raise ConfigError(f"no pair of {table} is {side} data.holdout {list(holdout)}")
        self.names = sorted({file_stem(p) for scan, more in found.items() for p in (scan, *more)})
        self.paths = [_packed(scan, more, cache) for scan, more in sorted(found.items())]

    def draw(self, rng: Rng, options: DataOptions) -> Drawn:
        """One random patch of a scan and the same of all its references."""
        with np.load(self.paths[int(rng.integers(len(self.paths)))]) as kept:
            images, centres, spacing = kept["images"], kept["centres"], kept["spacing"].tolist()
        size = [self.patch] * 3
        if rng.random() < options.coarsen:
            size = [round(self.patch * r) for r in coarser_by(spacing, rng)]
        centre = centres[int(rng.integers(len(centres)))]
        patches = [resampled(crop(image, centre, size), [self.patch] * 3) for image in images]
        return patches, [s * n / self.patch for s, n in zip(spacing, size, strict=True)]


def _packed(scan: Path, references: Sequence[Path], cache: Path) -> Path:
    """A scan and its references on its grid, cropped to its body, at intensity scale 1."""
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / f"{file_stem(scan)}.npz"
    if not target.exists():
        volume = read_volume(scan)
        mask = foreground_mask(volume.frame(0))
        box = tuple(slice(int(i.min()), int(i.max()) + 1) for i in np.nonzero(mask))
        images = [volume.frame(0)]
        for path in references:
            other = read_volume(path)
            image = other.frame(0)
            images.append(on_grid(image, other.affine, volume.affine, volume.geometry.shape))
        scaled = [i[box] / intensity_scale(i, foreground_mask(i)) for i in images]
        inside = np.argwhere(mask[box]).astype(np.int16)
        chosen = np.random.default_rng(0).permutation(len(inside))[:_CENTRES]
        stack = np.clip(np.stack(scaled), 0, 8).astype(np.float16)
        with atomic_path(target) as partial, partial.open("wb") as file:
            np.savez(file, images=stack, centres=inside[chosen], spacing=volume.spacing)
    return target


@dataclass(frozen=True)
class Sources:
    """Where clean patches with references come from; one of them at least.

    Attributes:
        data: How patches are drawn and acquired.
        pairs: Real scans of several contrasts.
        labels: Label maps, painted in several contrasts.
        scans: Single scans: their references are themselves with another intensity curve.
    """

    data: DataOptions
    pairs: PairedScans | None = None
    labels: LabelMaps | None = None
    scans: PackedScans | None = None

    def draw(self, rng: Rng) -> Drawn:
        """A scan and its references, in one random orientation, with spots in one alone."""
        patches, spacing = self._straight(rng)
        patches, spacing = turned(patches, spacing, rng)
        x, *references = patches
        x = toned(np.ascontiguousarray(x), rng)
        if rng.random() < _ONLY_IN_SCAN:
            x = with_spots(x, spacing, rng)
        if rng.random() < _ONLY_IN_REFERENCE:
            references = [with_spots(r, spacing, rng) for r in references]
        return [x, *references], spacing

    def _straight(self, rng: Rng) -> Drawn:
        there = [s for s in (self.pairs, self.labels, self.scans) if s is not None]
        source = there[int(rng.integers(len(there)))]
        if isinstance(source, PairedScans):
            return source.draw(rng, self.data)
        drawn = {"thicken": self.data.thicken, "coarsen": self.data.coarsen}
        if isinstance(source, LabelMaps):
            return source.draw_contrasts(rng, _CONTRASTS, **drawn)
        patch, spacing = source.draw(rng, **drawn)
        return [patch, patch.copy(), recoloured(patch, rng)], spacing


def recoloured(image: Image, rng: Rng) -> Image:
    """An image with a random intensity curve, monotone or not; air stays air."""
    heights = rng.uniform(0.05, 1.0, len(_KNOTS))
    if rng.random() < 0.4:
        heights = np.sort(heights)
    heights[0] = 0.0
    return np.interp(image, _KNOTS, heights).astype(np.float32)


class SceneMaker:
    """Makes scenes: draws, acquires and restores them.

    Args:
        model: Whose `mean` is helped.
        sources: Of clean patches.
        options: Of the reference network.
        device: Where the model runs.
    """

    def __init__(
        self, model: Model, sources: Sources, options: ReferenceOptions, device: torch.device
    ) -> None:
        self.model, self.sources, self.options, self.device = model, sources, options, device

    def made(self, folder: Path, name: str, count: int, seed: int) -> list[Path]:
        """So many scenes as files; those that are there already stay."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{name}-{number:04d}.npz" for number in range(count)]
        for number, path in enumerate(paths):
            if not path.exists():
                scene = self.scene(np.random.default_rng(seed_of(seed, name, number)))
                with atomic_path(path) as partial, partial.open("wb") as file:
                    np.savez(file, **vars(scene))
        return paths

    def scene(self, rng: Rng) -> Scene:
        """One scene."""
        (x, *references), spacing = self.sources.draw(rng)
        low, high = np.log([self.options.sigma_min, self.options.sigma_max])
        sigma = float(np.exp(rng.uniform(low, high)))
        made = acquire(x, self._acquisition(sigma, spacing, rng), rng)
        told = np.asarray(made.law.sigma, np.float16)
        return Scene(
            x=made.clean.astype(np.float16),
            y=made.noisy.astype(np.float16),
            mean=self._mean(made, spacing).astype(np.float16),
            sigma=np.broadcast_to(told, made.noisy.shape).copy(),
            references=np.stack(references).astype(np.float16),
            spacing=np.array(spacing, np.float32),
        )

    def _acquisition(self, sigma: float, spacing: Sequence[float], rng: Rng) -> Acquisition:
        """On the grid where the networks see it; not turned, as the references are not."""
        if rng.random() < self.sources.data.acquired:
            a, b, c = spacing
            drawn = draw_acquisition(sigma, (a, b, c), rng, on_own_grid=True)
            return replace(drawn, rotation=(0.0, 0.0, 0.0))
        return Acquisition(sigma, masked=bool(rng.random() < 0.5))

    def _mean(self, made: Acquired, spacing: Sequence[float]) -> Image:
        restorer = TileRestorer(
            self.model,
            self.device,
            made.law,
            spacing,
            0,
            RestoreOptions(noise=made.law.kind, shifts=1),
        )
        mean: Image = restorer.restore(made.noisy[None], [(0, 0, 0)], 0)[0]
        if made.law.kind != "gaussian":
            np.maximum(mean, 0, out=mean)
        return mean


def read_scene(path: Path) -> Scene:
    """A scene of a file that `SceneMaker` wrote."""
    with np.load(path) as kept:
        return Scene(**{name: kept[name] for name in kept.files})
