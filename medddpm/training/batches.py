"""Batches for the three stages: clean patches, and noisy ones with all that they were made of."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from itertools import count
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medddpm.preprocess.acquisition import Acquisition, acquire, draw_acquisition
from medddpm.preprocess.degrade import add_noise
from medddpm.preprocess.noise_law import NoiseKind
from medddpm.training.data import Mixture, PackedScans, augment, with_spots
from medddpm.training.options import DataOptions

T = TypeVar("T")
_MISTOLD = 0.04
"""Standard deviation of the log of told over true sigma."""


@dataclass(frozen=True)
class NoisyBatch:
    """Patches with all that they were made of.

    Attributes:
        x: (B, 1, P, P, P), clean.
        y: (B, 1, P, P, P), noisy.
        sigma: (B, 1, P, P, P), on the intensity scale.
        spacing: (B, 3) mm.
        coils: (B,), 0 for Gaussian noise and 1 for Rician noise.
        colour: (B, 64), as in `Evidence`.
    """

    x: Tensor
    y: Tensor
    sigma: Tensor
    spacing: Tensor
    coils: Tensor
    colour: Tensor

    @classmethod
    def cat(cls, batches: Sequence[NoisyBatch]) -> NoisyBatch:
        """Several batches as one."""
        return cls(*(torch.cat([getattr(b, f.name) for b in batches]) for f in fields(cls)))

    def to(self, device: torch.device, *, non_blocking: bool = False) -> NoisyBatch:
        """The batch on another device."""
        return self._each(lambda value: value.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> NoisyBatch:
        """The batch in memory that a GPU copies from while it computes."""
        return self._each(Tensor.pin_memory)

    def __getitem__(self, index: slice | Tensor) -> NoisyBatch:
        return self._each(lambda value: value[index])

    def _each(self, function: Callable[[Tensor], Tensor]) -> NoisyBatch:
        return NoisyBatch(*(function(getattr(self, f.name)) for f in fields(self)))

    @property
    def log_sigma(self) -> Tensor:
        """(B,) log of the mean sigma of each patch."""
        return self.sigma.flatten(1).mean(dim=1).log()


def seed_of(*parts: object) -> int:
    """A 63-bit seed for what these parts name, such as (seed, stage, step)."""
    digest = hashlib.sha256(":".join(map(str, parts)).encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True)
class Share:
    """The part of a step's global batch that one process draws at once.

    Each sample of the global batch has a seed of its own: what is drawn depends neither on the
    number of processes nor on what ran before.

    Attributes:
        seed: Of the step.
        start: First sample of the part.
        count: Samples of the part.
        total: Samples of the global batch.
    """

    seed: int
    start: int
    count: int
    total: int

    def rngs(self) -> list[np.random.Generator]:
        """One source of randomness a sample, for its patch and its noise."""
        return [np.random.default_rng(seed_of(self.seed, i)) for i in self._samples()]

    def normal(self, shape: Sequence[int], device: torch.device) -> Tensor:
        """White noise (count, *shape) for what the loss adds, drawn on the device."""
        return normal(shape, self.seeds("normal"), device)

    def seeds(self, what: str) -> list[int]:
        """One seed a sample, for a named purpose."""
        return [seed_of(self.seed, what, i) for i in self._samples()]

    def step_generator(self) -> torch.Generator:
        """For what is drawn for the global batch as a whole; `of` then takes the part."""
        return torch.Generator().manual_seed(self.seed)

    def of(self, values: Tensor) -> Tensor:
        """The part of (total, ...) values."""
        return values[self.start : self.start + self.count]

    def _samples(self) -> range:
        return range(self.start, self.start + self.count)


def normal(shape: Sequence[int], seeds: Sequence[int], device: torch.device) -> Tensor:
    """White noise (number of seeds, *shape), each sample from its own seed."""
    generator = torch.Generator(device)
    return torch.stack(
        [torch.randn(*shape, generator=generator.manual_seed(s), device=device) for s in seeds]
    )


def prefetched(draw: Callable[[int], T], first: int, threads: int) -> Generator[T]:
    """Yields draw(first), draw(first + 1), ... for ever, drawn ahead by so many threads.

    NumPy and PyTorch let go of the interpreter while they compute, so that threads are enough.
    Without threads each is drawn when it is asked for.
    """
    if not threads:
        yield from map(draw, count(first))
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        waiting = deque(pool.submit(draw, first + i) for i in range(2 * threads))
        for number in count(first + 2 * threads):
            waiting.append(pool.submit(draw, number))
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def clean_batch(
    scans: PackedScans | Mixture, batch: int, rng: np.random.Generator, options: DataOptions
) -> tuple[Tensor, Tensor]:
    """Augmented patches (B, 1, P, P, P) and their spacing (B, 3)."""
    patches, spacings = [], []
    for _ in range(batch):
        drawn = scans.draw(rng, thicken=options.thicken, coarsen=options.coarsen)
        patch, spacing = augment(*drawn, rng)
        if rng.random() < options.lesions:
            patch = with_spots(patch, spacing, rng)
        patches.append(torch.from_numpy(patch)[None])
        spacings.append(torch.tensor(spacing, dtype=torch.float32))
    return torch.stack(patches), torch.stack(spacings)


def noisy_batch(
    scans: PackedScans | Mixture, batch: int, rng: np.random.Generator, options: DataOptions
) -> NoisyBatch:
    """Augmented patches as acquired: noise of random level, kind and colour, some of it uneven.

    The level that a restoration is told is an estimate, so what is told here is off by a little.
    """
    x, spacing = clean_batch(scans, batch, rng, options)
    low, high = np.log([options.sigma_min, options.sigma_max])
    return acquired_batch(x, spacing, np.exp(rng.uniform(low, high, batch)), rng, options)


def acquired_batch(
    x: Tensor,
    spacing: Tensor,
    sigmas: NDArray[np.float64],
    rng: np.random.Generator,
    options: DataOptions,
) -> NoisyBatch:
    """Clean patches (B, 1, P, P, P) as acquired with noise of given levels."""
    made = []
    for patch, edges, sigma in zip(x, spacing, sigmas, strict=True):
        acquisition = _acquisition(float(sigma), edges, rng, options)
        made.append(acquire(patch[0].numpy(), acquisition, rng))
    told = [
        np.broadcast_to(np.float32(np.exp(rng.normal(0, _MISTOLD))) * m.law.sigma, m.clean.shape)
        for m in made
    ]
    return NoisyBatch(
        _stacked([m.clean for m in made]),
        _stacked([m.noisy for m in made]),
        _stacked(told),
        spacing,
        torch.tensor([m.law.num_coils for m in made]),
        torch.from_numpy(np.stack([m.law.colour.block_std() for m in made])),
    )


def _acquisition(
    sigma: float, spacing: Tensor, rng: np.random.Generator, options: DataOptions
) -> Acquisition:
    """Of a patch on the grid where the networks see it: mostly the acquired one; or white noise."""
    if rng.random() < options.acquired:
        a, b, c = (float(s) for s in spacing)
        own = bool(rng.random() < 0.8)
        return draw_acquisition(sigma, (a, b, c), rng, on_own_grid=own)
    kind, coils = _noise(rng, options)
    return Acquisition(
        sigma,
        kind=kind,
        coils=coils,
        normalised=float(rng.uniform(0.1, 0.6)) if rng.random() < options.gain_map else 0.0,
        masked=bool(rng.random() < options.masked_background),
    )


def _stacked(images: Sequence[NDArray[Any]]) -> Tensor:
    return torch.from_numpy(np.stack(images)[:, None].astype(np.float32))


def fixed_noise(x: Tensor, spacing: Tensor, sigma: float, seed: int) -> NoisyBatch:
    """Validation: Rician noise of one level, the same at every call."""
    generator = torch.Generator().manual_seed(seed)
    y = add_noise(x, sigma, generator=generator)
    coils = torch.ones(len(x), dtype=torch.long)
    return NoisyBatch(x, y, torch.full_like(x, sigma), spacing, coils, torch.ones(len(x), 64))


def _noise(rng: np.random.Generator, options: DataOptions) -> tuple[NoiseKind, int]:
    if rng.random() < options.rician:
        return "rician", 1
    if rng.random() < 0.5:
        return "gaussian", 1
    return "ncchi", int(rng.integers(2, 9))
