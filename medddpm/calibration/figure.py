"""The picture of a calibration: coverage, reliability, and what certainty is worth."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medddpm.display import printable


def calibration_figure(
    rows: Sequence[Mapping[str, Any]],
    *,
    reliability: Sequence[Sequence[float]],
    risk_coverage: Sequence[Sequence[float]],
) -> bytes:
    """A PNG of three plots.

    Args:
        rows: `calibration.scores` of each scan; with a "part", those of the test are dashed.
        reliability: Pairs of `calibration.reliability`.
        risk_coverage: Rows of `calibration.risk_coverage`.
    """
    figure = Figure(figsize=(13, 4), layout="constrained")
    held, reliable, risk = figure.subplots(1, 3)
    for scan, noise in dict.fromkeys((row["scan"], row["noise"]) for row in rows):
        lines = [row for row in rows if (row["scan"], row["noise"]) == (scan, noise)]
        sigmas = [row["sigma"] for row in lines]
        style = "--" if lines[0].get("part") == "test" else "-"
        covered = [100 * row["coverage"] for row in lines]
        held.plot(sigmas, covered, style, marker="o", label=f"{printable(scan)}, {noise}")
    held.axhspan(87, 93, color="0.92")
    held.axhline(90, color="black", linewidth=0.8)
    held.set(xlabel="sigma, of the scale", ylabel="voxels in the 90 % interval, %", ylim=(70, 100))
    held.set_title("each subject, fitted to others; dashed: test", fontsize=10)
    held.legend(fontsize=6)
    reliable.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    reliable.plot(*zip(*reliability, strict=True), marker="o")
    reliable.set(xlabel="nominal coverage", ylabel="observed coverage", aspect="equal")
    reliable.set_title("reliability", fontsize=10)
    shares, kept, best = zip(*risk_coverage, strict=True)
    risk.plot(shares, kept, label="most certain blocks kept")
    risk.plot(shares, best, linestyle="--", label="best choice")
    risk.axhline(kept[-1], color="0.6", linewidth=0.8, label="any choice without knowledge")
    risk.set(xlabel="share of the blocks kept", ylabel="error, of the scale (rms)", ylim=(0, None))
    risk.set_title("what certainty is worth", fontsize=10)
    risk.legend(fontsize=8)
    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=95, facecolor="white")
    return stream.getvalue()
