"""Charts: round ticks, honest spans, points where their values are, words for who cannot see."""

from __future__ import annotations

import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from medddpm.report.chart import Axis, Series, chart, log_ticks, row_chart, tick_texts, ticks

EVIL = '"><script>alert(1)</script>'


def drawn(figure: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(figure).iter())


def places(figure: str) -> list[tuple[float, float]]:
    return [
        (float(e.get("cx", "")), float(e.get("cy", "")))
        for e in drawn(figure)
        if e.tag.endswith("circle")
    ]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2, 41), (26.01, 26.02), (0, 1.7e5)])
def test_ticks_are_round_even_and_within(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 7
    assert low - 1e-9 <= found[0]
    assert found[-1] <= high + 1e-9
    steps = [b - a for a, b in pairwise(found)]
    assert steps == pytest.approx([steps[0]] * len(steps))
    assert len(set(tick_texts(found))) == len(found)


def test_log_ticks_are_few() -> None:
    assert log_ticks(0.01, 0.1) == pytest.approx([0.01, 0.02, 0.05, 0.1])
    assert log_ticks(1, 1e6) == pytest.approx([10.0**p for p in range(7)])


def test_points_lie_where_their_values_are() -> None:
    figure = chart("t", [Series("a", [0, 1, 2], [0, 5, 10])], Axis("x"), Axis("y"), words="w")
    (x0, y0), (x1, y1), (x2, y2) = places(figure)
    assert x1 == pytest.approx((x0 + x2) / 2, abs=0.1)
    assert y1 == pytest.approx((y0 + y2) / 2, abs=0.1)
    assert x0 < x2
    assert y0 > y2  # up is more
    logarithmic = Axis("x", log=True)
    figure = chart("t", [Series("", [1, 10, 100], [0, 1, 2])], logarithmic, Axis("y"), words="w")
    x0, x1, x2 = (x for x, _ in places(figure))
    assert x1 == pytest.approx((x0 + x2) / 2, abs=0.1)


def test_an_axis_does_not_magnify_what_hardly_differs() -> None:
    rows = [("a", 26.00, None, None), ("b", 26.01, None, None)]
    close = row_chart("t", rows, Axis("PSNR, dB", least=1.0), words="w")
    wide = row_chart("t", rows, Axis("PSNR, dB"), words="w")
    spans = [abs(places(f)[0][0] - places(f)[1][0]) for f in (close, wide)]
    assert spans[0] < 5 < spans[1]


def test_what_is_not_finite_is_left_out_and_intervals_are_bars() -> None:
    series = Series("", [1, 2, 3], [1, math.nan, 2], [0.5, None, None], [1.5, None, None])
    figure = chart("t", [series], Axis("x"), Axis("y"), words="w")
    assert len(places(figure)) == 2
    group = next(e for e in drawn(figure) if e.get("class") == "series")
    assert len([e for e in group if e.tag.endswith("path")]) == 2  # one bar, one line


def test_names_are_escaped_and_the_legend_says_each_once() -> None:
    pair = [Series(EVIL, [0, 1], [0, 1]), Series("b", [0, 1], [0, 1], colour=1)]
    figure = chart(EVIL, pair, Axis(EVIL), Axis(EVIL), words=EVIL)
    assert "<script" not in figure
    assert [e.text for e in drawn(figure) if e.tag == "li"] == [EVIL, "b"]
    assert "<script" not in row_chart(EVIL, [(EVIL * 9, 1, None, None)], Axis(EVIL), words=EVIL)
