"""A page has a picture and text, fits on A4, and has the same bytes every time."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medddpm.report.sheet import pdf_of, report_page, rgb_of


@pytest.fixture
def picture() -> Figure:
    figure = Figure(figsize=(4, 2), facecolor="red")
    FigureCanvasAgg(figure)
    return figure


def test_pixels(picture: Figure) -> None:
    pixels = rgb_of(report_page(picture, "A title", ["a line"]), dpi=60)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (701, 496, 3)
    red = (pixels == [255, 0, 0]).all(axis=-1)
    rows, columns = np.nonzero(red)
    across, along = np.ptp(columns) + 1, np.ptp(rows) + 1
    assert across / along == pytest.approx(2, rel=0.02)
    assert across == pytest.approx((8.27 - 1.2) * 60, abs=2)
    assert (pixels[rows.max() + 2 :] < 128).any()  # the text below


def test_pdf(picture: Figure) -> None:
    pages = [pdf_of(report_page(picture, "A title", ["a line", ""])) for _ in range(2)]
    assert pages[0].startswith(b"%PDF")
    assert pages[0] == pages[1]
    assert b"CreationDate" not in pages[0]


def test_what_does_not_fit_is_left_out(picture: Figure) -> None:
    page = report_page(picture, "A title", ["word " * 100] * 100)
    lines = [text.get_text() for text in page.texts]
    assert lines[-1] == "..."
    assert max(len(line) for line in lines) <= 100
    assert min(text.get_position()[1] for text in page.texts) > 0
