"""How sure the mark is on a folder of scans: unmarked crops, and what it survives.

    python tests/tools/mark_trial.py unmarked SCANS --crops 1500
    python tests/tools/mark_trial.py attacks SCANS --limit 6

SCANS are clean NIfTI files. `unmarked` searches random crops for keys that nobody marked them with
and counts scores beyond each level, beside what chance and the bound allow. `attacks` marks the
middle of each scan, does something to it, and looks for the mark; with `--restore` it is what
`medddpm restore` does. Both print a table.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import permutations, product
from pathlib import Path

import numpy as np
import openjpeg
from scipy import ndimage, stats
from scipy.spatial.transform import Rotation
from skimage.metrics import structural_similarity

from medddpm.io import read_volume
from medddpm.marking import detect as search
from medddpm.marking.detect import PLACES, THRESHOLD, detect, false_alarm
from medddpm.marking.embed import mark
from medddpm.marking.key import Key
from medddpm.preprocess.intensity import Body
from medddpm.volume import Geometry, Volume

LEVELS = (3.0, 4.0, 5.0, 5.5, 6.0, 6.5)
EDGE = 64
WAYS = 4
KEY = Key(bytes(range(32)))
Attack = Callable[[Volume], Volume]


def scans(folder: Path, skip: list[str], limit: int | None) -> list[Path]:
    found = [p for p in sorted(folder.rglob("*.nii*")) if not any(s in p.name for s in skip)]
    if limit is None or limit >= len(found):
        return found
    return [found[round(i * (len(found) - 1) / max(limit - 1, 1))] for i in range(limit)]


def first_frame(path: Path) -> Volume:
    volume = read_volume(path)
    return Volume(volume.frame(0), volume.geometry, case_id=volume.case_id)


def cut(volume: Volume, corner: list[int], edge: int = EDGE, header: bool = True) -> Volume:
    box = tuple(slice(c, c + edge) for c in corner)
    affine = np.array(volume.affine)
    affine[:3, 3] += affine[:3, :3] @ corner
    if not header:
        affine = np.diag([*volume.spacing, 1.0])
    data = np.ascontiguousarray(volume.data[box])
    return Volume(data, Geometry((data.shape[0], data.shape[1], data.shape[2]), affine))


def middle(volume: Volume, edge: int = EDGE) -> list[int]:
    inside = Body.of(volume.data).mask
    centre = [int(np.median(i)) for i in np.nonzero(inside)]
    return [max(0, min(c - edge // 2, n - edge)) for c, n in zip(centre, inside.shape, strict=True)]


def all_scores(crop: Volume, key: Key, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Of every shift, the axes as they are and in some of the 47 other ways."""
    work = search._Search(crop, key)
    ways = list(product(permutations(range(3)), product((1, -1), repeat=3)))
    for way in (0, *rng.choice(np.arange(1, 48), WAYS - 1, replace=False)):
        axes, signs = ways[way]
        flips = tuple(axis for axis, sign in enumerate(signs) if sign < 0)
        matrix = work.affine[list(axes), :3] * np.array(signs)[:, None]
        lattice = np.flip(work.folded.transpose(axes), flips)
        yield search.scores(lattice, work._carried(matrix))


@dataclass
class Tally:
    """Scores of unmarked crops."""

    counts: np.ndarray = field(default_factory=lambda: np.zeros(len(LEVELS)))
    places: int = 0
    highest: list[float] = field(default_factory=list)
    searched: list[float] = field(default_factory=list)

    def add(self, crop: Volume, key: Key, rng: np.random.Generator, whole: bool) -> None:
        best = -math.inf
        for z in all_scores(crop, key, rng):
            high = z[z >= LEVELS[0]]
            self.counts += [np.count_nonzero(high >= level) for level in LEVELS]
            self.places += z.size
            best = max(best, float(z.max()))
        self.highest.append(best)
        if whole:
            self.searched.append(detect(crop, key).z)

    def tell(self) -> None:
        print(f"\n{len(self.highest)} crops, {self.places:.3g} places, threshold {THRESHOLD:.2f}")
        print("| z | places at or above | expected of a normal law | bound |\n|---|---|---|---|")
        for level, count in zip(LEVELS, self.counts, strict=True):
            normal = self.places * stats.norm.sf(level)
            bound = self.places * math.exp(-(level**2) / 2)
            print(f"| {level:g} | {count:.0f} | {normal:.4g} | {bound:.3g} |")
        above = sum(z >= THRESHOLD for z in [*self.highest, *self.searched])
        print(f"highest: {max(self.highest):.2f}; above the threshold: {above}")
        if self.searched:
            num, high = len(self.searched), max(self.searched)
            print(f"whole search of {num} crops: highest {high:.2f}")


def a_crop(volume: Volume, rng: np.random.Generator) -> Volume:
    """Anywhere but in air, which says nothing."""
    mean = float(volume.data.mean())
    for _ in range(20):
        crop = cut(volume, [int(rng.integers(max(1, n - EDGE + 1))) for n in volume.data.shape])
        if float(crop.data.mean()) > 0.5 * mean:
            break
    return crop


def unmarked(paths: list[Path], crops: int, every: int, seed: int) -> None:
    """Ends after so many crops, or at Ctrl-C; half of the keys are one key."""
    rng, tally = np.random.default_rng(seed), Tally()
    try:
        while (number := len(tally.highest)) < crops:
            volume = first_frame(paths[int(rng.integers(len(paths)))])
            for index in range(number, min(number + 30, crops)):
                key = KEY if index % 2 else Key(rng.bytes(32))
                tally.add(a_crop(volume, rng), key, rng, bool(every) and index % every == 0)
            print(f"{len(tally.highest)} crops, highest {max(tally.highest):.2f}", flush=True)
    except KeyboardInterrupt:
        print("interrupted")
    tally.tell()


def with_noise(volume: Volume, level: float = 0.05) -> Volume:
    rng = np.random.default_rng(0)
    sigma = level * Body.of(volume.data).scale()
    real, imaginary = (sigma * rng.standard_normal(volume.data.shape) for _ in range(2))
    return volume.with_data(np.hypot(volume.data + real, imaginary))


def eight_bit(volume: Volume) -> Volume:
    high = float(np.quantile(volume.data, 0.999))
    return volume.with_data(np.clip(np.round(volume.data / high * 255), 0, 255))


def blurred(volume: Volume, mm: float) -> Volume:
    return volume.with_data(ndimage.gaussian_filter(volume.data, [mm / s for s in volume.spacing]))


def jpeg2000(volume: Volume, ratio: int) -> Volume:
    high = float(volume.data.max())
    stored = np.round(volume.data / high * 4095).astype(np.uint16)
    slices = []
    for plane in stored.transpose(2, 0, 1):
        data = openjpeg.utils.encode_array(
            np.ascontiguousarray(plane), bits_stored=12, compression_ratios=[ratio]
        )
        slices.append(openjpeg.decode(data))
    return volume.with_data(np.stack(slices, axis=-1).astype(np.float32))


def on_grid(volume: Volume, affine: np.ndarray, shape: tuple[int, ...]) -> Volume:
    """The scan on another grid, whose header says where it lies."""
    to_voxel = np.linalg.inv(volume.affine) @ affine
    data = ndimage.affine_transform(
        volume.data, to_voxel[:3, :3], to_voxel[:3, 3], output_shape=shape, order=3
    )
    size = (int(shape[0]), int(shape[1]), int(shape[2]))
    return Volume(np.maximum(data, 0), Geometry(size, affine))


def resampled(volume: Volume, mm: float) -> Volume:
    affine = np.array(volume.affine)
    affine[:3, :3] *= mm / np.array(volume.spacing)
    extent = np.array(volume.data.shape) * volume.spacing
    return on_grid(volume, affine, tuple(int(n) for n in np.maximum(extent // mm, 2)))


def turned(volume: Volume, degrees: tuple[float, ...], scale: float = 1.0, *, told: bool) -> Volume:
    """The scan turned about its middle; `told` says whether the header tells of it."""
    centre = volume.affine @ [*(np.array(volume.data.shape) - 1) / 2, 1.0]
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() * scale
    turn[:3, 3] = centre[:3] - turn[:3, :3] @ centre[:3] + (0 if told else 3.3)
    moved = on_grid(volume, turn @ volume.affine, volume.data.shape)
    return moved if told else Volume(moved.data, volume.geometry)


def bent(volume: Volume, mm: float) -> Volume:
    """Moved by a smooth random field of this many mm."""
    rng = np.random.default_rng(0)
    places = np.indices(volume.data.shape).astype(np.float32)
    for axis, spacing in enumerate(volume.spacing):
        wave = ndimage.zoom(
            rng.standard_normal((5, 5, 5)), np.array(volume.data.shape) / 5, order=3
        )
        places[axis] += wave * mm / spacing
    return volume.with_data(np.maximum(ndimage.map_coordinates(volume.data, places, order=1), 0))


def cut_turned(volume: Volume) -> Volume:
    moved = turned(volume, (5, 0, 0), told=False)
    return cut(moved, middle(moved))


def attacks(other: Volume) -> dict[str, Attack]:
    marked_other = mark(other, KEY)

    def with_other(second: Volume) -> Attack:
        def average(volume: Volume) -> Volume:
            moved = on_grid(second, volume.affine, volume.data.shape)
            scales = [Body.of(v.data).scale() for v in (volume, moved)]
            return volume.with_data((volume.data / scales[0] + moved.data / scales[1]) / 2)

        return average

    return {
        "nothing": lambda v: v,
        "8 bits": eight_bit,
        "Rician noise of 0.05": with_noise,
        "blur, sigma 1 mm": lambda v: blurred(v, 1.0),
        "blur, sigma 2 mm": lambda v: blurred(v, 2.0),
        "on a grid of 1.5 mm": lambda v: resampled(v, 1.5),
        "on a grid of 3 mm": lambda v: resampled(v, 3.0),
        "crop of 64^3": lambda v: cut(v, middle(v)),
        "crop of 64^3, header lost but for the voxel size": lambda v: cut(
            v, middle(v), header=False
        ),
        "crop of 64^3, noise of 0.05": lambda v: cut(with_noise(v), middle(v)),
        "JPEG 2000, 10 to 1": lambda v: jpeg2000(v, 10),
        "JPEG 2000, 20 to 1": lambda v: jpeg2000(v, 20),
        "mean with another marked head": with_other(marked_other),
        "mean with an unmarked head": with_other(other),
        "gamma 0.7": lambda v: v.with_data(np.maximum(v.data, 0) ** 0.7),
        "turned by 5 degrees, header tells": lambda v: turned(v, (5, 0, 0), told=True),
        "turned by 5 degrees, header does not": lambda v: turned(v, (5, 0, 0), told=False),
        "turned so, crop of 64^3": cut_turned,
        "rigid (3, -2.7, 4.1 degrees), header does not tell": lambda v: turned(
            v, (3, -2.7, 4.1), told=False
        ),
        "stretched by 2 %": lambda v: turned(v, (0, 0, 0), 1.02, told=False),
        "bent by 1 mm": lambda v: bent(v, 1.0),
        "marked again with another key": lambda v: mark(v, Key(b"x" * 32)),
        "turned by 10 degrees, header does not": lambda v: turned(v, (10, 0, 0), told=False),
        "stretched by 10 %": lambda v: turned(v, (0, 0, 0), 1.1, told=False),
        "bent by 3 mm": lambda v: bent(v, 3.0),
        "blur, sigma 4 mm": lambda v: blurred(v, 4.0),
    }


def restorations() -> dict[str, Attack]:
    from medddpm.restoration.options import RestoreOptions
    from medddpm.restoration.restorer import Restorer

    restorer = Restorer.from_pretrained()

    def block(volume: Volume) -> Volume:
        return cut(volume, middle(volume, 96), 96)

    def sample(volume: Volume) -> Volume:
        return restorer.restore(volume, RestoreOptions(mode="sample")).volume

    return {
        "block of 96^3": block,
        "block of 96^3, restored": lambda v: restorer.restore(block(v)).volume,
        "block of 96^3, noise of 0.05, restored": lambda v: (
            restorer.restore(with_noise(block(v))).volume
        ),
        "block of 96^3, noise of 0.05, `--mode sample`": lambda v: sample(with_noise(block(v))),
    }


def attack(paths: list[Path], other: Path, only: str, block: int, restore: bool) -> None:
    trials = restorations() if restore else attacks(first_frame(other))
    found: dict[str, list[search.Found]] = {name: [] for name in trials if only in name}
    for path in paths:
        volume = first_frame(path)
        volume = cut(volume, middle(volume, block), block)
        marked = mark(volume, KEY)
        body = Body.of(volume.data)
        scale, inside = body.scale(), body.mask
        change = (marked.data - volume.data) / scale
        rms = float(np.sqrt(np.mean(change[inside] ** 2)))
        likeness = structural_similarity(
            volume.data / scale,
            marked.data / scale,
            data_range=1.0,
            gaussian_weights=True,
            full=True,
        )[1]
        print(
            f"{path.name}: {volume.geometry.words}: PSNR {-20 * math.log10(rms):.1f} dB, SSIM "
            f"{likeness[inside].mean():.4f} in the body, rms {rms:.4f}, most "
            f"{np.abs(change).max():.3f} of the scale"
        )
        for name in found:
            done = detect(trials[name](marked), KEY)
            found[name].append(done)
            print(f"  {name}: z {done.z:.1f} {done.way or 'not found'}", flush=True)
    print(f"\n{len(paths)} scans, threshold {THRESHOLD:.1f}, {PLACES:.2g} places")
    print("| what was done | found | z, median (least) |\n|---|---|---|")
    for name, results in found.items():
        z = [r.z for r in results]
        marked_count = sum(r.marked for r in results)
        print(f"| {name} | {marked_count} of {len(z)} | {np.median(z):.0f} ({min(z):.0f}) |")
    assert false_alarm(THRESHOLD) <= 1.0001e-6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("unmarked", "attacks"))
    parser.add_argument("scans", type=Path)
    parser.add_argument("--crops", type=int, default=1500)
    parser.add_argument("--every", type=int, default=50, help="Search every so manieth crop whole.")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--skip", action="append", default=[], help="Part of a name.")
    parser.add_argument("--only", default="", help="Attacks with this in their name.")
    parser.add_argument("--block", type=int, default=144, help="Edge of what is marked.")
    parser.add_argument("--restore", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args()
    paths = scans(told.scans, told.skip, told.limit)
    if told.what == "unmarked":
        unmarked(paths, told.crops, told.every, told.seed)
    else:
        other = scans(told.scans, [*told.skip, *(path.name for path in paths)], 1)
        attack(paths, other[0], told.only, told.block, told.restore)


if __name__ == "__main__":
    main()
