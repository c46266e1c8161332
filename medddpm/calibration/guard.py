"""What the guard may expect of good restorations, its false alarms, and which faults it sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.calibration.faults import NONE
from medddpm.errors import ConfigError
from medddpm.guard import CHECKS, Known, Range, Usual, room
from medddpm.guard.known import FIXED

Array = NDArray[np.float64]
Side = tuple[str, str]
FALSE_ALARMS = 0.05
"""Share of good restorations that any check flags."""
_RANGES = {"noise_level": 1.05, "finest_edge": 1.1, "coarsest_edge": 1.1}
"""Checks that say only what was seen, with so much room around it."""
_FEWEST_KINDS = 3
"""Of scans, for each to be judged by the others alone."""
_STRANGE = "strangeness"
_ABOVE, _BELOW = "above", "below"
_LEAST_SPREAD = 0.05


@dataclass(frozen=True)
class Trial:
    """What the guard found in one restoration.

    Attributes:
        scan: Its name.
        subject: Who it is.
        kind: What the scan shares with others (scanner, contrast), or "".
        sigma: Noise that was added, as a fraction of the intensity scale.
        fault: `faults.NONE`, or what was wrong on purpose.
        level: Noise that the restoration assumed, as a fraction of the scale it assumed.
        findings: By name of the check.
        features: Of its latents, or None.
    """

    scan: str
    subject: str
    kind: str
    sigma: float
    fault: str
    level: float
    findings: Mapping[str, float]
    features: tuple[float, ...] | None


@dataclass(frozen=True)
class GuardFit:
    """The usual ranges, and what is known about them.

    Attributes:
        usual: For the weights.
        false_alarms: By check, share of good restorations of other subjects that it flags.
        any_flag: Share of them that has an alarm.
        alone: By side of a check, the excess beyond which lie 5 % of them, each check alone.
    """

    usual: Usual
    false_alarms: Mapping[str, float]
    any_flag: float
    alone: Mapping[Side, float]


def known_of(trials: Sequence[Trial]) -> Known:
    """The restorations as the guard keeps them; those with hardly a body are left out.

    Raises:
        ConfigError: None is left.
    """
    kept = [t for t in trials if t.features is not None]
    if not kept:
        raise ConfigError("there is no good restoration with a body in it to learn from")
    features = np.array([t.features for t in kept], np.float32)
    told = set().union(*(t.findings for t in kept))
    names = [n for n in CHECKS if n in told and n not in _RANGES]
    return Known(
        features,
        np.array([t.level for t in kept], np.float32),
        {n: _column(kept, n) for n in names},
        np.maximum(features.std(axis=0), _LEAST_SPREAD),
    )


def _column(trials: Sequence[Trial], name: str) -> NDArray[np.float32]:
    """A finding of all restorations; one that cannot say it counts like the mean of the others."""
    values = np.array([t.findings.get(name, np.nan) for t in trials], np.float32)
    return np.where(np.isnan(values), np.nanmean(values), values)


def excess(known: Known, trial: Trial) -> dict[Side, float]:
    """How far each check is above, and below, what is expected, in units of its room."""
    if trial.features is None:
        return {}
    features = np.asarray(trial.features, np.float32)
    expected, distance = known.expect(features, trial.level)
    found: dict[Side, float] = {(_STRANGE, _ABOVE): known.strangeness(features)}
    for name, middle in expected.items():
        if name not in trial.findings or name in FIXED:
            continue
        off = (trial.findings[name] - middle) / room(distance, name)
        found[name, _ABOVE] = off
        if CHECKS[name].too_low:
            found[name, _BELOW] = -off
    return found


def fit_guard(trials: Sequence[Trial]) -> GuardFit:
    """Ranges that 95 % of good restorations of other scanners pass, all alarms taken together.

    Each scan is compared with those of other subjects and, where kinds are told, of other kinds
    alone. A check flags what is further off than all but a share of the good ones; that share is
    the same for all alarms, the largest for which any of them flags at most 5 % (each subject
    counts alike), and likewise for all notices. A scan that is the only one of its kind does not
    count for how strange a scan may be: it *is* unlike all others.

    Raises:
        ConfigError: There are fewer than two subjects without a fault.
    """
    good = [t for t in trials if t.fault == NONE and t.features is not None]
    subjects = sorted({t.subject for t in good})
    if len(subjects) < 2:
        raise ConfigError("the guard is tested on other subjects than it learns from; give two")
    apart: list[dict[Side, float]] = []
    for t in good:
        found = excess(known_of(_others(t, good)), t)
        if not _has_peers(t, good):
            found.pop((_STRANGE, _ABOVE))
        apart.append(found)
    counts = {s: sum(t.subject == s for t in good) for s in subjects}
    weight = np.array([1 / counts[t.subject] / len(subjects) for t in good])
    sides = list(dict.fromkeys(side for found in apart for side in found))
    table = np.array([[found.get(side, -np.inf) for side in sides] for found in apart])
    reach = np.empty(len(sides))
    for tier in ("alarm", "notice"):
        own = [i for i, (name, _) in enumerate(sides) if CHECKS[name].tier == tier]
        if own:
            reach[own] = _joint_reach(table[:, own], weight)
    flags = table > reach
    alarms = [i for i, (name, _) in enumerate(sides) if CHECKS[name].tier == "alarm"]
    names = list(dict.fromkeys(name for name, _ in sides))
    rates = {}
    for name in names:
        own = [i for i, (other, _) in enumerate(sides) if other == name]
        rates[name] = round(float(weight[flags[:, own].any(axis=1)].sum()), 4)
    alone = {side: _quantile(table[:, i], weight, FALSE_ALARMS) for i, side in enumerate(sides)}
    usual = _usual(good, dict(zip(sides, (float(r) for r in reach), strict=True)))
    return GuardFit(usual, rates, float(weight[flags[:, alarms].any(axis=1)].sum()), alone)


def _others(trial: Trial, good: Sequence[Trial]) -> list[Trial]:
    """What a scan is compared with: other subjects, of other kinds if three or more are told."""
    people = [o for o in good if o.subject != trial.subject]
    if len({o.kind for o in good}) < _FEWEST_KINDS:
        return people
    return [o for o in people if o.kind != trial.kind]


def _has_peers(trial: Trial, trials: Iterable[Trial]) -> bool:
    """True if another subject shows scans of that kind, or if no kinds are told."""
    return any(o.subject != trial.subject and o.kind == trial.kind for o in trials)


def _joint_reach(table: Array, weight: Array) -> Array:
    """(sides,): the excess from which each flags, such that together they flag 5 % at most."""
    for share in np.linspace(FALSE_ALARMS, 0, 101):
        reach = np.array([_quantile(column, weight, share) for column in table.T])
        if weight[(table > reach).any(axis=1)].sum() <= FALSE_ALARMS:
            return reach
    raise AssertionError("with no share left nothing is flagged")


def _quantile(values: Array, weight: Array, share: float) -> float:
    """The smallest value that at most `share` of the weight lies beyond."""
    order = np.argsort(values)[::-1]
    beyond = np.cumsum(weight[order]) - weight[order]
    allowed = np.flatnonzero(beyond <= share + 1e-12)
    return float(values[order][allowed[-1]])


def _usual(good: Sequence[Trial], reach: Mapping[Side, float]) -> Usual:
    known = known_of(good)
    sides = {
        name: (_widened(reach.get((name, _BELOW))), _widened(reach[name, _ABOVE]))
        for name in known.findings
        if name not in FIXED
    }
    ranges: dict[str, Range] = {_STRANGE: (None, _widened(reach.get((_STRANGE, _ABOVE))))}
    for name, more in _RANGES.items():
        seen = [t.findings[name] for t in good if name in t.findings]
        low = min(seen) / more if CHECKS[name].too_low else None
        ranges[name] = (_rounded(low), _rounded(max(seen) * more))
    return Usual(known, sides, ranges)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


def _widened(reach: float | None) -> float | None:
    """A little more, so that the scan which set it lies inside after rounding."""
    return None if reach is None else _rounded(reach + 1e-3 * abs(reach) + 1e-5)


def detection(trials: Sequence[Trial], fit: GuardFit) -> list[dict[str, Any]]:
    """One row a fault and noise level: share that is flagged, and by which check most often.

    Each subject is compared with the others alone. "flagged" is by any alarm at the ranges of the
    weights; "best" is the check that sees most when it alone may raise 5 % false alarms, and
    "best_rate" what it sees.
    """
    good = [t for t in trials if t.fault == NONE]
    others: dict[tuple[str, str], Usual] = {}
    rows = []
    for fault in dict.fromkeys(t.fault for t in trials):
        for sigma in sorted({t.sigma for t in trials if t.fault == fault}):
            tried = [t for t in trials if t.fault == fault and t.sigma == sigma]
            found = []
            for t in tried:
                who = (t.subject, t.kind)
                if who not in others:
                    known = known_of(_others(t, good))
                    others[who] = Usual(known, fit.usual.reach, fit.usual.ranges)
                flags, alone = _seen(t, others[who], fit)
                if fault == NONE and not _has_peers(t, good):  # it is strange, and rightly so
                    flags, alone = flags - {_STRANGE}, alone - {_STRANGE}
                found.append((flags, alone))
            rows.append(_detected(fault, sigma, found))
    return rows


def _seen(trial: Trial, usual: Usual, fit: GuardFit) -> tuple[set[str], set[str]]:
    """Checks that flag a trial at the usual ranges, and those that do each alone at 5 %."""
    features = None if trial.features is None else np.asarray(trial.features, np.float32)
    values = dict(trial.findings)
    if features is not None:
        values[_STRANGE] = usual.known.strangeness(features)
    flags = set()
    for name, (low, high) in usual.of(features, trial.level).items():
        value = values.get(name, np.nan)
        below, beyond = low is not None and value < low, high is not None and value > high
        if below or beyond:
            flags.add(name)
    far = excess(usual.known, trial)
    alone = {name for (name, side), value in far.items() if value > fit.alone[name, side]}
    return flags, alone


def _alarms(name: str) -> bool:
    return CHECKS[name].tier == "alarm"


def _detected(
    fault: str, sigma: float, found: Sequence[tuple[set[str], set[str]]]
) -> dict[str, Any]:
    rates = {name: np.mean([name in alone for _, alone in found]) for name in CHECKS}
    best = max(rates, key=lambda name: rates[name])
    return {
        "fault": fault,
        "sigma": sigma,
        "trials": len(found),
        "flagged": round(float(np.mean([any(map(_alarms, flags)) for flags, _ in found])), 4),
        "flags": ", ".join(sorted(set().union(*(flags for flags, _ in found)))),
        "best": best,
        "best_rate": round(float(rates[best]), 4),
    }
