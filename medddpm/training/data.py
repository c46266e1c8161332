"""Training data: random patches of a packed cache, and the guard of its split.

A batch depends on (seed, step) alone, never on what ran before, so that a run resumes exactly.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Sequence
from copy import copy
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.data.cache import (
    Case,
    PackedImage,
    build_cache,
    find_scans,
    read_index,
)
from medddpm.data.manifest import SPLITS, ScanRow, Split, bids_subject, read_manifest
from medddpm.data.tables import write_text
from medddpm.errors import ConfigError
from medddpm.preprocess.acquisition import smooth_field
from medddpm.preprocess.resample import resampled
from medddpm.training.labels import LabelMaps

Rng = np.random.Generator


def open_cache(data: Path, cache: Path) -> list[str]:
    """Make the cache of a run: a link to that of a prepared folder, or packed at first use.

    Args:
        data: What `medddpm prepare` wrote, or a folder of NIfTI files.
        cache: In the run folder.

    Returns:
        A line for each scan that cannot be read.

    Raises:
        ConfigError: No scan there, the prepared folder is unfinished, or the run was begun with
            other scans.
    """
    theirs = data / "cache"
    if (data / "manifest.csv").is_file() and theirs.is_dir():
        read_index(theirs)  # refuses an unfinished one
        cache.parent.mkdir(parents=True, exist_ok=True)
        if not cache.exists():
            cache.unlink(missing_ok=True)  # a link to nowhere
            cache.symlink_to(theirs.resolve(), target_is_directory=True)
        elif cache.resolve() != theirs.resolve():
            raise ConfigError(f"{cache} holds other scans than {data}; take another --out")
        return []
    return [] if (cache / "index.json").exists() else build_cache(find_scans(data), cache)


class PackedScans:
    """The scans of a cache, memory-mapped, in the two halves that a split makes.

    The manifest of a prepared folder decides who is where; `holdout` then only takes scans out of
    training. In a plain folder `holdout` is the split.

    Args:
        cache: Folder that `build_cache` or `medddpm prepare` wrote.
        holdout: Patterns (fnmatch, on case names) of scans that training never sees.
        patch: Edge of a patch in voxels.
        validation: Take the held-out half instead of the training half.

    Raises:
        ConfigError: No scan is left, or the cache is unfinished or of another version.
    """

    def __init__(
        self, cache: Path, holdout: Iterable[str], patch: int, *, validation: bool = False
    ) -> None:
        patterns = tuple(holdout)
        cases, index = read_index(cache)
        self.patch = patch
        self.rows = _rows(cache, index)
        self.by_split = _by_split(cases, self.rows, patterns)
        half: Split = "val" if validation else "train"
        self.cases = self.by_split[half]
        if not self.cases:
            where = "validation" if validation else "training"
            mend = f"mend data.holdout {list(patterns)}"
            if self.rows is not None:
                mend = "see the column split of its manifest.csv; prepare it with another --split"
            raise ConfigError(f"no scan is left for {where}: {mend}")
        self.images = [PackedImage(cache / f"{c.name}.npy", c.shape) for c in self.cases]
        self._centres = [cache / f"{c.name}.centres.npy" for c in self.cases]

    def subject(self, case: Case) -> str:
        """Who was scanned, "" if that is not known."""
        return self.rows[case.name].subject if self.rows is not None else bids_subject(case.name)

    def only(self, number: int) -> PackedScans:
        """One of the scans alone."""
        one = copy(self)
        for name in ("cases", "images", "_centres"):
            setattr(one, name, getattr(self, name)[number : number + 1])
        return one

    def draw(
        self, rng: Rng, *, thicken: float = 0.0, coarsen: float = 0.0
    ) -> tuple[NDArray[np.float32], list[float]]:
        """One random patch (P, P, P) around a foreground voxel, with its spacing in mm.

        Args:
            rng: Source of randomness.
            thicken: Probability of averaging 2-5 slices along one axis of an isotropic scan.
            coarsen: Probability of cropping the k-space of a larger patch; see `coarser_by`.
        """
        number = int(rng.integers(len(self.cases)))
        case = self.cases[number]
        size, spacing = [self.patch] * 3, list(case.spacing)
        axis, slices = int(rng.integers(3)), int(rng.integers(2, 6))
        thick = rng.random() < thicken and max(spacing) / min(spacing) < 1.5
        if thick:
            size[axis] *= slices
        elif coarsen and rng.random() < coarsen:
            size = [round(self.patch * r) for r in coarser_by(spacing, rng)]
        patch = crop(self.images[number], self.place(number, rng), size)
        if not thick and size != [self.patch] * 3:
            patch = resampled(patch, (self.patch,) * 3)
            spacing = [s * n / self.patch for s, n in zip(spacing, size, strict=True)]
        if thick:
            shape = list(patch.shape)
            shape[axis : axis + 1] = [self.patch, slices]
            patch = patch.reshape(shape).mean(axis=axis + 1)
            spacing[axis] *= slices
        return patch, spacing

    def place(self, number: int, rng: Rng) -> NDArray[np.integer[Any]]:
        """The centre of a random patch of one scan: near a foreground voxel."""
        centres = np.load(self._centres[number], mmap_mode="r")
        centre = centres[int(rng.integers(len(centres)))]
        moved: NDArray[np.integer[Any]] = centre + rng.integers(
            -self.patch // 4, self.patch // 4 + 1, 3
        )
        return moved


class Mixture:
    """Two sets of scans, drawn from at random.

    Args:
        scans: The one that is learned.
        other: The one that is not to be forgotten.
        share: Probability of drawing from it.
    """

    def __init__(
        self, scans: PackedScans | Mixture, other: PackedScans | LabelMaps, share: float
    ) -> None:
        self.scans, self.other, self.share = scans, other, share
        self.cases: list[Case] = [*scans.cases, *other.cases]

    def subject(self, case: Case) -> str:
        """Who was scanned, "" if that is not known."""
        return (self.other if case in self.other.cases else self.scans).subject(case)

    def draw(
        self, rng: Rng, *, thicken: float = 0.0, coarsen: float = 0.0
    ) -> tuple[NDArray[np.float32], list[float]]:
        """One random patch, as `PackedScans.draw`."""
        chosen = self.other if rng.random() < self.share else self.scans
        return chosen.draw(rng, thicken=thicken, coarsen=coarsen)


def _rows(cache: Path, index: dict[str, Any]) -> dict[str, ScanRow] | None:
    """The manifest that belongs to a cache, by scan; None in a plain folder."""
    if "manifest" not in index:
        return None
    return {row.scan: row for row in read_manifest(cache / index["manifest"])}


def _by_split(
    cases: Sequence[Case], rows: dict[str, ScanRow] | None, holdout: tuple[str, ...]
) -> dict[Split, list[Case]]:
    halves: dict[Split, list[Case]] = {split: [] for split in SPLITS}
    for case in cases:
        held = any(fnmatch.fnmatch(case.name, pattern) for pattern in holdout)
        split: Split = "val" if held else "train"
        if rows is not None:
            split = rows[case.name].split if case.name in rows else ""
            split = "" if held and split == "train" else split
        if split:
            halves[split].append(case)
    return halves


def check_split(train: PackedScans, held: PackedScans) -> None:
    """Refuse a split that would flatter: one subject, or one identical image, on two sides of it.

    The subject is what the manifest says or, in a plain folder, a BIDS name with what stands
    before it: "site1_sub-07" of "site1_sub-07_ses-2_T1w". Scans whose names have no subject are
    compared by content alone. The test scans of a manifest are compared too.

    Raises:
        ConfigError: It names the scans on both sides.
    """
    sides: dict[Split, list[Case]] = {**train.by_split, "train": train.cases, "val": held.cases}
    mend = "mend data.holdout" if train.rows is None else "mend the manifest, or prepare again"
    for a, b in combinations(SPLITS, 2):
        subjects = {train.subject(case): case.name for case in sides[a]}
        contents = {case.content: case.name for case in sides[a]}
        for case in sides[b]:
            subject = train.subject(case)
            if subject and subject in subjects:
                raise ConfigError(
                    f"{subject} is in both halves, with {subjects[subject]} for {a} and "
                    f"{case.name} for {b}; {mend}, or take its scans out"
                )
            if case.content in contents:
                raise ConfigError(
                    f"{contents[case.content]} ({a}) and {case.name} ({b}) are the same image; "
                    f"{mend}, or remove one of them"
                )


def record_subjects(folder: Path, scans: PackedScans | Mixture) -> None:
    """Add whom a stage trains on, the training half of its scans, to its `run.json`."""
    add_subjects(folder, ((scans.subject(case), case.name) for case in scans.cases))


def add_subjects(folder: Path, scans: Iterable[tuple[str, str]]) -> None:
    """Add subjects to the `run.json` of a stage, so that a withdrawal finds its checkpoints.

    Subjects of earlier runs into the same folder stay: what was learnt is not unlearnt.

    Args:
        folder: Of the stage; made if missing.
        scans: Subject, "" if not known, and name of each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        facts = {}
    subjects: dict[str, list[str]] = facts.setdefault("subjects", {})
    for subject, name in scans:
        known = subjects.setdefault(subject or name, [])
        subjects[subject or name] = sorted({*known, name})
    write_text(path, json.dumps(facts, indent=2, sort_keys=True) + "\n")


def crop(
    image: NDArray[Any] | PackedImage, centre: NDArray[np.integer[Any]], size: list[int]
) -> NDArray[np.float32]:
    """A box around `centre`, kept inside the image; mirrored where the image is too small."""
    picks = []
    for length, middle, width in zip(image.shape, centre, size, strict=True):
        start = int(np.clip(middle - width // 2, 0, max(length - width, 0)))
        picks.append(mirror_indices(start, width, length))
    low = [int(p.min()) for p in picks]
    box = image[tuple(slice(a, int(p.max()) + 1) for a, p in zip(low, picks, strict=True))]
    return np.asarray(box, np.float32)[np.ix_(*(p - a for a, p in zip(low, picks, strict=True)))]


def coarser_by(spacing: Sequence[float], rng: Rng) -> list[float]:
    """How many times coarser a grid to crop the k-space to: its scan is sharp to its last voxel.

    Scans are often filled with zeros to twice their matrix, and their own noise goes with what is
    cropped. Thick slices stay as they are.
    """
    both = float(rng.uniform(1, 1.8))
    alone = float(rng.uniform(1, 1.8)) if rng.random() < 0.5 else both
    axis, finest = int(rng.integers(3)), min(spacing)
    ratio = [alone if a == axis else both for a in range(3)]
    return [r if s < 1.5 * finest else 1.0 for r, s in zip(ratio, spacing, strict=True)]


def mirror_indices(start: int, width: int, length: int) -> NDArray[np.int64]:
    """Indices start .. start+width of an axis of `length`, mirrored at its far end."""
    index = np.arange(start, start + width) % (2 * length)
    return np.where(index < length, index, 2 * length - 1 - index)


def augment(
    patch: NDArray[np.float32], spacing: list[float], rng: Rng
) -> tuple[NDArray[np.float32], list[float]]:
    """Random orientation, gain, intensity curve and bias field; zeros stay zero."""
    (patch,), spacing = turned([patch], spacing, rng)
    return toned(patch, rng), spacing


def turned(
    patches: Sequence[NDArray[np.float32]], spacing: list[float], rng: Rng
) -> tuple[list[NDArray[np.float32]], list[float]]:
    """Patches that lie on each other in one random orientation, with their spacing in it."""
    axes = rng.permutation(3)
    flips = tuple(slice(None, None, int(s)) for s in rng.choice([-1, 1], 3))
    return [patch.transpose(axes)[flips] for patch in patches], [spacing[a] for a in axes]


def toned(patch: NDArray[np.float32], rng: Rng) -> NDArray[np.float32]:
    """A patch with a random gain, intensity curve and bias field; zeros stay zero."""
    if rng.random() < 0.5:
        patch = np.power(np.maximum(patch, 0), rng.uniform(0.6, 1.6), dtype=np.float32)
    if rng.random() < 0.08:  # another contrast: bright becomes dark, air stays air
        patch = np.where(patch > 0.05, np.maximum(1.05 - patch, 0.01), patch)
    if rng.random() < 0.3:
        patch = patch * smooth_field(patch.shape, 0.25, rng)
    return np.ascontiguousarray(patch * rng.uniform(0.75, 1.25), dtype=np.float32)


def with_spots(
    patch: NDArray[np.float32], spacing: Sequence[float], rng: Rng
) -> NDArray[np.float32]:
    """The patch with one to four spots of 1.5 to 8 mm, brighter or darker than what is there.

    Lesions are rare in a sample of patches, and a denoiser takes what is rare for noise.
    """
    axes = [np.arange(n) * s for n, s in zip(patch.shape, spacing, strict=True)]
    out = patch.copy()
    for _ in range(int(rng.integers(1, 5))):
        place = np.array([rng.uniform(0, a[-1]) for a in axes])
        radius = rng.uniform(0.75, 4.0) * np.exp(rng.normal(0, 0.25, 3))
        parts = [((a - p) / r) ** 2 for a, p, r in zip(axes, place, radius, strict=True)]
        distance = np.sqrt(parts[0][:, None, None] + parts[1][:, None] + parts[2])
        shape = 1 / (1 + np.exp(np.clip(8 * (distance - 1), -50, 50)))
        contrast = float(rng.choice([-1, 1]) * rng.uniform(0.03, 0.4))
        out = np.where(out > 0.02, np.maximum(out + contrast * shape, 0.01), out)
    return np.asarray(out, np.float32)
