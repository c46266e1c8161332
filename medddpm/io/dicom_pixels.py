"""Intensities to stored values, and stored values to bytes (PS3.3 C.7.6.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, RLELossless
from pydicom.valuerep import DSfloat

from medddpm.errors import ConfigError
from medddpm.io.dicom_groups import items_of
from medddpm.io.dicom_padding import Mask, padding_of, set_padding
from medddpm.io.dicom_slices import rescale_of
from medddpm.io.dicom_values import text
from medddpm.volume import Volume

TransferSyntax = Literal["explicit", "rle", "jpeg2000-lossless"]

_SYNTAXES = {"rle": RLELossless, "jpeg2000-lossless": JPEG2000Lossless}
_LEAST_JPEG2000 = 32
_MOST_BYTES = 2**32 - 2  # what the length of one element can say


@dataclass(frozen=True)
class Stored:
    """Integers for the file: intensity = stored * slope.

    Attributes:
        values: Of the shape of the volume.
        slope: Back to intensities.
        padding: Which of them are padding; None if there is none.
    """

    values: NDArray[Any]
    slope: float
    padding: Mask | None = None


def to_stored(volume: Volume) -> Stored:
    """The intensities of a volume as integers, unscaled where the source had integers."""
    made = to_integers(volume.data, keep_units=_has_integers(volume))
    return replace(made, padding=padding_of(volume))


def to_integers(data: NDArray[np.float32], *, keep_units: bool) -> Stored:
    """Intensities as 16-bit integers.

    Args:
        data: Any shape.
        keep_units: Round only, if the range allows; else the largest value becomes 32767.

    Returns:
        uint16, or int16 if there are negative values, and the slope back to intensities.
    """
    low, high = float(data.min()), float(data.max())
    top = max(high, -low, 1e-30)
    fits = low >= -32768 and high <= (65535 if low >= 0 else 32767)
    slope = 1.0 if keep_units and fits and top >= 255 else float(DSfloat(top / 32767, True))
    values = np.rint(data.astype(np.float64) / slope)
    return Stored(values.astype(np.int16 if values.min() < 0 else np.uint16), slope)


def _has_integers(volume: Volume) -> bool:
    if volume.format != "dicom" or not volume.native:
        return bool(np.array_equal(volume.data, np.rint(volume.data)))
    scales = {
        rescale_of(dataset, index)
        for dataset in volume.native
        for index in range(len(items_of(dataset, "PerFrameFunctionalGroupsSequence")) or 1)
    }
    return all(slope == 1 and intercept == int(intercept) for slope, intercept in scales)


def frames_of(values: NDArray[Any]) -> NDArray[Any]:
    """(X, Y, Z) or (X, Y, Z, T) as (frames, rows, columns), slices fastest, little endian."""
    columns, rows = values.shape[:2]
    frames = values.reshape(columns, rows, values.shape[2], -1).transpose(3, 2, 1, 0)
    order = values.dtype.newbyteorder("<")
    return np.ascontiguousarray(frames.reshape(-1, rows, columns), dtype=order)


def check_pixels(shape: tuple[int, ...], num_bytes: int, syntax: TransferSyntax) -> None:
    """Raise ConfigError if an object cannot hold such pixels.

    Args:
        shape: ([frames,] rows, columns).
        num_bytes: Of one pixel.
        syntax: OpenJPEG's five wavelet levels need 32 pixels a side.
    """
    rows, columns = shape[-2:]
    if math.prod(shape) * num_bytes > _MOST_BYTES:
        raise ConfigError(
            f"{math.prod(shape) * num_bytes / 1e9:.1f} GB of pixels do not fit into one DICOM "
            "object; write one file a slice (dicom.objects=classic)"
        )
    if syntax == "jpeg2000-lossless" and min(rows, columns) < _LEAST_JPEG2000:
        raise ConfigError(
            f"an image of {columns} x {rows} pixels is too small for JPEG 2000; "
            "use dicom.transfer_syntax=rle"
        )


def set_pixels(dataset: Dataset, frames: NDArray[Any]) -> None:
    """Grey pixels of 16-bit integers, or of floats, and the attributes that describe them.

    Args:
        dataset: The object.
        frames: ([frames,] rows, columns).

    Raises:
        ConfigError: More than one element of a file can hold.
    """
    check_pixels(frames.shape, frames.itemsize, "explicit")
    dataset.Rows, dataset.Columns = frames.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = 8 * frames.itemsize
    if frames.dtype.kind == "f":
        dataset.FloatPixelData = frames.tobytes()
        return
    dataset.BitsStored, dataset.HighBit = 16, 15
    dataset.PixelRepresentation = int(frames.dtype.kind == "i")
    dataset.PixelData = frames.tobytes()


def describe_pixels(
    dataset: Dataset, source: Dataset, frames: NDArray[Any], padding: NDArray[Any] | None
) -> None:
    """Say of pixels what their source says of its own: polarity and padding.

    Values are kept as they are, so that what was white at 0 stays so.

    Args:
        dataset: With pixels.
        source: The header that they were made of.
        frames: The pixels.
        padding: Which of them are padding, of the same shape.
    """
    if text(source, "PhotometricInterpretation").upper() == "MONOCHROME1":
        dataset.PhotometricInterpretation = "MONOCHROME1"
        if "PresentationLUTShape" in dataset:
            dataset.PresentationLUTShape = "INVERSE"
    if padding is not None:
        set_padding(dataset, source, frames, padding.astype(bool))


def compress(dataset: Dataset, syntax: TransferSyntax) -> None:
    """Encode the pixels without loss; the UID of the object stays, for its values do."""
    if syntax != "explicit":
        dataset.compress(_SYNTAXES[syntax], generate_instance_uid=False)
