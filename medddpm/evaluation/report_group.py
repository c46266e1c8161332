"""One page over several results: a table, how the numbers are spread, outliers first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from medddpm.evaluation.report import Figure
from medddpm.evaluation.report_page import policy, template, text

_FAR = 3.5
"""Distance from the median, in robust standard deviations, that makes an outlier (Iglewicz and
Hoaglin, How to Detect and Handle Outliers, 1993)."""
_COLUMNS = {
    "fraction": ("Sigma, of the scale", "{:.4f}"),
    "ceiling": ("VAE ceiling, dB", "{:.1f}"),
    "residual_ratio": ("Removed over assumed noise", "{:.2f}"),
    "noise_ratio": ("Found over assumed noise", "{:.2f}"),
    "whiteness": ("Likeness of neighbours", "{:.2f}"),
    "structure": ("Follows anatomy", "{:.2f}"),
    "peak": ("Largest local mean, sigma", "{:.2f}"),
    "snr": ("SNR after", "{:.1f}"),
    "cnr": ("CNR after", "{:.1f}"),
    "psnr": ("PSNR after, dB", "{:.2f}"),
    "ssim": ("SSIM after", "{:.4f}"),
    "seconds": ("Seconds", "{:.1f}"),
}


@dataclass(frozen=True)
class GroupRow:
    """A result in the table: its name, the page that it links to, numbers and flags."""

    name: str
    link: str
    values: Mapping[str, float]
    flags: tuple[str, ...]

    @classmethod
    def of(
        cls, name: str, link: str, facts: Mapping[str, Any], figures: Sequence[Figure]
    ) -> GroupRow:
        """The row of a sidecar and of the figures on its page; numbers of the first frame."""
        first = facts["frames"][0]
        values = {
            "fraction": first["sigma"]["fraction"],
            "ceiling": first["vae_ceiling_db"],
            **{k: v for k, v in first["guard"].items() if k in _COLUMNS},
            **{f.key: f.after for f in figures},
            "seconds": facts["seconds"],
        }
        flags = dict.fromkeys(m for frame in facts["frames"] for m in frame["guard"]["messages"])
        numbers = {k: float(v) for k, v in values.items() if v is not None}
        return cls(name, link, numbers, tuple(flags))


def group_page(rows: Sequence[GroupRow]) -> str:
    """The page; flagged results come first, then those that lie furthest from the others."""
    far = outlyingness(rows)
    order = sorted(range(len(rows)), key=lambda i: (not rows[i].flags, -far[i][0]))
    columns = {k: c for k, c in _COLUMNS.items() if any(k in row.values for row in rows)}
    script = text("group.js")
    return str(
        template("group.html").render(
            policy=policy(script),
            css=Markup(text("report.css")),
            script=Markup(script),
            num_flagged=sum(bool(row.flags) for row in rows),
            num_far=sum(distance > _FAR for distance, _ in far),
            limit=_FAR,
            columns=[(key, label) for key, (label, _) in columns.items()],
            rows=[_cells(rows[i], far[i], columns) for i in order],
            strips=[_strip(key, label, form, rows) for key, (label, form) in columns.items()],
        )
    )


def outlyingness(rows: Sequence[GroupRow]) -> list[tuple[float, str]]:
    """For each row its largest distance from the median of a column, and that column's name.

    In robust standard deviations: 1.4826 times the median absolute deviation. Columns in which
    more than half of the rows are equal say nothing.
    """
    found = [(0.0, "")] * len(rows)
    for key, (label, _) in _COLUMNS.items():
        if key == "seconds":
            continue
        values = np.array([row.values.get(key, np.nan) for row in rows])
        middle = np.nanmedian(values) if np.isfinite(values).any() else np.nan
        spread = 1.4826 * np.nanmedian(np.abs(values - middle)) if np.isfinite(middle) else 0.0
        if not spread > 0:
            continue
        for i, distance in enumerate(np.abs(values - middle) / spread):
            if np.isfinite(distance) and distance > found[i][0]:
                found[i] = (float(distance), label)
    return found


def _cells(
    row: GroupRow, far: tuple[float, str], columns: Mapping[str, tuple[str, str]]
) -> dict[str, Any]:
    distance, label = far
    why = f"{distance:.1f} ({label})" if label else "0"
    cells = [
        (row.values.get(k, ""), form.format(row.values[k]) if k in row.values else "")
        for k, (_, form) in columns.items()
    ]
    return {
        "name": row.name,
        "link": row.link,
        "flags": "; ".join(row.flags),
        "far": distance,
        "why": why,
        "cells": cells,
    }


def _strip(key: str, label: str, form: str, rows: Sequence[GroupRow]) -> dict[str, Any]:
    """Dots along a line, one a result, in a drawing of 300 x 60."""
    shown = [row for row in rows if key in row.values]
    values = np.array([row.values[key] for row in shown])
    low, high = float(values.min()), float(values.max())
    span = high - low or 1.0
    dots = [
        {
            "x": 12 + 276 * (value - low) / span if high > low else 150,
            "y": 16 + 8 * (i % 3),
            "row": row,
            "text": f"{row.name}: {form.format(value)}",
        }
        for i, (row, value) in enumerate(zip(shown, values.tolist(), strict=True))
    ]
    return {
        "label": label,
        "dots": dots,
        "low": form.format(low),
        "high": form.format(high),
        "middle": form.format(float(np.median(values))),
    }
