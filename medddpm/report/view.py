"""The planes of a report's viewer: every voxel in 16 bits, or as near as a page has room for.

Each plane of the restored scan is predicted from the pixels above and to the left (the median edge
detector of JPEG-LS, ISO 14495-1) and what is left is deflated; the scan before restoration is kept
as its difference. All is integer arithmetic: what a page can hold without loss is without loss.
Noise does not compress, so a whole head is kept in steps of a fraction of sigma, which the page
says; where that is not enough, whole planes are left out, never averaged: that would hide noise.
"""

from __future__ import annotations

import base64
import math
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.preprocess.intensity import Mask, foreground_mask
from medddpm.report.cropped import Cropped
from medddpm.report.facts import Image
from medddpm.report.planes import CHANGE, PLANES, SPREAD, table_of
from medddpm.volume import Geometry

MAX_BYTES = 10_600_000
"""Compressed bytes of all planes of a page; base64 adds a third."""
_LEVELS = 65535
_STD_LEVELS = 63
_COARSER = ((32, 1), (16, 1), (16, 2), (8, 2), (8, 3))
"""Where 16 bits are too many: the steps of the restored scan, in parts of sigma, and how many of
these make a step of what was removed, which is noise and takes most of the room."""
_AIR = 4
"""Steps of what was removed from air are coarser by this."""
_SAMPLE = 8
_BLOCK, _MOST_BLOCKS = 4, 250_000
Words = NDArray[np.uint16]


@dataclass(frozen=True)
class View:
    """What the viewer shows.

    Attributes:
        content: JSON-able facts.
        planes: Each plane in base64.
        note: How near to the file the values are, and what was left out.
    """

    content: dict[str, Any]
    planes: list[str]
    note: str


def pack_view(scan: Cropped, geometry: Geometry, max_bytes: int = MAX_BYTES) -> View:
    """Every plane at its full resolution, if there is room.

    Args:
        scan: What is shown.
        geometry: Of the file, for the voxels that are told.
        max_bytes: Of all planes, compressed.
    """
    coder = _coder(scan, max_bytes)
    step, planes = 1, _packed(coder, 1)
    while sum(map(len, planes)) > max_bytes and step < scan.shape[scan.axis]:
        step = max(step + 1, round(step * sum(map(len, planes)) / max(max_bytes, 1)))
        planes = _packed(coder, step)
    note = f"The box around the foreground, {_times(scan.shape)} of {_times(scan.whole)} voxels. "
    note += _value_note(coder, scan.sigma) + _plane_note(step, scan.axis)
    encoded = [base64.b64encode(plane).decode("ascii") for plane in planes]
    return View(_content(scan, geometry, coder, step), encoded, note)


@dataclass(frozen=True)
class _Coder:
    """Arrays with the axis of their planes first, and the steps of their values."""

    arrays: dict[str, Image]
    air: Mask
    floor: float
    fine: float
    quantum: float
    factor: int
    std_step: float

    @property
    def exact(self) -> bool:
        """Each value of a scan is kept to 16 bits."""
        return self.quantum == self.fine


def _coder(scan: Cropped, max_bytes: int) -> _Coder:
    """With the finest steps whose planes fit, judged by every eighth of them."""
    arrays = {name: np.moveaxis(array, scan.axis, 0) for name, array in scan.arrays.items()}
    both = arrays["before"], arrays["after"]
    air = ~ndimage.binary_dilation(foreground_mask(arrays["after"]), iterations=2)
    floor, top = min(float(a.min()) for a in both), max(float(a.max()) for a in both)
    whole = top - floor <= _LEVELS and all(np.array_equal(a, np.rint(a)) for a in both)
    fine = 1.0 if whole else max(top - floor, 1e-12) / _LEVELS
    std_step = (float(arrays["std"].max()) if "std" in arrays else 1.0) / _STD_LEVELS or 1.0
    wanted = [(fine, 1), *((p, m) for n, m in _COARSER if (p := scan.sigma / n) > fine)]
    coders = [_Coder(arrays, air, floor, fine, *steps, std_step) for steps in wanted]
    return next(
        (c for c in coders[:-1] if _SAMPLE * sum(map(len, _packed(c, _SAMPLE))) <= max_bytes),
        coders[-1],
    )


def _packed(coder: _Coder, step: int) -> list[bytes]:
    """Each plane that is kept, deflated."""
    planes = []
    for number in range(0, len(coder.arrays["after"]), step):
        plane = {
            name: _whole(array[number], coder.floor, coder.quantum)
            for name, array in coder.arrays.items()
            if name != "std"
        }
        after, air = plane.pop("after"), coder.air[number]
        parts = [_away(after), *(_apart(other, after, air, coder) for other in plane.values())]
        if "std" in coder.arrays:
            parts.append(_away(_whole(coder.arrays["std"][number], 0.0, coder.std_step)))
        folded = map(_folded, parts)
        halves = [half.astype(np.uint8).tobytes() for f in folded for half in (f & 255, f >> 8)]
        planes.append(_deflated(b"".join(halves)))
    return planes


def _apart(other: Words, after: Words, air: Mask, coder: _Coder) -> Words:
    """Another scan less the restored one, in steps of `factor`; in air in coarser ones."""
    if coder.exact:
        return other - after
    steps = (other.astype(np.int32) - after) / coder.factor
    coarse = _AIR * np.rint(steps / _AIR)
    return np.where(air, coarse, np.rint(steps)).astype(np.int16).view(np.uint16)


def _deflated(content: bytes) -> bytes:
    """Noise holds no repetitions: none but of the same byte are looked for, which is quick."""
    coder = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    return coder.compress(content) + coder.flush()


def _whole(values: Image, floor: float, quantum: float) -> Words:
    """In whole steps from the floor."""
    steps = np.rint((values.astype(np.float64) - floor) / quantum)
    return np.clip(steps, 0, _LEVELS).astype(np.uint16)


def _away(plane: Words) -> Words:
    """Less what the pixels above and to the left let expect, modulo 2^16."""
    padded = np.pad(plane, ((1, 0), (1, 0))).astype(np.int32)
    left, above, corner = padded[1:, :-1], padded[:-1, 1:], padded[:-1, :-1]
    low, high = np.minimum(left, above), np.maximum(left, above)
    away: Words = plane - np.clip(left + above - corner, low, high).astype(np.uint16)
    return away


def _folded(values: Words) -> Words:
    """Signs in the lowest bit, so that small numbers of either sign are small."""
    signed = values.view(np.int16).astype(np.int32)
    return ((signed << 1) ^ (signed >> 15)).astype(np.uint16)


def _content(scan: Cropped, geometry: Geometry, coder: _Coder, step: int) -> dict[str, Any]:
    affine = scan.affine.copy()
    affine[:3, scan.axis] *= step
    shape, middle = list(scan.shape), list(scan.middle)
    shape[scan.axis] = -(-shape[scan.axis] // step)
    middle[scan.axis] //= step
    to_file = np.linalg.inv(geometry.affine) @ affine
    std = scan.arrays.get("std")
    return {
        "shape": shape,
        "start": middle,
        "spacing": [round(float(v), 5) for v in np.linalg.norm(affine[:3, :3], axis=0)],
        "affine": [round(float(v), 6) for v in affine.ravel()],
        "to_file": [round(float(v)) for v in to_file[:3].ravel()],
        "axis": scan.axis,
        "quantum": coder.quantum,
        "factor": coder.factor,
        "exact": coder.exact,
        "floor": coder.floor,
        "sigma": scan.spread,
        "unit": scan.unit,
        "windows": [[w.name, w.low, w.high] for w in scan.windows],
        "layers": [name for name in ("reference", "std") if name in scan.arrays],
        "std_step": coder.std_step,
        "std_window": float(np.percentile(std, 99.5)) if std is not None else None,
        "noise": _noise_map(scan),
        "colours": {n: _table_text(c) for n, c in (("change", CHANGE), ("spread", SPREAD))},
    }


def _table_text(colours: Any) -> str:
    return base64.b64encode(table_of(colours).tobytes()).decode("ascii")


def _noise_map(scan: Cropped) -> dict[str, Any] | None:
    """The local deviation of what was removed, in parts of sigma.

    In blocks of 4 x 4 x 4 voxels, or larger ones where these would be too many for a page.
    """
    if not scan.sigma > 0:
        return None
    block = max(_BLOCK, math.ceil((math.prod(scan.shape) / _MOST_BLOCKS) ** (1 / 3)))
    level = removed_level(scan.removed, block) / scan.sigma
    values = np.clip(np.rint(100 * level), 0, 255).astype(np.uint8)
    return {
        "shape": list(values.shape),
        "block": block,
        "data": base64.b64encode(values.tobytes(order="F")).decode("ascii"),
    }


def removed_level(removed: Image, block: int) -> Image:
    """The deviation within cubic blocks of voxels, smoothed over neighbouring blocks."""
    padded = np.pad(removed, [(0, -n % block) for n in removed.shape], mode="edge")
    x, y, z = (n // block for n in padded.shape)
    blocks = padded.reshape(x, block, y, block, z, block)
    square = np.square(blocks).mean(axis=(1, 3, 5), dtype=np.float64)
    level: Image = np.sqrt(ndimage.gaussian_filter(square, 1.0)).astype(np.float32)
    return level


def _value_note(coder: _Coder, sigma: float) -> str:
    if coder.exact:
        whole = coder.fine == 1.0
        return "Values are those of the file. " if whole else "Values are kept in 16 bits. "
    after, before = coder.quantum / 2, coder.factor * coder.quantum / 2
    return (
        "To keep the page small, values are kept in steps of a part of sigma: after within "
        f"{after:.2g} ({after / sigma:.2g} sigma) of the file, before within {before:.2g} "
        f"({before / sigma:.2g} sigma), in air within {_AIR * before:.2g}. "
    )


def _plane_note(step: int, axis: int) -> str:
    if step == 1:
        return "All its planes are there."
    return (
        f"To keep the page small it holds only some planes: 1 of {step} {PLANES[axis]} planes, "
        "each at full resolution. Numbers and static pictures come from the whole scan."
    )


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)
