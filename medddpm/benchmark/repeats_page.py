"""Truth from repeats as HTML: a table and a picture for each scan, a page or a part of one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from medddpm.benchmark.figures import Planes, method_label, repeat_pictures
from medddpm.benchmark.methods import OURS
from medddpm.report.html import Flag, bullets, fold, heading, html_page, paragraph, table

Row = Mapping[str, Any]

_COLUMNS = {
    "rmse": ("RMSE", "{:.4g}"),
    "psnr": ("PSNR, dB", "{:.2f}"),
    "gain": ("gain over doing nothing, dB", "{:+.2f}"),
    "removed": ("noise variance removed, %", "{:.0f}"),
    "systematic": ("of the RMSE, the same in all repeats", "{:.4g}"),
    "bias_dark": ("bias dark, %", "{:+.2f}"),
    "bias_middle": ("middle, %", "{:+.2f}"),
    "bias_bright": ("bright, %", "{:+.2f}"),
    "sigma_told": ("sigma it was told or found", "{:.4g}"),
    "seconds": ("seconds", "{:.1f}"),
}
_CLOSE = 0.1
"""A sigma that is off by less is no reason to worry."""
_PERCENT = ("removed", "bias")
_LEGEND = (
    "No scan here is clean. Each repeat is restored alone and held against the other repeats, "
    "whose noise it has not seen; the noise of the repeats themselves is taken off. What is left "
    "is the mean squared error against the scan without noise, in the foreground, for noise of any "
    "colour and map. RMSE is in the units of the scan; PSNR is at the intensity scale, the 99.5th "
    "percentile of the foreground. In brackets: 95 % intervals. The part of the error that is the "
    "same in all repeats is anatomy that was blurred or invented. Dark, middle and bright are "
    "classes of brightness of the mean of the repeats, bias is in percent of the scale. All is "
    "measured in the mean magnitude that a restoration lets expect."
)
_TWO = (
    "Of two repeats, the interval comes from blocks of voxels: it is wide, as places differ, and "
    "does not know what a whole repeat has of its own."
)
_PICTURE = "One slice: a repeat, the repeat restored, the mean of the others, and what was removed."


def repeats_page(
    rows: Sequence[Row],
    scans: Sequence[Row],
    summary: Sequence[Row],
    facts: Mapping[str, Any],
    slices: Mapping[str, Planes],
) -> str:
    """The page of `medddpm repeats`; arguments as for `repeats_parts`.

    Args:
        rows: One a scan and method.
        scans: One a scan: its name, its remarks, its sigma.
        summary: One a method, over the scans; empty if there is one.
        facts: JSON-able: options, versions, machine.
        slices: By method, of the first scan.
    """
    parts = [heading("Truth from repeats", 1), *repeats_parts(rows, scans, summary, slices)]
    made = escape(json.dumps(facts, indent=2, sort_keys=True))
    parts.append(fold("How it was made", f"<pre>{made}</pre>"))
    return html_page("Truth from repeats", parts)


def repeats_parts(
    rows: Sequence[Row],
    scans: Sequence[Row],
    summary: Sequence[Row],
    slices: Mapping[str, Planes],
) -> list[str]:
    """What a page says of repeats, without a title.

    Args:
        rows: One a scan and method.
        scans: One a scan: its name, its remarks, its sigma.
        summary: One a method, over the scans; empty if there is one.
        slices: By method, of the first scan.
    """
    parts = [paragraph(_LEGEND)]
    if any(scan["repeats"] == 2 for scan in scans):
        parts.append(paragraph(_TWO))
    if summary:
        parts.append(_summary_table(summary))
    for index, scan in enumerate(scans):
        mine = [row for row in rows if row["case"] == scan["case"]]
        parts += [heading(scan["case"]), bullets(scan_lines(scan, mine)), _table(mine)]
        if index == 0 and slices:
            parts.append(
                paragraph(f"{_PICTURE} Removed: from \u22124 (blue) to +4 sigma (orange).")
            )
            parts.append(repeat_pictures(slices, scan["sigma_repeats"] / scan["scale"]))
    return parts


def scan_lines(scan: Row, rows: Sequence[Row]) -> list[str]:
    """In words: the noise of the repeats, what was found blind, and what was left out.

    Args:
        scan: Its facts.
        rows: Those of its methods.
    """
    sigma, low, high = (scan[f"sigma_repeats{end}"] for end in ("", "_low", "_high"))
    lines = [
        f"{scan['repeats']} repeats; sigma by them {sigma:.4g} ({low:.4g} to {high:.4g}), "
        f"{sigma / scan['scale']:.4f} of the intensity scale"
    ]
    blind = [row for row in rows if row["sigma_source"] == "blind"]
    ours = [row for row in blind if row["method"].split("@")[0] in OURS]
    found = next((row["sigma_told"] for row in ours or blind), None)
    if found:
        off = found / sigma - 1
        known = low <= found <= high or abs(off) < _CLOSE
        words = "as restore estimates it" if ours else "as estimated"
        words += f" from one repeat alone {found:.4g}, {abs(off):.0%} too "
        words += "high" if off > 0 else "low"
        lines.append(words if known else Flag(words))
    return [*lines, *scan["remarks"]]


def _table(rows: Sequence[Row]) -> str:
    columns = {n: form for n, form in _COLUMNS.items() if any(r.get(n) is not None for r in rows)}
    head = ["method", *(label for label, _ in columns.values())]
    return table(head, [[method_label(r), *(cell(r, name) for name in columns)] for r in rows])


def cell(row: Row, name: str) -> str:
    """A number of a row with its interval, in words where it is not known."""
    factor = 100 if name.startswith(_PERCENT) else 1

    def said(value: float) -> str:
        text = _COLUMNS[name][1].format(factor * value)
        return text if float(text) else text.replace("-", "+" if "+" in _COLUMNS[name][1] else "")

    low, value, high = (row.get(key) for key in (f"{name}_low", name, f"{name}_high"))
    if f"{name}_low" not in row:
        return "" if value is None else said(value)
    if low is None:
        return "not known"
    if value is None:
        return f"over {said(low)}"
    return f"{said(value)} ({said(low)} to {'more' if high is None else said(high)})"


def _summary_table(summary: Sequence[Row]) -> str:
    head = ["method", "mean gain over doing nothing, dB", "scans"]
    body = [
        [
            method_label(line),
            f"{line['gain']:+.2f}" + _between(line),
            str(line["scans"]),
        ]
        for line in summary
    ]
    said = "Means over the scans; of several, with 95 % bootstrap intervals over the scans"
    return table(head, body, caption=said)


def _between(line: Row) -> str:
    """The interval over scans; one scan has none."""
    if int(line["scans"]) < 2:
        return ""
    return f" ({line['gain_low']:+.2f} to {line['gain_high']:+.2f})"
