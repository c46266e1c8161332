"""A report in one sentence, and what to do where a check found something."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from medddpm.io.frame_facts import GuardFacts
from medddpm.metrics.regions import brightness_classes
from medddpm.preprocess.intensity import foreground_mask
from medddpm.report.facts import Image
from medddpm.report.planes import inner_part

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_ABOUT_ANATOMY = ("anatomy", "peak", "structure")
"""The checks that look for anatomy in what was removed."""


@dataclass(frozen=True)
class Summary:
    """A sentence, and how much it matters."""

    text: str
    level: Literal["good", "notice", "alarm"]


def summarise(guard: GuardFacts, sigma: float, signal: float | None, *, blank: bool) -> Summary:
    """What was removed, how many checks found something, and whether it looks like anatomy.

    Args:
        guard: What the checks found.
        sigma: Noise that was assumed, in scan units.
        signal: Mean of bright tissue, see `bright_signal`.
        blank: Nothing was restored.
    """
    if blank:
        return Summary("This frame holds one value only and was passed through.", "notice")
    parts = [_removed(sigma, signal), _counted(guard), _anatomy(guard)]
    level: Literal["good", "notice", "alarm"] = "notice" if guard.notices else "good"
    return Summary("; ".join(parts) + ".", "alarm" if guard.messages else level)


def bright_signal(image: Image, spacing: Sequence[float]) -> float | None:
    """The mean of bright tissue, away from the skin: white matter in a T1-weighted head."""
    inside = foreground_mask(image)
    if not inside.any():
        return None
    deep = inner_part(inside, spacing)
    bright = brightness_classes(image, deep)["bright"]
    return float(image[bright].mean(dtype=np.float64)) if bright.any() else None


def percent(share: float) -> str:
    """A share in percent with two digits.

    Example:
        >>> percent(0.04213), percent(0.213), percent(0.00271)
        ('4.2 %', '21 %', '0.27 %')
    """
    value = 100 * share
    digits = 1 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{max(0, digits)}f} %"


def _removed(sigma: float, signal: float | None) -> str:
    if not sigma > 0:
        return "No noise was found to remove"
    if not signal or not signal > 0:
        return f"Removed noise of sigma {sigma:.3g} in scan units"
    return f"Removed noise of {percent(sigma / signal)} of the signal of bright tissue"


def _counted(guard: GuardFacts) -> str:
    alarms, notices = _alarms(guard), _notices(guard)
    if not notices:
        return _count(alarms, "alarm") + ("" if alarms else ", no notice")
    first, second = (alarms, "alarm"), (notices, "notice")
    pair = (first, second) if alarms else (second, first)
    return ", ".join(_count(*part) for part in pair)


def _alarms(guard: GuardFacts) -> int:
    flagged = sum(check.passed is False and check.tier == "alarm" for check in guard.checks)
    return max(flagged, len(guard.messages))


def _notices(guard: GuardFacts) -> int:
    flagged = sum(check.passed is False and check.tier == "notice" for check in guard.checks)
    return max(flagged, len(guard.notices))


def _count(number: int, what: str) -> str:
    told = _NUMBERS[number] if number < len(_NUMBERS) else str(number)
    return f"{told} {what}{'s' if number > 1 else ''}"


def _anatomy(guard: GuardFacts) -> str:
    asked = [c for c in guard.checks if c.name in _ABOUT_ANATOMY and c.high is not None]
    if not asked:
        return "whether anatomy was removed was not checked"
    if any(check.passed is False for check in asked):
        return "what was removed may hold anatomy: compare before and after"
    if not any(check.name == "anatomy" for check in asked):
        return "no structure stands out in what was removed"
    return "nothing that looks like anatomy was removed"
