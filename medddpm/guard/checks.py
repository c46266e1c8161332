"""What the guard looks at, in plain words, and its verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medddpm.guard.known import Range
from medddpm.guard.residual import Finding

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Meaning:
    """What a check is about, and what it means if it is too low or too high."""

    label: str
    too_high: str
    too_low: str = ""


CHECKS = {
    "residual_ratio": Meaning(
        "What was removed, over the noise that was assumed",
        "more was removed than noise ({value:.2f} of what was assumed, at most {high:.2f} is "
        "usual): anatomy may be lost, or sigma is too small",
        "less noise was removed than there should be ({value:.2f} of what was assumed, at least "
        "{low:.2f} is usual)",
    ),
    "noise_ratio": Meaning(
        "Noise in flat parts of the scan, over the noise that was assumed",
        "the scan holds {value:.2f} times the assumed noise: sigma is too small",
        "the scan holds only {value:.2f} of the assumed noise: sigma is too large, or the scan "
        "was smoothed before",
    ),
    "redness": Meaning(
        "Noise of the scan at two voxels, over that at one",
        "the noise of the scan is not white (two voxels apart it is {value:.2f} times as strong): "
        "it was interpolated, filtered or denoised before, or shows ghosts",
    ),
    "whiteness": Meaning(
        "Likeness of neighbours in what was removed",
        "what was removed is not like white noise (neighbours correlate {value:.2f}, at most "
        "{high:.2f} is usual)",
        "what was removed is too rough for white noise (neighbours correlate {value:.2f}, at "
        "least {low:.2f} is usual)",
    ),
    "structure": Meaning(
        "Likeness of the strength of what was removed to the edges",
        "what was removed follows the edges of the scan (correlation {value:.2f})",
    ),
    "anatomy": Meaning(
        "Likeness of what was removed to fine anatomy",
        "fine anatomy is in what was removed (correlation {value:.2f}, at most {high:.2f} is "
        "usual)",
        "fine anatomy was added (correlation {value:.2f}, at least {low:.2f} is usual)",
    ),
    "peak": Meaning(
        "Largest local mean of what was removed, in sigma",
        "a structure was added or removed: what was removed averages {value:.2f} sigma in one "
        "place, at most {high:.2f} is usual",
    ),
    "unevenness": Meaning(
        "How far the level of what was removed differs in an eighth of the scan",
        "the noise is not as even as was assumed (an eighth of the scan is {percent:.0f} % off)",
    ),
    "local_whiteness": Meaning(
        "Likeness of neighbours in the worst eighth",
        "in an eighth of the scan what was removed is not like white noise (neighbours correlate "
        "{value:.2f})",
    ),
    "sharpness": Meaning(
        "Fine over middle detail of the restored scan",
        "fine detail is stronger than in scans like this ({value:.3f}, at most {high:.3f} is "
        "usual): it was sharpened, or rings",
        "the scan is blurred for one like this (fine detail {value:.3f}, at least {low:.3f} is "
        "usual): motion, interpolation or too much smoothing",
    ),
    "flatness": Meaning(
        "Flatness between the edges of the restored scan (0: all slopes alike)",
        "the scan is flatter between its edges than scans like this ({value:.2f}, at most "
        "{high:.2f} is usual): it was denoised before, or too much",
    ),
    "tissue_shift": Meaning(
        "Largest change of the shares of dark, middle and bright tissue",
        "the shares of dark, middle and bright tissue changed by {value:.3f}, at most {high:.3f} "
        "is usual",
    ),
    "strangeness": Meaning(
        "Distance of the scan's latents from the most similar scan that the model knows",
        "the scan is unlike all that the model knows (distance {value:.1f}, at most {high:.1f} is "
        "usual): another contrast, part of the body or kind of scanner",
    ),
    "noise_level": Meaning(
        "Noise, over the intensity scale",
        "the noise ({value:.3f} of the intensity scale) is stronger than the model knows "
        "({high:.3f})",
    ),
    "finest_edge": Meaning(
        "Smallest voxel edge, mm",
        "voxels are larger ({value:.2f} mm at least) than the model knows ({high:.2f} mm)",
        "voxels are smaller ({value:.2f} mm) than the model knows ({low:.2f} mm)",
    ),
    "coarsest_edge": Meaning(
        "Largest voxel edge, mm",
        "slices are thicker ({value:.2f} mm) than the model knows ({high:.2f} mm)",
        "slices are thinner ({value:.2f} mm) than the model knows ({low:.2f} mm)",
    ),
    "disagreement": Meaning(
        "Spread of the samples in their least certain places, over sigma",
        "the samples disagree more than usual ({value:.2f} sigma, at most {high:.2f} is usual)",
        "the samples hardly differ ({value:.2f} sigma, at least {low:.2f} is usual)",
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
    checks, messages = [], []
    for name, meaning in CHECKS.items():
        if name not in findings:
            continue
        finding = findings[name]
        low, high = ranges.get(name, (None, None))
        words, passed = meaning.label, True
        if high is not None and finding.value > high:
            words, passed = meaning.too_high, False
        elif low is not None and meaning.too_low and finding.value < low:
            words, passed = meaning.too_low, False
        place = _in_mm(finding.where, affine)
        if not passed:
            words = words.format(
                value=finding.value, low=low, high=high, percent=100 * np.expm1(finding.value)
            ) + _words_of(place)
            messages.append(words)
        rate = (false_alarms or {}).get(name)
        checks.append(Check(name, words, finding.value, low, high, passed, rate, place))
    return GuardReport(not messages, tuple(messages), tuple(checks))


def _in_mm(where: tuple[int, int, int] | None, affine: NDArray[np.float64] | None) -> Triple | None:
    if where is None or affine is None:
        return None
    x, y, z = (round(float(v), 1) for v in (affine @ [*where, 1])[:3])
    return x, y, z


def _words_of(place: Triple | None) -> str:
    return "" if place is None else " at x {:g}, y {:g}, z {:g} mm".format(*place)
