"""Batches for the three stages: clean patches, and noisy ones with all that they were made of."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from medddpm.preprocess.degrade import NoiseKind, add_noise, num_coils
from medddpm.training.data import PackedScans, augment, smooth_field
from medddpm.training.options import DataOptions


@dataclass(frozen=True)
class NoisyBatch:
    """Patches with all that they were made of.

    Attributes:
        x: (B, 1, P, P, P), clean.
        y: (B, 1, P, P, P), noisy.
        sigma: (B, 1, P, P, P), on the intensity scale.
        spacing: (B, 3) mm.
        coils: (B,), 0 for Gaussian noise and 1 for Rician noise.
    """

    x: Tensor
    y: Tensor
    sigma: Tensor
    spacing: Tensor
    coils: Tensor

    def to(self, device: torch.device) -> NoisyBatch:
        """The batch on another device."""
        return NoisyBatch(*(getattr(self, f.name).to(device) for f in fields(self)))

    def __getitem__(self, index: slice) -> NoisyBatch:
        return NoisyBatch(*(getattr(self, f.name)[index] for f in fields(self)))

    @property
    def log_sigma(self) -> Tensor:
        """(B,) log of the mean sigma of each patch."""
        return self.sigma.flatten(1).mean(dim=1).log()


def step_seed(seed: int, stage: str, step: int) -> int:
    """A seed for all randomness of one step: a run resumes exactly from its step number."""
    digest = hashlib.sha256(f"{seed}:{stage}:{step}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def clean_batch(
    scans: PackedScans, batch: int, rng: np.random.Generator, options: DataOptions
) -> tuple[Tensor, Tensor]:
    """Augmented patches (B, 1, P, P, P) and their spacing (B, 3)."""
    patches, spacings = [], []
    for _ in range(batch):
        patch, spacing = augment(*scans.draw(rng, thicken=options.thicken), rng)
        patches.append(torch.from_numpy(patch)[None])
        spacings.append(torch.tensor(spacing, dtype=torch.float32))
    return torch.stack(patches), torch.stack(spacings)


def noisy_batch(
    scans: PackedScans, batch: int, rng: np.random.Generator, options: DataOptions
) -> NoisyBatch:
    """Augmented patches with noise of random level and kind, some of it varying in space."""
    x, spacing = clean_batch(scans, batch, rng, options)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    low, high = np.log([options.sigma_min, options.sigma_max])
    ys, sigmas, numbers = [], [], []
    for patch in x:
        sigma = torch.full_like(patch, float(np.exp(rng.uniform(low, high))))
        if rng.random() < options.gain_map:
            gain = smooth_field(patch.shape[1:], rng, strength=rng.uniform(0.1, 0.6))
            sigma = sigma * torch.from_numpy(gain)
        kind, coils = _noise(rng, options)
        y = add_noise(patch, sigma, kind=kind, coils=coils, generator=generator)
        if rng.random() < options.masked_background:
            y = torch.where(patch > 0, y, 0.0)
        ys.append(y)
        sigmas.append(sigma)
        numbers.append(num_coils(kind, coils))
    return NoisyBatch(x, torch.stack(ys), torch.stack(sigmas), spacing, torch.tensor(numbers))


def fixed_noise(x: Tensor, spacing: Tensor, sigma: float, seed: int) -> NoisyBatch:
    """Validation: Rician noise of one level, the same at every call."""
    generator = torch.Generator().manual_seed(seed)
    y = add_noise(x, sigma, generator=generator)
    coils = torch.ones(len(x), dtype=torch.long)
    return NoisyBatch(x, y, torch.full_like(x, sigma), spacing, coils)


def _noise(rng: np.random.Generator, options: DataOptions) -> tuple[NoiseKind, int]:
    if rng.random() < options.rician:
        return "rician", 1
    if rng.random() < 0.5:
        return "gaussian", 1
    return "ncchi", int(rng.integers(2, 9))
