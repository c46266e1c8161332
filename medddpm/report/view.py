"""The volumes of a report's viewer, small enough for a page.

A page holds the restored scan in 8 bits and what was removed in 16, in steps of sigma / 16; the
viewer adds them up to the scan before restoration. So the three agree, and a faint residual is not
lost in the 8 bits of a scan.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.preprocess.intensity import foreground_mask, intensity_scale
from medddpm.report.facts import Image, ReportScan
from medddpm.volume import Volume

MAX_BYTES = 8_000_000
"""Compressed bytes of all volumes of a page; base64 adds a third."""
_MAX_VOXELS = 16_000_000
_STD_LEVELS = 63
_STEPS_PER_SIGMA = 16
_MAX_FACTOR = 100
_INT16 = 32767


@dataclass(frozen=True)
class View:
    """What the viewer shows: `content` is JSON-able, `note` says what was left out."""

    content: dict[str, Any]
    note: str


@dataclass(frozen=True)
class _Scans:
    """Arrays in RAS order, cropped, and the steps of their numbers."""

    arrays: dict[str, Image]
    affine: NDArray[np.float64]
    quantum: float
    factor: int
    floor: float


def pack_view(scan: ReportScan, max_bytes: int = MAX_BYTES) -> View:
    """The foreground of the scans with every plane, or every second, third... where too large.

    Planes are left out, not averaged: an average would hide noise.
    """
    scale = intensity_scale(scan.after, foreground_mask(scan.after))
    scans, crop_note = _cropped(scan, scale)
    spacing = np.linalg.norm(scans.affine[:3, :3], axis=0)
    shape = scans.arrays["after"].shape
    steps = np.ones(3, dtype=int)
    while np.prod(np.ceil(np.array(shape) / steps)) > _MAX_VOXELS:
        steps[_finest(spacing * steps, shape, steps)] += 1
    while True:
        kept = tuple(slice(None, None, int(s)) for s in steps)
        data = _packed({name: array[kept] for name, array in scans.arrays.items()}, scans)
        if sum(len(d) for d in data.values()) <= max_bytes or (steps >= shape).all():
            break
        steps[_finest(spacing * steps, shape, steps)] += 1
    content = _content(scan, scans, steps, scale)
    content["data"] = {k: base64.b64encode(d).decode("ascii") for k, d in data.items()}
    return View(content, crop_note + _steps_note(steps))


def _cropped(scan: ReportScan, scale: float) -> tuple[_Scans, str]:
    """The box of the foreground of both scans with a margin, in RAS order."""
    named = {"before": scan.before, "after": scan.after, "std": scan.std,
             "reference": scan.reference}  # fmt: skip
    arrays = {
        name: Volume(array, scan.geometry).to_ras().data
        for name, array in named.items()
        if array is not None
    }
    inside = foreground_mask(arrays["before"]) | foreground_mask(arrays["after"])
    found = ndimage.find_objects(inside.astype(np.uint8))
    box = _with_margin(found[0], inside.shape) if found else (slice(0, None),) * 3
    arrays = {name: array[box] for name, array in arrays.items()}
    offset = np.eye(4)
    offset[:3, 3] = [s.start for s in box]
    affine = Volume(scan.before, scan.geometry).to_ras().affine @ offset
    low = min(0.0, float(np.percentile(arrays["after"][::2, ::2, ::2], 0.1)))
    high = max(1.05 * scale, min(float(arrays["after"].max()), 1.5 * scale))
    step = max((high - low) / 255, 1e-12)
    quantum = min(scan.sigma / _STEPS_PER_SIGMA, step) if scan.sigma > 0 else step
    factor = min(round(step / quantum), _MAX_FACTOR)
    note = (
        f"The viewer holds the box around the foreground, {_times(arrays['after'].shape)} of "
        f"{_times(inside.shape)} voxels, in 256 levels. "
    )
    return _Scans(arrays, affine, step / factor, factor, low), note


def _with_margin(box: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(
        slice(max(0, s.start - (m := max(1, (s.stop - s.start) // 20))), min(n, s.stop + m))
        for s, n in zip(box, shape, strict=True)
    )


def _finest(spacing: NDArray[np.float64], shape: tuple[int, ...], steps: NDArray[Any]) -> int:
    """The axis with the smallest voxels that still has planes to leave out."""
    return int(np.argmin(np.where(steps < np.array(shape), spacing, np.inf)))


def _packed(arrays: dict[str, Image], scans: _Scans) -> dict[str, bytes]:
    step = scans.quantum * scans.factor
    levels = np.clip(np.rint((arrays["after"] - scans.floor) / step), 0, 255)
    removed = np.rint((arrays["before"] - arrays["after"]) / scans.quantum)
    removed = np.clip(removed, -_INT16, _INT16)
    packed = {
        "after": _bytes(levels),
        "removed": _planes(removed.astype(np.int32)),
    }
    if "std" in arrays:
        top = max(float(arrays["std"].max()), 1e-12)
        packed["std"] = _bytes(np.rint(arrays["std"] * (_STD_LEVELS / top)))
    if "reference" in arrays:
        packed["reference"] = _bytes(
            np.clip(np.rint((arrays["reference"] - scans.floor) / step), 0, 255)
        )
    return packed


def _bytes(values: NDArray[Any]) -> bytes:
    """Compressed; the first axis runs fastest, as in NIfTI."""
    return zlib.compress(values.astype(np.uint8).tobytes(order="F"), 6)


def _planes(values: NDArray[np.int32]) -> bytes:
    """Signs in the lowest bit (zigzag), all low bytes before all high ones: packs well."""
    folded = np.where(values < 0, -2 * values - 1, 2 * values).astype(np.uint16)
    low, high = (folded & 255), (folded >> 8)
    both = low.astype(np.uint8).tobytes(order="F") + high.astype(np.uint8).tobytes(order="F")
    return zlib.compress(both, 6)


def _content(scan: ReportScan, scans: _Scans, steps: NDArray[Any], scale: float) -> dict[str, Any]:
    affine = scans.affine.copy()
    affine[:3, :3] *= steps
    shape = [-(-n // int(s)) for n, s in zip(scans.arrays["after"].shape, steps, strict=True)]
    std = scans.arrays.get("std")
    return {
        "shape": shape,
        "spacing": [round(float(v), 5) for v in np.linalg.norm(affine[:3, :3], axis=0)],
        "affine": [round(float(v), 6) for v in affine.ravel()],
        "quantum": scans.quantum,
        "factor": scans.factor,
        "floor": scans.floor,
        "window": [0.0, 1.05 * scale],
        "sigma": scan.sigma,
        "change": 4 * scan.sigma if scan.sigma > 0 else scale / 10,
        "std_levels": _STD_LEVELS,
        "std_top": float(std.max()) if std is not None else None,
        "std_window": float(np.percentile(std, 99.5)) if std is not None else None,
    }


def _steps_note(steps: NDArray[Any]) -> str:
    axes = ("left-right", "back-front", "down-up")
    thinned = [f"1 of {s} along {axis}" for s, axis in zip(steps, axes, strict=True) if s > 1]
    if not thinned:
        return "All its planes are there."
    return (
        f"To keep the page small it holds only some planes: {', '.join(thinned)}. "
        "Numbers and static pictures come from the whole scan."
    )


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)
