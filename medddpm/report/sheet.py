"""One A4 page about a scan, for an archive: a picture and lines of text, as PDF or pixels."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

_WIDTH, _HEIGHT, _MARGIN = 8.27, 11.69, 0.6
_LINE_INCHES, _LETTERS = 0.165, 100


def report_page(picture: Figure, title: str, lines: Sequence[str]) -> Figure:
    """An upright A4 page: title, picture, and the lines below it, wrapped.

    Args:
        picture: Of any size; fitted into the width, and into 6.5 inches of height.
        title: One line.
        lines: Text; what does not fit on the page is replaced by "...".
    """
    pixels = rgb_of(picture, dpi=130)
    page = Figure(figsize=(_WIDTH, _HEIGHT), facecolor="white")
    FigureCanvasAgg(page)
    page.text(_MARGIN / _WIDTH, 1 - 0.7 / _HEIGHT, title, fontsize=15, weight="bold", va="center")
    width = _WIDTH - 2 * _MARGIN
    scale = min(width / pixels.shape[1], 6.5 / pixels.shape[0])
    across, along = scale * pixels.shape[1], scale * pixels.shape[0]
    bottom = _HEIGHT - 1.0 - along
    place = (_MARGIN / _WIDTH, bottom / _HEIGHT, across / _WIDTH, along / _HEIGHT)
    axes = page.add_axes(place)
    axes.imshow(pixels, aspect="auto", interpolation="none")
    axes.set_axis_off()
    wrapped = [part for line in lines for part in textwrap.wrap(line, _LETTERS) or [""]]
    room = int((bottom - _MARGIN) / _LINE_INCHES) - 1
    if len(wrapped) > room:
        wrapped = [*wrapped[: room - 1], "..."]
    for number, text in enumerate(wrapped, start=1):
        y = (bottom - 0.1 - number * _LINE_INCHES) / _HEIGHT
        page.text(_MARGIN / _WIDTH, y, text, fontsize=7.5, family="monospace", va="bottom")
    return page


def rgb_of(figure: Figure, dpi: int = 130) -> NDArray[np.uint8]:
    """The figure as pixels, (rows, columns, 3)."""
    figure.set_dpi(dpi)
    canvas: Any = FigureCanvasAgg(figure)  # untyped
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def pdf_of(figure: Figure) -> bytes:
    """The figure as a PDF file without a date, so that the same page has the same bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format="pdf", metadata={"CreationDate": None})
    return stream.getvalue()
