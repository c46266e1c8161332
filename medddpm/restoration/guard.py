"""Does what was taken away look like the noise that was assumed?

The residual is standardised with the law of the noise around the restored scan,

    z = (y - mean(x_hat, sigma)) / std(x_hat, sigma),

so that for a perfect restoration z has mean 0, variance 1 and no memory, also where the signal is
low and the magnitude is not Gaussian. A posterior mean removes less than all the noise, most of
it at high frequency: z is then smaller than 1, its neighbours are anticorrelated, and it is
weakest at edges. All of that is healthy, so only the other direction raises a flag.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.errors import ConfigError, GeometryError
from medddpm.preprocess.noise import NoiseKind, chi_moments, second_difference

Image = NDArray[np.float32]

# Limits, well outside what good restorations of real scans showed at sigma 0.005 to 0.2 of the
# scale: ratio up to 1.04, whiteness up to 0.15, structure up to 0.26, peak up to 0.9.
MAX_RATIO = 1.35
MIN_RATIO = 0.3
MIN_RATIO_FROM = 0.03
MAX_WHITENESS = 0.3
MAX_STRUCTURE = 0.4
MAX_PEAK = 2.5
MIN_NOISE = 0.45
_SMOOTHING = 2.0
_MAD_TO_STD = 1.4826


@dataclass(frozen=True)
class GuardReport:
    """What the residual looks like, and whether that is how noise looks.

    Attributes:
        residual_ratio: Root mean square of the standardised residual; 1 if all noise and
            nothing else was removed.
        whiteness: Mean correlation of neighbours; 0 for white noise, positive for anatomy. Where
            little was removed, their covariance in units of the assumed noise power.
        structure: Correlation of the residual's local energy with the edges of the scan; times
            the residual ratio where that is below 1, for a tiny residual cannot hide much.
        peak: Largest local mean of the residual, in sigma: something added or wiped out.
        noise_ratio: White noise in the flat parts of the scan, as a multiple of the assumed sigma.
        passed: True if nothing was flagged.
        messages: One sentence for each flag.
    """

    residual_ratio: float
    whiteness: float
    structure: float
    peak: float
    noise_ratio: float
    passed: bool
    messages: tuple[str, ...]


def check_residual(
    y: NDArray[Any],
    x_hat: NDArray[Any],
    sigma: float | NDArray[Any],
    mask: NDArray[Any],
    *,
    kind: NoiseKind = "rician",
    coils: int = 1,
) -> GuardReport:
    """A report on the residual y - x_hat inside the foreground.

    Args:
        y: (X, Y, Z) noisy scan.
        x_hat: (X, Y, Z) restored scan, same units.
        sigma: Noise standard deviation in those units, a number or an (X, Y, Z) map.
        mask: (X, Y, Z) foreground.
        kind: Law of the noise that was assumed.
        coils: Coils of "ncchi".
    """
    y, x_hat, sigma, inside = _cropped(y, x_hat, sigma, mask)
    if sigma.max() == 0:
        return _no_noise(bool((y[inside] == x_hat[inside]).all()))
    z, std = _standardised(y, x_hat, sigma, inside, 0 if kind == "gaussian" else 2 * coils)
    values = z[inside]
    ratio = float(np.sqrt(np.mean(np.square(values), dtype=np.float64)))
    edges = _edges(x_hat)
    flat = inside & (edges <= np.quantile(edges[inside][::7], 0.3))
    white = np.abs(second_difference(y, (0, 1, 2), 1)[flat]) / std[flat]
    scale = float(np.percentile(x_hat[inside], 99.5))
    report = GuardReport(
        residual_ratio=ratio,
        whiteness=_whiteness(z, inside),
        structure=_structure(z, edges, inside) * min(1.0, ratio),
        peak=_peak(z, inside),
        noise_ratio=float(_MAD_TO_STD * np.median(white)),
        passed=True,
        messages=(),
    )
    messages = _messages(report, float(np.median(sigma)) / max(scale, 1e-30))
    return GuardReport(**{**vars(report), "passed": not messages, "messages": messages})


def _no_noise(unchanged: bool) -> GuardReport:
    """The report for sigma 0: there is nothing to remove."""
    messages = () if unchanged else ("the scan was changed although sigma is 0",)
    return GuardReport(0.0, 0.0, 0.0, 0.0, 0.0, unchanged, messages)


def _messages(report: GuardReport, fraction: float) -> tuple[str, ...]:
    found = []
    if report.residual_ratio > MAX_RATIO:
        doubt = "" if report.noise_ratio < MIN_NOISE else ", or sigma is too small"
        found.append(
            f"what was removed is {report.residual_ratio:.2f} times the assumed noise: anatomy "
            f"may be lost{doubt}"
        )
    if report.residual_ratio < MIN_RATIO and fraction > MIN_RATIO_FROM:
        found.append(f"hardly any noise was removed ({report.residual_ratio:.2f} of the assumed)")
    if report.noise_ratio < MIN_NOISE:
        found.append(
            f"the scan holds only {report.noise_ratio:.2f} of the assumed noise: sigma is too large"
        )
    if report.whiteness > MAX_WHITENESS:
        found.append(f"the residual is not white (neighbours correlate {report.whiteness:.2f})")
    if report.structure > MAX_STRUCTURE:
        found.append(f"the residual follows the anatomy (correlation {report.structure:.2f})")
    if report.peak > MAX_PEAK:
        found.append(
            f"a structure was added or removed: the residual averages {report.peak:.1f} sigma "
            "somewhere"
        )
    return tuple(found)


def _cropped(
    y: NDArray[Any], x_hat: NDArray[Any], sigma: float | NDArray[Any], mask: NDArray[Any]
) -> tuple[Image, Image, Image, NDArray[np.bool_]]:
    """All four on the bounding box of the mask; sigma broadcasts."""
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
    return (
        np.asarray(y[box], dtype=np.float32),
        np.asarray(x_hat[box], dtype=np.float32),
        level,
        inside[box],
    )


def _standardised(
    y: Image, x_hat: Image, sigma: Image, inside: NDArray[np.bool_], dof: int
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


def _whiteness(z: Image, inside: NDArray[np.bool_]) -> float:
    """Covariance of neighbours along each axis over the power (at least 1), averaged."""
    centred = np.where(inside, z - z[inside].mean(), 0)
    power = max(float(np.square(centred).sum()) / float(inside.sum()), 1.0)
    found = []
    for axis in range(3):
        num_pairs = int((_ahead(inside, axis) & _behind(inside, axis)).sum())
        if num_pairs:
            product = _ahead(centred, axis) * _behind(centred, axis)
            found.append(float(product.sum()) / num_pairs / power)
    return float(np.mean(found)) if found else 0.0


def _ahead(array: NDArray[Any], axis: int) -> NDArray[Any]:
    return array[tuple(slice(1, None) if a == axis else slice(None) for a in range(3))]


def _behind(array: NDArray[Any], axis: int) -> NDArray[Any]:
    return array[tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))]


def _edges(x_hat: Image) -> Image:
    """Slope of the smoothed scan."""
    smooth = ndimage.gaussian_filter(x_hat, _SMOOTHING, truncate=2.0)
    square = np.zeros_like(smooth)
    for axis in range(3):
        if smooth.shape[axis] > 1:
            square += np.square(np.gradient(smooth, axis=axis))
    slope: Image = np.sqrt(square)
    return slope


def _structure(z: Image, edges: Image, inside: NDArray[np.bool_]) -> float:
    """Correlation of the residual's smoothed energy with the edges, inside the mask."""
    energy = ndimage.gaussian_filter(np.square(z), _SMOOTHING, truncate=2.0)
    inner = ndimage.binary_erosion(inside, iterations=3)
    inner = inner if inner.sum() > 1000 else inside
    a, b = energy[inner][::3], edges[inner][::3]  # both are smooth
    if float(a.std()) == 0 or float(b.std()) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _peak(z: Image, inside: NDArray[np.bool_]) -> float:
    return float(np.abs(ndimage.gaussian_filter(z, _SMOOTHING, truncate=2.0)[inside]).max())
