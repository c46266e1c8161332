"""Pixels outside the image that hold a value of their own (PS3.3 C.7.5.1.1.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medddpm.io.dicom_geometry import Slice
from medddpm.io.dicom_slices import in_real_units, rescale_of
from medddpm.io.dicom_values import number, whole
from medddpm.volume import Volume

Mask = NDArray[np.bool_]


def padding_range(dataset: Dataset) -> tuple[int, int] | None:
    """Lowest and highest stored value that is padding; None without Pixel Padding Value.

    Some writers encode the value as if pixels were unsigned, or signed, where they are not; it is
    taken modulo the size of a pixel.
    """
    if number(dataset, "PixelPaddingValue") is None:
        return None
    value = whole(dataset, "PixelPaddingValue")
    limit = whole(dataset, "PixelPaddingRangeLimit", value)
    bits, is_signed = whole(dataset, "BitsAllocated", 16), whole(dataset, "PixelRepresentation")
    ends = [_wrapped(v, bits, is_signed == 1) for v in (value, limit)]
    return min(ends), max(ends)


def is_padding(item: Slice, real: NDArray[np.float32]) -> Mask | None:
    """Which pixels of a slice are padding; None if its header names no such value.

    Args:
        item: The slice.
        real: Its pixels in real units, from `read_pixels`.
    """
    ends = padding_range(item.dataset)
    if ends is None:
        return None
    scaling = rescale_of(item.dataset, item.place[1])
    low, high = np.sort(in_real_units(np.array(ends, dtype=np.float32), scaling))
    return np.asarray((real >= low) & (real <= high))


def padding_of(volume: Volume) -> Mask | None:
    """Voxels of a scan as it was read that are padding; None if there are none."""
    found: Mask | None = getattr(volume.native, "padding", None)
    return found if found is not None and found.shape == volume.data.shape else None


def without_padding(volume: Volume) -> Volume:
    """The scan with background, 0, where there was padding."""
    padding = padding_of(volume)
    return volume if padding is None else volume.with_data(np.where(padding, 0, volume.data))


def with_padding(made: Volume, source: Volume) -> Volume:
    """What was made of a scan, with the scan's padding as it was."""
    padding = padding_of(source)
    return made if padding is None else made.with_data(np.where(padding, source.data, made.data))


def set_padding(dataset: Dataset, source: Dataset, stored: NDArray[Any], padding: Mask) -> None:
    """Say which stored values of a derived image are padding, if they are one value.

    Args:
        dataset: With pixels.
        source: The header that the image was made of.
        stored: Its pixels.
        padding: Which of them are padding, of the same shape.
    """
    if padding_range(source) is None or not padding.any():
        return
    low, high = int(stored[padding].min()), int(stored[padding].max())
    if ((stored >= low) & (stored <= high) & ~padding).any():
        return  # it would hide pixels of the image
    dataset.PixelPaddingValue = low
    if high > low:
        dataset.PixelPaddingRangeLimit = high


def _wrapped(value: int, bits: int, is_signed: bool) -> int:
    value %= 2**bits
    return value - 2**bits if is_signed and value >= 2 ** (bits - 1) else value
