"""What the guard of a restoration found, in plain words: the checks of a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medddpm.guard.checks import CHECKS, shown

_OLD_NAMES = {
    "residual_ratio": "What was removed, over the noise that was assumed (1: all of it)",
    "noise_ratio": "Noise in flat parts of the scan, over the noise that was assumed (1: equal)",
    "whiteness": "Likeness of neighbours in what was removed (0 or less: noise; more: anatomy)",
    "structure": "How far what was removed follows the edges of the anatomy (0: not at all)",
    "peak": "Largest local mean of what was removed, in units of sigma",
}


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


def check_rows(frame: Mapping[str, Any]) -> list[CheckRow]:
    """The checks of one frame, those that failed first.

    Args:
        frame: Its part of the sidecar. `guard.checks` lists them with "name", "value", "low",
            "high", "passed", "words", "false_alarms" and "where"; without such a list, in older
            sidecars, the numbers of the guard are shown as they are.
    """
    guard = frame["guard"]
    checks = guard.get("checks")
    if checks:
        return sorted((_row(check) for check in checks), key=lambda row: row.passed is not False)
    return [CheckRow(_old_name(key), f"{value:.2f}") for key, value in check_values(frame).items()]


def check_values(frame: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of the guard by the name of the check, of newer and older sidecars."""
    guard = frame["guard"]
    told = {str(c.get("name")): c.get("value") for c in guard.get("checks") or ()} or guard
    return {
        name: float(value)
        for name, value in told.items()
        if not isinstance(value, bool) and _is_number(value)
    }


def _row(check: Mapping[str, Any]) -> CheckRow:
    key, words = str(check.get("name") or "unnamed check"), str(check.get("words") or "")
    name = CHECKS[key].label if key in CHECKS else _readable(key)
    alarms: Any = check.get("false_alarms")
    value, allowed = _told(check)
    known = check.get("passed") is False or (bool(allowed) and check.get("passed") is not None)
    return CheckRow(
        name,
        value,
        "" if words == name else words,
        allowed,
        bool(check["passed"]) if known else None,
        f"{100 * alarms:.2g} %" if _is_number(alarms) else "",
        _place(check.get("where")),
    )


def _old_name(key: str) -> str:
    return _OLD_NAMES.get(key) or _readable(key)


def _readable(key: str) -> str:
    return key.replace("_", " ").strip().capitalize()


def _told(check: Mapping[str, Any]) -> tuple[str, str]:
    """The value and the range that raises no flag, as printed."""
    ends = [check.get(end) if _is_number(check.get(end)) else None for end in ("low", "high")]
    if not _is_number(check.get("value")):
        value, (low, high) = "n/a", shown(0.0, *ends)[1:]
    else:
        value, low, high = shown(float(check["value"]), *ends)
    if None not in ends:
        return value, f"{low} to {high}"
    if ends[1] is not None:
        return value, f"at most {high}"
    return value, "" if ends[0] is None else f"at least {low}"


def _place(where: Any) -> tuple[float, float, float] | None:
    if not isinstance(where, Sequence) or len(where) != 3 or not all(map(_is_number, where)):
        return None
    return float(where[0]), float(where[1]), float(where[2])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
