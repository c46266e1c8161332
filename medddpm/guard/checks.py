"""What the guard looks at, in plain words, and its verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medddpm.guard.known import Range
from medddpm.guard.residual import Finding

Triple = tuple[float, float, float]
_MOST_DIGITS = 17


Tier = Literal["alarm", "notice"]
MOST_WORDS = 3
"""Sentences of each tier: more are not read."""


@dataclass(frozen=True)
class Meaning:
    """What a check is about, and what it means if it is too low or too high.

    An alarm says that this restoration did harm or did not do its work; a notice says what the
    scan is, and how far from what the model knows.
    """

    label: str
    too_high: str
    too_low: str = ""
    tier: Tier = "alarm"


CHECKS = {
    "anatomy": Meaning(
        "Correlation of what was removed with fine anatomy",
        "fine anatomy is in what was removed (correlation {value}, usual up to {high}): compare "
        "before and after at the cortex, or give a smaller --sigma",
        "fine anatomy was added (correlation {value}, usual from {low}): do not read fine detail "
        "in the restored scan",
    ),
    "peak": Meaning(
        "Largest local mean of what was removed, in sigma",
        "a structure was added or removed: what was removed averages {value} sigma in one place "
        "(usual up to {high}); look there",
    ),
    "structure": Meaning(
        "Correlation of the strength of what was removed with edges",
        "what was removed follows the edges of the scan (correlation {value}): edges were "
        "softened; give a smaller --sigma",
    ),
    "noise_ratio": Meaning(
        "Noise in flat tissue, over the noise that was assumed",
        "the scan holds {value} times the noise that was assumed: noise is left; give a larger "
        "--sigma",
        "the scan holds only {value} of the noise that was assumed: too much was smoothed; give a "
        "smaller --sigma",
    ),
    "residual_ratio": Meaning(
        "What was removed, over the noise that was assumed",
        "more was removed than noise ({value} of what was assumed, usual up to {high}): anatomy "
        "may be lost, or sigma is too small; compare before and after",
        "less noise was removed than there should be ({value} of what was assumed, usual from "
        "{low}): noise is left; give --sigma",
    ),
    "whiteness": Meaning(
        "Correlation of neighbours in what was removed, beyond that of the noise",
        "what was removed is smoother than the noise (neighbouring voxels correlate {value}, "
        "usual up to {high}): soft anatomy may be in it; compare before and after",
        "what was removed is rougher than the noise (neighbouring voxels correlate {value}, "
        "usual from {low}): low frequencies of the noise are left",
    ),
    "tissue_shift": Meaning(
        "Largest change of the shares of dark, middle and bright tissue",
        "the shares of dark, middle and bright tissue changed by {value} (usual up to {high}): "
        "do not measure volumes in the restored scan",
    ),
    "redness": Meaning(
        "Noise of the scan at two voxels, over that at one",
        "the noise of the scan is smoother than was found ({value} times as strong two voxels "
        "apart): it was filtered or denoised before, or shows ghosts",
        tier="notice",
    ),
    "unevenness": Meaning(
        "Difference in the level of what was removed between regions of the scan",
        "the noise is less even than was found (one region of the scan is {percent:.0f} % off)",
        tier="notice",
    ),
    "local_whiteness": Meaning(
        "Correlation of neighbours in what was removed, in the worst region",
        "in one region of the scan what was removed is smoother than the noise (neighbouring "
        "voxels correlate {value})",
        tier="notice",
    ),
    "sharpness": Meaning(
        "Fine over middle detail of the restored scan",
        "fine detail is stronger than in scans like this ({value}, usual up to {high}): the scan "
        "was sharpened, or rings",
        "the scan is softer than scans like this (fine detail {value}, usual from {low}): motion, "
        "interpolation or smoothing",
        tier="notice",
    ),
    "flatness": Meaning(
        "Flatness between the edges of the restored scan (0: all slopes alike)",
        "the scan is flatter between its edges than scans like this ({value}, usual up to "
        "{high}): it was denoised before",
        tier="notice",
    ),
    "strangeness": Meaning(
        "Distance from the most similar scan that the model knows",
        "the model knows no scan like this (distance {value}, usual up to {high}): another "
        "contrast, part of the body or kind of scanner",
        tier="notice",
    ),
    "noise_level": Meaning(
        "Noise, over the intensity scale",
        "the noise ({value} of the intensity scale) is stronger than the model knows ({high})",
        tier="notice",
    ),
    "finest_edge": Meaning(
        "Smallest voxel edge, mm",
        "voxels are larger ({value} mm at least) than the model knows ({high} mm)",
        "voxels are smaller ({value} mm) than the model knows ({low} mm)",
        tier="notice",
    ),
    "coarsest_edge": Meaning(
        "Largest voxel edge, mm",
        "slices are thicker ({value} mm) than the model knows ({high} mm)",
        "slices are thinner ({value} mm) than the model knows ({low} mm)",
        tier="notice",
    ),
    "reference": Meaning(
        "Borders that the reference shares with the scan after a move, over those in its place",
        "the reference does not fit the scan and was not used (moved by some millimetres it agrees "
        "{value} times as well, usual up to {high}): another person, or another position",
        tier="notice",
    ),
    "disagreement": Meaning(
        "Spread of the samples in their least certain places, over sigma",
        "the samples disagree more than usual ({value} sigma, usual up to {high})",
        "the samples hardly differ ({value} sigma, usual from {low})",
        tier="notice",
    ),
}


@dataclass(frozen=True)
class Check:
    """One number against what good restorations show.

    Attributes:
        name: Of `CHECKS`.
        words: What it is, or what is wrong.
        value: The number.
        low: Smallest usual value, or None.
        high: Largest usual value, or None.
        passed: True if it lies between.
        false_alarms: Share of good restorations of other subjects that it flags, or None if
            nobody has measured it.
        where: (x, y, z) in mm, RAS, of what it is about, or None.
        tier: Whether a flag of it is an alarm or a notice.
    """

    name: str
    words: str
    value: float
    low: float | None
    high: float | None
    passed: bool
    false_alarms: float | None
    where: Triple | None
    tier: Tier = "alarm"


@dataclass(frozen=True)
class GuardReport:
    """The verdict on one restoration.

    Attributes:
        passed: True if there is no alarm.
        messages: One sentence for each alarm, the weightiest first, three at most.
        checks: All that was looked at.
        notices: One sentence for each notice, three at most.
    """

    passed: bool
    messages: tuple[str, ...]
    checks: tuple[Check, ...]
    notices: tuple[str, ...] = ()

    def __repr__(self) -> str:
        told = "; ".join(self.messages + self.notices) or f"no flag in {len(self.checks)} checks"
        return f"GuardReport({told})"

    def value(self, name: str) -> float:
        """The number of a check.

        Raises:
            KeyError: It was not looked at.
        """
        return {check.name: check.value for check in self.checks}[name]


def judge(
    findings: Mapping[str, Finding],
    ranges: Mapping[str, Range],
    false_alarms: Mapping[str, float] | None = None,
    affine: NDArray[np.float64] | None = None,
) -> GuardReport:
    """The verdict on what was found.

    Args:
        findings: By name; see `CHECKS`.
        ranges: Lowest and highest usual value, by name; one that is not there has none.
        false_alarms: Share of good restorations that a check flags, by name.
        affine: (4, 4), voxel to mm RAS; without it no place is told.
    """
    checks = [
        _check(name, findings[name], ranges.get(name, (None, None)), false_alarms or {}, affine)
        for name in CHECKS
        if name in findings
    ]
    told = {
        tier: tuple(c.words for c in checks if c.tier == tier and not c.passed)[:MOST_WORDS]
        for tier in ("alarm", "notice")
    }
    return GuardReport(not told["alarm"], told["alarm"], tuple(checks), told["notice"])


def _check(
    name: str,
    finding: Finding,
    usual: Range,
    false_alarms: Mapping[str, float],
    affine: NDArray[np.float64] | None,
) -> Check:
    (low, high), value = usual, finding.value
    wrong = _wrong(CHECKS[name], value, low, high)
    place = _in_mm(finding.where, affine)
    words = CHECKS[name].label
    if wrong:
        told = dict(zip(("value", "low", "high"), shown(value, low, high), strict=True))
        words = wrong.format(**told, percent=100 * np.expm1(value)) + _words_of(place)
    rate, tier = false_alarms.get(name), CHECKS[name].tier
    if not math.isfinite(value):
        tier = "alarm"
    return Check(name, words, value, low, high, not wrong, rate, place, tier)


def _wrong(meaning: Meaning, value: float, low: float | None, high: float | None) -> str:
    """What is wrong, to be filled in; "" if nothing is.

    A comparison with NaN is never true, so what cannot be judged would pass: it is an alarm.
    """
    if not all(math.isfinite(v) for v in (value, low, high) if v is not None):
        what = meaning.label[0].lower() + meaning.label[1:]
        return f"a check cannot be judged ({what}: {{value}}, usual {{low}} to {{high}})"
    if high is not None and value > high:
        return meaning.too_high
    return meaning.too_low if low is not None and value < low else ""


def shown(value: float, *bounds: float | None) -> tuple[str, ...]:
    """A value and its bounds as text, with as many digits as it takes to tell them apart.

    Example:
        >>> shown(-0.0612, -0.0583, None)
        ('-0.061', '-0.058', 'any')
        >>> shown(0.5, None, 1.25)
        ('0.50', 'any', '1.25')
    """
    known = [v for v in (value, *bounds) if v is not None]
    least = 2 if max(map(abs, known)) >= 0.1 else 3
    digits = next((d for d in range(least, _MOST_DIGITS) if _told_apart(known, d)), _MOST_DIGITS)
    return tuple("any" if v is None else _text(v, digits) for v in (value, *bounds))


def _told_apart(known: Sequence[float], digits: int) -> bool:
    """True if each bound reads unlike the value, where it is unlike it."""
    value, *bounds = known
    return all(b == value or _text(b, digits) != _text(value, digits) for b in bounds)


def _text(number: float, digits: int) -> str:
    small, number = 0 < abs(number) < 10**-digits, number + 0.0  # no -0
    return f"{number:.{digits}g}" if small else f"{number:.{digits}f}"


def _in_mm(where: tuple[int, int, int] | None, affine: NDArray[np.float64] | None) -> Triple | None:
    if where is None or affine is None:
        return None
    x, y, z = (round(float(v), 1) for v in (affine @ [*where, 1])[:3])
    return x, y, z


def _words_of(place: Triple | None) -> str:
    return "" if place is None else " at x {:g}, y {:g}, z {:g} mm".format(*place)
