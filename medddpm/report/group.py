"""One page over several results: a table, how the numbers are spread, outliers first."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np

from medddpm.io.sidecar import Sidecar
from medddpm.report.checks import check_values
from medddpm.report.facts import Figure
from medddpm.report.html import render
from medddpm.report.strip import strip

_FAR = 3.5
"""Distance from the median, in robust standard deviations, that makes an outlier (Iglewicz and
Hoaglin, How to Detect and Handle Outliers, 1993)."""
COLUMNS = {
    "fraction": ("Sigma, of the scale", "{:.4f}"),
    "psnr": ("PSNR after, dB", "{:.2f}"),
    "psnr_gain": ("PSNR gain, dB", "{:.2f}"),
    "ssim": ("SSIM after", "{:.4f}"),
    "ssim_gain": ("SSIM gain", "{:.4f}"),
    "snr": ("SNR after", "{:.1f}"),
    "cnr": ("CNR after", "{:.1f}"),
    "ceiling": ("VAE ceiling, dB", "{:.1f}"),
    "residual_ratio": ("Removed over assumed noise", "{:.2f}"),
    "noise_ratio": ("Found over assumed noise", "{:.2f}"),
    "whiteness": ("Likeness of neighbours", "{:.2f}"),
    "structure": ("Follows edges", "{:.2f}"),
    "anatomy": ("Holds anatomy", "{:.2f}"),
    "peak": ("Largest local mean, sigma", "{:.2f}"),
    "strangeness": ("Unlike known scans", "{:.1f}"),
    "disagreement": ("Samples disagree, sigma", "{:.2f}"),
    "seconds": ("Seconds", "{:.1f}"),
}


@dataclass(frozen=True)
class GroupRow:
    """A result in the table.

    Attributes:
        name: What a person calls it.
        link: Its page, relative to the page over all; "" if there is none.
        values: Numbers by the keys of the columns.
        flags: Sentences of its guard.
    """

    name: str
    link: str
    values: Mapping[str, float]
    flags: tuple[str, ...]

    @classmethod
    def of(cls, name: str, link: str, facts: Sidecar, figures: Sequence[Figure]) -> GroupRow:
        """The row of a sidecar and of the figures on its page; numbers of its first frame."""
        first = facts.shown
        values = {
            "fraction": first.sigma.fraction,
            "ceiling": first.vae_ceiling_db,
            **{k: v for k, v in check_values(first.guard).items() if k in COLUMNS},
            **{f.key: f.after for f in figures},
            **{f"{f.key}_gain": f.gain for f in figures if f"{f.key}_gain" in COLUMNS},
            "seconds": facts.seconds,
        }
        numbers = {k: v for k, v in values.items() if v is not None and not math.isnan(v)}
        return cls(name, link, numbers, tuple(facts.messages))


@dataclass(frozen=True)
class Missing:
    """A scan of the group that has no result, and why."""

    name: str
    reason: str


def group_page(
    rows: Sequence[GroupRow],
    *,
    missing: Sequence[Missing] = (),
    num_unreached: int = 0,
    advice: str = "",
) -> str:
    """The page; flagged results come first, then those that lie furthest from the others.

    Args:
        rows: Results.
        missing: Scans that could not be restored.
        num_unreached: Scans of which nothing is known yet.
        advice: A sentence for the top.
    """
    far = outlyingness(rows)
    order = sorted(range(len(rows)), key=lambda i: (not rows[i].flags, -far[i][0]))
    columns = {k: c for k, c in COLUMNS.items() if any(k in row.values for row in rows)}
    apart = [
        bool(row.flags) or distance > _FAR for row, (distance, _) in zip(rows, far, strict=True)
    ]
    return render(
        "group.html",
        ["group.js"],
        num_flagged=sum(bool(row.flags) for row in rows),
        num_far=sum(distance > _FAR for distance, _ in far),
        limit=_FAR,
        missing=missing,
        num_unreached=num_unreached,
        advice=advice,
        columns=[(key, label) for key, (label, _) in columns.items()],
        rows=[_cells(rows[i], far[i], columns) for i in order],
        strips=[strip(key, label, form, rows, apart) for key, (label, form) in columns.items()],
    )


def outlyingness(rows: Sequence[GroupRow]) -> list[tuple[float, str]]:
    """For each row its largest distance from the median of a column, and that column's name.

    In robust standard deviations: 1.4826 times the median absolute deviation. Columns in which
    more than half of the rows are equal say nothing.
    """
    found = [(0.0, "")] * len(rows)
    for key, (label, _) in COLUMNS.items():
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
        "link": quote(os.fsencode(row.link)),
        "flags": "; ".join(row.flags),
        "far": distance,
        "why": why,
        "cells": cells,
    }
