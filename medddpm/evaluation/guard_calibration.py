"""The guard's limits from good restorations, their false alarms, and what faults they see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medddpm.errors import ConfigError
from medddpm.evaluation.faults import NONE
from medddpm.guard import CHECKS, Familiar, GuardLimits, familiar

Array = NDArray[np.float64]
FALSE_ALARMS = 0.05
"""Share of good restorations that any check flags."""
_RANGES = {"noise_level": 1.05, "finest_edge": 1.1, "coarsest_edge": 1.1}
"""Checks that say only what was seen, with so much room around it."""
_LEAST = 0.02
_STRANGE = "strangeness"


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
class Usual:
    """What good restorations of some subjects show at each noise level.

    Attributes:
        sigmas: The levels.
        middle: By check, (levels,): medians over the scans.
        up: From there to the highest.
        down: From there to the lowest.
        known: The scans, for what is unlike all of them.
    """

    sigmas: tuple[float, ...]
    middle: Mapping[str, Array]
    up: Mapping[str, Array]
    down: Mapping[str, Array]
    known: Familiar | None

    def excess(self, trial: Trial) -> dict[str, float]:
        """By check, how far a trial is from the middle: 1 is as far as any good one was."""
        found = {}
        at = np.log(trial.level)
        values = dict(trial.findings)
        if self.known is not None and trial.features is not None:
            values[_STRANGE] = self.known.distance(np.asarray(trial.features, np.float32))
        for name in self.middle:
            if name not in values:
                continue
            middle, up, down = (
                float(np.interp(at, np.log(self.sigmas), side[name]))
                for side in (self.middle, self.up, self.down)
            )
            above, below = (values[name] - middle) / up, (middle - values[name]) / down
            found[name] = max(above, below) if CHECKS[name].too_low else above
        return found


@dataclass(frozen=True)
class GuardFit:
    """Limits, and what is known about them.

    Attributes:
        limits: For the card of the weights.
        reach: By check, the excess from which it flags.
        alone: By check, the excess beyond which lie 5 % of good restorations, each check alone.
        any_flag: Share of good restorations of other subjects that any check flags.
        usual: What they were fitted to.
    """

    limits: GuardLimits
    reach: Mapping[str, float]
    alone: Mapping[str, float]
    any_flag: float
    usual: Usual


def usual(trials: Sequence[Trial], sigmas: Sequence[float]) -> Usual:
    """What good trials show; each scan's numbers are read between its own noise levels.

    Raises:
        ConfigError: There is none.
    """
    if not trials:
        raise ConfigError("there is no good restoration to learn from")
    levels = tuple(sorted(sigmas))
    series: dict[str, list[Array]] = {}
    for scan in sorted({t.scan for t in trials}):
        own = sorted((t for t in trials if t.scan == scan), key=lambda t: t.level)
        for name in own[0].findings:
            values = [t.findings[name] for t in own]
            at = np.log([t.level for t in own])
            series.setdefault(name, []).append(np.interp(np.log(levels), at, values))
    known, distances = _known(trials)
    table = {name: np.stack(rows) for name, rows in series.items() if name not in _RANGES}
    if distances is not None:
        table[_STRANGE] = np.repeat(distances[:, None], len(levels), axis=1)
    middle = {name: np.median(rows, axis=0) for name, rows in table.items()}
    least = {name: _LEAST * (np.abs(m) + 0.1) for name, m in middle.items()}
    up = {n: np.maximum(rows.max(axis=0) - middle[n], least[n]) for n, rows in table.items()}
    down = {n: np.maximum(middle[n] - rows.min(axis=0), least[n]) for n, rows in table.items()}
    return Usual(levels, middle, up, down, known)


def _known(trials: Sequence[Trial]) -> tuple[Familiar | None, Array | None]:
    """The scans as known ones, and how far each is from those of other subjects of its kind."""
    seen = [t for t in trials if t.features is not None]
    if not seen:
        return None, None
    known = familiar([np.asarray(t.features, np.float32) for t in seen])
    distances = []
    for t in seen:
        others = [i for i, o in enumerate(seen) if o.subject != t.subject]
        if _has_peers(t, seen) and others:
            apart = Familiar(known.known[others], known.spread)
            distances.append(apart.distance(np.asarray(t.features, np.float32)))
    return known, np.asarray(distances) if distances else None


def _has_peers(trial: Trial, trials: Iterable[Trial]) -> bool:
    """True if another subject shows scans of that kind; or if no kinds are told."""
    return any(o.subject != trial.subject and o.kind == trial.kind for o in trials)


def fit_guard(trials: Sequence[Trial], sigmas: Sequence[float]) -> GuardFit:
    """Limits that 5 % of good restorations of another subject pass, all checks taken together.

    Each subject is compared with the others. A check flags what is further from their middle than
    all but a share of the good ones; that share is the same for all checks, the largest for which
    any of them flags at most 5 % (each subject counts alike).

    Raises:
        ConfigError: There are fewer than two subjects without a fault.
    """
    good = [t for t in trials if t.fault == NONE]
    subjects = sorted({t.subject for t in good})
    if len(subjects) < 2:
        raise ConfigError("the guard is tested on other subjects than it learns from; give two")
    apart: list[dict[str, float]] = []
    weights: list[float] = []
    for subject in subjects:
        own = [t for t in good if t.subject == subject]
        others = usual([t for t in good if t.subject != subject], sigmas)
        for t in own:
            excess = others.excess(t)
            if not _has_peers(t, good):
                excess.pop(_STRANGE, None)
            apart.append(excess)
            weights.append(1 / len(own) / len(subjects))
    names = [n for n in CHECKS if any(n in e for e in apart)]
    table = np.array([[e.get(n, -np.inf) for n in names] for e in apart])
    weight = np.asarray(weights)
    reach = _joint_reach(table, weight)
    any_flag = float(weight[(table > reach).any(axis=1)].sum())
    rates = {n: float(weight[table[:, i] > reach[i]].sum()) for i, n in enumerate(names)}
    alone = {n: _quantile(table[:, i], weight, FALSE_ALARMS) for i, n in enumerate(names)}
    whole = usual(good, sigmas)
    reaches = dict(zip(names, (float(r) for r in reach), strict=True))
    limits = _limits(whole, reaches, rates, good)
    return GuardFit(limits, reaches, alone, any_flag, whole)


def _joint_reach(table: Array, weight: Array) -> Array:
    """(checks,): the excess from which each flags, such that together they flag 5 % at most."""
    for share in np.linspace(FALSE_ALARMS, 0, 101):
        reach = np.array([_quantile(column, weight, share) for column in table.T])
        if weight[(table > reach).any(axis=1)].sum() <= FALSE_ALARMS:
            wide: Array = np.maximum(reach, 1.0)
            return wide
    raise AssertionError("with no share left nothing is flagged")


def _quantile(values: Array, weight: Array, share: float) -> float:
    """The smallest value that at most `share` of the weight lies beyond."""
    order = np.argsort(values)[::-1]
    beyond = np.cumsum(weight[order]) - weight[order]
    allowed = np.flatnonzero(beyond <= share + 1e-12)
    return float(values[order][allowed[-1]])


def _limits(
    known: Usual, reach: Mapping[str, float], rates: Mapping[str, float], good: Sequence[Trial]
) -> GuardLimits:
    bounds: dict[str, Any] = {}
    for name, far in reach.items():
        low = known.middle[name] - far * known.down[name]
        high = known.middle[name] + far * known.up[name]
        bounds[name] = (_rounded(low) if CHECKS[name].too_low else None, _rounded(high))
    for name, room in _RANGES.items():
        seen = [t.findings[name] for t in good]
        low, high = (np.full(len(known.sigmas), v) for v in (min(seen) / room, max(seen) * room))
        bounds[name] = (_rounded(low) if CHECKS[name].too_low else None, _rounded(high))
    return GuardLimits(known.sigmas, bounds, {n: round(r, 4) for n, r in rates.items()})


def _rounded(values: Array) -> tuple[float, ...]:
    return tuple(round(float(v), 5) for v in values)


def detection(trials: Sequence[Trial], fit: GuardFit) -> list[dict[str, Any]]:
    """One row a fault and noise level: share that is flagged, and by which check most often.

    Each subject is compared with what others show. "flagged" is by any check at the limits of the
    card; "best" is the check that sees most when it alone may raise 5 % false alarms, and
    "best_rate" what it sees.
    """
    good = [t for t in trials if t.fault == NONE]
    by_subject: dict[str, Usual] = {}
    rows = []
    for fault in dict.fromkeys(t.fault for t in trials):
        for sigma in sorted({t.sigma for t in trials if t.fault == fault}):
            excesses = []
            for t in (t for t in trials if t.fault == fault and t.sigma == sigma):
                if t.subject not in by_subject:
                    others = [o for o in good if o.subject != t.subject]
                    by_subject[t.subject] = usual(others, fit.usual.sigmas)
                excesses.append(by_subject[t.subject].excess(t))
            rows.append(_detected(fault, sigma, excesses, fit))
    return rows


def _detected(
    fault: str, sigma: float, excesses: Sequence[Mapping[str, float]], fit: GuardFit
) -> dict[str, Any]:
    count = len(excesses)
    flags = [{n for n, v in e.items() if v > fit.reach.get(n, np.inf)} for e in excesses]
    alone = {
        n: sum(e.get(n, -np.inf) > limit for e in excesses) / count
        for n, limit in fit.alone.items()
    }
    best = max(alone, key=lambda n: alone[n])
    return {
        "fault": fault,
        "sigma": sigma,
        "trials": count,
        "flagged": round(sum(map(bool, flags)) / count, 4),
        "flags": ", ".join(sorted(set().union(*flags))),
        "best": best,
        "best_rate": round(alone[best], 4),
    }
