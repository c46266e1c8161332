"""What was taken away, `y - x_hat`, measured against the noise that was assumed.

The residual is standardised with the law of the noise around the restored scan,

    z = (y - mean(x_hat, sigma)) / std(x_hat, sigma),

so that for a perfect restoration z has mean 0, variance 1 and no memory, also where the signal is
low and the magnitude is not Gaussian. A posterior mean removes less than all the noise, most of
it at high frequency: z is then smaller than 1, its neighbours are anticorrelated, and it is
weakest at edges. So z is compared with what good restorations leave, not with white noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.errors import ConfigError, GeometryError
from medddpm.preprocess.noise import chi_moments, fine_axes, second_difference
from medddpm.preprocess.noise_law import Colour, NoiseLaw

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Triple = tuple[int, int, int]
_REACH = 2.0
"""Voxels: structures of 3 to 8 voxels show best at this smoothing."""
_FLAT = 0.3
_FEWEST = 500
_PART = 0.02
_LEAST_SEEN = 0.25
"""Share of the noise that second differences must see, for a level to be read off them."""
_MAD_TO_STD = 1.4826


@dataclass(frozen=True)
class Finding:
    """A number, and the voxel that it speaks of where it is about one place."""

    value: float
    where: Triple | None = None


def residual_findings(
    y: NDArray[Any],
    x_hat: NDArray[Any],
    law: NoiseLaw,
    mask: NDArray[Any],
    *,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> dict[str, Finding]:
    """All that the residual tells, by the name of the check; see `checks.CHECKS`.

    Args:
        y: (X, Y, Z) noisy scan.
        x_hat: (X, Y, Z) restored scan, same units.
        law: The noise that was assumed, in those units and on that grid; sigma is not 0.
        mask: (X, Y, Z) foreground.
        spacing: Voxel edges in mm; slices that are thick are not filtered across.

    Raises:
        GeometryError: They do not lie on one grid.
        ConfigError: The mask is empty, or sigma is negative or not finite.
    """
    corner, y, x_hat, inside, level = _cropped(y, x_hat, law.sigma, mask)
    axes = fine_axes(spacing)
    z, std = _in_deviations(y, x_hat, level, inside, law.dof)
    ratio = float(np.sqrt(np.mean(np.square(z[inside]), dtype=np.float64)))
    smooth = _smooth(x_hat, axes)
    slope = _slope(smooth)
    usual = float(np.mean([law.colour.neighbour_correlation(a) for a in range(3)]))
    found = {
        "residual_ratio": Finding(ratio),
        "whiteness": Finding(_whiteness(z, inside, usual)),
        "structure": Finding(_structure(z, slope, inside) * min(1.0, ratio)),
        "anatomy": Finding(_correlation(z[inside], (x_hat - smooth)[inside])),
        "peak": _peak(z, inside, axes, law.colour),
    }
    flat = inside & (slope <= np.quantile(slope[inside][::7], _FLAT))
    found |= _levels(y, std, flat, axes, law.colour) | _regions(z, inside, usual)
    return {name: _placed(finding, corner) for name, finding in found.items()}


def _levels(
    y: Image, std: Image, flat: Mask, axes: tuple[int, ...], colour: Colour
) -> dict[str, Finding]:
    """The scan's own noise in flat tissue, over what was assumed, at one voxel and at two.

    Nothing where second differences see next to nothing of such noise.
    """
    left = [colour.second_difference_std(axes, distance) for distance in (1, 2)]
    if min(left) < _LEAST_SEEN:
        return {}
    fine, wide = (
        _white(y, std, flat, axes, distance) / share
        for distance, share in zip((1, 2), left, strict=True)
    )
    return {"noise_ratio": Finding(fine), "redness": Finding(wide / max(fine, 1e-6))}


def _placed(finding: Finding, corner: Triple) -> Finding:
    if finding.where is None:
        return finding
    x, y, z = (a + b for a, b in zip(finding.where, corner, strict=True))
    return Finding(finding.value, (x, y, z))


def _cropped(
    y: NDArray[Any], x_hat: NDArray[Any], sigma: float | NDArray[Any], mask: NDArray[Any]
) -> tuple[Triple, Image, Image, Mask, Image]:
    """The corner of the bounding box of the mask, and all on that box; sigma broadcasts."""
    level = np.asarray(sigma, dtype=np.float32)
    if not (y.shape == x_hat.shape == mask.shape) or level.shape not in ((), y.shape):
        raise GeometryError(
            f"scan {y.shape}, restored {x_hat.shape}, mask {mask.shape} and sigma {level.shape} "
            "do not lie on one grid"
        )
    inside = np.asarray(mask, dtype=bool)
    if not inside.any():
        raise ConfigError("the mask is empty, so there is no residual to look at")
    if not (np.isfinite(level).all() and level.min() >= 0):
        raise ConfigError("sigma holds negative or non-finite values; it must be zero or more")
    box = ndimage.find_objects(inside.astype(np.uint8))[0]
    if level.ndim == 3:
        level = np.maximum(level[box], level.max() * np.float32(1e-3))
    noisy, restored = (np.asarray(a[box], dtype=np.float32) for a in (y, x_hat))
    i, j, k = (s.start for s in box)
    return (i, j, k), noisy, restored, inside[box], level


def _in_deviations(
    y: Image, x_hat: Image, sigma: Image, inside: Mask, dof: int
) -> tuple[Image, Image]:
    """The residual in its own standard deviations, 0 outside, and those deviations."""
    theta = np.linspace(0.0, 30.0, 1501)
    mean, variance = chi_moments(theta, dof)
    shift = (mean - theta).astype(np.float32)
    signal = x_hat / sigma if dof == 0 else np.maximum(x_hat, 0) / sigma
    index = np.minimum(np.maximum(signal, 0) * 50, 1500).astype(np.int16)
    std = np.sqrt(variance).astype(np.float32)[index]
    z = np.where(inside, (y / sigma - signal - shift[index]) / std, 0).astype(np.float32)
    return z, std * sigma


def _white(y: Image, std: Image, flat: Mask, axes: tuple[int, ...], distance: int) -> float:
    """Spread of the second differences of the scan where it is flat, over the assumed noise."""
    found = np.abs(second_difference(y, axes, distance)[flat]) / std[flat]
    return float(_MAD_TO_STD * np.median(found))


def _whiteness(z: Image, inside: Mask, usual: float) -> float:
    """Covariance of neighbours along each axis over the power (at least 1), averaged.

    What noise of that colour would have, all of it removed, is `usual` and taken off.
    """
    centred = np.where(inside, z - z[inside].mean(), 0)
    own = float(np.square(centred).sum()) / float(inside.sum())
    power = max(own, 1.0)
    found = []
    for axis in range(3):
        num_pairs = int((_ahead(inside, axis) & _behind(inside, axis)).sum())
        if num_pairs:
            product = _ahead(centred, axis) * _behind(centred, axis)
            found.append(float(product.sum()) / num_pairs / power)
    return float(np.mean(found)) - usual * own / power if found else 0.0


def _ahead(array: NDArray[Any], axis: int) -> NDArray[Any]:
    return array[tuple(slice(1, None) if a == axis else slice(None) for a in range(3))]


def _behind(array: NDArray[Any], axis: int) -> NDArray[Any]:
    return array[tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))]


def _smooth(image: Image, axes: tuple[int, ...], reach: float = _REACH) -> Image:
    """Gaussian; a third of it across thick slices."""
    out: Image = ndimage.gaussian_filter(
        image, [reach if a in axes else reach / 3 for a in range(3)], truncate=2.0
    )
    return out


def _slope(smooth: Image) -> Image:
    """Slope of the smoothed scan."""
    square = np.zeros_like(smooth)
    for axis in range(3):
        if smooth.shape[axis] > 1:
            square += np.square(np.gradient(smooth, axis=axis))
    slope: Image = np.sqrt(square)
    return slope


def _structure(z: Image, slope: Image, inside: Mask) -> float:
    """Correlation of the residual's local energy with the edges, inside the mask."""
    energy = _smooth(np.square(z), (0, 1, 2))
    inner = ndimage.binary_erosion(inside, iterations=3)
    inner = inner if inner.sum() > 1000 else inside
    return _correlation(energy[inner][::3], slope[inner][::3])  # both are smooth


def _correlation(a: Image, b: Image) -> float:
    a, b = (v - np.float32(v.mean(dtype=np.float64)) for v in (a, b))
    power = np.mean(np.square(a), dtype=np.float64) * np.mean(np.square(b), dtype=np.float64)
    # np.corrcoef would make four copies in float64
    return float(np.mean(a * b, dtype=np.float64) / np.sqrt(power)) if power > 0 else 0.0


def _peak(z: Image, inside: Mask, axes: tuple[int, ...], colour: Colour) -> Finding:
    """Largest local mean of the residual, and where; coloured noise has larger ones."""
    reach = [_REACH if a in axes else _REACH / 3 for a in range(3)]
    local = np.where(inside, np.abs(_smooth(z, axes)), 0)
    place = np.unravel_index(int(local.argmax()), local.shape)
    x, y, zz = (int(p) for p in place)
    return Finding(float(local[x, y, zz]) / colour.smoothed_std(reach), (x, y, zz))


def _regions(z: Image, inside: Mask, usual: float) -> dict[str, Finding]:
    """How far the level, and the whiteness, of the worst eighth of the box are from the rest."""
    halves = [(slice(0, n // 2), slice(n // 2, n)) for n in z.shape]
    total = float(np.mean(np.square(z[inside]), dtype=np.float64))
    levels, whites = [Finding(0.0)], [Finding(-1.0)]
    for index in np.ndindex(2, 2, 2):
        box = tuple(halves[a][i] for a, i in enumerate(index))
        part, here = z[box], inside[box]
        if here.sum() < max(_FEWEST, _PART * inside.sum()):
            continue
        x, y, zz = ((s.start + s.stop) // 2 for s in box)
        power = float(np.mean(np.square(part[here]), dtype=np.float64))
        uneven = 0.5 * abs(float(np.log(max(power, 1e-12) / max(total, 1e-12))))
        levels.append(Finding(uneven, (x, y, zz)))
        whites.append(Finding(_whiteness(part, here, usual), (x, y, zz)))
    worst = {"unevenness": max(levels, key=lambda f: f.value)}
    if len(whites) > 1:
        worst["local_whiteness"] = max(whites, key=lambda f: f.value)
    return worst
