"""Planes of a scan as pixels: radiological, to scale, at one window; every page draws with these.

An axial or coronal plane has the patient's left on its right; front or head is up. A sagittal
plane looks to the right: front is on its right.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, LinearSegmentedColormap
from numpy.typing import NDArray
from PIL import Image as Pixels
from scipy import ndimage

from medddpm.errors import GeometryError
from medddpm.preprocess.intensity import Mask, foreground_mask
from medddpm.volume import ras_axes

Image = NDArray[np.float32]
Levels = NDArray[np.uint8]

PLANES = ("sagittal", "coronal", "axial")
"""By the axis, in RAS order, that each is cut across."""
LETTERS = (("P", "A", "S", "I"), ("R", "L", "S", "I"), ("R", "L", "A", "P"))
"""What is on the left, on the right, up and down of each."""
CHANGE = LinearSegmentedColormap.from_list(
    "change", ["#bfe6ff", "#3aa0e8", "#14507f", "#000000", "#8a3410", "#f08a3c", "#ffe3b8"]
)
SPREAD: Colormap = colormaps["inferno"]


@dataclass(frozen=True)
class Window:
    """What is black and what is white, in scan units, and what it is called."""

    name: str
    low: float
    high: float


def in_ras(image: NDArray[Any], orientation: str) -> Image:
    """The array with its axes to the right, to the front and up.

    Args:
        image: (X, Y, Z).
        orientation: Anatomical direction of each of its axes, such as "LPS".
    """
    order, flips = ras_axes(orientation)
    turned: Image = np.asarray(image, np.float32).transpose(order)[flips]
    return turned


def ras_spacing(spacing: Sequence[float], orientation: str) -> tuple[float, float, float]:
    """The edges of a voxel in mm in that order."""
    order, _ = ras_axes(orientation)
    return spacing[order[0]], spacing[order[1]], spacing[order[2]]


def cut(image: Image, axis: int, index: int) -> Image:
    """A plane of an array in RAS order, (rows from the top, columns from the left)."""
    plane: Image = np.take(image, index, axis=axis).T[::-1]
    return plane if axis == 0 else plane[:, ::-1]


def plane_edges(spacing: Sequence[float], axis: int) -> tuple[float, float]:
    """Height and width of a pixel of such a plane, in mm."""
    across, along = [h for a, h in enumerate(spacing) if a != axis]
    return along, across


def to_scale(plane: Image, edges: tuple[float, float], size: int | None = None) -> Image:
    """The plane with square pixels.

    Args:
        plane: (H, W).
        edges: Height and width of a pixel in mm.
        size: Of the longer side; without it no pixel is lost, and each is repeated as it is.
    """
    mm = [n * e for n, e in zip(plane.shape, edges, strict=True)]
    pixel = min(edges) if size is None else max(mm) / size
    shape = [max(1, round(m / pixel)) for m in mm]
    if tuple(shape) == plane.shape:
        return plane
    smooth = size is not None and max(plane.shape) > size
    found = Pixels.fromarray(np.ascontiguousarray(plane, np.float32))
    how = Pixels.Resampling.BOX if smooth else Pixels.Resampling.NEAREST
    return np.asarray(found.resize((shape[1], shape[0]), how), np.float32)


def shades(plane: Image, low: float, high: float) -> Levels:
    """Its pixels in 256 levels.

    Args:
        plane: (H, W).
        low: The value of the first.
        high: The value of the last.
    """
    share = np.clip((plane - low) / ((high - low) or 1.0), 0, 1)
    levels: Levels = np.rint(255 * np.nan_to_num(share)).astype(np.uint8)
    return levels


def table_of(colours: Colormap) -> Levels:
    """Its 256 colours, (256, 3)."""
    found: Levels = np.rint(255 * np.asarray(colours(np.arange(256)))[:, :3]).astype(np.uint8)
    return found


def png(levels: Levels, colours: Colormap | None = None) -> bytes:
    """A PNG file, grey without colours; the same pixels give the same bytes."""
    found, stream = Pixels.fromarray(levels), io.BytesIO()
    if colours is not None:
        found = found.convert("P")
        found.putpalette(table_of(colours).tobytes())
    found.save(stream, format="png", optimize=True)
    return stream.getvalue()


def jpeg(levels: Levels, quality: int = 70) -> bytes:
    """A grey JPEG file, for pictures that are small rather than exact."""
    stream = io.BytesIO()
    Pixels.fromarray(levels).save(stream, format="jpeg", quality=quality, optimize=True)
    return stream.getvalue()


def middle_of(image: Image) -> tuple[int, int, int]:
    """Where the foreground of an array in RAS order has its middle."""
    inside = foreground_mask(image)
    if not inside.any():
        x, y, z = (n // 2 for n in image.shape)
        return x, y, z
    x, y, z = (int(np.median(index)) for index in np.nonzero(inside))
    return x, y, z


def stack_axis(spacing: Sequence[float]) -> int:
    """The axis of an array in RAS order across which a person looks: that of its slices, or up."""
    thickest = int(np.argmax(spacing))
    return thickest if spacing[thickest] > 1.3 * min(spacing) else 2


def tissue_windows(image: Image, spacing: Sequence[float]) -> list[Window]:
    """Windows by the percentiles of the tissue; the first is the one to begin with.

    Tissue is the inner part of the foreground: fat under the skin, which is the brightest of many
    scans, does not darken what lies within.

    Args:
        image: (X, Y, Z), restored.
        spacing: Edges of a voxel in mm.
    """
    inside = foreground_mask(image)
    if not inside.any():
        return [Window("All", float(image.min()), float(image.max()) or 1.0)]
    tissue = image[inner_part(inside, spacing)]
    low, dark, middle, bright, high = (
        float(v) for v in np.percentile(tissue, [2, 10, 50, 90, 98.5])
    )
    whole = float(image.max())
    floor = min(0.0, float(np.percentile(image[::2, ::2, ::2], 0.1)))
    return [
        Window("Tissue", floor, max(1.1 * high, floor + 1e-12)),
        Window("Contrast", low, max(high, low + 1e-12)),
        Window("Bright tissue", middle, max(1.1 * high, bright + 1e-12)),
        Window("Dark tissue", floor, max(middle, dark + 1e-12)),
        Window("Noise in air", floor, max(0.25 * high, floor + 1e-12)),
        Window("Full range", floor, max(whole, floor + 1e-12)),
    ]


def inner_part(inside: Mask, spacing: Sequence[float]) -> Mask:
    """The deeper half of a foreground, by the distance from its border."""
    steps = tuple(max(1, n // 96) for n in inside.shape)
    few = inside[:: steps[0], :: steps[1], :: steps[2]]
    edges = [s * h for s, h in zip(steps, spacing, strict=True)]
    depth = ndimage.distance_transform_edt(few, sampling=edges)
    deep = few & (depth >= np.median(depth[few]))
    for axis, step in enumerate(steps):
        deep = np.repeat(deep, step, axis=axis)
    found: Mask = deep[tuple(slice(0, n) for n in inside.shape)] & inside
    return found if found.any() else inside


def require_one_grid(images: Sequence[NDArray[Any]]) -> None:
    """Refuse scans of different shapes.

    Raises:
        GeometryError: They lie on different grids.
    """
    shapes = [np.shape(image) for image in images]
    if any(shape != shapes[0] for shape in shapes):
        raise GeometryError(f"the scans lie on different grids: {shapes}")


def thumbnail(image: Image, spacing: Sequence[float], window: Window, size: int) -> bytes:
    """A small JPEG of the middle plane.

    Args:
        image: (X, Y, Z) in RAS order.
        spacing: Edges of a voxel in mm.
        window: What is black and what is white.
        size: Pixels of the longer side.
    """
    axis = stack_axis(spacing)
    plane = cut(image, axis, middle_of(image)[axis])
    small = to_scale(plane, plane_edges(spacing, axis), size)
    return jpeg(shades(small, window.low, window.high))
