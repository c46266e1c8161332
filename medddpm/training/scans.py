"""The scans of a run in two halves, and the patches that it is validated on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from medddpm.training.batches import (
    NoisyBatch,
    acquired_batch,
    fixed_noise,
)
from medddpm.training.data import Mixture, PackedScans, check_split
from medddpm.training.labels import LabelMaps
from medddpm.training.options import (
    DataOptions,
)

if TYPE_CHECKING:
    pass


class Scans:
    """Training scans, and a fixed set of clean patches of the held-out ones."""

    def __init__(self, cache: Path, options: DataOptions, num_patches: int) -> None:
        self.options = options
        train = PackedScans(cache, options.holdout, options.patch)
        held = PackedScans(cache, options.holdout, options.patch, validation=True)
        check_split(train, held)
        self.train: PackedScans | Mixture = train
        if options.labels and options.label_share:
            maps = LabelMaps(Path(options.labels), cache.parent / "labels", options.patch)
            self.train = Mixture(train, maps, options.label_share)
        self.held_x, self.held_spacing = held_patches(held, num_patches)

    @property
    def num_cases(self) -> int:
        """Scans that are trained on."""
        return len(self.train.cases)

    def replay(self, cache: Path, share: float) -> None:
        """Draw a share of the training patches from other scans; held-out ones stay out."""
        other = PackedScans(cache, self.options.holdout, self.options.patch)
        self.train = Mixture(self.train, other, share)

    def held_acquired(self) -> NoisyBatch:
        """The held-out patches, each with an acquisition of its own, the same at every call."""
        options = replace(self.options, acquired=1.0)
        rng = np.random.default_rng(2)
        sigmas = np.geomspace(0.02, 0.12, len(self.held_x))
        return acquired_batch(self.held_x, self.held_spacing, sigmas, rng, options)

    def held_noisy(self, sigma: float) -> NoisyBatch:
        """The held-out patches with the same Rician noise at every call."""
        return fixed_noise(self.held_x, self.held_spacing, sigma, seed=1)


def held_patches(held: PackedScans, count: int) -> tuple[Tensor, Tensor]:
    """The same patches (count, 1, P, P, P) at every call, and their spacing (count, 3)."""
    rng = np.random.default_rng(0)
    patches, spacings = zip(*(held.draw(rng) for _ in range(count)), strict=True)
    return torch.from_numpy(np.stack(patches)[:, None]), torch.tensor(spacings, dtype=torch.float32)
