"""What a report says of the 90 % interval: how well it held on scans whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from medddpm.io.sidecar import IntervalFacts, Sidecar
from medddpm.report.svg import inline_svg

_INK, _FAINT = "#0b5cad", "#5a6675"


@dataclass(frozen=True)
class CalibrationPart:
    """The section of a report on its interval.

    Attributes:
        summary: What to expect of this scan's interval.
        rows: (sigma, mean, lowest, highest coverage) of each noise level, as printed.
        plot: Coverage by sigma; with the curves of the card, reliability and risk over coverage.
        notes: What the plots mean.
    """

    summary: str
    rows: list[tuple[str, ...]]
    plot: Markup
    notes: list[str]


def calibration_part(
    facts: Sidecar, card: Mapping[str, Any], frame: int = 0
) -> CalibrationPart | None:
    """What the card of the weights knows of the interval; None if either is not there.

    Args:
        facts: The sidecar; only that of an ensemble has an interval.
        card: Its "calibration" is what `medddpm calibrate` wrote. Cards of before have no curves.
        frame: Whose noise level is marked.
    """
    found = card.get("calibration")
    levels = sorted(_levels(found or {}))
    if facts.interval is None or not found or not levels:
        return None
    sigma = facts.frames[frame].sigma.fraction
    curves = [name for name in ("reliability", "risk_coverage") if found.get(name)]
    means = [100 * level[1] for level in levels]
    words = f"Coverage of the 90 % interval by noise: {min(means):.1f} to {max(means):.1f} %"
    words = "; ".join([words, *(_TITLES[name] for name in curves)])
    return CalibrationPart(
        _summary(found, levels, sigma, facts.interval),
        [(f"{level[0]:g}", *(f"{100 * v:.1f} %" for v in level[1:])) for level in levels],
        inline_svg(_figure(found, levels, sigma), words),
        [_NOTES[name] for name in ("coverage", *curves)],
    )


Level = tuple[float, float, float, float]
"""Sigma as a fraction of the scale; mean, lowest and highest coverage of other subjects."""

_TITLES = {"reliability": "reliability", "risk_coverage": "worth of certainty"}
_NOTES = {
    "coverage": "Coverage: the share of the voxels whose truth lay in the interval; points are "
    "means over the scans, bars reach from the worst scan to the best. Wanted: 90 %. The broken "
    "line is the noise of this scan.",
    "reliability": "Reliability: intervals of other nominal coverage, and the share that they "
    "held. On the diagonal they hold what they say; below it they are too narrow.",
    "risk_coverage": "Worth of certainty: the error that is left if only the most certain share "
    "of the scan is kept. The further the curve lies below the grey line, the better the "
    "uncertainty tells where errors are; the broken curve knows the errors.",
}


def _levels(found: Mapping[str, Any]) -> list[Level]:
    return [
        (float(sigma), row["mean"], row["lowest"], row["highest"])
        for sigma, row in found.get("coverage_of_other_subjects", {}).items()
        if {"mean", "lowest", "highest"} <= row.keys()
    ]


def _summary(
    found: Mapping[str, Any], levels: list[Level], sigma: float, interval: IntervalFacts
) -> str:
    gaps = [abs(np.log(max(sigma, 1e-6) / level[0])) for level in levels]
    near, mean, lowest, highest = levels[int(np.argmin(gaps))]
    text = (
        f"On {found['scans']} clean scans of {found['subjects']} subjects with noise added, each "
        "subject under intervals that were fitted to the others, the interval at sigma "
        f"{near:g}, the level next to this scan's {sigma:.4f}, held {100 * mean:.1f} % of the "
        f"voxels: from {100 * lowest:.1f} to {100 * highest:.1f} % by scan."
    )
    other = interval.calibrated_for_other_options
    if other:
        text += f" That was with {listed(other)}, which this scan was not restored with."
    if not levels[0][0] <= sigma <= levels[-1][0]:
        text += " The noise of this scan lies outside of what was calibrated."
    return text


def listed(options: Mapping[str, Any]) -> str:
    """Options as a person reads them: "samples 8, steps 4"."""
    return ", ".join(f"{name} {value}" for name, value in options.items())


def _figure(found: Mapping[str, Any], levels: list[Level], sigma: float) -> Figure:
    curves = [name for name in ("reliability", "risk_coverage") if found.get(name)]
    number = 1 + len(curves)
    figure = Figure(figsize=(3.2 * number, 2.9), layout="constrained")
    plots = dict(zip(("coverage", *curves), np.ravel(figure.subplots(1, number)), strict=True))
    _draw_coverage(plots["coverage"], levels, sigma)
    if "reliability" in plots:
        _draw_reliability(plots["reliability"], np.array(found["reliability"]))
    if "risk_coverage" in plots:
        _draw_risk(plots["risk_coverage"], np.array(found["risk_coverage"]))
    for axes in plots.values():
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_coverage(axes: Any, levels: list[Level], sigma: float) -> None:
    x, mean, lowest, highest = 100 * np.array(levels).T
    axes.axhline(90, color="black", linewidth=0.8)
    axes.axvline(100 * sigma, color="#a1260d", linestyle="--", linewidth=1)
    reach = [mean - lowest, highest - mean]
    axes.errorbar(x, mean, reach, fmt="o-", color=_INK, capsize=3, markersize=4)
    axes.set_xscale("log")
    axes.set_xticks(x, [f"{v:g}" for v in x])
    axes.minorticks_off()
    axes.set_xlabel("sigma, % of the intensity scale", fontsize=9)
    axes.set_ylabel("voxels in the interval, %", fontsize=9)
    axes.set_ylim(min(70, float(lowest.min()) - 2), 100)
    axes.set_title("coverage", fontsize=10)


def _draw_reliability(axes: Any, pairs: np.ndarray) -> None:
    nominal, observed = 100 * pairs.T
    axes.plot([0, 100], [0, 100], color="black", linewidth=0.8)
    axes.plot(nominal, observed, "o-", color=_INK, markersize=4)
    axes.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
    axes.set_xlabel("nominal coverage, %", fontsize=9)
    axes.set_ylabel("observed coverage, %", fontsize=9)
    axes.set_title(_TITLES["reliability"], fontsize=10)


def _draw_risk(axes: Any, rows: np.ndarray) -> None:
    share, kept, best = 100 * rows.T
    axes.axhline(kept[-1], color=_FAINT, linewidth=0.8)
    axes.plot(share, best, "--", color=_FAINT)
    axes.plot(share, kept, "o-", color=_INK, markersize=3)
    axes.set(xlim=(0, 100), ylim=(0, None))
    axes.set_xlabel("most certain share that is kept, %", fontsize=9)
    axes.set_ylabel("error, % of the scale (rms)", fontsize=9)
    axes.set_title(_TITLES["risk_coverage"], fontsize=10)
