"""Pictures of a benchmark as PNG bytes: error against noise, gains, and a montage."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medddpm.errors import ShapeError

Image = NDArray[np.float32]
Row = Mapping[str, Any]

NOISE_WORDS = {
    "acquired": "noise as acquired",
    "ellipse": "noise in an ellipse of k-space",
    "white": "white noise",
}
_WINDOW = (0.0, 1.05)
_ERROR_SIGMAS = 4.0
_PANEL_INCHES = 2.1
_LONGEST_NAME = 48
_SIGMA_TICKS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)


@dataclass(frozen=True)
class Planes:
    """One axial slice of a case, as fractions of the intensity scale; each (H, W).

    Attributes:
        clean: The truth.
        noisy: What the methods were given.
        restored: What one of them made of it.
        aspect: Height of a pixel over its width.
    """

    clean: Image
    noisy: Image
    restored: Image
    aspect: float


def axial_plane(
    image: NDArray[Any], orientation: str, spacing: Sequence[float]
) -> tuple[Image, float]:
    """The middle axial slice (H, W), front up, the patient's left on the right; and its aspect.

    Args:
        image: (X, Y, Z).
        orientation: Anatomical direction of each array axis, such as "LPS".
        spacing: Voxel edges in mm.
    """
    order = [next(a for a in range(3) if orientation[a] in pair) for pair in ("RL", "AP", "SI")]
    if sorted(order) != [0, 1, 2]:
        raise ShapeError(f"orientation {orientation!r} does not name three different axes")
    flips = tuple(
        slice(None, None, 1 if orientation[axis] == positive else -1)
        for axis, positive in zip(order, "LPS", strict=True)
    )
    turned = image.transpose(order)[flips]
    plane = turned[:, :, turned.shape[2] // 2].T
    return np.ascontiguousarray(plane, dtype=np.float32), spacing[order[1]] / spacing[order[0]]


def montage(panels: Mapping[str, Planes], sigma: float) -> bytes:
    """Noisy, each method and the truth at one window; below, their errors at one window.

    Args:
        panels: By method, all of the same slice.
        sigma: Noise as a fraction of the scale; errors are shown within 4 sigma.
    """
    first = next(iter(panels.values()))
    images = {"noisy": first.noisy, **{name: p.restored for name, p in panels.items()}}
    height, width = first.clean.shape
    ratio = first.aspect * height / width
    size = (_PANEL_INCHES * (len(images) + 1), 2 * _PANEL_INCHES * ratio + 0.35)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(2, len(images) + 1, squeeze=False)
    for panel in axes.flat:
        panel.set_axis_off()
    span = _ERROR_SIGMAS * sigma
    for column, (name, image) in enumerate([*images.items(), ("truth", first.clean)]):
        axes[0, column].set_title(_short(name).replace("@", "\n@"), fontsize=9)
        low, high = _WINDOW
        axes[0, column].imshow(image, cmap="gray", vmin=low, vmax=high, aspect=first.aspect)
        if name != "truth":
            error = image - first.clean
            axes[1, column].imshow(error, cmap="RdBu_r", vmin=-span, vmax=span, aspect=first.aspect)
    return _png(figure)


def repeat_picture(panels: Mapping[str, Planes], sigma: float) -> bytes:
    """A row a method: a repeat, restored, the mean of the other repeats, and what was removed.

    Args:
        panels: By method, all of the same slice; the mean of the others is their `clean`.
        sigma: Noise as a fraction of the scale; what was removed is shown within 4 sigma.
    """
    first = next(iter(panels.values()))
    height, width = first.clean.shape
    ratio = first.aspect * height / width
    size = (4 * _PANEL_INCHES, len(panels) * (_PANEL_INCHES * ratio + 0.1) + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(panels), 4, squeeze=False)
    titles = ("a repeat", "restored", "mean of the others", "removed")
    span, (low, high) = _ERROR_SIGMAS * sigma, _WINDOW
    for line, (name, planes) in zip(axes, panels.items(), strict=True):
        images = (planes.noisy, planes.restored, planes.clean)
        for panel, image in zip(line, images, strict=False):
            panel.imshow(image, cmap="gray", vmin=low, vmax=high, aspect=planes.aspect)
        removed = planes.noisy - planes.restored
        line[3].imshow(removed, cmap="RdBu_r", vmin=-span, vmax=span, aspect=planes.aspect)
        line[0].set_ylabel(_short(name).replace("@", "\n@"), fontsize=9)
        for panel in line:
            panel.set(xticks=[], yticks=[])
    for panel, title in zip(axes[0], titles, strict=True):
        panel.set_title(title, fontsize=9)
    return _png(figure)


def score_plot(summary: Sequence[Row]) -> bytes:
    """PSNR and SSIM in the foreground against sigma, one line a method; a row a kind of noise."""
    figure, rows = _rows(summary)
    for noise, (psnr, ssim) in rows.items():
        for label, lines in _by_method(summary, noise).items():
            sigmas = [line["sigma"] for line in lines]
            colour = _colour(summary, label)
            psnr.plot(sigmas, [li["psnr"] for li in lines], marker="o", color=colour, label=label)
            ssim.plot(sigmas, [li["ssim"] for li in lines], marker="o", color=colour)
        psnr.set(xlabel="sigma, of the scale", ylabel="PSNR in the foreground, dB")
        ssim.set(xlabel="sigma, of the scale", ylabel="SSIM in the foreground")
    _legend(figure)
    return _png(figure)


def gain_plot(summary: Sequence[Row]) -> bytes:
    """Gain over the reference with its interval, and PSNR against seconds; rows as above."""
    figure, rows = _rows(summary)
    over = summary[0]["gain_over"]
    for noise, (gain, cost) in rows.items():
        for label, lines in _by_method(summary, noise).items():
            sigmas = [line["sigma"] for line in lines]
            colour = _colour(summary, label)
            middle = np.array([line["gain"] for line in lines])
            low = middle - [line["gain_low"] for line in lines]
            high = np.array([line["gain_high"] for line in lines]) - middle
            bars = np.maximum([low, high], 0)
            gain.errorbar(sigmas, middle, bars, marker="o", capsize=3, color=colour, label=label)
            seconds = [max(line["seconds"], 1e-3) for line in lines]
            psnr = [line["psnr"] for line in lines]
            cost.plot(seconds, psnr, marker="o", linestyle="", color=colour)
        gain.axhline(0, color="black", linewidth=0.8)
        gain.set(xlabel="sigma, of the scale", ylabel=f"gain in PSNR over {over}, dB")
        cost.set(xlabel="seconds a scan", ylabel="PSNR in the foreground, dB", xscale="log")
    _legend(figure)
    return _png(figure)


def level_plot(rows: Sequence[Row]) -> bytes:
    """Sigma that was found over the true one, with its error bar; a colour for each method.

    Args:
        rows: Those with a `sigma_error`.
    """
    figure = Figure(figsize=(7, 3.8), layout="constrained")
    panel = figure.subplots()
    labels = list(dict.fromkeys(method_label(row) for row in rows))
    for label in labels:
        mine = [row for row in rows if method_label(row) == label]
        true = np.array([true_sigma(row) for row in mine])
        ratio = np.array([row["sigma_told"] for row in mine]) / true
        bar = ratio * [min(row["sigma_error"], 1.0) for row in mine]
        panel.errorbar(true, ratio, bar, marker="o", linestyle="", capsize=3, label=label)
    panel.axhspan(0.9, 1.1, color="0.9", zorder=0)
    panel.axhline(1, color="black", linewidth=0.8)
    panel.set_xscale("log")
    low, high = panel.get_xlim()
    ticks = [tick for tick in _SIGMA_TICKS if low <= tick <= high]
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.set_xticks([], minor=True)
    panel.set(xlabel="true sigma, own noise included, of the scale", ylabel="found / true")
    _legend(figure)
    return _png(figure)


def true_sigma(row: Row) -> float:
    """Noise that was added to a scan and noise of its own together, a fraction of the scale."""
    return float(np.hypot(row["sigma_true"], row["sigma_own"]))


def _rows(summary: Sequence[Row]) -> tuple[Figure, dict[str, Any]]:
    """A figure with two panels for each kind of noise, at one scale where there are several."""
    noises = list(dict.fromkeys(line["noise"] for line in summary))
    figure = Figure(figsize=(10, 3.8 * len(noises)), layout="constrained")
    panels = figure.subplots(len(noises), 2, squeeze=False, sharey="col")
    if len(noises) > 1:
        for noise, row in zip(noises, panels, strict=True):
            for panel in row:
                panel.set_title(NOISE_WORDS[noise], fontsize=10)
    return figure, dict(zip(noises, panels, strict=True))


def _colour(summary: Sequence[Row], label: str) -> str:
    """One for each method, whatever the noise."""
    labels = list(dict.fromkeys(method_label(line) for line in summary))
    return f"C{labels.index(label)}"


def _legend(figure: Figure) -> None:
    """Each method once."""
    found: dict[str, Any] = {}
    for panel in figure.axes:
        handles, labels = panel.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    names = [_short(name) for name in found]
    figure.legend(list(found.values()), names, loc="outside right center", fontsize=8)


def _short(name: str) -> str:
    """A method as a picture has room for it: the end of the path of its weights is left."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:12]}...{name[15 - _LONGEST_NAME :]}"


def method_label(row: Row) -> str:
    """The method with where its sigma came from, if it takes one."""
    return label_of(row["method"], row["sigma_source"])


def label_of(method: str, source: str) -> str:
    """The same of a method and the source of its sigma."""
    return method if source == "none" else f"{method} ({source})"


def _by_method(summary: Sequence[Row], noise: str) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for line in summary:
        if line["noise"] == noise:
            groups.setdefault(method_label(line), []).append(line)
    return groups


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=95, facecolor="white")
    return stream.getvalue()
