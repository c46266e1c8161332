"""One page over several results: a table, how the numbers are spread, outliers first."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medddpm.io.sidecar import Sidecar
from medddpm.report.checks import check_values, short_words
from medddpm.report.facts import Figure
from medddpm.report.html import address, render
from medddpm.report.strip import strip

_AT_ONCE = 150
"""Rows that are in the table itself; a script takes the others from where they cost no layout."""
_FAR = 3.5
"""Distance from the median, in robust standard deviations, that makes an outlier (Iglewicz and
Hoaglin, How to Detect and Handle Outliers, 1993)."""
COLUMNS = {
    "fraction": ("Noise, % of scale", "{:.1%}"),
    "psnr": ("PSNR after, dB", "{:.1f}"),
    "psnr_gain": ("PSNR gain, dB", "{:+.1f}"),
    "ssim": ("SSIM after", "{:.3f}"),
    "ssim_gain": ("SSIM gain", "{:+.3f}"),
    "snr": ("SNR after", "{:.1f}"),
    "cnr": ("CNR after", "{:.1f}"),
    "ceiling": ("Fidelity limit, dB", "{:.1f}"),
    "residual_ratio": ("Noise removed / assumed", "{:.2f}"),
    "noise_ratio": ("Noise in tissue / assumed", "{:.2f}"),
    "whiteness": ("Noise texture, correlation", "{:.2f}"),
    "structure": ("Edges removed, correlation", "{:.2f}"),
    "anatomy": ("Anatomy removed, correlation", "{:.2f}"),
    "peak": ("Largest local change, sigma", "{:.2f}"),
    "strangeness": ("Distance to known scans", "{:.1f}"),
    "disagreement": ("Samples disagree, sigma", "{:.2f}"),
    "seconds": ("Time, s", "{:.0f}"),
}
FIRST = ("fraction", "psnr", "psnr_gain", "snr", "residual_ratio", "anatomy", "peak")
"""The columns that a page shows before any other is asked for."""


@dataclass(frozen=True)
class GroupRow:
    """A result in the table.

    Attributes:
        name: What a person calls it.
        link: Its page, relative to the page over all; "" if there is none.
        values: Numbers by the keys of the columns.
        flags: Alarms of its guard.
        notices: Notices of its guard.
        thumbs: Addresses of small pictures before and after, or None.
        short: Two words for a sentence, where they are known.
    """

    name: str
    link: str
    values: Mapping[str, float]
    flags: tuple[str, ...]
    notices: tuple[str, ...] = ()
    thumbs: tuple[str, str] | None = None
    short: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        name: str,
        link: str,
        facts: Sidecar,
        figures: Sequence[Figure],
        thumbs: tuple[str, str] | None = None,
    ) -> GroupRow:
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
        flags, notices = (tuple(t) for t in (facts.messages, facts.notices))
        short = {k: v for frame in facts.frames for k, v in short_words(frame.guard).items()}
        return cls(name, link, numbers, flags, notices, thumbs, short)


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
    found = outlyingness(rows)
    order = sorted(
        range(len(rows)), key=lambda i: (not rows[i].flags, -found[i][0], not rows[i].notices)
    )
    rows, far = [rows[i] for i in order], [found[i] for i in order]
    columns = {k: c for k, c in COLUMNS.items() if any(k in row.values for row in rows)}
    apart = [bool(r.flags) or distance > _FAR for r, (distance, _) in zip(rows, far, strict=True)]
    return render(
        "group.html",
        ["table.js", "group.js"],
        num_flagged=sum(bool(row.flags) for row in rows),
        num_noticed=sum(bool(row.notices) for row in rows),
        num_far=sum(distance > _FAR for distance, _ in far),
        limit=_FAR,
        at_once=_AT_ONCE,
        missing=missing,
        num_unreached=num_unreached,
        advice=advice,
        key=_key(rows),
        columns=[(key, label, key in FIRST) for key, (label, _) in columns.items()],
        rows=[_cells(row, way, columns) for row, way in zip(rows, far, strict=True)],
        strips=[strip(key, label, form, rows, apart) for key, (label, form) in columns.items()],
    )


def _key(rows: Sequence[GroupRow]) -> str:
    """What ratings of these scans are kept under; names may hold bytes that are no text."""
    names = "\n".join(row.name for row in rows).encode("utf-8", "surrogateescape")
    return hashlib.sha256(names).hexdigest()[:16]


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
    why = f"{distance:.1f} ({label})" if distance > _FAR else f"{distance:.1f}"
    cells = [
        (row.values.get(k, ""), form.format(row.values[k]) if k in row.values else "")
        for k, (_, form) in columns.items()
    ]
    return {
        "name": row.name,
        "link": address(row.link),
        "flags": [(_short(text, row), text) for text in row.flags],
        "notices": [(_short(text, row), text) for text in row.notices],
        "thumbs": row.thumbs,
        "stands_out": distance > _FAR,
        "far": distance,
        "why": why,
        "cells": cells,
    }


def _short(text: str, row: GroupRow) -> str:
    words = text.split()
    return row.short.get(text) or " ".join(words[:4]) + (" \u2026" if len(words) > 4 else "")
