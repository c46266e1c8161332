"""Mosaics: all slices of a volume as tiles of one image, by Siemens and by United Imaging."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medddpm.errors import DicomSeriesError
from medddpm.io.dicom_geometry import Slice, Vector, pixel_spacing, plane, position_of
from medddpm.io.dicom_kind import kind_of
from medddpm.io.dicom_order import order_of
from medddpm.io.dicom_values import number_or, numbers, whole, words

_UIH_GROUP, _UIH_COUNT, _UIH_SEQUENCE = 0x0065, 0x50, 0x51


@dataclass(frozen=True)
class _Tiles:
    """Size and position of the tiles, which fill the image row by row."""

    shape: tuple[int, int]
    positions: list[Vector]


def mosaic_slices(dataset: Dataset, path: Path) -> list[Slice] | None:
    """The tiles of a mosaic, None if the image is none.

    Raises:
        DicomSeriesError: The private header that tells the places of the tiles is missing.
    """
    flags = words(dataset, "ImageType")
    if "VFRAME" in flags:
        tiles = _uih(dataset, path)
    elif "MOSAIC" in flags:
        tiles = _siemens(dataset, path)
    else:
        return None
    row, column = plane((0.0, 0.0, 0.0), numbers(dataset, "ImageOrientationPatient", 6), path.name)[
        1:
    ]
    return [
        Slice(
            path=path,
            dataset=dataset,
            place=(tile, 0),
            shape=tiles.shape,
            position=position,
            row=row,
            column=column,
            spacing=pixel_spacing(dataset, path.name),
            order=order_of(dataset),
            kind=kind_of(dataset),
        )
        for tile, position in enumerate(tiles.positions)
    ]


def _uih(dataset: Dataset, path: Path) -> _Tiles:
    """United Imaging: a private sequence has an item for each tile, with its position.

    The position is that of the tile's own first pixel, and there are no more rows of tiles than
    are needed, as dcm2niix has it; Siemens' mosaics are square.
    """
    items = _uih_items(dataset)
    found = [numbers(item, "ImagePositionPatient", 3) for item in items]
    positions = [np.array(p) for p in found if p is not None]
    if len(positions) < 2 or len(positions) < len(items):
        raise DicomSeriesError(
            f"{path.name} is a mosaic of United Imaging (VFRAME) without the private sequence that "
            "tells the places of its slices; export it as single images, or without removing "
            "private tags"
        )
    count = len(positions)
    across = math.ceil(math.sqrt(count))
    down = math.ceil(count / across)
    return _Tiles(_tile_shape(dataset, path, count=count, across=across, down=down), positions)


def _uih_items(dataset: Dataset) -> list[Dataset]:
    """The items of the private sequence (0065,xx51); none if it is not as (0065,xx50) counts."""
    creators = [e.tag.element for e in dataset.group_dataset(_UIH_GROUP) if e.tag.element < 0x100]
    for block in creators or [0x10]:
        sequence = dataset.get((_UIH_GROUP, (block << 8) + _UIH_SEQUENCE))
        count = dataset.get((_UIH_GROUP, (block << 8) + _UIH_COUNT))
        if sequence is None or not isinstance(sequence.value, Sequence):
            continue
        told = len(sequence.value) if count is None else _as_number(count.value)
        return list(sequence.value) if told == len(sequence.value) else []
    return []


def _as_number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0


def _siemens(dataset: Dataset, path: Path) -> _Tiles:
    """Siemens: a private header tells the number of tiles and the slice normal.

    ImagePositionPatient is that of the mosaic's corner as if the mosaic were one slice of the
    first tile's centre: the first tile starts half of the difference of the sizes further on.
    """
    count, normal = _csa_layout(dataset)
    between = number_or(dataset, "SpacingBetweenSlices", 0.0)
    if count < 2 or normal is None or between <= 0:
        raise DicomSeriesError(
            f"{path.name} is a Siemens mosaic without the private header that tells the number and "
            "the direction of its slices; export it again without removing private tags"
        )
    position, row, column = position_of(dataset, path.name)
    spacing = pixel_spacing(dataset, path.name)
    side = math.ceil(math.sqrt(count))
    columns, rows = _tile_shape(dataset, path, count=count, across=side, down=side)
    corner = (
        position
        + row * spacing[0] * (whole(dataset, "Columns") - columns) / 2
        + column * spacing[1] * (whole(dataset, "Rows") - rows) / 2
    )
    return _Tiles((columns, rows), [corner + tile * between * normal for tile in range(count)])


def _tile_shape(
    dataset: Dataset, path: Path, *, count: int, across: int, down: int
) -> tuple[int, int]:
    """(columns, rows) of one of so many tiles across and down."""
    columns, rows = whole(dataset, "Columns"), whole(dataset, "Rows")
    if columns % across or rows % down or columns < across or rows < down:
        raise DicomSeriesError(
            f"{path.name} is a mosaic of {count} slices, but {columns} x {rows} pixels do not "
            f"divide into {across} x {down} tiles; export it again"
        )
    return columns // across, rows // down


def _csa_layout(dataset: Dataset) -> tuple[int, NDArray[np.float64] | None]:
    """Number of tiles and slice normal (LPS) from Siemens' private CSA header; 0 if unknown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # nicom calls itself experimental
        csareader: Any = import_module("nibabel.nicom.csareader")  # untyped

    try:
        header = csareader.get_csa_header(dataset, "image")
        if header is None:
            return 0, None
        normal = csareader.get_slice_normal(header)
        count = int(csareader.get_n_mosaic(header) or 0)
    except Exception:  # a damaged header makes nibabel raise anything
        return 0, None
    normal = None if normal is None else np.asarray(normal, dtype=np.float64)
    is_unit = normal is not None and normal.shape == (3,) and abs(np.linalg.norm(normal) - 1) < 0.01
    return count, normal if is_unit else None
