"""The plot of a sweep: PSNR, SSIM and seconds of each cell, side by side."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_PANELS = (
    ("psnr", "validation PSNR, dB"),
    ("ssim", "validation SSIM"),
    ("train_seconds", "seconds of training"),
    ("restore_seconds", "seconds a restored patch"),
)


def sweep_plot(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG with one line a cell, best PSNR on top, and one panel a figure.

    Args:
        rows: Of the cells: "cell", "state" and the figures of those that are done.
    """
    ordered = sorted(rows, key=lambda row: row.get("psnr", float("-inf")))
    names = [
        row["cell"] if row["state"] == "done" else f"{row['cell']} ({row['state']})"
        for row in ordered
    ]
    size = (4 + 2.4 * len(_PANELS), 1.2 + 0.32 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(_PANELS), sharey=True, squeeze=False)[0]
    for panel, (key, label) in zip(panels, _PANELS, strict=True):
        values = [row.get(key, float("nan")) for row in ordered]
        panel.plot(values, range(len(rows)), marker="o", linestyle="", color="#14507f")
        panel.set(xlabel=label, yticks=range(len(rows)), ylim=(-0.6, len(rows) - 0.4))
        panel.grid(axis="both", alpha=0.3)
        if key.endswith("seconds"):
            known = [row[key] for row in rows if key in row]
            panel.set_xlim(0, 1.1 * max(known, default=1.0))
    panels[0].set_yticklabels(names, fontsize=8)
    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=95, facecolor="white")
    return stream.getvalue()
