"""Bright lesions that a scan has of its own, and what is left of them after restoration.

There is no outline by a person here: a lesion is what stands out of the tissue of the clean scan
by a simple rule. That finds most lesions of multiple sclerosis in FLAIR, and some other bright
spots; contrast and volume are compared with the clean scan, so that this matters little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.preprocess.intensity import Mask

Image = NDArray[np.float32]

_SPREADS = 3.0
_MAD_TO_STD = 1.4826
_DEPTH_MM = 15.0
"""From the surface of the head: scalp, skull and meninges lie above."""
_SMALLEST_MM, _LARGEST_MM = 3.0, 25.0
_GAP_MM, _SHELL_MM = 1.0, 4.0
_LEAST_SHELL = 20


@dataclass(frozen=True)
class RealLesion:
    """One lesion with its surroundings; masks are of the box that `box` cuts out.

    Attributes:
        box: Slices (X, Y, Z) of the scan.
        mask: The lesion.
        shell: Tissue 1 to 4 mm around it, without other lesions.
        around: The lesion and what lies within 1 mm of it: where its volume is counted.
        diameter_mm: Of the sphere of its volume.
    """

    box: tuple[slice, ...]
    mask: Mask
    shell: Mask
    around: Mask
    diameter_mm: float


def find_lesions(
    image: Image, inside: Mask, tissue: Mask, spacing: Sequence[float]
) -> list[RealLesion]:
    """Bright spots of 3 mm or more: connected voxels over median + 3 robust standard deviations.

    Median and median absolute deviation are those of the tissue 15 mm below the surface.

    Args:
        image: (X, Y, Z), clean.
        inside: Its foreground, on the same grid.
        tissue: The foreground without fluid and air.
        spacing: Millimetres a voxel, for each axis.
    """
    padded = np.pad(inside, 1, mode="edge")  # the cut of a crop is no surface
    depth = ndimage.distance_transform_edt(padded, sampling=tuple(spacing))[1:-1, 1:-1, 1:-1]
    deep = tissue & (depth > _DEPTH_MM)
    if not deep.any():
        return []
    middle = float(np.median(image[deep]))
    spread = _MAD_TO_STD * float(np.median(np.abs(image[deep] - middle)))
    labels, _ = ndimage.label(deep & (image > middle + _SPREADS * spread))
    voxel, found = float(np.prod(spacing)), []
    for label, place in enumerate(ndimage.find_objects(labels), start=1):
        volume = voxel * int(np.sum(labels[place] == label))
        diameter = (6 * volume / math.pi) ** (1 / 3)
        if _SMALLEST_MM <= diameter <= _LARGEST_MM:
            lesion = _with_surroundings(labels, label, place, tissue, spacing, diameter)
            if int(lesion.shell.sum()) >= _LEAST_SHELL:
                found.append(lesion)
    return found


def lesion_contrast(image: Image, lesion: RealLesion) -> float:
    """Mean of the lesion less the median of its shell, in the units of the image."""
    part = image[lesion.box]
    return float(part[lesion.mask].mean()) - float(np.median(part[lesion.shell]))


def lesion_volume(image: Image, lesion: RealLesion, contrast: float) -> int:
    """Voxels that stand out of the shell's median by half of a contrast or more."""
    part = image[lesion.box]
    level = float(np.median(part[lesion.shell])) + 0.5 * contrast
    return int(np.sum(part[lesion.around] >= level))


def lesion_rows(
    clean: Image, noisy: Image, restored: Image, lesions: Sequence[RealLesion]
) -> list[dict[str, Any]]:
    """One row a lesion: contrast and volume in the clean scan, and the shares of them kept.

    "cnr" is the contrast over the standard deviation of the shell.

    Args:
        clean: (X, Y, Z), as a fraction of the scale.
        noisy: The same with noise.
        restored: What became of it.
        lesions: Of `find_lesions`, in the clean scan.
    """
    rows = []
    for lesion in lesions:
        truth = lesion_contrast(clean, lesion)
        voxels = lesion_volume(clean, lesion, truth)
        row: dict[str, Any] = {"diameter": lesion.diameter_mm, "contrast": truth}
        for name, image in (("clean", clean), ("noisy", noisy), ("restored", restored)):
            found = lesion_contrast(image, lesion)
            shell = float(image[lesion.box][lesion.shell].std())
            row[f"cnr_{name}"] = found / shell if shell > 0 else 0.0
            if name != "clean":
                row[f"contrast_{name}"] = found / truth
                row[f"volume_{name}"] = lesion_volume(image, lesion, truth) / voxels
        rows.append(row)
    return rows


def _with_surroundings(
    labels: NDArray[np.int32],
    label: int,
    place: tuple[slice, ...],
    tissue: Mask,
    spacing: Sequence[float],
    diameter: float,
) -> RealLesion:
    margins = [math.ceil(_SHELL_MM / step) for step in spacing]
    box = tuple(
        slice(max(part.start - margin, 0), min(part.stop + margin, length))
        for part, margin, length in zip(place, margins, labels.shape, strict=True)
    )
    mask: Mask = labels[box] == label
    distance = ndimage.distance_transform_edt(~mask, sampling=tuple(spacing))
    shell = (distance > _GAP_MM) & (distance <= _SHELL_MM) & tissue[box] & (labels[box] == 0)
    around = (distance <= _GAP_MM) & (mask | (labels[box] == 0))
    return RealLesion(box, mask, shell, around, diameter)
