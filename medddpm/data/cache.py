"""The packed cache: each scan once, cropped and scaled, in blocks that a random patch reads fast.

A scan is `NAME.npy`, float16 in blocks of 32 x 32 x 32 voxels, `NAME.centres.npy`, voxels inside
the body to draw patches around, and `NAME.json`, written last. `index.json` lists them and is
written last of all: a cache without one is unfinished.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.data.tables import write_text
from medddpm.errors import ConfigError, MedddpmError, OutputError
from medddpm.io import atomic_path, read_volume
from medddpm.io.files import first_twin
from medddpm.io.image_files import find_images
from medddpm.io.nifti import suffix_of
from medddpm.preprocess.intensity import Mask, foreground_mask, intensity_scale, zero_background
from medddpm.volume import Volume

CACHE_VERSION = 2
BLOCK = 32
_MARGIN = 8
_NUM_CENTRES = 20_000


@dataclass(frozen=True)
class Case:
    """One packed scan.

    Attributes:
        name: Of its files.
        shape: Voxels, after cropping.
        spacing: mm.
        masked: Whether its background was masked to zero.
        content: SHA-256 of the packed voxels.
    """

    name: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    masked: bool
    content: str


class PackedImage:
    """A packed scan on disk; indexing by three slices reads only the blocks that they touch.

    The file is mapped anew for each read: a thousand open maps would run out of file handles.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int]) -> None:
        self.path = path
        self.shape = shape

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All of it, read from the disk."""
        return np.asarray(self[:, :, :], dtype)

    def __getitem__(self, box: tuple[slice, ...]) -> NDArray[np.float16]:
        box = tuple(slice(*s.indices(n)) for s, n in zip(box, self.shape, strict=True))
        first = [s.start // BLOCK for s in box]
        blocks = np.load(self.path, mmap_mode="r")
        chosen = blocks[
            tuple(slice(f, -(-s.stop // BLOCK)) for f, s in zip(first, box, strict=True))
        ]
        shape = [n * BLOCK for n in chosen.shape[:3]]
        joined = chosen.transpose(0, 3, 1, 4, 2, 5).reshape(shape)
        inner = (
            slice(s.start - f * BLOCK, s.stop - f * BLOCK) for f, s in zip(first, box, strict=True)
        )
        part: NDArray[np.float16] = joined[tuple(inner)]
        return part


def pack(volume: Volume, cache: Path, *, name: str = "", mask: Mask | None = None) -> Case:
    """Write the first frame of a scan: cropped to its foreground, intensity scale 1, float16.

    Args:
        volume: The scan.
        cache: An existing folder.
        name: Of the files; that of the volume if not given.
        mask: Its foreground, if that is known already.

    Raises:
        OutputError: The disk is full or read-only; no half of a file is left.
    """
    name = name or volume.case_id
    image = volume.frame(0)
    mask = foreground_mask(image) if mask is None else mask
    scale = intensity_scale(image, mask)
    box = foreground_box(mask)
    packed = np.clip(image[box] / scale, 0, 8).astype(np.float16)
    inside = np.argwhere(mask[box])
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(inside), min(len(inside), _NUM_CENTRES), replace=False)
    _save(cache / f"{name}.npy", _in_blocks(packed))
    _save(cache / f"{name}.centres.npy", inside[np.sort(chosen)].astype(np.int16))
    masked = zero_background(image) is not None
    content = hashlib.sha256(repr(packed.shape).encode() + packed.tobytes()).hexdigest()
    return Case(name, packed.shape, volume.spacing, masked, content)


def foreground_box(mask: Mask) -> tuple[slice, slice, slice]:
    """The part of a scan that is packed: its foreground with a margin."""
    x, y, z = (
        slice(max(int(i.min()) - _MARGIN, 0), int(i.max()) + _MARGIN + 1) for i in np.nonzero(mask)
    )
    return x, y, z


def _in_blocks(image: NDArray[np.float16]) -> NDArray[np.float16]:
    """(X, Y, Z) as (X/32, Y/32, Z/32, 32, 32, 32), zeros behind its ends."""
    padded = np.pad(image, [(0, -n % BLOCK) for n in image.shape])
    x, y, z = (n // BLOCK for n in padded.shape)
    blocks = padded.reshape(x, BLOCK, y, BLOCK, z, BLOCK).transpose(0, 2, 4, 1, 3, 5)
    return np.ascontiguousarray(blocks)


def _save(path: Path, array: NDArray[Any]) -> None:
    with atomic_path(path) as partial:
        np.save(partial, array)


def purge(cache: Path, entries: Iterable[str], cases: Iterable[Case]) -> None:
    """Delete every file of a cache but these entries and cases; half-written ones too.

    Entries (JSON) go first: one without its voxels must not look complete.
    """
    kept = {f"{name}.json" for name in (*entries, "index")}
    kept |= {f"{case.name}{ending}" for case in cases for ending in (".npy", ".centres.npy")}
    for path in sorted(cache.iterdir(), key=lambda p: p.suffix != ".json"):
        if path.name not in kept:
            path.unlink()


def write_index(cache: Path, cases: Sequence[Case], **facts: Any) -> None:
    """Write the list of cases, which says that the cache is complete."""
    index = {"version": CACHE_VERSION, **facts, "cases": [asdict(case) for case in cases]}
    write_text(cache / "index.json", json.dumps(index, indent=1) + "\n")


def read_index(cache: Path) -> tuple[list[Case], dict[str, Any]]:
    """The cases of a finished cache and what else its index says.

    Raises:
        ConfigError: It is unfinished, damaged, or was written by another version.
    """
    path = cache / "index.json"
    if not path.is_file():
        raise ConfigError(f"{cache} has no index.json: it is unfinished; run the command again")
    index = read_entry(path)
    if index is None:
        raise ConfigError(f"{path} is damaged; delete it and run the command again")
    return [case_of(entry) for entry in index["cases"]], index


def read_entry(path: Path) -> dict[str, Any] | None:
    """A JSON file of the cache; None if it is missing or damaged.

    Raises:
        ConfigError: Another version wrote it.
    """
    try:
        entry: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if entry.get("version") != CACHE_VERSION:
        raise ConfigError(
            f"the cache {path.parent} was written by another version of medddpm (cache version "
            f"{entry.get('version')}, here {CACHE_VERSION}); delete that folder and run the "
            "command again: it is made anew from the scans"
        )
    return entry


def case_of(entry: dict[str, Any]) -> Case:
    """A case as JSON has it."""
    known = {f.name: entry[f.name] for f in fields(Case)}
    return Case(**known | {"shape": tuple(entry["shape"]), "spacing": tuple(entry["spacing"])})


def find_scans(folder: Path) -> list[Path]:
    """Every NIfTI or MGH file under `folder`, sorted."""
    if not folder.is_dir():
        raise ConfigError(f"the data folder {folder} does not exist; give a folder of NIfTI files")
    found = find_images(folder)
    if not found:
        raise ConfigError(f"no NIfTI or MGH file under {folder}; train on a folder of scans")
    return found


def _entry(scan: Path) -> str:
    """The name of what the cache knows of a scan."""
    return re.sub(r"\W+", "_", scan.name) + ".json"


def build_cache(scans: Iterable[Path], cache: Path) -> list[str]:
    """Pack every scan that is not packed yet; returns a line for each one that failed.

    The index is written last, so that a cache without one is begun again where it stopped.

    Raises:
        OutputError: The disk is full or read-only.
        ConfigError: Another version wrote the cache, or two scans have one name.
    """
    scans = list(scans)
    twin = first_twin((p.name[: -len(suffix_of(p))] for p in scans), cache)
    twin = twin or first_twin((_entry(p) for p in scans), cache)
    if twin is not None:
        raise ConfigError(
            f"two scans are called {twin}, and names tell scans apart; rename one, or use "
            "medddpm prepare, which knows whose they are"
        )
    cache.mkdir(parents=True, exist_ok=True)
    cases, failures = [], []
    for path in scans:
        place = cache / _entry(path)
        entry = read_entry(place)
        if entry is None:
            try:
                entry = {"version": CACHE_VERSION, **asdict(pack(read_volume(path), cache))}
            except OutputError:
                raise
            except MedddpmError as error:
                failures.append(f"{path.name}: {error}")
                continue
            write_text(place, json.dumps(entry))
        cases.append(case_of(entry))
    write_index(cache, cases, failures=failures)
    return failures
