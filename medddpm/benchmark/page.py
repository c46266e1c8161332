"""A benchmark as one HTML page that needs no other file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from medddpm.benchmark.figures import (
    NOISE_WORDS,
    Planes,
    gain_charts,
    has_interval,
    level_chart,
    method_label,
    montage,
    score_charts,
    steps_charts,
    true_sigma,
)
from medddpm.report.html import fold, heading, html_page, paragraph, plots, table

Row = Mapping[str, Any]
Slices = dict[tuple[str, float], dict[str, Planes]]
"""By kind and level of noise, and by method, what the montages show."""

_COLUMNS = {
    "psnr": ("PSNR, dB", "{:.1f}"),
    "gain": ("gain, dB", "{:+.2f}"),
    "ssim": ("SSIM", "{:.3f}"),
    "nrmse": ("NRMSE", "{:.3f}"),
    "hfen": ("HFEN", "{:.3f}"),
    "kept": ("changes kept", "{:.3f}"),
    "md_error": ("error of MD", "{:.3f}"),
    "fa_error": ("error of FA", "{:.3f}"),
    "tsnr": ("temporal SNR", "{:.0f}"),
    "seconds": ("time, s", "{:.1f}"),
    "peak_gb": ("memory, GB", "{:.1f}"),
}
_DETAILS = {
    "psnr_dark": ("PSNR in dark tissue, dB", "{:.1f}"),
    "psnr_middle": ("in middle tissue", "{:.1f}"),
    "psnr_bright": ("in bright tissue", "{:.1f}"),
    "psnr_edges": ("at edges", "{:.1f}"),
    "psnr_whole": ("of the whole scan", "{:.1f}"),
    "bias_dark": ("bias in dark tissue, %", "{:+.1f}"),
    "bias_middle": ("in middle tissue", "{:+.1f}"),
    "bias_bright": ("in bright tissue", "{:+.1f}"),
    "bias_air": ("in air", "{:+.1f}"),
    "power_high": ("power at 0.5 to 0.8 Nyquist", "{:.2f}"),
    "power_worst": ("power, worst", "{:.2f}"),
}
_LEAD = (
    "Clean scans with noise added, restored by each method and held against the clean scan: means "
    "over the scans, in the foreground. Gains are over {}."
)
_LEGEND = (
    "PSNR, SSIM, NRMSE and HFEN are in the foreground unless a column says "
    "otherwise; the data range is the intensity scale, the 99.5th percentile of the foreground. "
    "Dark, middle and bright are classes of brightness of the clean scan. Bias is the mean error "
    "in percent of the scale. Power is that of the restored foreground over the clean one's, in "
    "shells of a tenth of the Nyquist frequency up to 0.8 of it; worst is the furthest from 1. "
    "Memory is what the process grew by; seconds hold the estimate of sigma. Intervals are paired "
    "95 % bootstrap intervals over the scans; one scan has none. Of a scan of several frames the "
    "scores are over all of them (each is in frames.csv); changes kept is the share of the true "
    "changes from frame to frame that is still there, and the median errors of mean diffusivity "
    "(over its median) and fractional anisotropy are those of a tensor fitted up to b 1500."
)
_CHAIN = (
    "Noise as acquired is white in k-space, on the acquired matrix; what the scanner does then "
    "colours it. The truth is the clean scan through the same chain. Sigma is that of one real "
    "component before parallel imaging amplifies it."
)
_FOUND = (
    "Sigma against what was added and the clean scan's own noise together; the edges of k-space "
    "in fractions of Nyquist. An error bar should hold the truth in 9 of 10 scans."
)
_SIGMA_NEAR, _EDGE_NEAR = 0.1, 0.05
_MONTAGE = (
    "One axial slice, all at the window 0 to 1.05 of the scale; below it the errors, restored less "
    "truth, from \u22124 (blue) to +4 sigma (orange)."
)


def benchmark_page(
    summary: Sequence[Row],
    facts: Mapping[str, Any],
    slices: Slices,
    acquisitions: Sequence[Row] = (),
    rows: Sequence[Row] = (),
    more: Sequence[str] = (),
) -> str:
    """The page: plots, a table for each noise with its montage, and how it was made.

    Args:
        summary: Lines of `bootstrap.summarise`.
        facts: JSON-able: options, versions, machine.
        slices: What the montages show.
        acquisitions: What was simulated: case, noise and words.
        rows: Each restoration, for what was found of the noise.
        more: HTML that follows the tables.
    """
    noises = list(dict.fromkeys(line["noise"] for line in summary))
    parts = [
        heading("Denoising benchmark", 1),
        paragraph(_LEAD.format(summary[0]["gain_over"])),
        fold("What the numbers mean", paragraph(_LEGEND)),
        plots([*score_charts(summary), *gain_charts(summary), *steps_charts(summary)]),
    ]
    if len(noises) > 1:
        parts += [heading("The kinds of noise side by side"), _side_by_side(summary, noises)]
    for noise, sigma in dict.fromkeys((line["noise"], line["sigma"]) for line in summary):
        parts.append(heading(f"{NOISE_WORDS[noise]}, sigma {sigma:g} of the scale"))
        here = [line for line in summary if (line["noise"], line["sigma"]) == (noise, sigma)]
        parts.append(_table(here))
        if slices.get((noise, sigma)):
            parts.append(paragraph(_MONTAGE))
            parts.append(montage(slices[noise, sigma], sigma))
    if acquisitions:
        made = [[a["case"], NOISE_WORDS[a["noise"]], a["words"]] for a in acquisitions]
        parts += [heading("What was simulated"), paragraph(_CHAIN)]
        parts.append(
            table(["scan", "noise", "law, acquisition, what was done since"], made, words=2)
        )
    if found := [row for row in rows if row["sigma_error"] is not None]:
        parts += [heading("The noise, as found from the scans alone"), _levels(found)]
        parts.append(plots([level_chart(found)]))
    parts += more
    parts.append(made_of(facts))
    return html_page("Denoising benchmark", parts)


def made_of(facts: Mapping[str, Any]) -> str:
    """How a page was made, folded: options, versions, machine."""
    told = escape(json.dumps(facts, indent=2, sort_keys=True))
    return fold("How it was made", f"<pre>{told}</pre>")


def _levels(rows: Sequence[Row]) -> str:
    """How often each method that estimates the noise was right, and said so."""
    body = []
    for label in dict.fromkeys(method_label(row) for row in rows):
        mine = [row for row in rows if method_label(row) == label]
        off = [abs(row["sigma_told"] / true_sigma(row) - 1) for row in mine]
        held = sum(o <= row["sigma_error"] for o, row in zip(off, mine, strict=True))
        near = sum(row["edge_apart"] <= _EDGE_NEAR for row in mine)
        counts = (sum(o <= _SIGMA_NEAR for o in off), held, near)
        body.append([label, *(f"{count} of {len(mine)}" for count in counts)])
    return paragraph(_FOUND) + table(
        ["method", "sigma within 10 %", "within its own error bar", "all edges within 0.05"], body
    )


def _side_by_side(summary: Sequence[Row], noises: Sequence[str]) -> str:
    """PSNR and gain of each method, a column for each kind of noise."""
    lines: dict[tuple[float, str], dict[str, list[Row]]] = {}
    for line in summary:
        place = lines.setdefault((line["sigma"], line["method"]), {})
        place.setdefault(line["noise"], []).append(line)
    body = []
    for (sigma, method), by_noise in sorted(lines.items(), key=lambda item: item[0][0]):
        for index in range(max(len(found) for found in by_noise.values())):
            row = [f"{sigma:g}", method]
            for noise in noises:
                found = by_noise.get(noise, [])[index : index + 1]
                row += _scores(found[0]) if found else ["", "", ""]
            body.append(row)
    columns = ("sigma is", "PSNR, dB", "gain, dB")
    head = [f"{NOISE_WORDS[noise]}: {column}" for noise in noises for column in columns]
    return table(["sigma", "method", *head], body)


def _scores(line: Row) -> list[str]:
    source = line["sigma_source"].replace("none", "")
    return [source, *(_cell(line, name, _COLUMNS[name][1]) for name in ("psnr", "gain"))]


def _table(lines: Sequence[Row]) -> str:
    details = fold("By tissue, bias and spectrum", _columns(lines, _DETAILS))
    return _columns(lines, _COLUMNS) + details


def _columns(lines: Sequence[Row], known: Mapping[str, tuple[str, str]]) -> str:
    columns = {n: form for n, (_, form) in known.items() if any(n in line for line in lines)}
    head = ["method", *(known[name][0] for name in columns), "scans"]
    body = [
        [method_label(line)]
        + [_cell(line, name, form) for name, form in columns.items()]
        + [str(line["scans"])]
        for line in lines
    ]
    return table(head, body)


def _cell(line: Row, name: str, form: str) -> str:
    if name not in line:
        return ""
    text = form.format(line[name] * (100 if name.startswith("bias") else 1))
    if name == "gain" and has_interval(line):
        text += f" ({line['gain_low']:+.2f} to {line['gain_high']:+.2f})"
    return text
