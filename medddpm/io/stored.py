"""The number type of an output: float32, or integers as the input has them or as was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medddpm.errors import ConfigError
from medddpm.io.dicom_slices import rescale_of
from medddpm.io.dicom_values import whole
from medddpm.volume import Volume

NumberType = Literal["float32", "input", "uint8", "int16", "uint16", "int32"]


@dataclass(frozen=True)
class Stored:
    """Integers that stand for values: value = slope * integer + inter.

    Attributes:
        dtype: Name of numpy's type.
        slope: The step between two values.
        inter: The value of 0.
    """

    dtype: str
    slope: float = 1.0
    inter: float = 0.0

    def integers(self, data: NDArray[Any]) -> NDArray[Any]:
        """The nearest integers of the type, halves to even; values beyond it become its ends."""
        low, high = self._ends()
        steps = np.rint((data.astype(np.float64) - self.inter) / self.slope)
        return np.clip(steps, low, high).astype(self.dtype)

    def rounded(self, data: NDArray[Any]) -> tuple[NDArray[np.float32], int]:
        """What a reader of the file gets, and how many voxels lay beyond the type."""
        low, high = self._ends()
        steps = np.rint((data.astype(np.float64) - self.inter) / self.slope)
        values = self.integers(data).astype(np.float64) * self.slope + self.inter
        return values.astype(np.float32), int(((steps < low) | (steps > high)).sum())

    def _ends(self) -> tuple[float, float]:
        ends = np.iinfo(self.dtype)
        high = float(ends.max)
        # the end of 64 bits is no float64, and the next one is beyond it
        return float(ends.min), high if int(high) == ends.max else float(np.nextafter(high, 0))


def stored_as(volume: Volume, wanted: NumberType) -> Stored | None:
    """How an output like this volume is stored; None is float32.

    Named types have steps of 1. "input" has the type and the steps of the input's file, so that a
    voxel that did not change is the same integer; input of another kind than integers is float32.

    Args:
        volume: As it was read.
        wanted: What was asked for.

    Raises:
        ConfigError: The slices of a DICOM series have different steps.
    """
    if wanted == "float32":
        return None
    if wanted != "input":
        return Stored(wanted)
    if volume.format == "dicom" and volume.native:
        return _of_dicom(volume)
    if (
        volume.format == "dicom"
        or volume.native is None
        or np.dtype(volume.native.get_data_dtype()).kind not in "iu"
    ):
        return None
    name = np.dtype(volume.native.get_data_dtype()).name
    if volume.format == "mgh":
        return Stored(name)
    slope, inter = volume.native.get_slope_inter()
    return Stored(name, float(slope or 1.0), float(inter or 0.0))


def _of_dicom(volume: Volume) -> Stored:
    steps = {rescale_of(volume.native[n], frame) for n, frame in set(volume.native.places)}
    if len(steps) > 1:
        raise ConfigError(
            f"--dtype input: the slices have {len(steps)} different rescale slopes, which no one "
            "integer type holds; take --dtype float32, or int16 for whole numbers"
        )
    first = volume.native[0]
    signed, bits = whole(first, "PixelRepresentation") == 1, whole(first, "BitsAllocated", 16)
    return Stored(f"{'' if signed else 'u'}int{bits}", *steps.pop())
