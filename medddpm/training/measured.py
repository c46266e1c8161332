"""Noisy scans to learn from as they are: the sigma of each, and its repeats.

Both are found once and kept in the run folder, beside the cache: `noise.json`, a map of sigma
where the noise varies over the scan, and repeats on the grid of the packed scan.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medddpm.data.cache import Case, find_scans, foreground_box
from medddpm.data.repeats import UNLIKE, find_unlike, group_runs, noise_level
from medddpm.errors import ConfigError, MedddpmError
from medddpm.preprocess.acquisition import smooth_field
from medddpm.preprocess.intensity import foreground_mask, intensity_scale
from medddpm.preprocess.noise import estimate_noise
from medddpm.preprocess.noise_map import noise_map
from medddpm.training.batches import NoisyBatch, fixed_noise
from medddpm.training.data import PackedScans, check_split, crop
from medddpm.training.options import DataOptions
from medddpm.training.scans import held_patches
from medddpm.volume import Volume

Array = NDArray[np.float32]
_LEAST = 0.001
"""Sigma of a noisy scan: less is lost in the rounding of the cache."""


@dataclass(frozen=True)
class Noise:
    """The noise of one packed scan.

    Attributes:
        sigma: In units of the packed scan.
        scale: What the packed scan is divided by for the scale that it would have without noise.
        method: Where it was measured; see `NoiseEstimate`.
        error: Relative standard error of sigma.
        varies: There is a map of sigma beside the table.
    """

    sigma: float
    scale: float
    method: str
    error: float
    varies: bool


def measure_noise(packed: PackedScans, numbers: Iterable[int], folder: Path) -> dict[int, Noise]:
    """Sigma of packed scans, by number; estimated once, then read from `folder`/noise.json."""
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "noise.json"
    rows: dict[str, Any] = json.loads(table.read_text()) if table.exists() else {}
    cases = {n: packed.cases[n] for n in numbers}
    missing = [n for n, case in cases.items() if case.name not in rows]
    for n in missing:
        whole = packed.images[n][tuple(slice(0, k) for k in cases[n].shape)]
        rows[cases[n].name] = asdict(_measured(cases[n], whole.astype(np.float32), folder))
    if missing:
        _write(table, rows)
    return {n: Noise(**rows[case.name]) for n, case in cases.items()}


def _measured(case: Case, image: Array, folder: Path) -> Noise:
    try:
        found = estimate_noise(image, spacing=case.spacing)
    except ConfigError as error:
        raise ConfigError(f"{case.name}: {error}; take it away") from None
    if found.sigma < _LEAST:
        raise ConfigError(
            f"{case.name} has no noise to learn from; name it in data.references, or take it away"
        )
    sigmas = noise_map(image, found, spacing=case.spacing)
    if sigmas is not None:
        np.save(folder / f"{case.name}.sigma.npy", sigmas.astype(np.float16))
    return Noise(found.sigma, found.scale, found.method, found.error, sigmas is not None)


def pack_repeats(data: Path, folder: Path) -> list[str]:
    """Write the repeats of every scan that has some; returns a line for all that is left out.

    Repeats are the frames of a 4D file, and files of one folder whose names differ in the BIDS
    entity `run` alone, on one grid. They stand under the name of the first, cropped and scaled as
    it was packed: (R, X, Y, Z) float16.
    """
    from medddpm.io import read_volume

    index = folder / "repeats.json"
    if index.exists():
        return []
    folder.mkdir(parents=True, exist_ok=True)
    names, left_out = [], []
    for paths in group_runs(find_scans(data)):
        try:
            volumes = [read_volume(path) for path in paths]
            if sum(volume.num_frames for volume in volumes) == 1:
                continue
            stack, num_unlike = _repeats(volumes)
        except MedddpmError as error:
            left_out.append(f"repeats of {paths[0].name}: {error}")
            continue
        if num_unlike:
            left_out.append(
                f"repeats of {paths[0].name}: {num_unlike} differ from the first by over {UNLIKE} "
                "times the noise: something moved, or the contrast is another"
            )
        if len(stack) > 1:
            np.save(folder / f"{volumes[0].case_id}.repeats.npy", stack)
            names.append(volumes[0].case_id)
    _write(index, names)
    return left_out


def _repeats(volumes: list[Volume]) -> tuple[NDArray[np.float16], int]:
    """The frames that are like the first, as they are packed, and how many are not."""
    for volume in volumes[1:]:
        volumes[0].geometry.require_match(volume.geometry, volume.case_id)
    frames = [v.frame(i) for v in volumes for i in range(v.num_frames)]
    first, mask = frames[0], foreground_mask(frames[0])
    unlike = find_unlike(frames, 0, mask, noise_level(first, volumes[0].spacing))
    like = [frame for frame, out in zip(frames, unlike, strict=True) if not out]
    box = foreground_box(mask)
    stack = np.stack([frame[box] for frame in like]) / intensity_scale(first, mask)
    return np.clip(stack, 0, 8).astype(np.float16), len(frames) - len(like)


class _Half:
    """One half of the split: packed scans, the noise of each, and repeats if they are wanted."""

    def __init__(self, packed: PackedScans, folder: Path, names: list[str] | None) -> None:
        self.packed = packed
        self.numbers = [
            n for n, case in enumerate(packed.cases) if names is None or case.name in names
        ]
        self.noise = measure_noise(packed, self.numbers, folder)
        self.repeats: dict[int, NDArray[Any]] = {}
        self.maps: dict[int, NDArray[Any]] = {}
        for n in self.numbers:
            name = packed.cases[n].name
            if names is not None:
                self.repeats[n] = np.load(folder / f"{name}.repeats.npy", mmap_mode="r")
            if self.noise[n].varies:
                self.maps[n] = np.load(folder / f"{name}.sigma.npy", mmap_mode="r")

    def draw(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """The target, the scan and its sigma, (3, 1, P, P, P), and the spacing (3,).

        The target is another repeat, or the scan itself if there is none. Orientation, gain and
        a bias field are random: they turn noise of this law into noise of this law.
        """
        number = self.numbers[int(rng.integers(len(self.numbers)))]
        noise = self.noise[number]
        centre, size = self.packed.place(number, rng), [self.packed.patch] * 3
        if number in self.repeats:
            stack = self.repeats[number]
            target, y = (crop(stack[i], centre, size) for i in rng.permutation(len(stack))[:2])
        else:
            target = y = crop(self.packed.images[number], centre, size)
        sigma = np.full_like(y, noise.sigma)
        if number in self.maps:
            sigma = crop(self.maps[number], centre, size)
        images = np.stack([target, y, sigma]) / np.float32(noise.scale)
        images, spacing = _augment(images, self.packed.cases[number].spacing, rng)
        return torch.from_numpy(images)[:, None], torch.tensor(spacing, dtype=torch.float32)


def _augment(
    images: Array, spacing: tuple[float, ...], rng: np.random.Generator
) -> tuple[Array, list[float]]:
    axes = rng.permutation(3)
    images = images.transpose(0, *(axes + 1))
    flips = (slice(None, None, int(s)) for s in rng.choice([-1, 1], 3))
    images = images[(slice(None), *flips)] * np.float32(rng.uniform(0.75, 1.25))
    if rng.random() < 0.3:
        images = images * smooth_field(images.shape[1:], 0.25, rng)
    return np.ascontiguousarray(images, dtype=np.float32), [spacing[a] for a in axes]


class MeasuredScans:
    """Noisy training scans, fixed noisy patches of held-out ones, and clean references if any.

    Args:
        cache: Folder of packed scans.
        folder: Where the noise and the repeats stand, or will.
        options: Patches and split.
        num_patches: Held-out patches, of the noisy scans and of the references.
        repeats: Take only scans that have repeats.

    Raises:
        ConfigError: A scan has no noise, or none has a repeat; or the split is not clean.
    """

    def __init__(
        self, cache: Path, folder: Path, options: DataOptions, num_patches: int, *, repeats: bool
    ) -> None:
        apart = (*options.holdout, *options.references)
        train = PackedScans(cache, apart, options.patch)
        held = PackedScans(cache, options.holdout, options.patch, validation=True)
        check_split(train, held)
        names = json.loads((folder / "repeats.json").read_text()) if repeats else None
        self.train, self.held = (_Half(half, folder, names) for half in (train, held))
        self.num_cases = len(self.train.numbers)
        for half, what in ((self.train, "training"), (self.held, "validation")):
            if not half.numbers:
                raise ConfigError(
                    f"no scan for {what} has a repeat: a 4D file, or files that differ in _run-N "
                    "alone; use fidelity.objective=single"
                )
        self.held_batches = [
            _batch([self.held.draw(np.random.default_rng(i))]) for i in range(num_patches)
        ]
        self.has_references = bool(options.references)
        if self.has_references:
            clean = PackedScans(cache, options.references, options.patch, validation=True)
            check_split(train, clean)
            self._clean = held_patches(clean, num_patches)

    def batch(self, rngs: Sequence[np.random.Generator]) -> NoisyBatch:
        """Random patches, one from each source; their `x` is the noisy target."""
        return _batch([self.train.draw(rng) for rng in rngs])

    def reference_noisy(self, sigma: float) -> NoisyBatch:
        """Patches of the clean references with the same Rician noise at every call."""
        return fixed_noise(*self._clean, sigma, seed=1)


def _batch(draws: list[tuple[Tensor, Tensor]]) -> NoisyBatch:
    x, y, sigma = torch.stack([images for images, _ in draws], dim=1)
    spacing = torch.stack([spacing for _, spacing in draws])
    coils = torch.ones(len(draws), dtype=torch.long)
    return NoisyBatch(x, y, sigma, spacing, coils, torch.ones(len(draws), 64))


def _write(path: Path, content: Any) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1))
    partial.replace(path)
