"""From slice positions to an affine: PS3.3 C.7.6.2.1.1, and LPS to RAS (only here)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medddpm.errors import DicomSeriesError
from medddpm.io.dicom_kind import Kind
from medddpm.io.dicom_values import numbers

Vector = NDArray[np.float64]

SAME_PLACE_MM = 1e-2  # slices closer than this are repeats of one place
UNEQUAL = 1e-2  # relative: spacing, shear and orientation may differ by this


@dataclass(frozen=True)
class Slice:
    """One plane of a series, wherever its pixels are.

    Attributes:
        path: Its file.
        dataset: The file's header, without pixels.
        place: (tile, frame) in the file; (0, 0) for a classic image.
        shape: (columns, rows).
        position: Centre of the first voxel, mm, LPS.
        row: Unit vector along which the column index grows, LPS.
        column: Unit vector along which the row index grows, LPS.
        spacing: mm along `row` and `column`.
        order: Sorts repeats of one place in time.
        kind: What must be equal within one volume.
        stack_id: Of a frame of an enhanced object.
    """

    path: Path
    dataset: Dataset
    place: tuple[int, int]
    shape: tuple[int, int]
    position: Vector
    row: Vector
    column: Vector
    spacing: tuple[float, float]
    order: tuple[float, ...]
    kind: Kind
    stack_id: str = ""

    @property
    def normal(self) -> Vector:
        """Row x column, LPS."""
        normal: Vector = np.cross(self.row, self.column).astype(np.float64)
        return normal


@dataclass(frozen=True)
class Stack:
    """Slices in order: `frames[t][z]`, and the affine of the grid (RAS+, mm)."""

    frames: list[list[Slice]]
    affine: NDArray[np.float64]


class Headers(list[Dataset]):
    """The headers of a volume, without pixels, and where each slice of it comes from.

    Attributes:
        places: (number of the header, index of the frame in it) of each slice, time slowest.
        kind: What the volume shows.
        padding: Voxels that are padding, of the shape of the volume; None if there are none.
    """

    def __init__(self, planes: Sequence[Slice], padding: NDArray[np.bool_] | None = None) -> None:
        datasets = {item.path: item.dataset for item in planes}
        super().__init__(datasets.values())
        number = {path: index for index, path in enumerate(datasets)}
        self.places = [(number[item.path], item.place[1]) for item in planes]
        self.kind, self.padding = planes[0].kind, padding


def position_of(dataset: Dataset, what: str) -> tuple[Vector, Vector, Vector]:
    """Position and unit row and column vectors of a classic image: see `plane`."""
    position = numbers(dataset, "ImagePositionPatient", 3)
    return plane(position, numbers(dataset, "ImageOrientationPatient", 6), what)


def pixel_spacing(item: Dataset, what: str) -> tuple[float, float]:
    """Mm along a row and along a column; PixelSpacing is (between rows, between columns).

    Raises:
        DicomSeriesError: It is missing or not positive.
    """
    value = numbers(item, "PixelSpacing", 2)
    if value is None or min(value) <= 0:
        raise DicomSeriesError(f"{what} has no PixelSpacing, so its size is unknown")
    return value[1], value[0]


def plane(position: Any, orientation: Any, what: str) -> tuple[Vector, Vector, Vector]:
    """Position and unit row and column vectors from the DICOM attributes.

    Args:
        position: ImagePositionPatient, 3 numbers, mm.
        orientation: ImageOrientationPatient, 6 direction cosines.
        what: Names the image in errors.

    Returns:
        Three (3,) arrays, LPS.

    Raises:
        DicomSeriesError: Missing, or not two perpendicular unit vectors.
    """
    if position is None or orientation is None or len(position) != 3 or len(orientation) != 6:
        raise DicomSeriesError(
            f"{what} has no ImagePositionPatient or ImageOrientationPatient, so its place is "
            "unknown; export the original series again"
        )
    cosines = np.array([float(v) for v in orientation])
    row, column = cosines[:3], cosines[3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(row @ column)) > UNEQUAL:
        raise DicomSeriesError(f"{what}: ImageOrientationPatient is not two perpendicular vectors")
    return np.array([float(v) for v in position]), row / lengths[0], column / lengths[1]


def stack(slices: Sequence[Slice], what: str) -> Stack:
    """Sort slices into a volume, or into a sequence of volumes.

    Slices are ordered by the projection of their position on the normal, never by name or
    number; repeats of one place are ordered by `Slice.order`.

    Args:
        slices: Of one kind.
        what: Names the series in errors.

    Raises:
        DicomSeriesError: Mixed sizes, orientations or pixel spacings, one slice, missing or
            duplicated slices, unequal spacing, slices that are shifted sideways.
    """
    _check_alike(slices, what)
    places = _group_by_place(slices)
    if len(places) < 2:
        raise DicomSeriesError(f"{what} has one slice; a stack of two or more is needed")
    _check_repeats(places, what)
    step = _check_spacing([place[0].position for place in places], places[0][0].normal, what)
    frames = [[place[t] for place in places] for t in range(len(places[0]))]
    return Stack(frames, affine_of(frames[0][0], step))


def affine_of(first: Slice, step: Vector) -> NDArray[np.float64]:
    """The affine of a stack, PS3.3 equation C.7.6.2.1-1 with a third column, turned to RAS+.

    Args:
        first: The first slice.
        step: From one slice to the next, (3,), mm, LPS.

    Returns:
        (4, 4) float64: (column index, row index, slice, 1) to mm.
    """
    lps = np.eye(4)
    lps[:3, 0] = first.row * first.spacing[0]
    lps[:3, 1] = first.column * first.spacing[1]
    lps[:3, 2] = step
    lps[:3, 3] = first.position
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def _check_alike(slices: Sequence[Slice], what: str) -> None:
    sizes = sorted({s.shape for s in slices})
    if len(sizes) > 1:
        raise DicomSeriesError(
            f"{what} mixes image sizes (columns, rows): {sizes}; keep the images of one size"
        )
    first = slices[0]
    turned = [
        s
        for s in slices
        if max(np.abs(s.row - first.row).max(), np.abs(s.column - first.column).max()) > UNEQUAL / 2
    ]
    if turned:
        raise DicomSeriesError(
            f"{what} mixes orientations: {len(turned)} of {len(slices)} images, such as "
            f"{turned[0].path.name}, are turned against {first.path.name}; this is a localizer "
            "or a radial scan, not a stack of parallel slices; take it out or choose another series"
        )
    if any(not np.allclose(s.spacing, first.spacing, rtol=1e-4) for s in slices):
        raise DicomSeriesError(f"{what} mixes pixel spacings; keep the images of one spacing")


def _group_by_place(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Slices by their place along the normal, each group in time order."""
    normal = slices[0].normal
    ordered = sorted(slices, key=lambda s: float(s.position @ normal))
    places: list[list[Slice]] = []
    for item in ordered:
        if places and (item.position - places[-1][0].position) @ normal < SAME_PLACE_MM:
            places[-1].append(item)
        else:
            places.append([item])
    return [sorted(place, key=lambda s: s.order) for place in places]


def _check_repeats(places: Sequence[Sequence[Slice]], what: str) -> None:
    counts = sorted({len(place) for place in places})
    if len(counts) > 1:
        odd = max(places, key=len)
        names = ", ".join(s.path.name for s in odd[:3])
        raise DicomSeriesError(
            f"{what} has duplicated or missing slices: {counts[0]} to {counts[-1]} images at each "
            f"of {len(places)} places (most at {names}); keep one of each, or find the missing ones"
        )
    for place in places:
        if len({s.order for s in place}) < len(place):
            names = ", ".join(s.path.name for s in place[:3])
            raise DicomSeriesError(
                f"{what} has duplicated slices: {names} lie at one place and nothing tells their "
                "order in time; keep one of each"
            )
        drift = max(np.abs(s.position - place[0].position).max() for s in place)
        if drift > SAME_PLACE_MM:
            raise DicomSeriesError(
                f"{what}: repeats of one slice are shifted by {drift:.3g} mm in the plane"
            )


def _check_spacing(positions: Sequence[Vector], normal: Vector, what: str) -> Vector:
    """The step between slices, (3,) mm, if it is one and the same and along the normal."""
    gaps = np.diff([float(p @ normal) for p in positions])
    usual = float(np.median(gaps))
    tolerance = max(UNEQUAL * usual, 1e-3)
    bad = np.flatnonzero(np.abs(gaps - usual) > tolerance)
    if bad.size:
        index, gap = int(bad[0]), float(gaps[bad[0]])
        ratio = gap / usual
        is_hole = ratio > 1.5 and abs(ratio - round(ratio)) < 0.05
        missing = round(ratio) - 1
        hole = f"{missing} missing slice{'s' if missing > 1 else ''}"
        kind = hole if is_hole else "unequal spacing"
        raise DicomSeriesError(
            f"{what} has {kind} between slice {index + 1} and {index + 2} of {len(positions)}: "
            f"{gap:.4g} mm where {usual:.4g} mm is usual; find the missing images, or resample "
            "the scan to equal spacing first"
        )
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    line = np.array(positions) - positions[0] - np.arange(len(positions))[:, None] * step
    sideways = float(np.abs(step - (step @ normal) * normal).max())
    if sideways > UNEQUAL * usual or float(np.abs(line).max()) > max(tolerance, SAME_PLACE_MM):
        raise DicomSeriesError(
            f"{what}: slices are shifted sideways (by {sideways:.3g} mm a slice), so they are no "
            "rectangular stack; resample the scan first"
        )
    return np.asarray(step, dtype=np.float64)
