"""Plots of a data report as SVG, whose text stays text: any script, sharp on paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from medddpm.data_report.measure import Breakdown, DataReport
from medddpm.data_report.subgroups import GroupQuality, MethodQuality
from medddpm.report.svg import svg_of

_COLOURS = {"train": "#0072b2", "val": "#e69f00", "test": "#009e73", "": "#8a8a8a"}
"""Okabe and Ito's palette, which colour-blind people can tell apart."""
_VERDICT_COLOURS = {"worse": "#a40000", "better": "#0072b2"}
_MAX_GROUPS = 15
_MAX_LABEL = 40
_ROW_INCHES = 0.11


def place_name(place: str) -> str:
    """How the page calls a split, or what is in none."""
    return place or "left out"


def share_plot(breakdown: Breakdown, report: DataReport) -> tuple[bytes, int]:
    """Bars: the share of each place's subjects that have scans of a group.

    Returns:
        The SVG, and how many groups it leaves to the table: it shows the first 15.
    """
    groups = breakdown.groups[:_MAX_GROUPS]
    places = report.places
    inches = 0.75 + len(groups) * (_ROW_INCHES * len(places) + 0.1)
    figure = Figure(figsize=(8, inches), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(places)
    rows = np.arange(len(groups))
    for n, place in enumerate(places):
        shares = [100 * g.subjects.get(place, 0) / report.subjects[place] for g in groups]
        where = rows + (n - (len(places) - 1) / 2) * height
        axes.barh(where, shares, height, color=_COLOURS[place], label=place_name(place))
    _name_rows(axes, [group.name for group in groups])
    axes.set(xlabel="subjects, % of the split", xlim=(0, 100))
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return svg_of(figure), len(breakdown.groups) - len(groups)


def difference_plot(quality: MethodQuality, unit: str) -> bytes:
    """Each group's difference from the rest with its interval; the worse ones stand out."""
    lines = [line for line in quality.groups if line.difference_interval]
    figure = Figure(figsize=(8, 0.9 + 0.22 * len(lines)), layout="constrained")
    axes = figure.subplots()
    for row, line in enumerate(lines):
        _draw_interval(axes, row, line)
    axes.axvline(0, color="black", linewidth=0.8)
    _name_rows(axes, [f"{line.variable}: {line.group}" for line in lines])
    axes.set_xlabel(f"{quality.metric.upper()} of the group less that of the rest{unit}")
    return svg_of(figure)


def _draw_interval(axes: Any, row: int, line: GroupQuality) -> None:
    colour = _VERDICT_COLOURS.get(line.verdict, "#555555")
    marker = {"worse": "v", "better": "^"}.get(line.verdict, "o")
    axes.plot(line.difference_interval, (row, row), color=colour)
    axes.plot(line.difference, row, marker, color=colour, markersize=5)


def _name_rows(axes: Any, names: Sequence[str]) -> None:
    labels = [
        n if len(n) <= _MAX_LABEL else f"{n[: _MAX_LABEL - 1]}\N{HORIZONTAL ELLIPSIS}"
        for n in names
    ]
    axes.set_yticks(range(len(names)), labels, fontsize=9, parse_math=False)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
