"""A picture for people: before, after and what changed, in three planes, to scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medddpm.errors import OutputError, ShapeError
from medddpm.preprocess.intensity import foreground_mask, intensity_scale
from medddpm.report.planes import CHANGE, SPREAD, in_ras, ras_spacing, require_one_grid

Image = NDArray[np.float32]
PngFile = TypeVar("PngFile", Path, BinaryIO)

_BACKGROUND = "#0b0d10"
_TEXT = "#e8eaed"
_FAINT = "#8b949e"
_PLANES = (("sagittal", 0, "A", "S"), ("coronal", 1, "L", "S"), ("axial", 2, "L", "A"))
_COLOURS: dict[str, str | Colormap] = {"scan": "gray", "change": CHANGE, "spread": SPREAD}
_PANEL_INCHES = 2.9
_PAD_INCHES = 0.06
_HEAD_INCHES, _FOOT_INCHES, _LINE_INCHES, _SIDE_INCHES = 0.35, 0.45, 0.4, 0.35


@dataclass(frozen=True)
class _Column:
    label: str
    image: Image
    window: tuple[float, float]
    kind: Literal["scan", "change", "spread"]


def comparison_picture(
    path: PngFile,
    scans: Sequence[NDArray[Any]],
    **settings: Any,
) -> PngFile:
    """Write `comparison_figure` as a PNG, to a path or an open binary file; the rest is its own."""
    _saved(comparison_figure(scans, **settings), path)
    return path


def _saved(figure: Figure, path: Path | BinaryIO) -> None:
    try:
        figure.savefig(path, format="png", dpi=110)
    except OSError as error:
        raise OutputError(f"cannot write the picture {path}: {error}") from error


def comparison_figure(
    scans: Sequence[NDArray[Any]],
    *,
    spacing: tuple[float, float, float],
    orientation: str = "RAS",
    title: str = "",
    caption: str = "",
    sigma: float | None = None,
    std: NDArray[Any] | None = None,
) -> Figure:
    """A figure: rows are planes; columns noisy, restored, reference, removed, error, std.

    All scans share one grey window; all differences share one symmetric diverging window, so
    that noise and anatomy in them can be compared by eye. The patient's left is on the right.

    Args:
        scans: Noisy, restored and, if there is one, the clean reference: each (X, Y, Z), in the
            same units.
        spacing: Voxel edges in mm.
        orientation: Anatomical direction of each array axis, such as "LPS".
        title: One line above.
        caption: One or two lines below, such as sigma and PSNR.
        sigma: Noise level in scan units; sets the window of the differences to 4 sigma.
        std: (X, Y, Z) uncertainty of the restored scan, if there is one.
    """
    scans = [np.asarray(a, dtype=np.float32) for a in scans]
    spread = None if std is None else np.asarray(std, dtype=np.float32)
    if scans[0].ndim != 3:
        raise ShapeError(f"expected one (X, Y, Z) image, got shape {scans[0].shape}")
    require_one_grid([*scans, *([] if spread is None else [spread])])
    scans = [in_ras(scan, orientation) for scan in scans]
    spacing = ras_spacing(spacing, orientation)
    columns = _columns(scans, sigma)
    if spread is not None:
        turned = in_ras(spread, orientation)
        top = float(np.percentile(turned, 99.5))
        columns.append(_Column("uncertainty: std", turned, (0.0, top or 1.0), "spread"))
    box, centre = _view(scans[-1])
    return _figure(columns, box, centre, spacing, title, caption)


def panel_picture(
    path: PngFile,
    scans: Mapping[str, NDArray[Any]],
    spreads: Mapping[str, NDArray[Any]],
    *,
    spacing: tuple[float, float, float],
    orientation: str = "RAS",
) -> PngFile:
    """Write a PNG: rows are planes, columns scans in one grey window, then maps of spread.

    Args:
        path: A file, or an open binary one.
        scans: (X, Y, Z) by name, one or more in the same units; the last tells the window and
            the planes.
        spreads: (X, Y, Z) by name, each in a window of its own from 0.
        spacing: Voxel edges in mm.
        orientation: Anatomical direction of each array axis, such as "LPS".

    Raises:
        GeometryError: They lie on different grids.
    """
    named = {**scans, **spreads}
    require_one_grid(list(named.values()))
    turned = {name: in_ras(image, orientation) for name, image in named.items()}
    spacing = ras_spacing(spacing, orientation)
    best = turned[list(scans)[-1]]
    window = (0.0, 1.05 * intensity_scale(best))
    columns = [_Column(name, turned[name], window, "scan") for name in scans]
    for name in spreads:
        top = float(np.percentile(turned[name], 99.5))
        columns.append(_Column(name, turned[name], (0.0, top or 1.0), "spread"))
    box, centre = _view(best)
    _saved(_figure(columns, box, centre, spacing, "", ""), path)
    return path


def _columns(scans: list[Image], sigma: float | None) -> list[_Column]:
    noisy, restored = scans[:2]
    best = scans[-1]
    window = (0.0, 1.05 * intensity_scale(best))
    removed = noisy - restored
    spread = sigma if sigma is not None else float(np.std(removed[foreground_mask(best)]))
    change = (-4 * spread, 4 * spread) if spread > 0 else (-1.0, 1.0)
    columns = [
        _Column("noisy", noisy, window, "scan"),
        _Column("restored", restored, window, "scan"),
    ]
    if len(scans) == 3:
        columns.append(_Column("reference", best, window, "scan"))
    columns.append(_Column("removed: noisy \u2212 restored", removed, change, "change"))
    if len(scans) == 3:
        columns.append(
            _Column("error: restored \u2212 reference", restored - best, change, "change")
        )
    return columns


def _view(image: Image) -> tuple[tuple[slice, ...], tuple[int, ...]]:
    """The box of the foreground with a margin, and its centre of mass."""
    mask = foreground_mask(image)
    box, centre = [], []
    for axis in range(3):
        profile = mask.sum(axis=tuple(a for a in range(3) if a != axis)).astype(np.float64)
        at = np.nonzero(profile)[0]
        low, high = (int(at[0]), int(at[-1]) + 1) if at.size else (0, image.shape[axis])
        margin = max(1, (high - low) // 20)
        box.append(slice(max(0, low - margin), min(image.shape[axis], high + margin)))
        weights = profile if at.size else np.ones_like(profile)
        centre.append(int(np.average(np.arange(profile.size), weights=weights)))
    return tuple(box), tuple(centre)


def _figure(
    columns: list[_Column],
    box: tuple[slice, ...],
    centre: tuple[int, ...],
    spacing: tuple[float, float, float],
    title: str,
    caption: str,
) -> Figure:
    extents = [(s.stop - s.start) * h for s, h in zip(box, spacing, strict=True)]
    widths = [extents[1], extents[0], extents[0]]
    heights = [extents[2], extents[2], extents[1]]
    scale = _PANEL_INCHES / max(widths)
    rows = [h * scale for h in heights]
    width = _SIDE_INCHES + len(columns) * (_PANEL_INCHES + _PAD_INCHES)
    head = _HEAD_INCHES + (_LINE_INCHES if title else 0)
    foot = _FOOT_INCHES + (_LINE_INCHES if caption else 0)
    height = head + sum(rows) + 2 * _PAD_INCHES + foot
    figure = Figure(figsize=(width, height), facecolor=_BACKGROUND)
    FigureCanvasAgg(figure)
    top = height - head
    for row, (name, axis, right, up) in enumerate(_PLANES):
        bottom = top - rows[row]
        figure.text(
            0.5 * _SIDE_INCHES / width, (top + bottom) / 2 / height, name,
            color=_FAINT, fontsize=10, rotation=90, ha="center", va="center",
        )  # fmt: skip
        for number, column in enumerate(columns):
            left = _SIDE_INCHES + number * (_PANEL_INCHES + _PAD_INCHES)
            place = (left / width, bottom / height, _PANEL_INCHES / width, rows[row] / height)
            axes = figure.add_axes(place)
            _panel(axes, column, _slice(column.image, box, centre, axis), axis, spacing)
            if number == 0:
                _letters(axes, right, up)
            if row == 0:
                axes.set_title(column.label, color=_TEXT, fontsize=11, pad=6)
        top = bottom - _PAD_INCHES
    _words(figure, columns, title, caption)
    return figure


def _slice(
    image: Image, box: tuple[slice, ...], centre: tuple[int, ...], axis: int
) -> NDArray[np.float32]:
    """A plane through the centre; the first index runs to the right, as radiologists look."""
    index: list[slice | int] = list(box)
    index[axis] = centre[axis]
    plane = image[tuple(index)].T
    return plane if axis == 0 else plane[:, ::-1]


def _panel(
    axes: Axes,
    column: _Column,
    plane: NDArray[np.float32],
    axis: int,
    spacing: tuple[float, float, float],
) -> None:
    across, along = [h for a, h in enumerate(spacing) if a != axis]
    axes.imshow(
        plane,
        cmap=_COLOURS[column.kind],
        vmin=column.window[0],
        vmax=column.window[1],
        origin="lower",
        aspect=along / across,
        interpolation="nearest",
    )
    axes.set_facecolor(_BACKGROUND)
    axes.set_axis_off()


def _letters(axes: Axes, right: str, up: str) -> None:
    for x, y, text, ha, va in (
        (0.98, 0.5, right, "right", "center"),
        (0.5, 0.98, up, "center", "top"),
    ):
        axes.text(
            x, y, text, transform=axes.transAxes, color=_FAINT, fontsize=9, ha=ha, va=va
        )  # fmt: skip


def _words(figure: Figure, columns: list[_Column], title: str, caption: str) -> None:
    width, height = figure.get_size_inches()
    left = _SIDE_INCHES / width
    figure.text(
        left, 1 - 0.28 / height, title, color=_TEXT, fontsize=14, weight="bold", va="center"
    )
    scan = columns[0].window
    change = next((c.window for c in columns if c.kind == "change"), None)
    windows = f"scans {scan[0]:.4g} to {scan[1]:.4g}"
    if change is not None:
        windows += f";  differences \u00b1{change[1]:.3g}, orange is more, blue is less"
    else:
        spreads = [c for c in columns if c.kind == "spread"]
        windows += "".join(f";  {c.label} 0 to {c.window[1]:.3g}" for c in spreads)
    figure.text(left, 0.46 / height, caption, color=_TEXT, fontsize=10, va="center")
    figure.text(left, 0.2 / height, windows, color=_FAINT, fontsize=8.5, va="center")
