"""The picture of a scan's noise: its k-space with the edges that were found, and its sigma."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle
from numpy.typing import NDArray
from scipy import fft

from medddpm.preprocess.found_noise import FoundNoise
from medddpm.preprocess.noise_law import Colour

Image = NDArray[np.float32]
_PAIRS = ((0, 1), (0, 2), (1, 2))
_AXES = "XYZ"
_EDGE = "#f08a3c"


def noise_picture(image: Image, found: FoundNoise, lines: Sequence[str]) -> bytes:
    """A PNG: log power over each pair of axes with the edges in it, and sigma in mid planes.

    Args:
        image: (X, Y, Z), the scan.
        found: Its noise.
        lines: Words above the picture.
    """
    figure = Figure(figsize=(10, 7.6), layout="constrained")
    panels = figure.subplots(2, 3)
    power = fft.fftshift(np.log10(np.abs(fft.fftn(image)) ** 2 + 1e-12))
    sigma = np.broadcast_to(np.asarray(found.law.sigma, np.float32), image.shape)
    span = float(sigma.min()), float(max(sigma.max(), sigma.min() * 1.001 + 1e-12))
    for column, pair in enumerate(_PAIRS):
        other = ({0, 1, 2} - set(pair)).pop()
        _spectrum(panels[0, column], power.mean(axis=other), pair, found.law.colour)
        middle = np.take(sigma, sigma.shape[other] // 2, axis=other)
        shown = panels[1, column].imshow(
            middle.T, origin="lower", cmap="inferno", vmin=span[0], vmax=span[1], aspect="auto"
        )
        panels[1, column].set(title=f"sigma, mid {_AXES[other]}", xticks=[], yticks=[])
    figure.colorbar(shown, ax=panels[1, :], label="sigma, scan units")
    figure.suptitle("\n".join(lines), fontsize=8)
    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=95, facecolor="white")
    return stream.getvalue()


def _spectrum(panel: Axes, power: Image, pair: tuple[int, int], colour: Colour) -> None:
    low, high = np.percentile(power, [1, 99.7])
    panel.imshow(
        power.T,
        origin="lower",
        extent=(-1, 1, -1, 1),
        cmap="gray",
        vmin=low,
        vmax=high,
        aspect="auto",
    )
    a, b = (colour.edge[axis] for axis in pair)
    if set(pair) <= set(colour.elliptical):
        panel.add_patch(Ellipse((0, 0), 2 * a, 2 * b, fill=False, color=_EDGE))
    elif min(a, b) < 1:
        panel.add_patch(Rectangle((-a, -b), 2 * a, 2 * b, fill=False, color=_EDGE))
    panel.set(
        title="log power of k-space",
        xlabel=f"frequency along {_AXES[pair[0]]}, of Nyquist",
        ylabel=f"along {_AXES[pair[1]]}",
    )
