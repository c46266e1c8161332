"""The page of a comparison: draws beside real heads, charts with intervals, and the table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.io.outputs import plain
from medddpm.report.chart import Axis, row_chart
from medddpm.report.html import (
    Flag,
    Picture,
    data_uri,
    fold,
    heading,
    html_page,
    paragraph,
    pictures,
    plots,
    table,
)
from medddpm.report.planes import cut, png, shades

Row = Mapping[str, Any]
Images = NDArray[np.float32]
_TITLE = "Generators of whole heads"
_SIZE = 3
"""Pixels of the page for one of a head."""
_CHARTS = (
    ("frechet", "Distance to real heads", Axis("Frechet distance, smaller is better", low=0)),
    ("kernel", "Distance by kernels", Axis("kernel distance, 0 is best")),
    ("ms_ssim", "Likeness of two draws", Axis("MS-SSIM; more than of real heads: no variety")),
)
_COLUMNS = {
    "steps": ("steps", "{:d}"),
    "train_minutes": ("training, min", "{:.1f}"),
    "seconds_a_draw": ("a draw, s", "{:.2f}"),
    "calls_a_draw": ("network calls a draw", "{:d}"),
    "memory_gb": ("memory, GB", "{:.2f}"),
    "weights": ("weights", "{:,d}"),
    "frechet": ("Frechet", "{:.2f}"),
    "kernel": ("kernel", "{:.3f}"),
    "nearest": ("nearest real", "{:.2f}"),
    "ms_ssim": ("MS-SSIM of two", "{:.3f}"),
    "power_coarse": ("power, coarse", "{:.2f}"),
    "power_fine": ("power, fine", "{:.2f}"),
    "restored_psnr": ("restored, dB", "{:.2f}"),
    "similarity": ("likeness to training", "{:.2f}"),
    "copies": ("copies", "{:.0%}"),
}
_ABOUT = (
    "Each method learned the same {learned} scans of {contrast} ({held} more are held out) "
    "for {budget}, and drew {count} heads. The pictures are the "
    "first draws, not chosen. The real heads are in random poses, as the methods learned them."
)
_READ = (
    "Distances are of brightness and detail in four quarters of the head, at three scales, with "
    "95 % intervals. A distance alone says nothing: the row of real heads is one half of them "
    "beside the other, and the row of the autoencoder is real heads encoded and decoded, the best "
    "that draws of vae and vae-pca could reach. Nearest real: distance of a draw to the nearest "
    "real head over that among real heads. Power: of the draws over that of real heads, in the "
    "coarse and the fine half of all frequencies; below 1 is blurred. Restored: PSNR of held-out "
    "heads in their bodies, with noise of 0.1 of the intensity scale that the method took off as "
    "far as it knows heads; the row of the autoencoder knows none. Memory is what training and "
    "drawing took beyond what was held before."
)
_COPIES = (
    "Likeness to training is the correlation of the fine structure of a draw with that of the "
    "training scan most like it, both in the pose of the mean head and without it; above "
    "{threshold:.2f}, which 99 % of held-out heads in random poses stay below, a draw is called a "
    "copy."
)
_LIMITS = (
    "So few heads carry no claim about a population, and an order that the intervals do not show "
    "may be chance: each method was trained once."
)


@dataclass(frozen=True)
class Facts:
    """What the page says of the comparison.

    Attributes:
        contrast: Of the scans.
        budget: Of each method, in words.
        learned: Training scans.
        held: Held-out scans.
        count: Draws of each method.
        threshold: Of copies.
        made: JSON-able: how it was made.
    """

    contrast: str
    budget: str
    learned: int
    held: int
    count: int
    threshold: float
    made: Mapping[str, Any]


def comparison_page(rows: Sequence[Row], shown: Sequence[tuple[str, Images]], facts: Facts) -> str:
    """The page.

    Args:
        rows: Of the table, that of real heads first.
        shown: Title and heads (N, X, Y, Z) in RAS, on the intensity scale; real ones first.
        facts: What is said about them.
    """
    said = facts.__dict__
    parts = [heading(_TITLE, 1), paragraph(_ABOUT.format(**said))]
    parts += [paragraph(Flag(line)) for line in _warnings(rows)]
    for title, images in shown:
        both = [_picture(head, axis, title) for axis in (2, 0) for head in images]
        parts += [heading(title), pictures(both, len(images))]
    parts += [heading("Measured"), plots(_chart(rows, *chart) for chart in _CHARTS)]
    parts += [paragraph(_READ), paragraph(_COPIES.format(**said)), _table(rows)]
    parts.append(paragraph(_LIMITS))
    made = escape(json.dumps(plain(facts.made), indent=2, sort_keys=True))
    parts.append(fold("How it was made", f"<pre>{made}</pre>"))
    return html_page(_TITLE, parts)


def _warnings(rows: Sequence[Row]) -> list[str]:
    """Which methods failed, draw one head over and over, or copy."""
    found = [f"{row['method']}: {row['error']}" for row in rows if "error" in row]
    for row in rows:
        if row.get("lacks_variety"):
            found.append(
                f"{row['method']}: its draws are more alike (MS-SSIM {row['ms_ssim']:.2f}) than "
                f"real heads are ({rows[0]['ms_ssim']:.2f}); it lacks their variety"
            )
        if row.get("copies"):
            found.append(f"{row['method']}: {row['copies']:.0%} of its draws are copies")
    return found


def _chart(rows: Sequence[Row], key: str, title: str, axis: Axis) -> str:
    known = [row for row in rows if key in row]
    lines = [(r["method"], r[key], r[f"{key}_low"], r[f"{key}_high"]) for r in known]
    colours = [0 if row is rows[0] else 1 for row in known]
    words = f"{title}: a line a method, with its 95 % interval"
    return row_chart(title, lines, axis, words=words, colours=colours)


def _table(rows: Sequence[Row]) -> str:
    body = [
        [row["method"]]
        + [
            form.format(row[key]) if row.get(key) is not None else ""
            for key, (_, form) in _COLUMNS.items()
        ]
        + [row.get("about", "") if row["state"] == "done" else row["state"]]
        for row in rows
    ]
    return table(["", *(name for name, _ in _COLUMNS.values()), "what it is"], body, words=1)


def _picture(head: Images, axis: int, title: str) -> Picture:
    """Its middle plane, white at the intensity scale."""
    plane = cut(head, axis, head.shape[axis] // 2)
    large = np.repeat(np.repeat(plane, _SIZE, axis=0), _SIZE, axis=1)
    words = f"{title}, middle plane {'from below' if axis == 2 else 'from the side'}"
    return Picture(data_uri(png(shades(large, 0.0, 1.1))), "", words)
