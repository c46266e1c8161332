"""Repeats of one scan: which files and frames they are, and whether they are alike.

Two repeats differ by their noise. What else they differ by (movement, drift, another contrast)
shows in the difference image, whatever the colour of the noise and wherever it is loud: it lies
where the anatomy has edges, or it follows the brightness; noise does neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.errors import ConfigError
from medddpm.io.gradients import read_gradients
from medddpm.preprocess.found_noise import find_noise
from medddpm.preprocess.intensity import Mask
from medddpm.volume import Volume

Array = NDArray[np.float32]

UNLIKE = 1.5
"""Repeats that differ by this many times the noise have moved, or are not of one contrast."""
_MAD_TO_STD = 1.4826
_FLAT_BLOCK, _FLAT_SHARE = 16, 0.1
"""Of each block of so many voxels an axis, this share with the least slope is flat."""
_SMOOTH = 1.5
"""Voxels over which the brightness that a difference may follow is averaged."""
_MOST_VOXELS = 200_000
"""That what follows the brightness is fitted to."""


def group_runs(paths: Iterable[Path]) -> list[list[Path]]:
    """Files of one folder whose names differ in the BIDS entity `run` alone, together."""
    groups: dict[Path, list[Path]] = {}
    for path in paths:
        groups.setdefault(path.with_name(re.sub(r"_run-\d+", "", path.name)), []).append(path)
    return list(groups.values())


def unweighted_frames(volume: Volume) -> list[int]:
    """The frames without diffusion weighting, by the .bval file beside a NIfTI file; else all.

    Raises:
        VolumeReadError: The file does not hold one number a frame.
    """
    gradients = read_gradients(volume)
    return list(range(volume.num_frames)) if gradients is None else gradients.unweighted


def noise_level(image: Array, spacing: tuple[float, float, float]) -> float:
    """Sigma that `find_noise` sees in one repeat; 0 if the scan is too small for it."""
    try:
        return find_noise(image, spacing=spacing).sigma
    except ConfigError:
        return 0.0


def find_unlike(frames: Sequence[Array], typical: int, inside: Mask, sigma: float) -> list[bool]:
    """For each repeat, whether it differs from a typical one by over `UNLIKE` times the noise.

    Two witnesses of the noise must agree. One is sigma of the scan itself, against the median of
    the difference, which sees the bulk of the voxels; the other the noise of the difference in
    its flat parts, against all of its power. The first alone would leave out every repeat of a
    scan whose sigma is estimated too low. And no noise is louder than other repeats show it.

    Args:
        frames: (X, Y, Z) each; of one brightness, unless that is to count.
        typical: Number of the one that the others are held against.
        inside: Foreground.
        sigma: Noise of that one, in the units of the frames; 0 if it is unknown.
    """
    found = {
        number: _difference(frame, frames[typical], inside)
        for number, frame in enumerate(frames)
        if number != typical
    }
    unlike = [False] * len(frames)
    for number, (spread, total, noise) in found.items():
        others = [d for n, d in found.items() if n != number and d[0] > 0]
        level = min([sigma, *(d[0] for d in others)])
        least = min([noise, *(d[2] for d in others)])
        unlike[number] = spread >= UNLIKE * level and total > UNLIKE**2 * least
    return unlike


def _difference(frame: Array, other: Array, inside: Mask) -> tuple[float, float, float]:
    """Robust standard deviation, mean square, and noise of it, of the difference over sqrt(2)."""
    difference = (frame - other) / np.float32(np.sqrt(2))
    spread = _MAD_TO_STD * float(np.median(np.abs(difference[inside])))
    return spread, *split_power([difference], (frame + other) * np.float32(0.5), inside)


def split_power(differences: Sequence[Array], mean: Array, inside: Mask) -> tuple[float, float]:
    """The mean squares of differences between repeats, summed, and what of them is noise.

    What is smooth times the brightness (12 terms: a gain, a slow field, another contrast) is
    fitted and taken off; the rest is measured in the tenth of each neighbourhood where `mean` is
    flattest, where movement changes least. In each difference the noise is independent of the
    mean of the repeats (Gaussian noise of one level), so the choice of voxels does not bias it.

    Args:
        differences: (X, Y, Z) each.
        mean: (X, Y, Z) of the repeats.
        inside: Foreground.
    """
    flat = _flattest(mean, inside)
    count = int(inside.sum())
    sample = np.arange(0, count, max(1, count // _MOST_VOXELS))
    some, there = (_brightness_terms(mean, inside, chosen) for chosen in (sample, flat))
    spare = len(sample) / max(len(sample) - some.shape[1], 1)
    total = noise = 0.0
    for difference in differences:
        values = difference[inside].astype(np.float64)
        weights = np.linalg.lstsq(some, values[sample], rcond=None)[0]
        total += float(np.mean(values**2))
        noise += float(np.mean((values[flat] - there @ weights) ** 2)) * spare
    return total, min(noise, total)


def _flattest(mean: Array, inside: Mask) -> NDArray[np.intp]:
    """Places, among the voxels inside, of those with the least slope of their block."""
    slope = ndimage.gaussian_gradient_magnitude(mean, 1.0)[inside]
    block = block_numbers(inside, (_FLAT_BLOCK,) * 3)
    order = np.lexsort((slope, block))
    starts = np.flatnonzero(np.diff(block[order], prepend=-1))
    sizes = np.diff(starts, append=order.size)
    rank = np.arange(order.size) - np.repeat(starts, sizes)
    return order[rank < np.maximum(_FLAT_SHARE * np.repeat(sizes, sizes), 1)]


def block_numbers(inside: Mask, size: tuple[int, ...]) -> NDArray[np.intp]:
    """For each voxel inside, the number of the block of `size` voxels that it lies in."""
    places = [index // edge for index, edge in zip(np.nonzero(inside), size, strict=True)]
    counts = [-(-n // edge) for n, edge in zip(inside.shape, size, strict=True)]
    return np.ravel_multi_index(places, counts)


def _brightness_terms(mean: Array, inside: Mask, chosen: NDArray[np.intp]) -> NDArray[np.float64]:
    """(voxels, 12): 1, b^2 and b times a polynomial of degree 2 in place, b the brightness."""
    smooth = ndimage.gaussian_filter(mean, _SMOOTH)[inside]
    b = (smooth / smooth.mean())[chosen].astype(np.float64)
    sizes = np.maximum(np.array(inside.shape) - 1, 1)
    x, y, z = (np.argwhere(inside)[chosen] * (2 / sizes) - 1).T
    field = [np.ones_like(b), x, y, z, x * x, y * y, z * z, x * y, x * z, y * z]
    return np.stack([np.ones_like(b), b * b, *(b * part for part in field)], axis=1)
