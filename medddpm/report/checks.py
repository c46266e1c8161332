"""What the guard of a restoration found, in plain words: the checks of a report."""

from __future__ import annotations

import math
from dataclasses import dataclass

from medddpm.guard.checks import CHECKS, shown
from medddpm.io.frame_facts import CheckFacts, GuardFacts


@dataclass(frozen=True)
class CheckRow:
    """A check of the guard as a report shows it; "" and None where nothing is known.

    Attributes:
        name: What was measured, in plain words.
        words: What is wrong; "" if nothing is.
        value: As it is printed.
        allowed: The range that raises no flag.
        passed: Whether it lies in there; None where there is no such range.
        false_alarms: How often the check flags a scan that is right.
        where: Place in mm, RAS.
    """

    name: str
    value: str
    words: str = ""
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


def _row(check: CheckFacts) -> CheckRow:
    name = CHECKS[check.name].label if check.name in CHECKS else _readable(check.name)
    alarms = check.false_alarms
    value, allowed = _told(check)
    known = check.passed is False or (bool(allowed) and check.passed is not None)
    return CheckRow(
        name,
        value,
        "" if check.words == name else check.words,
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
