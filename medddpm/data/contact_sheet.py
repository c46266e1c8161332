"""Contact sheets: three planes of each packed scan, two dozen a picture, for people to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from medddpm.data.cache import Case, PackedImage
from medddpm.data.manifest import ScanRow
from medddpm.display import printable
from medddpm.io import atomic_path

PER_SHEET = 24
_COLUMNS = 4
_EDGE = 128
_GAP = 10
_CAPTION = 44
_DPI = 100
_THIN = 0.35
"""A slab that is thinner than so much of its next larger side is shown by its slices."""
_BACKGROUND, _TEXT, _FAINT, _ALERT = "#0b0d10", "#e8eaed", "#8b949e", "#ffb454"

Panels = NDArray[np.float32]


def write_sheets(
    folder: Path,
    scans: Sequence[tuple[ScanRow, Case]],
    cache: Path,
    on_sheet: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write `sheet-001.png` and so on; sheets of an earlier run that are no longer needed go.

    Args:
        folder: Where to; it exists.
        scans: In the order of the pictures.
        cache: Where they are packed.
        on_sheet: Called with how many sheets are done, and of how many.
    """
    parts = [scans[i : i + PER_SHEET] for i in range(0, len(scans), PER_SHEET)]
    paths = [folder / f"sheet-{number:03d}.png" for number in range(1, len(parts) + 1)]
    for number, (path, part) in enumerate(zip(paths, parts, strict=True), start=1):
        with atomic_path(path) as partial:
            figure = _sheet(part, cache, f"sheet {number} of {len(parts)}")
            # No version and no date: the same scans give the same bytes.
            figure.savefig(partial, format="png", dpi=_DPI, metadata={"Software": None})
        if on_sheet:
            on_sheet(number, len(parts))
    for old in set(folder.glob("sheet-*.png")) - set(paths):
        old.unlink()
    return paths


def _sheet(scans: Sequence[tuple[ScanRow, Case]], cache: Path, title: str) -> Figure:
    rows = -(-len(scans) // _COLUMNS)
    wide, high = 3 * _EDGE + _GAP, _EDGE + _CAPTION
    width, height = _COLUMNS * wide + _GAP, rows * high + _CAPTION
    canvas = np.zeros((height, width), np.float32)
    figure = Figure(figsize=(width / _DPI, height / _DPI), facecolor=_BACKGROUND)
    FigureCanvasAgg(figure)
    axes: Any = figure.add_axes((0, 0, 1, 1))
    for number, (row, case) in enumerate(scans):
        left = _GAP + number % _COLUMNS * wide
        top = _CAPTION + number // _COLUMNS * high
        canvas[top : top + _EDGE, left : left + 3 * _EDGE] = panels(row, case, cache)
        _caption(axes, row, left, top + _EDGE)
    axes.imshow(canvas, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    axes.text(
        _GAP,
        _CAPTION / 2,
        f"{title}: sagittal, coronal, axial; of a thin slab three slices",
        color=_FAINT,
        va="center",
    )
    axes.set_axis_off()
    return figure


def _caption(axes: Any, row: ScanRow, left: int, bottom: int) -> None:
    name = row.scan if len(row.scan) <= 46 else row.scan[:22] + "\u2026" + row.scan[-22:]
    facts = " ".join(part for part in (row.contrast or "contrast?", row.split) if part)
    axes.text(left, bottom + 10, printable(name), color=_TEXT, fontsize=7.5, va="center")
    axes.text(left, bottom + 24, printable(facts), color=_FAINT, fontsize=7, va="center")
    axes.text(
        left + 3 * _EDGE - 4, bottom + 24, row.flags.replace(";", ", "),
        color=_ALERT, fontsize=7, va="center", ha="right",
    )  # fmt: skip


def panels(row: ScanRow, case: Case, cache: Path) -> Panels:
    """The middle planes of a packed scan side by side, (128, 384) in 0 to 1, to scale.

    Of a thin slab, whose other planes are strips, three of its slices. Front and head are up; the
    patient's left is on the right.
    """
    image = PackedImage(cache / f"{case.name}.npy", case.shape)
    orientation = row.orientation or "RAS"
    axes = [next(a for a in range(3) if orientation[a] in pair) for pair in ("RL", "AP", "SI")]
    extents = [n * s for n, s in zip(case.shape, case.spacing, strict=True)]
    tiles = []
    for cut, share in _cuts([extents[a] for a in axes]):
        box = [slice(0, n) for n in case.shape]
        middle = int(share * case.shape[axes[cut]])
        box[axes[cut]] = slice(middle, middle + 1)
        plane = np.asarray(image[box[0], box[1], box[2]], np.float32).transpose(axes)
        flips = [slice(None, None, 1 if orientation[a] in "RAS" else -1) for a in axes]
        plane = np.squeeze(plane[tuple(flips)], axis=cut)
        steps = [case.spacing[a] for number, a in enumerate(axes) if number != cut]
        tiles.append(_tile(plane, steps, max(extents), mirrored=cut != 0))
    return np.concatenate(tiles, axis=1)


def _cuts(extents: Sequence[float]) -> list[tuple[int, float]]:
    """Which planes are shown: across which axis, and how far along it."""
    thin = int(np.argmin(extents))
    if extents[thin] < _THIN * sorted(extents)[1]:
        return [(thin, 0.25), (thin, 0.5), (thin, 0.75)]
    return [(0, 0.5), (1, 0.5), (2, 0.5)]


def _tile(plane: Panels, steps: list[float], largest: float, *, mirrored: bool) -> Panels:
    """A plane in a square of `largest` mm; its first axis runs to the right, its second up."""
    zoom = [n * step / largest * _EDGE / n for n, step in zip(plane.shape, steps, strict=True)]
    resized: Panels = ndimage.zoom(plane, zoom, order=1)[:_EDGE, :_EDGE]
    picture = resized.T[::-1, ::-1] if mirrored else resized.T[::-1]
    tile = np.zeros((_EDGE, _EDGE), np.float32)
    high, wide = picture.shape
    top, left = (_EDGE - high) // 2, (_EDGE - wide) // 2
    tile[top : top + high, left : left + wide] = np.clip(picture, 0, 1)
    return tile
