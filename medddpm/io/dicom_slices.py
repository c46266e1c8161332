"""Slices of classic images, enhanced multi-frame objects and mosaics, and their pixels."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder

from medddpm.errors import DicomSeriesError, missing_extra
from medddpm.io.dicom_files import read_object
from medddpm.io.dicom_geometry import SAME_PLACE_MM, Slice, pixel_spacing, plane, position_of
from medddpm.io.dicom_groups import group, groups_of, items_of
from medddpm.io.dicom_kind import kind_of
from medddpm.io.dicom_mosaic import mosaic_slices
from medddpm.io.dicom_order import frame_order, order_of
from medddpm.io.dicom_values import number, numbers, text, whole

_SAME_ECHO_MS = 0.01
_NUMBERS = ("RepetitionTime", "EchoTime", "TriggerTime", "RescaleSlope", "RescaleIntercept")
_WHOLE = (
    "SeriesNumber",
    "InstanceNumber",
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "BitsAllocated",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
)


def slices_of(dataset: Dataset, path: Path) -> list[Slice]:
    """All slices in one file.

    Args:
        dataset: Its header, without pixels.
        path: The file, to read the pixels later.

    Raises:
        DicomSeriesError: Geometry is missing or is no geometry, or the image has colours.
    """
    _check_grey(dataset, path)
    for keyword in _NUMBERS:
        number(dataset, keyword)
    for keyword in _WHOLE:
        whole(dataset, keyword)
    if min(whole(dataset, "Rows"), whole(dataset, "Columns")) < 1:
        raise DicomSeriesError(f"{path.name} has no Rows or Columns; export it again")
    frames = items_of(dataset, "PerFrameFunctionalGroupsSequence")
    if frames:
        if whole(dataset, "NumberOfFrames", len(frames)) != len(frames):
            raise DicomSeriesError(
                f"{path.name} tells another number of frames than it describes; export it again"
            )
        return [_enhanced_slice(dataset, path, index) for index in range(len(frames))]
    if whole(dataset, "NumberOfFrames", 1) > 1:
        raise DicomSeriesError(
            f"{path.name} has several frames and no functional groups, so their places are unknown"
        )
    return mosaic_slices(dataset, path) or [_classic_slice(dataset, path)]


def _check_grey(dataset: Dataset, path: Path) -> None:
    if text(dataset, "PhotometricInterpretation").upper() == "PALETTE COLOR":
        raise DicomSeriesError(
            f"{path.name} is a colour image (PALETTE COLOR): its pixels are numbers of colours in "
            "a palette, not intensities; a magnitude image is needed"
        )
    if whole(dataset, "SamplesPerPixel", 1) != 1:
        raise DicomSeriesError(f"{path.name} is a colour image; a magnitude image is needed")


def read_pixels(path: Path) -> NDArray[np.float32]:
    """The pixels of one file in real units.

    Stored values are turned by slope and intercept, of each frame in an enhanced object: see
    `rescale_of`.

    Returns:
        (frames, rows, columns) float32.

    Raises:
        DicomSeriesError: No pixels, cut short, or no decoder is installed.
    """
    dataset = read_object(path)
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise DicomSeriesError(f"{path.name} has no pixel data; export the series again")
    try:
        stored = np.asarray(dataset.pixel_array)
    except Exception as error:  # decoder plugins raise anything
        raise DicomSeriesError(_why_no_pixels(dataset, path, error)) from error
    frames = stored.reshape(-1, int(dataset.Rows), int(dataset.Columns)).astype(np.float32)
    for index in range(len(frames)):
        frames[index] = in_real_units(frames[index], rescale_of(dataset, index))
    return frames


def in_real_units(stored: NDArray[np.float32], scaling: tuple[float, float]) -> NDArray[np.float32]:
    """Stored values times slope plus intercept."""
    slope, intercept = scaling
    if scaling == (1.0, 0.0):
        return stored
    with np.errstate(over="ignore", invalid="ignore"):  # infinity is refused when all are read
        real: NDArray[np.float32] = (stored.astype(np.float64) * slope + intercept).astype(
            np.float32
        )
    return real


def _why_no_pixels(dataset: Dataset, path: Path, error: Exception) -> str:
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_compressed:
        try:
            usable = get_decoder(syntax).is_available
        except NotImplementedError:
            return f"{path.name} is compressed in a way that pydicom does not know"
        if not usable:
            what = f"{path.name} is compressed as {syntax.name}, whose decoder"
            return missing_extra(what, "dicom")
    return f"the pixels of {path.name} cannot be decoded ({type(error).__name__}); is it cut short?"


def rescale_of(dataset: Dataset, index: int = 0) -> tuple[float, float]:
    """Slope and intercept from stored to real values of one frame.

    RescaleSlope and RescaleIntercept (PS3.3 C.11.1.1.2) are taken, and also where the linear
    mapping of RealWorldValueMappingSequence (C.7.6.16.2.11) disagrees: it is another reading of
    the stored values, not a second step. It is taken where the rescale attributes are absent, or
    are 1 and 0 and so say nothing, as Philips exports with combined rescaling are; mappings by a
    table are not. dcm2niix has the same order. Philips' private scale slope (2005,100E), which
    dcm2niix applies unless it is told "-p n", is not applied.

    Args:
        dataset: A classic image or an enhanced object.
        index: The frame.
    """
    item = dataset
    if "PerFrameFunctionalGroupsSequence" in dataset:
        item = group(dataset, index, "PixelValueTransformationSequence")
    slope, intercept = _linear(item, "RescaleSlope", "RescaleIntercept") or (1.0, 0.0)
    if (slope, intercept) != (1.0, 0.0):
        return slope, intercept
    mappings = groups_of(dataset, index, "RealWorldValueMappingSequence")
    found = (_linear(m, "RealWorldValueSlope", "RealWorldValueIntercept") for m in mappings)
    return next((pair for pair in found if pair is not None), (1.0, 0.0))


def _linear(item: Dataset, slope: str, intercept: str) -> tuple[float, float] | None:
    """The two values of a linear mapping; None if there is no slope."""
    factor = number(item, slope)
    return None if factor is None else (factor, number(item, intercept) or 0.0)


def _classic_slice(dataset: Dataset, path: Path) -> Slice:
    position, row, column = position_of(dataset, path.name)
    return Slice(
        path=path,
        dataset=dataset,
        place=(0, 0),
        shape=(whole(dataset, "Columns"), whole(dataset, "Rows")),
        position=position,
        row=row,
        column=column,
        spacing=pixel_spacing(dataset, path.name),
        order=order_of(dataset),
        kind=kind_of(dataset),
    )


def _enhanced_slice(dataset: Dataset, path: Path, index: int) -> Slice:
    what = f"frame {index + 1} of {path.name}"
    position, row, column = plane(
        numbers(group(dataset, index, "PlanePositionSequence"), "ImagePositionPatient", 3),
        numbers(group(dataset, index, "PlaneOrientationSequence"), "ImageOrientationPatient", 6),
        what,
    )
    return Slice(
        path=path,
        dataset=dataset,
        place=(0, index),
        shape=(whole(dataset, "Columns"), whole(dataset, "Rows")),
        position=position,
        row=row,
        column=column,
        spacing=pixel_spacing(group(dataset, index, "PixelMeasuresSequence"), what),
        order=frame_order(dataset, index),
        kind=kind_of(dataset, index),
        stack_id=text(group(dataset, index, "FrameContentSequence"), "StackID"),
    )


def slice_pixels(pixels: NDArray[np.float32], item: Slice) -> NDArray[np.float32]:
    """Cut one slice out of the pixels of its file.

    Args:
        pixels: (frames, rows, columns), from `read_pixels`.
        item: The slice.

    Returns:
        (columns, rows).
    """
    tile, frame = item.place
    columns, rows = item.shape
    across = pixels.shape[2] // columns
    top, left = tile // across * rows, tile % across * columns
    return pixels[frame, top : top + rows, left : left + columns].T


def split(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Parts that are a volume each.

    Slices that show different things never lie in one; those of several echoes, stacks or flavours
    do unless they repeat places, and mosaics only where they did not move.
    """
    return [
        part
        for shown in _by_content(slices)
        for kind in (_by_kind(shown) if _repeats(shown) else [shown])
        for part in _by_start(kind)
    ]


def _repeats(slices: Sequence[Slice]) -> bool:
    places = {tuple(np.round(s.position / SAME_PLACE_MM).astype(int)) for s in slices}
    return len(places) < len(slices)


def _by_start(slices: list[Slice]) -> list[list[Slice]]:
    """Mosaics by where they begin; all else together."""
    if not any(s.place[0] > 0 for s in slices):
        return [slices]
    starts = {s.path: s.position for s in slices if s.place == (0, 0)}
    moved: dict[tuple[int, ...], list[Slice]] = {}
    for item in slices:
        start = np.round(starts[item.path] / SAME_PLACE_MM).astype(int)
        moved.setdefault(tuple(start), []).append(item)
    return list(moved.values())


def _by_content(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Split slices by what they show, in order of first appearance."""
    return _grouped(slices, [item.kind.shows for item in slices])


def _by_kind(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Split slices by echo, kind and stack, in order of first appearance."""
    echoes = _echo_numbers(slices)
    return _grouped(
        slices, [(item.stack_id, echoes[item.kind.echo], item.kind.flavour) for item in slices]
    )


def _grouped(slices: Sequence[Slice], keys: Sequence[Hashable]) -> list[list[Slice]]:
    groups: dict[Hashable, list[Slice]] = {}
    for key, item in zip(keys, slices, strict=True):
        groups.setdefault(key, []).append(item)
    return list(groups.values())


def _echo_numbers(slices: Sequence[Slice]) -> dict[float | None, int]:
    """Echo times to numbers; those that differ by rounding only share one."""
    numbered: dict[float | None, int] = {None: -1}
    before, current = -np.inf, 0
    for echo in sorted({s.kind.echo for s in slices if s.kind.echo is not None}):
        current += echo - before > _SAME_ECHO_MS
        numbered[echo], before = current, echo
    return numbered
