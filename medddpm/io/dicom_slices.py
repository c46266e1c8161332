"""Slices of classic images, enhanced multi-frame objects and Siemens mosaics."""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder

from medddpm.errors import DicomSeriesError, missing_extra
from medddpm.io.dicom_geometry import Slice, plane

_IN_STACK_POSITION, _STACK_ID = 0x00209057, 0x00209056
_POSITION, _TEMPORAL = 0x00200032, 0x00209128


def slices_of(dataset: Dataset, path: Path) -> list[Slice]:
    """All slices in one file.

    Args:
        dataset: Its header, without pixels.
        path: The file, to read the pixels later.

    Raises:
        DicomSeriesError: Geometry is missing or is no geometry, or the image has colours.
    """
    if int(dataset.get("SamplesPerPixel") or 1) != 1:
        raise DicomSeriesError(f"{path.name} is a colour image; a magnitude image is needed")
    if "PerFrameFunctionalGroupsSequence" in dataset:
        groups = dataset.PerFrameFunctionalGroupsSequence
        return [_enhanced_slice(dataset, path, index) for index in range(len(groups))]
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise DicomSeriesError(
            f"{path.name} has several frames and no functional groups, so their places are unknown"
        )
    if "MOSAIC" in (dataset.get("ImageType") or []):
        return _mosaic_slices(dataset, path)
    return [_classic_slice(dataset, path)]


def read_pixels(path: Path) -> NDArray[np.float32]:
    """The pixels of one file in real units.

    Stored values are turned by slope and intercept, of each frame in an enhanced object: see
    `rescale_of`.

    Returns:
        (frames, rows, columns) float32.

    Raises:
        DicomSeriesError: No pixels, cut short, or no decoder is installed.
    """
    dataset = dcmread(path)
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise DicomSeriesError(f"{path.name} has no pixel data; export the series again")
    try:
        stored = np.asarray(dataset.pixel_array)
    except Exception as error:  # decoder plugins raise anything
        raise DicomSeriesError(_why_no_pixels(dataset, path, error)) from error
    frames = stored.reshape(-1, int(dataset.Rows), int(dataset.Columns)).astype(np.float32)
    for index in range(len(frames)):
        slope, intercept = rescale_of(dataset, index)
        if (slope, intercept) != (1.0, 0.0):
            frames[index] = frames[index].astype(np.float64) * slope + intercept
    return frames


def _why_no_pixels(dataset: Dataset, path: Path, error: Exception) -> str:
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_compressed:
        try:
            usable = get_decoder(syntax).is_available
        except NotImplementedError:
            return f"{path.name} is compressed as {syntax.name}, which pydicom does not know"
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
    item: Any = dataset
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
    if item.get(slope) in (None, ""):
        return None
    return float(item[slope].value), _number(item.get(intercept))


def group(dataset: Dataset, index: int, name: str) -> Dataset:
    """One functional group of a frame (PS3.3 C.7.6.16): its own, the shared one, or the root's.

    Returns:
        The first item of the sequence `name`; an empty data set if there is none.
    """
    return next(iter(groups_of(dataset, index, name)), Dataset())


def groups_of(dataset: Dataset, index: int, name: str) -> list[Dataset]:
    """All items of the sequence `name` that hold for a frame; most sequences have one."""
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for holder in [*frames[index : index + 1], *shared[:1], dataset]:
        items = holder.get(name)
        if items:
            return [Dataset(item) for item in items]
    return []


def _spacing(value: Any, what: str) -> tuple[float, float]:
    """PixelSpacing is (between rows, between columns); ours is (along a row, along a column)."""
    if value is None or len(value) != 2 or min(float(v) for v in value) <= 0:
        raise DicomSeriesError(f"{what} has no PixelSpacing, so its size is unknown")
    return float(value[1]), float(value[0])


def _number(value: Any) -> float:
    return float(value) if value not in (None, "") else 0.0


def _component(image_type: Any) -> str:
    """Magnitude, phase, real or imaginary, from ImageType; "" if it does not tell."""
    values = [str(v) for v in (image_type or [])][2:]
    return next((v for v in values if v in ("M", "P", "R", "I") or v.endswith("_FFE")), "")


def _classic_slice(dataset: Dataset, path: Path) -> Slice:
    position, row, column = plane(
        dataset.get("ImagePositionPatient"), dataset.get("ImageOrientationPatient"), path.name
    )
    order = ("TemporalPositionIdentifier", "AcquisitionNumber", "InstanceNumber")
    return Slice(
        path=path,
        dataset=dataset,
        place=(0, 0),
        shape=(int(dataset.Columns), int(dataset.Rows)),
        position=position,
        row=row,
        column=column,
        spacing=_spacing(dataset.get("PixelSpacing"), path.name),
        order=tuple(_number(dataset.get(name)) for name in order),
        kind=(str(dataset.get("EchoTime")), _component(dataset.get("ImageType"))),
    )


def _enhanced_slice(dataset: Dataset, path: Path, index: int) -> Slice:
    what = f"frame {index + 1} of {path.name}"
    position, row, column = plane(
        group(dataset, index, "PlanePositionSequence").get("ImagePositionPatient"),
        group(dataset, index, "PlaneOrientationSequence").get("ImageOrientationPatient"),
        what,
    )
    content = group(dataset, index, "FrameContentSequence")
    frame_type = group(dataset, index, "MRImageFrameTypeSequence")
    return Slice(
        path=path,
        dataset=dataset,
        place=(0, index),
        shape=(int(dataset.Columns), int(dataset.Rows)),
        position=position,
        row=row,
        column=column,
        spacing=_spacing(group(dataset, index, "PixelMeasuresSequence").get("PixelSpacing"), what),
        order=(*_dimension_order(dataset, content), float(index)),
        kind=(
            str(content.get("StackID")),
            str(group(dataset, index, "MREchoSequence").get("EffectiveEchoTime")),
            str(frame_type.get("ComplexImageComponent") or _component(frame_type.get("FrameType"))),
        ),
    )


def _dimension_order(dataset: Dataset, content: Dataset) -> tuple[float, ...]:
    """Temporal index, then the dimension indices that are not about place (C.7.6.17)."""
    pointers = [int(d.DimensionIndexPointer) for d in dataset.get("DimensionIndexSequence") or []]
    values: Any = content.get("DimensionIndexValues")
    values = [values] if isinstance(values, int) else list(values or [])
    about_place = (_IN_STACK_POSITION, _STACK_ID, _POSITION)
    others = [float(v) for p, v in zip(pointers, values, strict=False) if p not in about_place] or [
        0.0
    ]
    return (_number(content.get("TemporalPositionIndex")), *others)


def _mosaic_slices(dataset: Dataset, path: Path) -> list[Slice]:
    """The tiles of a Siemens mosaic.

    ImagePositionPatient is that of the mosaic's corner as if the mosaic were one slice of the
    first tile's centre: the first tile starts half of the difference of the sizes further on.
    """
    count, normal = _mosaic_layout(dataset)
    between = _number(dataset.get("SpacingBetweenSlices"))
    if count < 2 or normal is None or between <= 0:
        raise DicomSeriesError(
            f"{path.name} is a Siemens mosaic without the private header that tells the number and "
            "the direction of its slices; export it again without removing private tags"
        )
    position, row, column = plane(
        dataset.get("ImagePositionPatient"), dataset.get("ImageOrientationPatient"), path.name
    )
    spacing = _spacing(dataset.get("PixelSpacing"), path.name)
    side = math.ceil(math.sqrt(count))
    columns, rows = int(dataset.Columns) // side, int(dataset.Rows) // side
    if (columns * side, rows * side) != (int(dataset.Columns), int(dataset.Rows)):
        raise DicomSeriesError(
            f"{path.name} is a mosaic of {count} slices, but {dataset.Columns} x {dataset.Rows} "
            f"pixels do not divide into {side} x {side} tiles; export it again"
        )
    corner = (
        position
        + row * spacing[0] * (int(dataset.Columns) - columns) / 2
        + column * spacing[1] * (int(dataset.Rows) - rows) / 2
    )
    order = ("AcquisitionNumber", "InstanceNumber")
    return [
        Slice(
            path=path,
            dataset=dataset,
            place=(tile, 0),
            shape=(columns, rows),
            position=corner + tile * between * np.asarray(normal, dtype=np.float64),
            row=row,
            column=column,
            spacing=spacing,
            order=tuple(_number(dataset.get(name)) for name in order),
            kind=(str(dataset.get("EchoTime")), _component(dataset.get("ImageType"))),
        )
        for tile in range(count)
    ]


def _mosaic_layout(dataset: Dataset) -> tuple[int, NDArray[np.float64] | None]:
    """Number of tiles and slice normal (LPS) from Siemens' private CSA header; 0 if unknown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # nicom calls itself experimental
        csareader: Any = import_module("nibabel.nicom.csareader")  # untyped

        try:
            header = csareader.get_csa_header(dataset, "image")
        except (csareader.CSAReadError, struct.error, ValueError):  # damaged
            header = None
    if header is None:
        return 0, None
    return int(csareader.get_n_mosaic(header) or 0), csareader.get_slice_normal(header)


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


def by_kind(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Split slices by echo, component and stack, in order of first appearance."""
    kinds: dict[tuple[str, ...], list[Slice]] = {}
    for item in slices:
        kinds.setdefault(item.kind, []).append(item)
    return list(kinds.values())
