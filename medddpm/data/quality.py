"""Marks for scans that a person should look at. A mark leaves no scan out.

Every check is a function of its own with one threshold beside it. Each returns a `Mark` if the
scan is over it. Thresholds are round numbers, chosen on heads and spines of public data sets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.errors import ConfigError
from medddpm.preprocess.intensity import Mask, intensity_scale, zero_background
from medddpm.preprocess.noise import estimate_noise
from medddpm.volume import Geometry

Image = NDArray[np.float32]

NOISE_LIMIT = 0.10
"""Sigma over the intensity scale: above it the brightest tissue has a signal-to-noise below 10."""
CROPPED_LIMIT = 0.30
"""Body in the outermost plane, as a share of its largest cross-section along that axis."""
GHOST_LIMIT = 0.05
"""Ghost-to-signal ratio: what a person sees as bands in the air at an ordinary window."""
FACE_MM = (30.0, 160.0, 90.0)
"""Left-right, front-back and up-down size of a body that may be a head with a face, or the middle
of one with its profile."""
MASKED_HEAD_MM = (30.0, 184.0, 90.0)
"""The same where the background is zero, and a smaller body may be a brain alone: of 49 public
scans, brains were 157 to 181 mm from front to back and heads 187 to 210."""
_AIR_GAP = 3
_MIN_AIR = 500


@dataclass(frozen=True)
class Mark:
    """A reason to look at a scan.

    Attributes:
        flag: One word.
        value: What was measured; empty if there is no number.
        limit: The threshold.
        reason: What it may mean.
    """

    flag: str
    value: float | None = None
    limit: float | None = None
    reason: str = ""


def marks_of(
    image: Image, mask: Mask, geometry: Geometry, contrasts: tuple[str, str]
) -> list[Mark]:
    """All marks of one scan.

    Args:
        image: (X, Y, Z).
        mask: Its foreground.
        geometry: Its grid.
        contrasts: What its name says and what its tags say; "" where unknown.
    """
    found = (
        extreme_noise(image, geometry.spacing),
        wrong_contrast(*contrasts),
        cropped(mask, geometry.orientation),
        motion_suspect(image, mask),
        face_possible(image, mask, geometry),
    )
    return [mark for mark in found if mark is not None]


def extreme_noise(image: Image, spacing: tuple[float, float, float]) -> Mark | None:
    """Too noisy to be taken for clean: `estimate_noise` over `NOISE_LIMIT`."""
    try:
        fraction = estimate_noise(image, spacing=spacing).fraction
    except ConfigError:
        return None
    if fraction <= NOISE_LIMIT:
        return None
    return Mark("extreme-noise", fraction, NOISE_LIMIT, "sigma as a fraction of the scale")


def wrong_contrast(named: str, told: str) -> Mark | None:
    """The name and the acquisition's timing speak of two contrasts."""
    if not named or not told or named == told:
        return None
    return Mark("wrong-contrast", reason=f"named {named}, acquired as {told}")


def cropped(mask: Mask, orientation: str) -> Mark | None:
    """The body reaches an edge of the field of view with `CROPPED_LIMIT` of its largest section.

    The lower end is not asked: a neck always leaves there.
    """
    worst = 0.0
    for axis in range(3):
        profile = mask.sum(axis=tuple(a for a in range(3) if a != axis)) / mask[0].size
        profile = profile / max(profile.max(), 1e-9)
        ends = {"first": profile[0], "last": profile[-1]}
        if orientation[axis] in "SI":
            ends.pop("first" if orientation[axis] == "S" else "last")
        worst = max(worst, *(float(v) for v in ends.values()))
    if worst <= CROPPED_LIMIT:
        return None
    return Mark("cropped", worst, CROPPED_LIMIT, "the body is cut off by the field of view")


def motion_suspect(image: Image, mask: Mask) -> Mark | None:
    """Ghosts beside the body: the largest ghost-to-signal ratio of the three axes.

    As in MRIQC's `gsr` (Giannelli et al., Phys Med 26:171, 2010, for echo-planar images): along
    the direction of phase encoding ghosts lie in line with the body and nowhere else. Here each
    axis is tried, and the median of the air in line with the body, less that of the other air,
    is divided by the median of the body. Masked scans and those without air have no such ratio.
    """
    if zero_background(image) is not None:
        return None
    air = ~ndimage.binary_dilation(mask, iterations=_AIR_GAP)
    body = float(np.median(image[mask]))
    ratio = max(_ghost(image, mask, air, axis) for axis in range(3)) / body if body > 0 else 0.0
    if ratio <= GHOST_LIMIT:
        return None
    return Mark("motion-suspect", ratio, GHOST_LIMIT, "ghosts in line with the body")


def _ghost(image: Image, mask: Mask, air: Mask, axis: int) -> float:
    in_line = np.broadcast_to(mask.any(axis=axis, keepdims=True), mask.shape)
    beside, elsewhere = image[air & in_line], image[air & ~in_line]
    if min(beside.size, elsewhere.size) < _MIN_AIR:
        return 0.0
    return float(np.median(beside) - np.median(elsewhere))


def face_possible(image: Image, mask: Mask, geometry: Geometry) -> Mark | None:
    """The body is as large as a head with air around it, so that a face may be seen.

    A size tells nothing of what was cut away: a defaced head is marked as well, and a small
    child's head may not be. Where the background is zero, a brain alone is told from a head by
    its size.
    """
    limits = FACE_MM if zero_background(image) is None else MASKED_HEAD_MM
    if mask.mean() > 0.8:
        return None
    sizes = dict.fromkeys("RAS", 0.0)
    for axis in range(3):
        at = np.nonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))[0]
        letter = geometry.orientation[axis].translate(str.maketrans("LPI", "RAS"))
        sizes[letter] = float(at[-1] - at[0] + 1) * geometry.spacing[axis] if at.size else 0.0
    if any(size < limit for size, limit in zip(sizes.values(), limits, strict=True)):
        return None
    return Mark("face-possible", reason="a whole head; deface it if faces must not be trained on")


def signature(image: Image, geometry: Geometry, mask: Mask) -> list[float]:
    """Mean intensities of 8 x 8 x 8 equal parts in RAS order, as fractions of the scale.

    Flips turn its order around and do not change it otherwise: parts have fractional borders.
    """
    reduced = np.asarray(image, np.float32)
    for axis in range(3):
        weights = _parts(image.shape[axis]).astype(np.float32)
        reduced = np.moveaxis(np.tensordot(weights, reduced, (1, axis)), 0, axis)
    order = [
        next(a for a in range(3) if geometry.orientation[a] in pair) for pair in ("RL", "AP", "SI")
    ]
    parts = reduced.transpose(order) / intensity_scale(image, mask)
    return [round(float(v), 5) for v in parts.ravel()]


def _parts(length: int, count: int = 8) -> NDArray[np.float64]:
    """(count, length) weights: each row averages an equal part of an axis."""
    edges = np.linspace(0, length, count + 1)
    low, high = edges[:-1, None], edges[1:, None]
    index = np.arange(length)
    overlap = np.clip(np.minimum(high, index + 1) - np.maximum(low, index), 0, None)
    weights: NDArray[np.float64] = overlap / overlap.sum(axis=1, keepdims=True)
    return weights
