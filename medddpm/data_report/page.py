"""The data report as one HTML page that needs no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from medddpm.data_report import measure as data_report
from medddpm.data_report import subgroups
from medddpm.data_report.figures import difference_plot, place_name, share_plot
from medddpm.data_report.measure import Breakdown, Counts, DataReport, Group, name_some
from medddpm.data_report.subgroups import GroupQuality, MethodQuality
from medddpm.report.html import (
    Flag,
    bullets,
    fold,
    heading,
    html_page,
    image,
    paragraph,
    plots,
    table,
)

_UNITS = {"psnr": ", dB"}
_ABOUT = (
    "What the data holds, by split, from the manifest that medddpm prepare wrote. A small group "
    "may point to a person: treat this page as you treat the manifest."
)
_DISTANCE = (
    "Total variation distance: the share of one split that would have to change its group to be "
    "made up as the other. 0 is alike, 1 has nothing in common. Each subject weighs the same. "
    "Chance is what random splits of the same subjects stay below, with 95 % confidence in all "
    "comparisons together. A difference is notable above chance and above "
    f"{data_report.NOTABLE_DISTANCE:g}."
)
_SMALL = (
    f"A group is small with fewer than {data_report.MIN_SUBJECTS} subjects in train, with less "
    f"than {100 * data_report.MIN_SHARE:.0f} % of the subjects in train, or if a split has none."
)
_LEFT_OUT = (
    "Scans that medddpm prepare could not read or left out, by the code in ledger.csv, with the "
    "most frequent reason of each."
)
_QUALITY = (
    "The score of a scan is its mean over the noise levels. A subject counts once in a group, and "
    "intervals come from a bootstrap over subjects: 95 % for a group's mean; for its difference "
    "from the rest, 95 % for all groups of a table together (Bonferroni; Student's t times the "
    "bootstrap's standard error, or that of a common spread if larger). A group is worse if that "
    "interval lies below zero: without any true difference, that happens in at most about 1 of 40 "
    f"tables. With fewer than {subgroups.MIN_SUBJECTS} subjects in the group or outside it, there "
    "are too few to tell. 'No clear difference' does not prove that there is none: look at the "
    "width of the interval. A difference may come from another property that goes with the group: "
    "'within the same contrast' compares each scan with the mean of its contrast."
)


@dataclass(frozen=True)
class Results:
    """What a benchmark says of the scans in the manifest.

    Attributes:
        methods: By group.
        used: Which scans were scored, in words.
        warning: Why they may mislead; empty if nothing is known.
        unknown: Names in the results that are no scan of the manifest.
    """

    methods: list[MethodQuality]
    used: str
    warning: str = ""
    unknown: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Sheets:
    """Contact sheets: JPEG bytes by file name, and the names of those that are not shown."""

    shown: Mapping[str, bytes] = field(default_factory=dict)
    hidden: Sequence[str] = ()


def quality_flags(results: Results) -> list[str]:
    """What is worse, in words, with the numbers."""
    return [_flag(method, group) for method in results.methods for group in method.worse]


def _flag(method: MethodQuality, group: GroupQuality) -> str:
    form = f"+.{_digits(method)}f"
    line = (
        f"{method.method}: {group.variable} {group.group} is restored worse than the rest, "
        f"{group.difference:{form}}{_between(group.difference_interval, form)}"
        f"{' dB' if method.metric == 'psnr' else ''} of {method.metric.upper()}; "
        f"{group.subjects} subjects against {group.others}"
    )
    if group.same_contrast is not None:
        line += f"; {group.same_contrast:{form}} within the same contrast"
    return f"{line}."


def data_report_page(
    report: DataReport, facts: Mapping[str, str], results: Results | None, sheets: Sheets
) -> str:
    """The page.

    Args:
        report: The numbers.
        facts: How it was made, such as the checksum of the manifest.
        results: Quality by subgroup, if there was a benchmark.
        sheets: Shown at the end.
    """
    parts = [heading("Data report", 1), paragraph(_ABOUT), heading("What to look at")]
    parts += _findings(report, results)
    parts += [heading("Splits"), _split_table(report)]
    for breakdown in report.breakdowns:
        parts += _breakdown(breakdown, report)
    parts += [heading("Small groups"), paragraph(_SMALL), *_small_groups(report)]
    parts += [heading("Balance between splits"), *_balance(report)]
    parts += [heading("Missing values"), _missing(report)]
    parts += [heading("Left out, consent and flags"), *_left_out(report)]
    if results:
        parts += [heading("Restoration quality by subgroup"), *_quality(results)]
    if sheets.shown or sheets.hidden:
        parts += [heading("Contact sheets"), *_sheets(sheets)]
    parts.append(fold("How it was made", table(["what", "value"], facts.items(), words=1)))
    return html_page("Data report", parts)


def _findings(report: DataReport, results: Results | None) -> list[str]:
    lines = [Flag(line) for line in report.problems]
    if results:
        lines += [Flag(line) for line in quality_flags(results)]
        lines += [Flag(results.warning)] if results.warning else []
    found: list[str] = [*lines, *report.remarks]
    return [bullets(found)] if found else [paragraph("Nothing stands out.")]


def _split_table(report: DataReport) -> str:
    rows = [
        [place_name(place), str(report.subjects[place]), str(report.scans[place])]
        for place in [*report.places, "all"]
    ]
    return table(["split", "subjects", "scans"], rows)


def _breakdown(breakdown: Breakdown, report: DataReport) -> list[str]:
    name = breakdown.variable.name
    words = f"Share of the subjects in each group of {name}, by split; the table has the numbers"
    plot, rest = share_plot(breakdown, report, words)
    more = f"; {rest} more groups are in the table" if rest else ""
    head = [name]
    for place in report.places:
        head += [f"{place_name(place)}, subjects", "%", "scans"]
    rows = [[group.name, *_group_cells(group, report)] for group in breakdown.groups]
    return [
        heading(f"By {name}"),
        plots([plot]),
        paragraph(f"The plot shows the first groups{more}.") if rest else "",
        table(head, rows),
    ]


def _group_cells(group: Group, report: DataReport) -> list[str]:
    cells = []
    for place in report.places:
        subjects = group.subjects.get(place, 0)
        share = 100 * subjects / report.subjects[place]
        cells += [str(subjects), f"{share:.0f}", str(group.scans.get(place, 0))]
    return cells


def _small_groups(report: DataReport) -> list[str]:
    splits = [place for place in report.places if place]
    rows = [
        [
            f"{breakdown.variable.name}: {group.name}",
            *(str(group.subjects.get(split, 0)) for split in splits),
            "; ".join(group.small),
        ]
        for breakdown in report.breakdowns
        for group in breakdown.groups
        if group.small
    ]
    if not rows:
        return [paragraph("There is none.")]
    head = ["group", *(f"subjects in {split}" for split in splits), "why"]
    return [table(head, rows, words=1)]


def _balance(report: DataReport) -> list[str]:
    rows = [
        [
            f"{breakdown.variable.name}: {d.first} and {d.second}",
            f"{d.value:.2f}",
            f"{d.chance:.2f}",
            Flag("notable") if d.notable else "",
        ]
        for breakdown in report.breakdowns
        for d in breakdown.distances
    ]
    if not rows:
        return [paragraph("There are not two splits to compare.")]
    head = ["splits", "distance", "chance stays below", "remark"]
    return [paragraph(_DISTANCE), table(head, rows, words=1)]


def _missing(report: DataReport) -> str:
    head = ["column", *(f"{place_name(place)}, scans without (%)" for place in report.places)]
    rows = []
    for name, counts in report.missing.items():
        shares = [
            (counts.get(p, 0), 100 * counts.get(p, 0) / report.scans[p]) for p in report.places
        ]
        rows.append([name, *(f"{count} ({share:.0f})" for count, share in shares)])
    return table(head, rows)


def _left_out(report: DataReport) -> list[str]:
    parts = []
    if report.left_out:
        rows = [[code, str(n), reason] for code, (n, reason) in report.left_out.items()]
        parts += [paragraph(_LEFT_OUT), table(["code", "scans", "reason"], rows, words=1)]
    else:
        parts.append(paragraph("The ledger names no scan."))
    for name, counts in (
        ("consent", report.consent),
        ("licence", report.licences),
        ("flag", report.flags),
    ):
        parts.append(_tally(name, counts, report))
    return parts


def _tally(name: str, counts: Mapping[str, Counts], report: DataReport) -> str:
    if not counts:
        return paragraph(f"No scan has a {name}.")
    head = [name, *(f"{place_name(place)}, scans" for place in report.places)]
    rows = [
        [label, *(str(found.get(place, 0)) for place in report.places)]
        for label, found in counts.items()
    ]
    return table(head, rows)


def _quality(results: Results) -> list[str]:
    parts = [paragraph(f"{results.used} {results.warning}".strip()), paragraph(_QUALITY)]
    if results.unknown:
        names = name_some(results.unknown)
        parts.append(paragraph(f"Not in the manifest, and not used: {names}."))
    for method in results.methods:
        parts += _method(method)
    return parts


def _method(method: MethodQuality) -> list[str]:
    unit = _UNITS.get(method.metric, "")
    levels = ", ".join(f"{sigma:g}" for sigma in method.sigmas)
    facts = (
        f"{method.scans} scans of {method.subjects} subjects; sigma {levels}; "
        f"{method.comparisons} groups compared."
    )
    if method.incomplete:
        facts += (
            f" {method.incomplete} scans were set aside: a noise level is missing, or has no "
            "finite score."
        )
    parts = [heading(method.method, 3), paragraph(facts)]
    if method.comparisons:
        worse = ", ".join(f"{g.variable} {g.group}" for g in method.worse) or "none"
        text = f"Difference of each group from the rest, with intervals; worse: {worse}"
        parts.append(plots([difference_plot(method, unit, text)]))
    head = ["group", "subjects", "scans", f"{method.metric.upper()}{unit} (95 %)"]
    head += ["difference from the rest (corrected)", "within the same contrast", "verdict"]
    rows = [_quality_row(group, _digits(method)) for group in method.groups]
    return [*parts, table(head, rows, words=1)]


def _quality_row(group: GroupQuality, digits: int) -> list[str]:
    mean = f"{group.mean:.{digits}f}" + _between(group.interval, f".{digits}f")
    difference = same = ""
    if group.difference is not None:
        interval = _between(group.difference_interval, f"+.{digits}f")
        difference = f"{group.difference:+.{digits}f}{interval}"
    if group.same_contrast is not None:
        same = f"{group.same_contrast:+.{digits}f}"
    verdict = Flag(group.verdict) if group.verdict == "worse" else group.verdict
    name = f"{group.variable}: {group.group}"
    return [name, str(group.subjects), str(group.scans), mean, difference, same, verdict]


def _between(interval: tuple[float, float] | None, form: str) -> str:
    return f" ({interval[0]:{form}} to {interval[1]:{form}})" if interval else ""


def _digits(method: MethodQuality) -> int:
    return 2 if method.metric == "psnr" else 4


def _sheets(sheets: Sheets) -> list[str]:
    parts = []
    for name, content in sheets.shown.items():
        parts += [heading(name, 3), image(content, f"contact sheet {name}", kind="jpeg", fit=True)]
    if sheets.hidden:
        parts.append(
            paragraph(f"Too large for this page, or unreadable: {name_some(sheets.hidden)}.")
        )
    return parts
