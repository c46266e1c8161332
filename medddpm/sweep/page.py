"""The page of a sweep: PSNR, SSIM and seconds of each cell, and a table of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medddpm.report.chart import Axis, row_chart
from medddpm.report.html import heading, html_page, paragraph, plots, table

Row = Mapping[str, Any]
_FIGURES = {
    "psnr": ("PSNR, dB", Axis("validation PSNR, dB", least=1.0), "{:.2f}"),
    "ssim": ("SSIM", Axis("validation SSIM", least=0.02), "{:.3f}"),
    "train_seconds": ("Training, s", Axis("seconds of training", low=0), "{:.0f}"),
    "restore_seconds": ("Restoring, s", Axis("seconds a restored patch", low=0), "{:.2f}"),
}
_ABOUT = (
    "One line a combination of settings, the best PSNR on top: on held-out patches, one training "
    "run each, so that what differs by a few hundredths of a dB may be chance. The axis of PSNR "
    "spans 1 dB at least, that of SSIM 0.02."
)


def sweep_page(rows: Sequence[Row]) -> str:
    """The page.

    Args:
        rows: Of the cells: "cell", "state" and the figures of those that are done.
    """
    ordered = sorted(rows, key=lambda row: -row.get("psnr", float("-inf")))
    names = [_name(row) for row in ordered]
    charts = [
        row_chart(
            label,
            [
                (name, row.get(key, float("nan")), None, None)
                for name, row in zip(names, ordered, strict=True)
            ],
            axis,
            words=f"{axis.label} of each cell",
        )
        for key, (label, axis, _) in _FIGURES.items()
        if any(key in row for row in rows)
    ]
    body = [
        [row["cell"], row["state"]]
        + [form.format(row[key]) if key in row else "" for key, (_, _, form) in _FIGURES.items()]
        for row in ordered
    ]
    parts = [
        heading("Sweep", 1),
        paragraph(_ABOUT),
        plots(charts),
        table(["cell", "state", *(axis.label for _, axis, _ in _FIGURES.values())], body),
    ]
    return html_page("Sweep", parts)


def _name(row: Row) -> str:
    """A cell by the settings that are tried, without the parts of a config they lie in."""
    tried = {k: v for k, v in row.items() if "." in k and k.split(".")[0].isalpha()}
    named = ", ".join(f"{key.split('.')[-1]} {value}" for key, value in tried.items())
    return (named or row["cell"]) + ("" if row["state"] == "done" else f" ({row['state']})")
