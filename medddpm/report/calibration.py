"""What a report says of the 90 % interval: how well it held on scans whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from medddpm.io.sidecar import IntervalFacts, Sidecar
from medddpm.report.chart import Axis, Series, chart


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
    charts = [_coverage(levels, sigma, words)]
    charts += [_CURVES[name](found[name]) for name in curves]
    return CalibrationPart(
        _summary(found, levels, sigma, facts.interval),
        [(f"{level[0]:g}", *(f"{100 * v:.1f} %" for v in level[1:])) for level in levels],
        Markup("").join(charts),
        [_NOTES[name] for name in ("coverage", *curves)],
    )


Level = tuple[float, float, float, float]
"""Sigma as a fraction of the scale; mean, lowest and highest coverage of other subjects."""

_TITLES = {"reliability": "Reliability", "risk_coverage": "Error by certainty"}
_NOTES = {
    "coverage": "Coverage: the share of the voxels whose truth lay in the interval; points are "
    "means over the scans, bars reach from the worst scan to the best. Wanted: 90 %. The broken "
    "line is the noise of this scan.",
    "reliability": "Reliability: intervals of other nominal coverage, and the share that they "
    "held. On the diagonal they hold what they say; below it they are too narrow.",
    "risk_coverage": "Error by certainty: the error that is left if only the most certain share "
    "of the scan is kept. The further the curve lies below the level line, the better the "
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


def _coverage(levels: list[Level], sigma: float, words: str) -> Markup:
    x, mean, lowest, highest = (100 * np.array(levels).T).tolist()
    return chart(
        "Coverage",
        [Series("", x, mean, lowest, highest)],
        Axis("noise, % of the intensity scale", log=True),
        Axis("voxels in the interval, %", min(70, min(lowest) - 2), 100),
        words=words,
        lines=[90],
        marks=[100 * sigma] if sigma > 0 else [],
    )


def _reliability(rows: Sequence[Sequence[float]]) -> Markup:
    nominal, observed = (100 * np.array(rows).T).tolist()
    return chart(
        _TITLES["reliability"],
        [
            Series("measured", nominal, observed),
            Series("as wanted", [0, 100], [0, 100], style="dashed", colour=5),
        ],
        Axis("nominal coverage, %", 0, 100),
        Axis("observed coverage, %", 0, 100),
        words="Observed coverage over nominal coverage",
    )


def _risk(rows: Sequence[Sequence[float]]) -> Markup:
    share, kept, best = (100 * np.array(rows).T).tolist()
    return chart(
        _TITLES["risk_coverage"],
        [
            Series("the most certain are kept", share, kept),
            Series("those with the least error are kept", share, best, style="dashed", colour=5),
        ],
        Axis("share of the scan that is kept, %", 0, 100),
        Axis("error, % of the scale (rms)", 0),
        words="Error that is left over the share of the scan that is kept",
        lines=[kept[-1]],
    )


_CURVES: dict[str, Callable[[Sequence[Sequence[float]]], Markup]] = {
    "reliability": _reliability,
    "risk_coverage": _risk,
}
