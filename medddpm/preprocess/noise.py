"""How noisy a scan is, from the scan alone.

Two places tell. In the air around a head the magnitude is pure noise, a chi variable with 2 L
degrees of freedom, so its mean square is 2 L sigma^2. Where the background was masked, or is not
noise-like, a product of second differences in the flat parts of the body removes the anatomy and
keeps white noise; its spread is then corrected for the Rician law at low signal (Koay and Basser,
J Magn Reson 179:317, 2006).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special

from medddpm.errors import ConfigError, NoNoiseError
from medddpm.preprocess.intensity import Body, Mask
from medddpm.preprocess.noise_law import RICIAN, NoiseLaw

Image = NDArray[np.float32]

_THICK = 1.5
"""Axes coarser than this many times the finest voxel edge are not differenced along."""
_LEAST = 8
"""Voxels along an axis for differences along it, whose stencil has five."""
RATIO_TOLERANCE = 0.06
"""An air block is noise if its mean^2 / mean square is this close to the law's."""
_AIR_COVER = 0.01
"""Air fills more of a scan than this, or it is a dark part of the body."""
_AIR_SHARE = 0.5
"""With fewer such blocks outside the body, that is dark tissue and not air."""
LEAK = 1 / 30
"""Anatomy that leaks into the fine second difference, per its power at twice the distance."""
_AIR_TOO_QUIET = 1.6
"""If the body is this many times noisier than the air, the air does not speak for the body."""
_AIR_CHECK_FLOOR = 0.012
_AIR_TOO_LOUD = 3.0
"""White noise cannot be this much weaker in the body; interpolated noise can be by half."""
_RED = 2.6
"""Interpolated noise has six times the power at two voxels, white noise with anatomy up to 2.5."""
_MAD_TO_STD = 1.4826
IN_NINE_OF_TEN = 2.0
"""Standard errors that hold the truth in 9 of 10 scans: what is left are differences of scans."""
_NOTHING = 1e-6
"""Of the scale: less is the rounding of float32."""
_NO_NOISE = (
    "no noise can be seen: most of the image has exactly the value of its neighbours (a label map, "
    "a mask or a synthetic image?); give sigma"
)


Method = Literal["air", "foreground", "given", "none"]


@dataclass(frozen=True)
class NoiseEstimate:
    """A noise level and how far to trust it.

    Attributes:
        sigma: Standard deviation of one real noise component, in scan units.
        fraction: The same as a fraction of `scale`.
        method: Where it was measured: "air", "foreground"; "given" by the user; "none" to be seen.
        error: Relative error of sigma that holds the truth in 9 of 10 scans.
        num_voxels: Voxels that were used; 0 if given.
        scale: Intensity scale that the scan would have without its noise (`intensity_scale` with
            this sigma); divide the scan by it if `fraction` is to be its noise.
    """

    sigma: float
    fraction: float
    method: Method
    error: float
    num_voxels: int
    scale: float


@dataclass(frozen=True)
class Level:
    """What one witness says.

    Attributes:
        sigma: Standard deviation of one real component.
        error: Its relative standard error.
        num_voxels: Voxels that were used.
        redness: Power at two voxels over that at one: 1 for white noise.
    """

    sigma: float
    error: float
    num_voxels: int
    redness: float = 1.0


def estimate_noise(
    image: NDArray[Any],
    *,
    law: NoiseLaw = RICIAN,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    body: Body | None = None,
) -> NoiseEstimate:
    """The noise level of one image: from its air where there is some, else from its body.

    Args:
        image: (X, Y, Z) magnitudes in any unit.
        law: Kind and coils of the noise.
        spacing: Voxel edges; across thick slices (ratio over 1.5) no difference is taken.
        body: Where the body is; that of the image if not given.
    """
    image = np.asarray(image, dtype=np.float32)
    known = body or Body.of(image)
    mask, scale, dof = known.mask, known.scale(), law.dof
    check_noisy(image, mask)
    axes = seen_axes(spacing, image.shape)
    air = air_level(image, mask, axes, dof)
    tissue = body_level(image, mask, axes, dof, scale)
    method: Literal["air", "foreground"] = "air"
    level = air
    if tissue is not None and (air is None or _air_misleads(air, tissue, scale)):
        method, level = "foreground", tissue
    if level is None:
        raise ConfigError("the scan is too small to estimate its noise; give sigma")
    if level.sigma < _NOTHING * scale:  # a synthetic image that changes evenly
        level = replace(level, sigma=_NOTHING * scale, error=1.0)
    clean_scale = known.scale(level.sigma)
    fraction = level.sigma / clean_scale
    error = min(IN_NINE_OF_TEN * level.error, 1.0) if method == "air" else level.error
    return NoiseEstimate(level.sigma, fraction, method, error, level.num_voxels, clean_scale)


def fine_axes(spacing: tuple[float, float, float]) -> tuple[int, ...]:
    """The array axes that are not across thick slices."""
    finest = min(spacing)
    return tuple(a for a in range(3) if spacing[a] <= _THICK * finest)


def seen_axes(spacing: tuple[float, float, float], shape: Sequence[int]) -> tuple[int, ...]:
    """The fine axes that are long enough for a difference away from both ends of a slab."""
    return tuple(a for a in fine_axes(spacing) if shape[a] >= _LEAST)


def check_noisy(image: Image, mask: Mask) -> None:
    """Raise NoNoiseError if most of the body has exactly the value of its neighbours."""
    if _dead(image)[mask].mean() > 0.5:
        raise NoNoiseError(_NO_NOISE)


def _dead(image: Image) -> Mask:
    """Voxels that have exactly the value of all their neighbours along the first two axes."""
    same = np.ones(image.shape, bool)
    for axis in (0, 1):
        equal = np.diff(image, axis=axis) == 0
        before, after = [(0, 0)] * 3, [(0, 0)] * 3
        before[axis], after[axis] = (1, 0), (0, 1)
        same &= np.pad(equal, before, constant_values=True)
        same &= np.pad(equal, after, constant_values=True)
    return same


def chi_moments(theta: NDArray[np.float64], dof: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean and variance of a non-central chi variable, in units of sigma and sigma^2.

    Args:
        theta: Signal in units of sigma.
        dof: Real noise components 2 L; 2 is the Rician law, 0 stands for Gaussian noise.
    """
    theta = np.asarray(theta, dtype=np.float64)
    if dof == 0:
        return theta, np.ones_like(theta)
    half = 0.5 * dof
    centre = np.sqrt(2) * np.exp(special.gammaln(half + 0.5) - special.gammaln(half))
    near = np.minimum(theta, 30.0)
    mean = centre * special.hyp1f1(-0.5, half, -0.5 * near**2)
    variance = dof + near**2 - mean**2
    far_mean = theta + 0.5 * (dof - 1) / np.maximum(theta, 1.0)
    return np.where(theta > 30, far_mean, mean), variance


def expected_magnitude(signal: Image, sigma: float | Image, dof: int) -> Image:
    """What a magnitude is on average, in the units of the signal.

    Args:
        signal: Without noise, not negative.
        sigma: Of one real component: a number, or of the same shape.
        dof: As in `chi_moments`.
    """
    theta = np.linspace(0.0, 300.0, 15001)
    lift = (chi_moments(theta, dof)[0] - theta).astype(np.float32)
    index = np.rint(np.minimum(signal / sigma, 300.0) * 50).astype(np.int16)
    out: Image = signal + np.asarray(sigma, np.float32) * lift[index]
    return out


def expected_signal(mean: Image, sigma: float | Image, dof: int) -> Image:
    """The signal whose magnitude is this on average, or 0 where noise alone is brighter.

    The inverse of `expected_magnitude`, with its arguments.
    """
    if dof == 0:
        return mean
    theta = np.linspace(0.0, 300.0, 15001)
    ratio = mean / sigma
    signal = np.interp(ratio, chi_moments(theta, dof)[0], theta) * sigma
    return np.where(ratio < theta[-1], signal, mean).astype(np.float32)


def _air_misleads(air: Level, body: Level, scale: float) -> bool:
    """True if the air was silenced by the scanner, or if it is no air but dark tissue."""
    silenced = body.sigma > max(_AIR_CHECK_FLOOR * scale, _AIR_TOO_QUIET * air.sigma)
    if silenced or air.sigma > _AIR_TOO_LOUD * body.sigma:
        return True
    # Where the noise is white the body tells as well, and dark tissue only ever reads louder.
    unlike = air.sigma > body.sigma * (1 + 2 * float(np.hypot(air.error, body.error)))
    return unlike and body.redness < _RED


def air_level(
    image: Image,
    mask: Mask,
    axes: tuple[int, ...],
    dof: int,
    edge: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Level | None:
    """Sigma from blocks of air that follow the law of pure noise; None if there are too few.

    The mean square does not depend on the colour of the noise. The mode over blocks is taken:
    ghosts and ringing only raise some of them.

    Args:
        image: (X, Y, Z).
        mask: The body.
        axes: Those that are not across thick slices.
        dof: Real components 2 L of the magnitude.
        edge: Of the spectrum along each axis: blocks grow, to hold as many independent values.
    """
    length = 6 if len(axes) == 3 else 12
    size = tuple(round(length / edge[a]) if a in axes else 1 for a in range(3))
    count = int(np.prod(size))
    full = block_sum(air_of(image, mask, axes).astype(np.float32), size) > count - 0.5
    if full.sum() < 20 or full.mean() < _AIR_COVER:
        return None
    mean = block_sum(image, size)[full] / count
    square = block_sum(image * image, size)[full] / count - _rounding_variance(image)
    law_mean, law_variance = chi_moments(np.zeros(1), dof)
    law = float(law_mean[0] ** 2 / (law_mean[0] ** 2 + law_variance[0]))
    alive = square > 0
    ratio = mean[alive] ** 2 / square[alive]
    noise = square[alive][np.abs(ratio - law) < RATIO_TOLERANCE]
    if noise.size < max(20, _AIR_SHARE * full.sum()):
        return None
    sigmas = np.sqrt(noise / max(dof, 1))
    mode = _log_mode(sigmas)
    near = sigmas[np.abs(np.log(sigmas / mode)) < 3.0 / np.sqrt(count * np.prod(edge))]
    sigma = float(np.sqrt(np.mean(near**2)))
    spread = float(np.std(near) / sigma)
    return Level(sigma, float(np.hypot(0.02, spread / np.sqrt(near.size))), near.size * count)


def air_of(image: Image, mask: Mask, axes: tuple[int, ...]) -> Mask:
    """Voxels well outside the body and not in areas that the scanner filled with zeros."""
    plane = neighbours(axes)
    outside = ~_dilated(mask, plane, 4)
    zeros = image == 0
    solid = ndimage.binary_erosion(zeros, np.ones([3 if a in axes else 1 for a in range(3)]))
    return outside & ~_dilated(solid, plane, 3) if solid.any() else outside


def neighbours(axes: tuple[int, ...]) -> Mask:
    """The structuring element of the nearest neighbours along `axes`."""
    cross: Mask = ndimage.generate_binary_structure(3, 1)
    for axis in set(range(3)) - set(axes):
        cross = cross & (np.arange(3) == 1).reshape([-1 if a == axis else 1 for a in range(3)])
    return cross


def _dilated(mask: Mask, structure: Mask, iterations: int) -> Mask:
    grown: Mask = ndimage.binary_dilation(mask, structure, iterations=iterations)
    return grown


def _rounding_variance(image: Image) -> float:
    """1/12 if the scan holds whole numbers only, else 0."""
    sample = image.ravel()[:: max(1, image.size // 20000)]
    return 1 / 12 if bool((sample == np.rint(sample)).all()) else 0.0


def block_sum(image: Image, size: tuple[int, ...]) -> NDArray[np.float64]:
    """Sums over whole blocks; the remainder at the far edges is left out."""
    x, y, z = (n // s for n, s in zip(image.shape, size, strict=True))
    part = image[: x * size[0], : y * size[1], : z * size[2]]
    blocks = part.reshape(x, size[0], y, size[1], z, size[2])
    sums: NDArray[np.float64] = blocks.sum(axis=5).sum(axis=3).sum(axis=1).astype(np.float64)
    return sums


def _log_mode(values: NDArray[np.float64]) -> float:
    """The half-sample mode of the logarithms (Bickel and Fruehwirth, 2006)."""
    logs = np.sort(np.log(values))
    while logs.size > 50:
        half = (logs.size + 1) // 2
        start = int(np.argmin(logs[half - 1 :] - logs[: logs.size - half + 1]))
        logs = logs[start : start + half]
    return float(np.exp(np.median(logs)))


def body_level(
    image: Image, mask: Mask, axes: tuple[int, ...], dof: int, scale: float
) -> Level | None:
    """Sigma from second differences in the flattest fifth of the body; None if it is too small.

    Second differences at one and at two voxels see the same white noise, but anatomy is far
    stronger in the wider one: their gap measures, and removes, what leaks into the finer one.
    """
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    image, mask = image[box], mask[box]
    inner = ndimage.binary_erosion(mask, neighbours(axes), iterations=3)
    if inner.sum() < 1000:
        inner = mask
    smooth = ndimage.gaussian_filter(image, [1.5 if a in axes else 0.0 for a in range(3)])
    inner &= smooth > min(0.35 * scale, float(np.median(smooth[inner])))
    inner &= ~_dead(image)
    if inner.sum() < 300:
        return None
    slope = np.zeros_like(image)
    for axis in axes:
        slope += np.gradient(smooth, axis=axis) ** 2
    flat = inner & (slope <= np.quantile(slope[inner], 0.2))
    if flat.sum() < 300:
        return None
    levels = smooth[flat].astype(np.float64)
    fine = second_difference(image, axes, 1)[flat]
    wide = second_difference(image, axes, 2)[flat]
    powers, leaks = _binned_powers(levels, fine, wide, dof)
    power = float(np.median(powers))
    leak = float(np.median(leaks))
    scatter = float(_MAD_TO_STD * np.median(np.abs(powers - power)) / power) / 2
    error = float(np.hypot(0.03, scatter / np.sqrt(powers.size)) + 0.5 * leak / power)
    redness = _spread(wide) ** 2 / max(_spread(fine) ** 2, float(np.finfo(np.float32).tiny))
    return Level(float(np.sqrt(power)), error, int(flat.sum()), redness)


def second_difference(image: Image, axes: tuple[int, ...], distance: int) -> Image:
    """Product over `axes` of [1, -2, 1] / sqrt(6) at `distance`: white noise keeps its sigma."""
    kernel = np.zeros(2 * distance + 1)
    kernel[[0, distance, -1]] = np.array([1.0, -2.0, 1.0]) / np.sqrt(6)
    for axis in axes:
        image = ndimage.correlate1d(image, kernel, axis=axis, mode="nearest")
    return image


def _binned_powers(
    levels: NDArray[np.float64], fine: Image, wide: Image, dof: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Noise power and removed leak in bins of equal brightness."""
    num_bins = int(np.clip(levels.size // 300, 1, 12))
    edges = np.quantile(levels, np.linspace(0, 1, num_bins + 1))
    index = np.clip(np.searchsorted(edges, levels, side="right") - 1, 0, num_bins - 1)
    powers, leaks = [], []
    for b in range(num_bins):
        here = index == b
        if not here.any():
            continue
        mean = float(levels[here].mean())
        power = float(without_law(_spread(fine[here]), mean, dof)) ** 2
        excess = float(without_law(_spread(wide[here]), mean, dof)) ** 2 - power
        leak = min(LEAK * max(excess, 0.0), 0.5 * power)
        powers.append(power - leak)
        leaks.append(leak)
    return np.maximum(powers, np.finfo(np.float64).tiny), np.array(leaks)


def _spread(values: Image) -> float:
    return float(_MAD_TO_STD * np.median(np.abs(values)))


@cache
def _ratio_table(dof: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean / standard deviation of the magnitude, and its variance in units of sigma^2."""
    theta = np.linspace(0.0, 30.0, 1501)
    mean, variance = chi_moments(theta, dof)
    return mean / np.sqrt(variance), variance


def without_law(spread: Any, mean: Any, dof: int) -> NDArray[np.float64]:
    """Sigma from the standard deviation of the magnitude and its mean (Koay and Basser)."""
    spread = np.asarray(spread, dtype=np.float64)
    sigma: NDArray[np.float64] = spread
    if dof > 0:
        ratios, variances = _ratio_table(dof)
        ratio = np.asarray(mean) / np.maximum(spread, 1e-30)
        sigma = spread / np.sqrt(np.interp(ratio, ratios, variances))
    return sigma
