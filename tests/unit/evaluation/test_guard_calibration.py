"""The guard's limits: false alarms are what they say, and what is worse than good is seen."""

from __future__ import annotations

import numpy as np
import pytest

from medddpm.errors import ConfigError
from medddpm.evaluation.faults import NONE
from medddpm.evaluation.guard_calibration import Trial, detection, fit_guard, usual

SIGMAS = (0.03, 0.05, 0.1)
RANGES = {"noise_level": 0.05, "finest_edge": 1.0, "coarsest_edge": 3.0}


def trial(
    subject: str, sigma: float, peak: float, white: float, fault: str = NONE, kind: str = ""
) -> Trial:
    findings = {"peak": peak, "whiteness": white, **RANGES}
    return Trial(f"{subject} scan", subject, kind, sigma, fault, sigma, findings, None)


def good_trials(count: int, seed: int = 0) -> list[Trial]:
    """Peaks grow with sigma; both numbers differ from subject to subject."""
    rng = np.random.default_rng(seed)
    trials = []
    for number in range(count):
        own = rng.normal(0, 0.02, 2)
        for sigma in SIGMAS:
            peak, white = 0.2 + sigma + own[0], -0.1 + own[1]
            trials.append(trial(f"s{number}", sigma, peak, white))
    return trials


def test_at_most_one_in_twenty_good_ones_is_flagged_together() -> None:
    fit = fit_guard(good_trials(40), SIGMAS)
    assert 0 < fit.any_flag <= 0.05
    assert all(rate <= fit.any_flag for rate in fit.limits.false_alarms.values())
    fresh = good_trials(200, seed=1)
    rate = np.mean([_flagged(t, fit) for t in fresh])
    assert rate < 0.10


def _flagged(t: Trial, fit: object) -> bool:
    limits = fit.limits  # type: ignore[attr-defined]
    for name, value in t.findings.items():
        low, high = limits.of(name, t.level)
        if (high is not None and value > high) or (low is not None and value < low):
            return True
    return False


def test_limits_follow_the_noise_and_stay_outside_what_was_good() -> None:
    good = good_trials(12)
    fit = fit_guard(good, SIGMAS)
    highs = [fit.limits.of("peak", sigma)[1] for sigma in SIGMAS]
    assert highs[0] is not None
    assert np.diff(highs) == pytest.approx([0.02, 0.05], abs=0.01)
    assert fit.limits.of("peak", 0.05)[0] is None  # only a large peak is bad
    assert fit.limits.of("whiteness", 0.05)[0] is not None
    assert fit.limits.of("noise_level", 0.05)[1] == pytest.approx(0.05 * 1.05)
    assert fit.limits.of("finest_edge", 0.05) == pytest.approx((1 / 1.1, 1.1), abs=1e-4)
    assert sum(_flagged(t, fit) for t in good) == 0


def test_a_scan_is_read_between_its_own_noise_levels() -> None:
    own = [trial("a", 0.05, 0.2, 0.0), trial("a", 0.1, 0.4, 0.0)]
    found = usual(own, (0.05, np.sqrt(0.005), 0.1))
    assert found.middle["peak"] == pytest.approx([0.2, 0.3, 0.4])


def test_faults_are_counted_against_other_subjects() -> None:
    good = good_trials(20)
    bad = [trial(f"s{n}", 0.05, 1.0 if n < 3 else 0.25, -0.1, "paste") for n in range(4)]
    fit = fit_guard(good + bad, SIGMAS)
    rows = {(r["fault"], r["sigma"]): r for r in detection(good + bad, fit)}
    paste = rows["paste", 0.05]
    assert (paste["trials"], paste["flagged"]) == (4, 0.75)
    assert (paste["best"], paste["best_rate"]) == ("peak", 0.75)
    assert paste["flags"] == "peak"
    assert rows[NONE, 0.05]["flagged"] <= 0.1


def test_what_is_strange_is_told_by_the_latents_of_other_subjects() -> None:
    rng = np.random.default_rng(3)
    trials = []
    for number in range(12):
        for sigma in SIGMAS:
            features = tuple(rng.normal(0, 1, 6) + 5 * (number % 2))
            one = trial(f"s{number}", sigma, 0.2, -0.1, kind="ab"[number % 2])
            trials.append(Trial(**{**vars(one), "features": features}))
    alone = Trial(**{**vars(trial("alone", 0.05, 0.2, -0.1, kind="c")), "features": (40.0,) * 6})
    strange = Trial(**{**vars(trial("x", 0.05, 0.2, -0.1, "foreign")), "features": (-30.0,) * 6})
    fit = fit_guard([*trials, alone, strange], SIGMAS)
    assert fit.usual.known is not None
    row = next(r for r in detection([*trials, alone, strange], fit) if r["fault"] == "foreign")
    assert row["flagged"] == 1
    assert row["flags"] == "strangeness"
    assert fit.limits.false_alarms["strangeness"] <= 0.05


def test_one_subject_is_too_few() -> None:
    with pytest.raises(ConfigError, match="two"):
        fit_guard([trial("a", 0.05, 0.2, 0.0)], SIGMAS)
    with pytest.raises(ConfigError, match="no good"):
        usual([], SIGMAS)
