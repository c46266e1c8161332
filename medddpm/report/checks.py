"""What the guard of a restoration found, in plain words: the checks of a report."""

from __future__ import annotations

import math
from dataclasses import dataclass

from medddpm.guard.checks import CHECKS, shown
from medddpm.io.frame_facts import CheckFacts, GuardFacts

LABELS = {
    "anatomy": "Fine anatomy in the removed noise, correlation",
    "peak": "Largest local change, sigma",
    "structure": "Edges in the removed noise, correlation",
    "noise_ratio": "Noise in flat tissue / noise assumed",
    "residual_ratio": "Noise removed / noise assumed",
    "whiteness": "Noise texture: correlation of neighbouring voxels",
    "tissue_shift": "Change of the tissue fractions",
    "redness": "Coarse grain: noise at two voxels / at one",
    "unevenness": "Noise uniformity: largest regional deviation",
    "local_whiteness": "Noise texture, worst region",
    "sharpness": "Sharpness: fine / middle detail",
    "flatness": "Smoothness between edges",
    "strangeness": "Distance to the most similar known scan",
    "noise_level": "Noise level / intensity scale",
    "finest_edge": "Smallest voxel edge, mm",
    "coarsest_edge": "Largest voxel edge, mm",
    "reference": "Fit of the second contrast: moved / in place",
    "disagreement": "Disagreement of the samples, sigma",
}
"""The checks of the guard in words of the field."""
SHORT = {
    "anatomy": "anatomy removed",
    "peak": "local change",
    "structure": "edges removed",
    "noise_ratio": "noise level",
    "residual_ratio": "amount removed",
    "whiteness": "noise texture",
    "tissue_shift": "tissue fractions",
    "redness": "coarse grain",
    "unevenness": "uneven noise",
    "local_whiteness": "regional texture",
    "sharpness": "sharpness",
    "flatness": "smoothed before",
    "strangeness": "unlike known scans",
    "noise_level": "strong noise",
    "finest_edge": "voxel size",
    "coarsest_edge": "slice thickness",
    "reference": "second contrast",
    "disagreement": "samples disagree",
}
"""What a label on a row of a table has room for."""
ADVICE = {
    "anatomy": "Compare cortex and vessels before and after; a smaller --sigma removes less.",
    "peak": "Press the place and flicker: is there a structure in what was removed?",
    "structure": "Look at edges in what was removed; a smaller --sigma keeps them.",
    "noise_ratio": "Give the noise with --sigma: more if noise is left, less if it is blurred.",
    "residual_ratio": "Compare before and after, and give the noise with --sigma.",
    "whiteness": "Look for soft shading in what was removed; compare before and after.",
    "tissue_shift": "Do not take volumes or thickness from the restored scan.",
    "redness": "Find out whether the scanner filtered or denoised this scan.",
    "unevenness": "Look at the noise map: coils, parallel imaging, motion or flow.",
    "local_whiteness": "Press the place: ghosts, flow or a filter may be there.",
    "sharpness": "Compare with the protocol: motion, interpolation or a sharpening filter.",
    "flatness": "Find out whether the scan was denoised before.",
    "strangeness": "Read with care: the model was not trained on scans like this one.",
    "noise_level": "Read with care: fine detail may not be recoverable.",
    "finest_edge": "Read with care: the model was not trained at this voxel size.",
    "coarsest_edge": "Read with care: the model was not trained at this slice thickness.",
    "reference": "Check whose scan the second contrast is, and align it with this one.",
    "disagreement": "Look at the uncertainty before you read detail there.",
}
"""What a reader does where one of them found something."""


@dataclass(frozen=True)
class CheckRow:
    """A check of the guard as a report shows it; "" and None where nothing is known.

    Attributes:
        name: What was measured, in plain words.
        words: What is wrong; "" if nothing is.
        advice: What to do about it; "" where nothing is wrong.
        tier: "alarm" or "notice".
        value: As it is printed.
        allowed: The range that raises no flag.
        passed: Whether it lies in there; None where there is no such range.
        false_alarms: How often the check flags a scan that is right.
        where: Place in mm, RAS.
    """

    name: str
    value: str
    words: str = ""
    advice: str = ""
    tier: str = "alarm"
    allowed: str = ""
    passed: bool | None = None
    false_alarms: str = ""
    where: tuple[float, float, float] | None = None

    @property
    def place(self) -> str:
        """The place as a person reads it."""
        return ", ".join(f"{v:.1f}" for v in self.where) + " mm" if self.where else ""


def check_rows(guard: GuardFacts) -> list[CheckRow]:
    """The checks of one frame, those that failed first."""
    return sorted(map(_row, guard.checks), key=lambda row: row.passed is not False)


def check_values(guard: GuardFacts) -> dict[str, float]:
    """The numbers of the guard by the name of the check."""
    return {c.name: c.value for c in guard.checks if math.isfinite(c.value)}


def short_words(guard: GuardFacts) -> dict[str, str]:
    """By the sentence of each check that found something, two words for it."""
    return {
        check.words: SHORT.get(check.name) or _readable(check.name).lower()
        for check in guard.checks
        if check.passed is False
    }


def _row(check: CheckFacts) -> CheckRow:
    alarms = check.false_alarms
    value, allowed = _told(check)
    known = check.passed is False or (bool(allowed) and check.passed is not None)
    own = check.name in CHECKS and check.words == CHECKS[check.name].label
    return CheckRow(
        LABELS.get(check.name) or _readable(check.name),
        value,
        "" if own else check.words,
        ADVICE.get(check.name, "") if check.passed is False else "",
        check.tier,
        allowed,
        check.passed if known else None,
        "" if alarms is None else f"{100 * alarms:.2g} %",
        check.where if check.where and all(map(math.isfinite, check.where)) else None,
    )


def _readable(key: str) -> str:
    return key.replace("_", " ").strip().capitalize()


def _told(check: CheckFacts) -> tuple[str, str]:
    """The value and the range that raises no flag, as printed."""
    ends = [None if e is None or not math.isfinite(e) else e for e in (check.low, check.high)]
    value, low, high = shown(check.value if math.isfinite(check.value) else 0.0, *ends)
    value = value if math.isfinite(check.value) else "n/a"
    if None not in ends:
        return value, f"{low} to {high}"
    if ends[1] is not None:
        return value, f"at most {high}"
    return value, "" if ends[0] is None else f"at least {low}"
