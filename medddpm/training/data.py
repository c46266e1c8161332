"""Training data: a packed cache of scans, and random patches of it.

A batch depends on (seed, step) alone, never on what ran before, so that a run resumes exactly.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from medddpm.errors import ConfigError, MedddpmError
from medddpm.preprocess.intensity import foreground_mask, intensity_scale, zero_background
from medddpm.volume import Volume

Rng = np.random.Generator
_SUFFIXES = (".nii", ".nii.gz", ".mgz", ".mgh", ".hdr")
_MARGIN = 8
_CACHE_VERSION = 1


@dataclass(frozen=True)
class Case:
    """One packed scan: its file, grid and whether its background was masked to zero."""

    name: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    masked: bool


def find_scans(folder: Path) -> list[Path]:
    """Every NIfTI or MGH file under `folder`, sorted."""
    if not folder.is_dir():
        raise ConfigError(f"the data folder {folder} does not exist; give a folder of NIfTI files")
    found = sorted(p for p in folder.rglob("*") if p.name.endswith(_SUFFIXES))
    if not found:
        raise ConfigError(f"no NIfTI or MGH file under {folder}; train on a folder of scans")
    return found


def pack(volume: Volume, cache: Path) -> Case:
    """Write one scan to the cache: cropped to its foreground, intensity scale 1, float16."""
    image = volume.frame(0)
    mask = foreground_mask(image)
    scale = intensity_scale(image, mask)
    box = tuple(
        slice(max(int(i.min()) - _MARGIN, 0), int(i.max()) + _MARGIN + 1) for i in np.nonzero(mask)
    )
    packed = np.clip(image[box] / scale, 0, 8).astype(np.float16)
    inside = np.argwhere(mask[box])
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(inside), min(len(inside), 20_000), replace=False)
    np.save(cache / f"{volume.case_id}.npy", packed)
    np.save(cache / f"{volume.case_id}.centres.npy", inside[np.sort(chosen)].astype(np.int16))
    masked = zero_background(image) is not None
    return Case(volume.case_id, packed.shape, volume.spacing, masked)


def build_cache(scans: Iterable[Path], cache: Path) -> list[str]:
    """Pack every scan that is not packed yet; returns a line for each one that failed.

    The index is written last, so that a cache without one is begun again where it stopped.
    """
    from medddpm.io import read_volume

    cache.mkdir(parents=True, exist_ok=True)
    cases, failures = [], []
    for path in scans:
        entry = cache / (re.sub(r"\W+", "_", path.name) + ".json")
        if not entry.exists():
            try:
                entry.write_text(json.dumps(asdict(pack(read_volume(path), cache))))
            except MedddpmError as error:
                failures.append(f"{path.name}: {error}")
                continue
        cases.append(json.loads(entry.read_text()))
    index = {"version": _CACHE_VERSION, "cases": cases, "failures": failures}
    (cache / "index.json").write_text(json.dumps(index, indent=1))
    return failures


class PackedScans:
    """The scans of a cache, memory-mapped, in the two halves that a split makes.

    Args:
        cache: Folder that `build_cache` wrote.
        holdout: Patterns (fnmatch, on case names) of scans that training never sees.
        patch: Edge of a patch in voxels.
        validation: Take the held-out half instead of the training half.
    """

    def __init__(
        self, cache: Path, holdout: Iterable[str], patch: int, *, validation: bool = False
    ) -> None:
        index = json.loads((cache / "index.json").read_text())
        patterns = tuple(holdout)
        self.patch = patch
        self.cases = [
            Case(c["name"], tuple(c["shape"]), tuple(c["spacing"]), c["masked"])
            for c in index["cases"]
            if any(fnmatch.fnmatch(c["name"], p) for p in patterns) == validation
        ]
        if not self.cases:
            half = "validation" if validation else "training"
            raise ConfigError(f"no scan is left for {half}: mend data.holdout {list(patterns)}")
        self.images = [np.load(cache / f"{c.name}.npy", mmap_mode="r") for c in self.cases]
        self._centres = [np.load(cache / f"{c.name}.centres.npy") for c in self.cases]

    def draw(self, rng: Rng, *, thicken: float = 0.0) -> tuple[NDArray[np.float32], list[float]]:
        """One random patch (P, P, P) around a foreground voxel, with its spacing in mm.

        Args:
            rng: Source of randomness.
            thicken: Probability of averaging 2-5 slices along one axis of an isotropic scan.
        """
        number = int(rng.integers(len(self.cases)))
        case = self.cases[number]
        size, spacing = [self.patch] * 3, list(case.spacing)
        axis, slices = int(rng.integers(3)), int(rng.integers(2, 6))
        thick = rng.random() < thicken and max(spacing) / min(spacing) < 1.5
        if thick:
            size[axis] *= slices
        centre = self._centres[number][int(rng.integers(len(self._centres[number])))]
        jitter = rng.integers(-self.patch // 4, self.patch // 4 + 1, 3)
        patch = crop(self.images[number], centre + jitter, size)
        if thick:
            shape = list(patch.shape)
            shape[axis : axis + 1] = [self.patch, slices]
            patch = patch.reshape(shape).mean(axis=axis + 1)
            spacing[axis] *= slices
        return patch, spacing


class Mixture:
    """Two sets of scans, drawn from at random.

    Args:
        scans: The one that is learned.
        other: The one that is not to be forgotten.
        share: Probability of drawing from it.
    """

    def __init__(self, scans: PackedScans | Mixture, other: PackedScans, share: float) -> None:
        self.scans, self.other, self.share = scans, other, share
        self.cases: list[Case] = [*scans.cases, *other.cases]

    def draw(self, rng: Rng, *, thicken: float = 0.0) -> tuple[NDArray[np.float32], list[float]]:
        """One random patch, as `PackedScans.draw`."""
        chosen = self.other if rng.random() < self.share else self.scans
        return chosen.draw(rng, thicken=thicken)


def check_split(train: PackedScans, held: PackedScans) -> None:
    """Refuse a split that would flatter: one subject, or one identical image, in both halves.

    The subject is what a BIDS name says, with what stands before it: "site1_sub-07" of
    "site1_sub-07_ses-2_T1w". Scans whose names have no subject are compared by content alone.

    Raises:
        ConfigError: It names the scans on both sides.
    """
    subjects = {_subject(case.name): case.name for case in train.cases}
    contents: dict[str, str] = {}
    shapes = {case.shape for case in held.cases}
    for case, image in zip(train.cases, train.images, strict=True):
        if case.shape in shapes:
            contents[_content(image)] = case.name
    for case, image in zip(held.cases, held.images, strict=True):
        subject = _subject(case.name)
        if subject and subject in subjects:
            raise ConfigError(
                f"{subject} is in both halves, with {subjects[subject]} for training and "
                f"{case.name} held out; add {subject}_* to data.holdout, or take its scans out"
            )
        twin = contents.get(_content(image))
        if twin:
            raise ConfigError(
                f"{twin} and {case.name} are the same image, and only the second is held out; "
                f"add {twin} to data.holdout, or remove one of them"
            )


def _subject(name: str) -> str:
    found = re.match(r"(?:.*_)?sub-[A-Za-z0-9]+", name)
    return found.group() if found else ""


def _content(image: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def crop(
    image: NDArray[Any], centre: NDArray[np.integer[Any]], size: list[int]
) -> NDArray[np.float32]:
    """A box around `centre`, kept inside the image; mirrored where the image is too small."""
    picks = []
    for length, middle, width in zip(image.shape, centre, size, strict=True):
        start = int(np.clip(middle - width // 2, 0, max(length - width, 0)))
        picks.append(mirror_indices(start, width, length))
    low = [int(p.min()) for p in picks]
    box = image[tuple(slice(a, int(p.max()) + 1) for a, p in zip(low, picks, strict=True))]
    return np.asarray(box, np.float32)[np.ix_(*(p - a for a, p in zip(low, picks, strict=True)))]


def mirror_indices(start: int, width: int, length: int) -> NDArray[np.int64]:
    """Indices start .. start+width of an axis of `length`, mirrored at its far end."""
    index = np.arange(start, start + width) % (2 * length)
    return np.where(index < length, index, 2 * length - 1 - index)


def augment(
    patch: NDArray[np.float32], spacing: list[float], rng: Rng
) -> tuple[NDArray[np.float32], list[float]]:
    """Random orientation, gain, intensity curve and bias field; zeros stay zero."""
    axes = rng.permutation(3)
    patch = patch.transpose(axes)[tuple(slice(None, None, int(s)) for s in rng.choice([-1, 1], 3))]
    spacing = [spacing[a] for a in axes]
    if rng.random() < 0.5:
        patch = np.power(np.maximum(patch, 0), rng.uniform(0.6, 1.6), dtype=np.float32)
    if rng.random() < 0.08:  # another contrast: bright becomes dark, air stays air
        patch = np.where(patch > 0.05, np.maximum(1.05 - patch, 0.01), patch)
    if rng.random() < 0.3:
        patch = patch * smooth_field(patch.shape, rng, strength=0.25)
    return np.ascontiguousarray(patch * rng.uniform(0.75, 1.25), dtype=np.float32), spacing


def smooth_field(shape: tuple[int, ...], rng: Rng, strength: float) -> NDArray[np.float32]:
    """A slowly varying positive field of mean about 1: exp(strength * smooth noise)."""
    coarse = torch.from_numpy(rng.standard_normal((1, 1, 4, 4, 4), dtype=np.float32))
    smooth = F.interpolate(coarse, size=shape, mode="trilinear")[0, 0]
    field = torch.exp(strength * smooth)
    out: NDArray[np.float32] = (field / field.mean()).numpy()
    return out
