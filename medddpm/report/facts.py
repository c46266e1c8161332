"""What a report shows of one restored scan, and its numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.errors import GeometryError, ShapeError
from medddpm.io.frame_facts import FrameFacts
from medddpm.io.sidecar import Sidecar
from medddpm.metrics.regions import brightness_classes
from medddpm.metrics.scores import SSIM_RADIUS, psnr, ssim_image
from medddpm.preprocess.intensity import Mask, foreground_mask, intensity_scale
from medddpm.volume import Geometry

Image = NDArray[np.float32]

_FLAT_SHARE = 0.3
_WINDOW = 5
_SLAB = 32


@dataclass(frozen=True)
class ReportScan:
    """One frame of a restored scan, and what is known of it.

    Attributes:
        name: Of the result, as a person knows it.
        before: (X, Y, Z) the scan that was restored.
        after: (X, Y, Z) restored, same units.
        geometry: Their grid.
        facts: The sidecar.
        std: (X, Y, Z) standard deviation over an ensemble, or None.
        reference: (X, Y, Z) clean scan, or None.
        card: The card of the weights; empty if they are not at hand.
        frame: Which frame of a 4D scan this is.

    Raises:
        ShapeError: The scan has no three axes.
        GeometryError: The arrays have different shapes.
    """

    name: str
    before: Image = field(repr=False)
    after: Image = field(repr=False)
    geometry: Geometry
    facts: Sidecar = field(repr=False)
    std: Image | None = None
    reference: Image | None = None
    card: Mapping[str, Any] | None = None
    frame: int = 0

    def __post_init__(self) -> None:
        if self.before.ndim != 3:
            raise ShapeError(f"a report shows an (X, Y, Z) frame, got shape {self.before.shape}")
        for what in ("after", "std", "reference"):
            other = getattr(self, what)
            if other is not None and other.shape != self.before.shape:
                raise GeometryError(
                    f"{self.name}: {what} has shape {other.shape}, and the scan before "
                    f"restoration {self.before.shape}"
                )

    @property
    def frame_facts(self) -> FrameFacts:
        """The sidecar's part on this frame."""
        return self.facts.frames[self.frame]

    @property
    def sigma(self) -> float:
        """Noise that was assumed, in the scan's units."""
        return self.frame_facts.sigma.sigma


@dataclass(frozen=True)
class Figure:
    """A number of the report: before and after are None where there is no such thing."""

    key: str
    label: str
    before: float | None
    after: float | None
    form: str
    note: str = ""

    @property
    def gain(self) -> float | None:
        """After less before."""
        if self.before is None or self.after is None:
            return None
        return self.after - self.before

    def text(self, value: float | None) -> str:
        """The value as it is printed."""
        return "n/a" if value is None else self.form.format(value)


def decibels(value: float) -> str:
    """A number of dB as it is printed; there is none where nothing was restored."""
    return "n/a" if math.isnan(value) else f"{value:.1f} dB"


def measure(scan: ReportScan) -> list[Figure]:
    """PSNR and SSIM against the reference; without one, SNR and CNR."""
    if scan.reference is not None:
        return _closeness(scan, scan.reference)
    return _contrast(scan)


def _closeness(scan: ReportScan, reference: Image) -> list[Figure]:
    inside = foreground_mask(reference)
    scale = intensity_scale(reference, inside)
    images = scan.before, scan.after
    psnrs = [psnr(reference, image, scale, inside) for image in images]
    ssims = [_mean_ssim(reference, image, scale, inside) for image in images]
    note = "in the foreground, against the reference; the data range is its intensity scale"
    return [
        Figure("psnr", "PSNR, dB", psnrs[0], psnrs[1], "{:.1f}", note),
        Figure("ssim", "SSIM", ssims[0], ssims[1], "{:.3f}", note),
    ]


def _mean_ssim(reference: Image, image: Image, scale: float, inside: Mask) -> float:
    """Mean SSIM of the foreground, slab by slab: all of a large scan would take gigabytes."""
    total, length = 0.0, reference.shape[0]
    for start in range(0, length, _SLAB):
        low, high = max(0, start - SSIM_RADIUS), min(length, start + _SLAB + SSIM_RADIUS)
        within = inside[start : start + _SLAB]
        if not within.any():
            continue
        clean, found = (a[low:high] / np.float32(scale) for a in (reference, image))
        slab = ssim_image(clean, found, 1.0)[start - low : start - low + _SLAB]
        total += float(slab[within].sum(dtype=np.float64))
    return total / float(inside.sum())


def _contrast(scan: ReportScan) -> list[Figure]:
    """SNR of the foreground, and CNR of its bright and middle class of brightness.

    Noise is the standard deviation about the local mean of 5 x 5 x 5 voxels, in the third of the
    foreground where the restored scan is flattest. Anatomy that varies there counts as noise, and
    noise that is wider than the window does not.
    """
    inside = foreground_mask(scan.after)
    if not inside.any():
        return []
    box = ndimage.find_objects(inside.astype(np.uint8))[0]
    inside, before, after = inside[box], scan.before[box], scan.after[box]
    flat = _flat(after, inside)
    regions = brightness_classes(after, inside)
    noises = [_local_std(image, flat) for image in (before, after)]
    snr = [_ratio(image[flat].mean(), noise) for image, noise in _pairs(before, after, noises)]
    cnr = [
        _ratio(abs(_mean(image, regions["bright"]) - _mean(image, regions["middle"])), noise)
        for image, noise in _pairs(before, after, noises)
    ]
    where = "noise: local deviation in flat parts, where fine anatomy counts too"
    return [
        Figure("snr", "SNR", snr[0], snr[1], "{:.1f}", f"mean signal over noise; {where}"),
        Figure(
            "cnr", "CNR", cnr[0], cnr[1], "{:.1f}",
            "difference of the bright and the middle class of brightness over noise",
        ),
    ]  # fmt: skip


def _pairs(before: Image, after: Image, noises: list[float]) -> list[tuple[Image, float]]:
    return [(before, noises[0]), (after, noises[1])]


def _flat(image: Image, inside: Mask) -> Mask:
    """The flattest third of the foreground, away from its border where there is enough of it."""
    slope = ndimage.gaussian_gradient_magnitude(image, 1.5)
    inner = ndimage.binary_erosion(inside, iterations=_WINDOW // 2)
    inner = inner if inner.sum() > 1000 else inside
    flat: Mask = inner & (slope <= np.quantile(slope[inner], _FLAT_SHARE))
    return flat


def _local_std(image: Image, where: Mask) -> float:
    """Root mean square deviation from the local mean, corrected for the size of the window."""
    away = image[where] - ndimage.uniform_filter(image, _WINDOW)[where]
    size = float(np.prod([min(_WINDOW, n) for n in image.shape]))
    square = np.square(away, dtype=np.float64).mean() * size / max(size - 1, 1)
    return float(np.sqrt(square))


def _mean(image: Image, where: Mask) -> float:
    return float(image[where].mean(dtype=np.float64)) if where.any() else float("nan")


def _ratio(signal: float, noise: float) -> float | None:
    value = float(signal) / noise if noise > 0 else float("nan")
    return value if np.isfinite(value) else None
