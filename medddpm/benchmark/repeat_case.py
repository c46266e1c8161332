"""Repeats of a scan that are alike, on one scale, and what they say of the noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.benchmark.measure import Case, cropped
from medddpm.benchmark.options import BenchmarkOptions
from medddpm.data.repeats import UNLIKE, find_unlike, noise_level, split_power
from medddpm.errors import ConfigError
from medddpm.metrics.pairs import Vectors
from medddpm.metrics.regions import brightness_classes, central_box
from medddpm.preprocess.intensity import Mask, foreground_mask, intensity_scale, zero_background
from medddpm.preprocess.noise import without_law
from medddpm.volume import Volume

Image = NDArray[np.float32]

_REACH = 2.5
"""Voxels (standard deviation of a Gaussian) over which the variance between repeats is averaged."""
_LOW_SNR = 3.0
_BLUR = 2.0
"""Voxels over which the mean of the repeats is smoothed before regions are found in it: a voxel
that its own noise let in, or into a class, would be scored against that noise."""
_SMALL, _SOME, _MUCH = 0.001, 0.01, 0.1
"""Gains, dark voxels and differences that are no noise: less than this is not worth a word."""


@dataclass(frozen=True)
class RepeatCase:
    """Repeats of one scan that are alike, and what they say of the noise.

    Attributes:
        name: Of the scan.
        repeats: As read, cropped; each on the same grid.
        gains: Brightness of each over that of the first.
        case: Their mean, with its intensity scale and its regions; in the units of the first.
        sigma: (N,) noise at the voxels of the foreground, by the repeats, smooth.
        law: (N,) its square over the variance of the magnitude: 1 where the signal is strong.
        not_noise: Share of the variance between repeats that noise does not explain.
        low_snr: Share of the foreground with a signal below three sigma.
        remarks: In words: what was left out, taken off, or cannot be told.
    """

    name: str
    repeats: list[Volume]
    gains: list[float]
    case: Case
    sigma: Vectors
    law: Vectors
    not_noise: float
    low_snr: float
    remarks: list[str]

    @property
    def inside(self) -> Mask:
        """The foreground."""
        return self.case.regions["foreground"]

    @property
    def level(self) -> float:
        """Sigma as one number: the root mean square over the foreground."""
        return float(np.sqrt(np.mean(self.sigma**2)))

    def values(self, images: Sequence[Image]) -> Vectors:
        """(R, N) at the voxels of the foreground, in the units of the first repeat."""
        return np.stack(
            [i[self.inside] / g for i, g in zip(images, self.gains, strict=True)]
        ).astype(np.float64)


def prepare_repeats(
    name: str, volumes: Sequence[Volume], options: BenchmarkOptions, limit: int | None = None
) -> RepeatCase:
    """The repeats that are alike, scaled to the first of them.

    Args:
        name: Of the scan.
        volumes: Its repeats, 3D; one is typical of them, and those unlike it are left out.
        options: Their law of the noise and crop count.
        limit: At most so many, the first ones.

    Raises:
        GeometryError: They lie on different grids.
        ConfigError: Fewer than two are alike.
    """
    for volume in volumes[1:]:
        volumes[0].geometry.require_match(volume.geometry, volume.case_id)
    alike, remarks = _alike(volumes)
    if len(alike) < 2:
        why = "; ".join(remarks) or "this is one scan"
        raise ConfigError(f"{name}: two repeats that are alike are needed, or more: {why}")
    kept = alike[:limit]
    if len(kept) < len(alike):
        remarks.append(f"the first {len(kept)} of {len(alike)} repeats are used")
    frames = [np.asarray(v.data, np.float32) for v in kept]
    inside = _foreground(frames)
    gains = _gains(frames, inside)
    remarks += _said_gains(kept, gains)
    scaled = [frame / np.float32(gain) for frame, gain in zip(frames, gains, strict=True)]
    return _case(name, kept, scaled, gains, inside, options, remarks)


def _case(
    name: str,
    kept: list[Volume],
    scaled: list[Image],
    gains: list[float],
    inside: Mask,
    options: BenchmarkOptions,
    remarks: list[str],
) -> RepeatCase:
    mean = _mean(scaled)
    total, noise = split_power([s - mean for s in scaled], mean, inside)
    if total == 0:
        raise ConfigError(f"{name}: its repeats do not differ, so they are copies of one scan")
    dof = options.noise.law.dof
    sigma, spread, smooth = _noise_of(scaled, mean, inside, dof)
    level = float(np.sqrt(np.mean(sigma[inside] ** 2)))
    scale = intensity_scale(mean, inside, sigma=level / len(scaled) ** 0.5)
    regions = {"foreground": inside}
    regions |= brightness_classes(ndimage.gaussian_filter(mean, _BLUR), inside)
    box = central_box(inside, options.crop)
    regions = {name: mask[box] for name, mask in regions.items()}
    here = [part[box][regions["foreground"]] for part in (sigma, spread, smooth)]
    low = float(np.mean(here[2] < _LOW_SNR * here[0]))
    between = (total / (len(scaled) - 1)) ** 0.5
    remarks += _said_limits(1 - noise / total, between, low)
    return RepeatCase(
        name,
        [cropped(volume, box) for volume in kept],
        gains,
        Case(cropped(kept[0].with_data(mean), box), scale, regions),
        here[0],
        (here[0] / here[1]) ** 2,
        1 - noise / total,
        low,
        remarks,
    )


def _said_limits(not_noise: float, spread: float, low_snr: float) -> list[str]:
    """What the repeats cannot tell.

    Args:
        not_noise: Share of their variance that noise does not explain.
        spread: Standard deviation between them.
        low_snr: Share of the foreground.
    """
    words = []
    if not_noise > _MUCH:
        words.append(
            f"{not_noise:.0%} of what differs between the repeats is not noise: it lies at edges, "
            "as movement makes it, or follows the brightness; every error holds that part, an RMSE "
            f"of {spread * not_noise**0.5:.4g}, and gains are too small by it"
        )
    if low_snr > _SOME:
        words.append(
            f"{low_snr:.0%} of the foreground is darker than {_LOW_SNR:g} times the noise, where "
            "magnitudes tell little of the signal: errors there count for less than they are"
        )
    return words


def _alike(volumes: Sequence[Volume]) -> tuple[list[Volume], list[str]]:
    """Those that are like the most typical one, and a line for each that is not."""
    scans, lines = _distinct(volumes)
    if len(scans) < 2:
        return scans, lines
    frames = [np.asarray(v.data, np.float32) for v in scans]
    inside = _foreground(frames)
    gains = _gains(frames, inside)
    frames = [frame / np.float32(gain) for frame, gain in zip(frames, gains, strict=True)]
    typical = _typical(frames, inside)
    sigma = noise_level(frames[typical], scans[typical].spacing)
    unlike = find_unlike(frames, typical, inside, sigma)
    lines += [
        f"{scan.case_id} is left out: it differs from {scans[typical].case_id} by over "
        f"{UNLIKE:g} times the noise, so something moved, or the contrast is another"
        for scan, out in zip(scans, unlike, strict=True)
        if out
    ]
    return [scan for scan, out in zip(scans, unlike, strict=True) if not out], lines


def _distinct(volumes: Sequence[Volume]) -> tuple[list[Volume], list[str]]:
    """Those that hold something, once each, and a line for each that does not."""
    kept: list[Volume] = []
    lines = []
    for volume in volumes:
        same = next((v for v in kept if np.array_equal(v.data, volume.data)), None)
        if same is not None:
            lines.append(f"{volume.case_id} is left out: it is a copy of {same.case_id}")
        elif not (volume.data > 0).any():
            lines.append(f"{volume.case_id} is left out: it is empty")
        else:
            kept.append(volume)
    return kept, lines


def _typical(frames: list[Image], inside: Mask) -> int:
    """The repeat with the smallest median distance from the others; of two the first."""
    values = np.stack([frame[inside] for frame in frames]).astype(np.float64)
    values -= values.mean(axis=0)
    products = values @ values.T
    squares = np.diag(products)[:, None] + np.diag(products) - 2 * products
    return int(np.argmin(np.median(squares, axis=1)))


def _foreground(frames: list[Image]) -> Mask:
    """That of the blurred mean; in masked scans the voxels that are 0 in none of them."""
    mean = _mean(frames)
    if zero_background(mean) is None:
        return foreground_mask(ndimage.gaussian_filter(mean, _BLUR))
    inside = foreground_mask(mean)
    shared: Mask = inside & np.all([frame > 0 for frame in frames], axis=0)
    return shared if shared.any() else inside


def _mean(frames: Sequence[Image]) -> Image:
    mean: Image = np.mean(np.stack(frames), axis=0)
    return mean


def _gains(frames: list[Image], inside: Mask) -> list[float]:
    """Ratios of means, which noise does not bias as it would a slope fitted to the first."""
    means = [float(frame[inside].mean(dtype=np.float64)) for frame in frames]
    return [mean / means[0] for mean in means]


def _said_gains(kept: list[Volume], gains: list[float]) -> list[str]:
    words = [
        f"{volume.case_id} {gain - 1:+.1%}"
        for volume, gain in zip(kept, gains, strict=True)
        if abs(gain - 1) > _SMALL
    ]
    if not words:
        return []
    return [f"brightness over that of {kept[0].case_id}, which is taken off: {', '.join(words)}"]


def _noise_of(
    scaled: list[Image], mean: Image, inside: Mask, dof: int
) -> tuple[Vectors, Vectors, Vectors]:
    """(X, Y, Z) sigma, the standard deviation between repeats, and the mean, all smooth.

    They are averaged over a few voxels of the foreground; sigma is the standard deviation without
    what the law of the magnitude makes of it (Koay and Basser 2006).
    """
    variance = np.var(scaled, axis=0, ddof=1, dtype=np.float64)
    weight = np.maximum(_smooth(inside), 1e-6)
    smooth, power = (_smooth(np.where(inside, part, 0)) / weight for part in (mean, variance))
    spread = np.sqrt(np.maximum(power, (1e-4 * smooth) ** 2 + np.finfo(np.float32).tiny))
    return without_law(spread, smooth, dof), spread, smooth


def _smooth(image: NDArray[Any]) -> Vectors:
    out: Vectors = ndimage.gaussian_filter(image.astype(np.float64), _REACH, mode="constant")
    return out
