"""Charts as SVG in the colours of a page: sharp on paper, readable in the dark, the same bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup, escape

WIDTH, HEIGHT = 440.0, 280.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 12.0, 26.0, 46.0
_COLOURS = 8
_LETTER = 6.4
"""Width of a letter, about: names that are longer than their place are cut."""
_ROW, _MOST_NAMES = 20.0, 250.0
_APART = 3.0
"""Between the dots of one line, so that equal ones are seen."""

Style = Literal["line", "dashed", "dots", "steps"]


@dataclass(frozen=True)
class Series:
    """A curve or a set of points; values that are not finite are left out.

    Attributes:
        label: In the legend; "" is not there.
        x: Values along the horizontal axis.
        y: Values along the vertical axis.
        low: Lower end of each interval; none where there is no interval.
        high: Upper end.
        style: How it is drawn.
        colour: Number of its colour; two series of one colour are parts of one thing.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    style: Style = "line"
    colour: int = 0


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
        label: What it shows, and its unit.
        low: Where it begins, if that is fixed.
        high: Where it ends.
        log: Logarithmic.
        least: It spans at least so much: what differs by less looks alike.
    """

    label: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    least: float = 0.0


@dataclass(frozen=True)
class _Scale:
    """An axis with its ends known, on paper."""

    axis: Axis
    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        low, high = self.low, self.high
        if self.axis.log:
            low, high, value = (math.log(max(v, 1e-300)) for v in (low, high, value))
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    @property
    def ticks(self) -> list[float]:
        return log_ticks(self.low, self.high) if self.axis.log else ticks(self.low, self.high)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between two ends.

    Example:
        >>> ticks(0.0, 1.0)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6)
    return [round(n * step, 12) + 0.0 for n in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between two ends; powers alone where that is too many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [f * 10.0**p for p in powers for f in (1, 2, 5)]
    found = [v for v in found if low * 0.999 <= v <= high * 1.001]
    return [v for v in found if math.log10(v) % 1 < 1e-9] if len(found) > 8 else found


def chart(
    title: str,
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    *,
    words: str,
    marks: Sequence[float] = (),
    lines: Sequence[float] = (),
) -> Markup:
    """A figure with a legend below it where there are several series.

    Args:
        title: Above it.
        series: What is drawn.
        x: Horizontal axis.
        y: Vertical axis.
        words: What it shows, for those who cannot see it.
        marks: Broken vertical lines at these x.
        lines: Horizontal lines at these y.
    """
    across = _scale(x, [v for s in series for v in s.x] + list(marks), _LEFT, WIDTH - _RIGHT)
    values = [v for s in series for part in (s.y, s.low, s.high) for v in part if v is not None]
    up = _scale(y, values + list(lines), HEIGHT - _BOTTOM, _TOP)
    parts = [_frame(across, up, title)]
    parts += [_path("axis", [(_LEFT, up.at(v)), (WIDTH - _RIGHT, up.at(v))]) for v in lines]
    parts += [
        _path("mark", [(across.at(v), HEIGHT - _BOTTOM), (across.at(v), _TOP)]) for v in marks
    ]
    parts += [_series(s, across, up) for s in series]
    named = {s.label: s.colour for s in series if s.label}
    broken = [s.label for s in series if s.style == "dashed"]
    return _figure(parts, WIDTH, HEIGHT, words, named if len(named) > 1 else {}, broken)


def row_chart(
    title: str,
    rows: Sequence[tuple[str, float, float | None, float | None]],
    x: Axis,
    *,
    words: str,
    colours: Sequence[int] = (),
    legend: Mapping[str, int] | None = None,
    zero: bool = False,
) -> Markup:
    """One line a name: its values as dots, their intervals as bars.

    Args:
        title: Above it.
        rows: (name, value, lower end, upper end), the ends may be None; rows of the same name that
            follow each other share a line.
        x: The axis of the values.
        words: What it shows.
        colours: Of each row.
        legend: What the colours are.
        zero: Draw a line at 0.
    """
    values = [v for row in rows for v in row[1:] if v is not None] + ([0.0] if zero else [])
    side = min(_MOST_NAMES, _LETTER * max((len(row[0]) for row in rows), default=0) + 16)
    across = _scale(x, values, side, WIDTH - _RIGHT)
    lines, last, before, drawn = 0, None, 0, []
    for number, (name, value, low, high) in enumerate(rows):
        before = before + 1 if name == last else 0
        lines, last = lines + (before == 0), name
        middle = _TOP + _ROW * (lines - 0.5) + 3
        y = middle + _APART * (before % 3)
        if before == 0:
            drawn.append(_text(side - 8, y + 4, _cut(name, side - 8), "end", full=name))
        bar = ""
        if low is not None and high is not None:
            bar = _path("", [(across.at(low), y), (across.at(high), y)])
        dot = _dot(across.at(value), y) if math.isfinite(value) else ""
        drawn.append(_coloured(colours[number] if colours else 0, bar + dot))
    bottom = _TOP + _ROW * lines + 6
    parts = [_text(side, 16, title, "start", "title"), _grid_x(across, _TOP, bottom)]
    if zero:
        parts.append(_path("axis", [(across.at(0), _TOP), (across.at(0), bottom)]))
    return _figure([*parts, *drawn], WIDTH, bottom + 38, words, dict(legend or {}))


def _scale(axis: Axis, values: Iterable[float], start: float, end: float) -> _Scale:
    known = [v for v in values if math.isfinite(v) and (v > 0 or not axis.log)]
    low = axis.low if axis.low is not None else min(known, default=0.1)
    high = axis.high if axis.high is not None else max(known, default=1.0)
    if axis.log:
        return _Scale(axis, low / 1.15, high * 1.15, start, end)
    room = max(axis.least - (high - low), 0.0) / 2
    pad = 0.06 * (high - low) or room or abs(high) * 0.1 or 1.0
    low = low if axis.low is not None else low - max(room, pad)
    high = high if axis.high is not None else high + max(room, pad)
    return _Scale(axis, low, high if high > low else low + 1.0, start, end)


def _frame(across: _Scale, up: _Scale, title: str) -> str:
    marks = up.ticks
    grid = "".join(
        _path("grid", [(_LEFT, up.at(v)), (WIDTH - _RIGHT, up.at(v))])
        + _text(_LEFT - 6, up.at(v) + 4, text, "end")
        for v, text in zip(marks, tick_texts(marks), strict=True)
    )
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    side = (
        f'<text text-anchor="middle" transform="translate(13 {middle:.1f}) rotate(-90)">'
        f"{escape(up.axis.label)}</text>"
    )
    head = _text(_LEFT, 16, title, "start", "title")
    return head + grid + _grid_x(across, _TOP, HEIGHT - _BOTTOM) + side


def _grid_x(across: _Scale, top: float, bottom: float) -> str:
    marks = across.ticks
    grid = "".join(
        _path("grid", [(across.at(v), top), (across.at(v), bottom)])
        + _text(across.at(v), bottom + 15, text, "middle")
        for v, text in zip(marks, tick_texts(marks), strict=True)
    )
    middle = (across.start + across.end) / 2
    return grid + _text(middle, bottom + 33, across.axis.label, "middle")


def tick_texts(values: Sequence[float]) -> list[str]:
    """Numbers as an axis shows them, all with as many digits as it takes to tell them apart.

    Example:
        >>> tick_texts([0.0, 0.5, 1.0])
        ['0', '0.5', '1']
    """
    for digits in range(3, 12):
        shown = [f"{v:.0f}" if 1000 <= abs(v) < 1e6 else f"{v:.{digits}g}" for v in values]
        if len(set(shown)) == len(set(values)):
            break
    return ["0" if float(s) == 0 else s for s in shown] if values else []


def _series(series: Series, across: _Scale, up: _Scale) -> str:
    points = [
        (across.at(x), up.at(y))
        for x, y in zip(series.x, series.y, strict=True)
        if math.isfinite(x) and math.isfinite(y)
    ]
    bars = [
        _path("", [(across.at(x), up.at(low)), (across.at(x), up.at(high))])
        for x, low, high in zip(series.x, series.low, series.high, strict=False)
        if low is not None and high is not None and math.isfinite(low) and math.isfinite(high)
    ]
    line = ""
    if series.style != "dots" and len(points) > 1:
        line = _path("dashed" if series.style == "dashed" else "", points)
    dots = "" if len(points) > 40 or series.style == "steps" else "".join(
        _dot(*point) for point in points
    )  # fmt: skip
    return _coloured(series.colour, "".join(bars) + line + dots)


def _coloured(number: int, content: str) -> str:
    return f'<g class="series" style="--colour:var(--c{number % _COLOURS})">{content}</g>'


def _dot(x: float, y: float) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>'


def _path(kind: str, points: Sequence[tuple[float, float]]) -> str:
    drawn = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    named = f' class="{kind}"' if kind else ""
    return f'<path{named} d="M{drawn}"/>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "", full: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    title = f"<title>{escape(full)}</title>" if full and full != text else ""
    return (
        f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{title}{escape(text)}</text>'
    )


def _cut(name: str, room: float) -> str:
    most = int(room / _LETTER)
    return name if len(name) <= most else f"{name[: most - 1]}\N{HORIZONTAL ELLIPSIS}"


def _figure(
    parts: Iterable[str],
    width: float,
    height: float,
    words: str,
    legend: dict[str, int],
    broken: Sequence[str] = (),
) -> Markup:
    items = "".join(
        f'<li class="{"broken" if label in broken else "whole"}" '
        f'style="--colour:var(--c{colour % _COLOURS})">{escape(label)}</li>'
        for label, colour in legend.items()
    )
    listed = f'<ul class="legend">{items}</ul>' if items else ""
    return Markup(
        f'<figure class="plot"><svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(words)}">{"".join(parts)}</svg>{listed}</figure>'
    )
