"""What the guard looks at, in plain words, and its verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medddpm.guard.known import Range
from medddpm.guard.residual import Finding

Triple = tuple[float, float, float]
_MOST_DIGITS = 17


@dataclass(frozen=True)
class Meaning:
    """What a check is about, and what it means if it is too low or too high."""

    label: str
    too_high: str
    too_low: str = ""


CHECKS = {
    "residual_ratio": Meaning(
        "What was removed, over the noise that was assumed",
        "more was removed than noise ({value} of what was assumed, at most {high} is "
        "usual): anatomy may be lost, or sigma is too small",
        "less noise was removed than there should be ({value} of what was assumed, at least "
        "{low} is usual)",
    ),
    "noise_ratio": Meaning(
        "Noise in flat parts of the scan, over the noise that was assumed",
        "the scan holds {value} times the assumed noise: sigma is too small",
        "the scan holds only {value} of the assumed noise: sigma is too large, or the scan "
        "was smoothed before",
    ),
    "redness": Meaning(
        "Noise of the scan at two voxels, over that at one",
        "the noise of the scan is not white (two voxels apart it is {value} times as strong): "
        "it was interpolated, filtered or denoised before, or shows ghosts",
    ),
    "whiteness": Meaning(
        "Likeness of neighbours in what was removed",
        "what was removed is not like white noise (neighbours correlate {value}, at most "
        "{high} is usual)",
        "what was removed is too rough for white noise (neighbours correlate {value}, at "
        "least {low} is usual)",
    ),
    "structure": Meaning(
        "Likeness of the strength of what was removed to the edges",
        "what was removed follows the edges of the scan (correlation {value})",
    ),
    "anatomy": Meaning(
        "Likeness of what was removed to fine anatomy",
        "fine anatomy is in what was removed (correlation {value}, at most {high} is usual)",
        "fine anatomy was added (correlation {value}, at least {low} is usual)",
    ),
    "peak": Meaning(
        "Largest local mean of what was removed, in sigma",
        "a structure was added or removed: what was removed averages {value} sigma in one "
        "place, at most {high} is usual",
    ),
    "unevenness": Meaning(
        "How far the level of what was removed differs in an eighth of the scan",
        "the noise is not as even as was assumed (an eighth of the scan is {percent:.0f} % off)",
    ),
    "local_whiteness": Meaning(
        "Likeness of neighbours in the worst eighth",
        "in an eighth of the scan what was removed is not like white noise (neighbours correlate "
        "{value})",
    ),
    "sharpness": Meaning(
        "Fine over middle detail of the restored scan",
        "fine detail is stronger than in scans like this ({value}, at most {high} is "
        "usual): it was sharpened, or rings",
        "the scan is blurred for one like this (fine detail {value}, at least {low} is "
        "usual): motion, interpolation or too much smoothing",
    ),
    "flatness": Meaning(
        "Flatness between the edges of the restored scan (0: all slopes alike)",
        "the scan is flatter between its edges than scans like this ({value}, at most "
        "{high} is usual): it was denoised before, or too much",
    ),
    "tissue_shift": Meaning(
        "Largest change of the shares of dark, middle and bright tissue",
        "the shares of dark, middle and bright tissue changed by {value}, at most {high} is usual",
    ),
    "strangeness": Meaning(
        "Distance of the scan's latents from the most similar scan that the model knows",
        "the scan is unlike all that the model knows (distance {value}, at most {high} is "
        "usual): another contrast, part of the body or kind of scanner",
    ),
    "noise_level": Meaning(
        "Noise, over the intensity scale",
        "the noise ({value} of the intensity scale) is stronger than the model knows ({high})",
    ),
    "finest_edge": Meaning(
        "Smallest voxel edge, mm",
        "voxels are larger ({value} mm at least) than the model knows ({high} mm)",
        "voxels are smaller ({value} mm) than the model knows ({low} mm)",
    ),
    "coarsest_edge": Meaning(
        "Largest voxel edge, mm",
        "slices are thicker ({value} mm) than the model knows ({high} mm)",
        "slices are thinner ({value} mm) than the model knows ({low} mm)",
    ),
    "disagreement": Meaning(
        "Spread of the samples in their least certain places, over sigma",
        "the samples disagree more than usual ({value} sigma, at most {high} is usual)",
        "the samples hardly differ ({value} sigma, at least {low} is usual)",
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
    """

    name: str
    words: str
    value: float
    low: float | None
    high: float | None
    passed: bool
    false_alarms: float | None
    where: Triple | None


@dataclass(frozen=True)
class GuardReport:
    """The verdict on one restoration.

    Attributes:
        passed: True if nothing was flagged.
        messages: One sentence for each flag.
        checks: All that was looked at.
    """

    passed: bool
    messages: tuple[str, ...]
    checks: tuple[Check, ...]

    def __repr__(self) -> str:
        told = "; ".join(self.messages) or f"no flag in {len(self.checks)} checks"
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
    messages = tuple(check.words for check in checks if not check.passed)
    return GuardReport(not messages, messages, tuple(checks))


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
    return Check(name, words, value, low, high, not wrong, false_alarms.get(name), place)


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
    small = 0 < abs(number) < 10**-digits
    return f"{number:.{digits}g}" if small else f"{number:.{digits}f}"


def _in_mm(where: tuple[int, int, int] | None, affine: NDArray[np.float64] | None) -> Triple | None:
    if where is None or affine is None:
        return None
    x, y, z = (round(float(v), 1) for v in (affine @ [*where, 1])[:3])
    return x, y, z


def _words_of(place: Triple | None) -> str:
    return "" if place is None else " at x {:g}, y {:g}, z {:g} mm".format(*place)
