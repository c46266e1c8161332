"""Charts of a data report."""

from __future__ import annotations

from markupsafe import Markup

from medddpm.data_report.measure import Breakdown, DataReport
from medddpm.data_report.subgroups import MethodQuality
from medddpm.report.chart import Axis, row_chart

_COLOURS = {"train": 0, "val": 1, "test": 2, "": 5}
_VERDICT_COLOURS = {"worse": 4, "better": 2}
_MAX_GROUPS = 15


def place_name(place: str) -> str:
    """How the page calls a split, or what is in none."""
    return place or "left out"


def share_plot(breakdown: Breakdown, report: DataReport, words: str) -> tuple[Markup, int]:
    """The share of each place's subjects that have scans of a group.

    Args:
        breakdown: Its groups.
        report: For the subjects of each place.
        words: What it shows.

    Returns:
        The chart, and how many groups it leaves to the table: it shows the first 15.
    """
    groups = breakdown.groups[:_MAX_GROUPS]
    rows = [
        (g.name, 100 * g.subjects.get(place, 0) / report.subjects[place], None, None)
        for g in groups
        for place in report.places
    ]
    named = {f"{place_name(p)}, n = {report.subjects[p]}": _COLOURS[p] for p in report.places}
    figure = row_chart(
        "Share of the subjects",
        rows,
        Axis("subjects, % of the split", 0, 100),
        words=words,
        colours=[_COLOURS[place] for _ in groups for place in report.places],
        legend=named,
    )
    return figure, len(breakdown.groups) - len(groups)


def difference_plot(quality: MethodQuality, unit: str, words: str) -> Markup:
    """Each group's difference from the rest with its interval; the worse ones stand out.

    Args:
        quality: Of one method.
        unit: Of its scores.
        words: What it shows.
    """
    lines = [line for line in quality.groups if line.difference_interval]
    rows = [
        (f"{line.variable}: {line.group}", line.difference or 0.0, *line.difference_interval)
        for line in lines
        if line.difference_interval
    ]
    label = f"{quality.metric.upper()} of the group less that of the rest{unit}"
    colours = [_VERDICT_COLOURS.get(line.verdict, 5) for line in lines]
    legend = {"worse": 4, "better": 2, "no clear difference, or too few": 5}
    return row_chart(
        quality.method, rows, Axis(label), words=words, colours=colours, legend=legend, zero=True
    )
