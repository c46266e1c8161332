"""What a report draws of a scan: the box of its foreground, in RAS order, with windows for it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.preprocess.intensity import foreground_mask
from medddpm.report.facts import Image, ReportScan
from medddpm.report.planes import Window, middle_of, stack_axis, tissue_windows
from medddpm.volume import Volume


@dataclass(frozen=True)
class Cropped:
    """The arrays of a scan in RAS order, cropped.

    Attributes:
        arrays: "before" and "after"; "std" and "reference" if there are.
        affine: (4, 4), voxel to mm.
        whole: Voxels of the whole scan along each axis.
        sigma: Noise that was assumed, in scan units.
    """

    arrays: dict[str, Image]
    affine: NDArray[np.float64]
    whole: tuple[int, ...]
    sigma: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        x, y, z = self.arrays["after"].shape
        return x, y, z

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Edges of a voxel in mm."""
        x, y, z = (float(v) for v in np.linalg.norm(self.affine[:3, :3], axis=0))
        return x, y, z

    @property
    def axis(self) -> int:
        """The axis across which a person looks first."""
        return stack_axis(self.spacing)

    @cached_property
    def middle(self) -> tuple[int, int, int]:
        """Where a person looks first."""
        return middle_of(self.arrays["after"])

    @cached_property
    def windows(self) -> list[Window]:
        """By the percentiles of the tissue; the first is the one to begin with."""
        return tissue_windows(self.arrays["after"], self.spacing)

    @property
    def removed(self) -> Image:
        """Before less after, in scan units."""
        return self.arrays["before"] - self.arrays["after"]

    @property
    def unit(self) -> str:
        """What `spread` is called."""
        return "sigma" if self.sigma > 0 else "standard deviations"

    @property
    def spread(self) -> float:
        """Sigma; where none was assumed, the deviation of what was removed."""
        return self.sigma if self.sigma > 0 else float(np.std(self.removed)) or 1.0


def crop(scan: ReportScan) -> Cropped:
    """The box of the foreground of both scans with a margin."""
    named = {"before": scan.before, "after": scan.after, "std": scan.std,
             "reference": scan.reference}  # fmt: skip
    turned = {
        name: Volume(array, scan.geometry).to_ras()
        for name, array in named.items()
        if array is not None
    }
    inside = foreground_mask(turned["before"].data) | foreground_mask(turned["after"].data)
    found = ndimage.find_objects(inside.astype(np.uint8))
    box = _with_margin(found[0], inside.shape) if found else tuple(map(slice, inside.shape))
    offset = np.eye(4)
    offset[:3, 3] = [s.start or 0 for s in box]
    arrays = {name: volume.data[box] for name, volume in turned.items()}
    return Cropped(arrays, turned["after"].affine @ offset, inside.shape, scan.sigma)


def _with_margin(box: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(
        slice(max(0, s.start - (m := max(1, (s.stop - s.start) // 20))), min(n, s.stop + m))
        for s, n in zip(box, shape, strict=True)
    )
