"""A benchmark as one HTML page that needs no other file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from medddpm.evaluation.benchmark_figures import (
    Planes,
    gain_plot,
    method_label,
    montage,
    score_plot,
)
from medddpm.evaluation.html_page import heading, html_page, image, paragraph, table

Row = Mapping[str, Any]

_COLUMNS = {
    "psnr": ("PSNR, dB", "{:.2f}"),
    "gain": ("gain, dB", "{:+.2f}"),
    "ssim": ("SSIM", "{:.4f}"),
    "nrmse": ("NRMSE", "{:.4f}"),
    "hfen": ("HFEN", "{:.4f}"),
    "psnr_dark": ("PSNR dark", "{:.2f}"),
    "psnr_middle": ("middle", "{:.2f}"),
    "psnr_bright": ("bright", "{:.2f}"),
    "psnr_edges": ("edges", "{:.2f}"),
    "psnr_whole": ("whole", "{:.2f}"),
    "bias_dark": ("bias dark, %", "{:+.2f}"),
    "bias_middle": ("middle, %", "{:+.2f}"),
    "bias_bright": ("bright, %", "{:+.2f}"),
    "bias_air": ("air, %", "{:+.2f}"),
    "power_high": ("power at 0.5 to 0.8 Nyquist", "{:.2f}"),
    "power_worst": ("power, worst", "{:.2f}"),
    "seconds": ("seconds", "{:.1f}"),
    "peak_gb": ("memory, GB", "{:.2f}"),
}
_LEGEND = (
    "Means over the scans. PSNR, SSIM, NRMSE and HFEN are in the foreground unless a column says "
    "otherwise; the data range is the intensity scale, the 99.5th percentile of the foreground. "
    "Dark, middle and bright are classes of brightness of the clean scan. Bias is the mean error "
    "in percent of the scale. Power is that of the restored foreground over the clean one's, in "
    "shells of a tenth of the Nyquist frequency up to 0.8 of it; worst is the furthest from 1. "
    "Memory is what the process grew by; seconds hold the estimate of sigma. Intervals are paired "
    "95 % bootstrap intervals over the scans; of one scan they have no width."
)
_MONTAGE = "One slice, all at the window 0 to 1.05 of the scale; errors below, within 4 sigma."


def benchmark_page(
    summary: Sequence[Row],
    facts: Mapping[str, Any],
    slices: Mapping[float, Mapping[str, Planes]],
) -> str:
    """The page: plots, a table for each noise level with its montage, and how it was made.

    Args:
        summary: Lines of `bootstrap.summarise`.
        facts: JSON-able: options, versions, machine.
        slices: By sigma and method, what the montages show.
    """
    parts = [
        heading("Denoising benchmark", 1),
        paragraph(f"{_LEGEND} Gains are over {summary[0]['gain_over']}."),
        image(score_plot(summary), "PSNR and SSIM against sigma"),
        image(gain_plot(summary), "gain over the reference, and PSNR against seconds"),
    ]
    for sigma in dict.fromkeys(line["sigma"] for line in summary):
        parts.append(heading(f"sigma {sigma:g} of the scale"))
        parts.append(_table([line for line in summary if line["sigma"] == sigma]))
        if slices.get(sigma):
            parts.append(paragraph(_MONTAGE))
            parts.append(image(montage(slices[sigma], sigma), f"montage at sigma {sigma:g}"))
    made = escape(json.dumps(facts, indent=2, sort_keys=True))
    parts.append(f"{heading('How it was made')}<pre>{made}</pre>")
    return html_page("Denoising benchmark", parts)


def _table(lines: Sequence[Row]) -> str:
    columns = {n: form for n, form in _COLUMNS.items() if any(n in line for line in lines)}
    head = ["method", *(label for label, _ in columns.values()), "scans"]
    body = [
        [method_label(line)]
        + [_cell(line, name, form) for name, (_, form) in columns.items()]
        + [str(line["scans"])]
        for line in lines
    ]
    return table(head, body)


def _cell(line: Row, name: str, form: str) -> str:
    if name not in line:
        return ""
    text = form.format(line[name] * (100 if name.startswith("bias") else 1))
    if name == "gain":
        text += f" ({line['gain_low']:+.2f} to {line['gain_high']:+.2f})"
    return text
