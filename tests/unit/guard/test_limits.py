"""The guard's limits between and beyond the noise levels that they were measured at."""

from __future__ import annotations

import math

import pytest

from medddpm.errors import CheckpointError
from medddpm.guard import CHECKS, UNCALIBRATED, Finding, GuardLimits, judge


def test_limits_go_straight_over_log_sigma() -> None:
    limits = GuardLimits((0.01, 0.1), {"peak": (None, (1.0, 3.0)), "whiteness": ((-1, -1), (0, 1))})
    assert limits.of("peak", math.sqrt(0.001)) == (None, pytest.approx(2.0))
    assert limits.of("peak", 0.0) == (None, 1.0)
    assert limits.of("peak", 5.0) == (None, 3.0)
    assert limits.of("whiteness", 0.01) == (-1, 0)
    assert limits.of("structure", 0.05) == (None, None)


def test_every_check_has_words_that_can_be_filled() -> None:
    bounds = {name: ((1.0,), (2.0,)) for name in CHECKS}
    limits = GuardLimits((0.05,), bounds)
    for name, meaning in CHECKS.items():
        high = judge({name: Finding(3.0)}, 0.05, limits)
        low = judge({name: Finding(0.5)}, 0.05, limits)
        assert "{" not in high.messages[0]
        assert bool(low.messages) is bool(meaning.too_low)
        assert judge({name: Finding(1.5)}, 0.05, limits).passed


def test_a_check_that_was_not_made_has_no_value() -> None:
    report = judge({"peak": Finding(0.1)}, 0.05, UNCALIBRATED)
    assert report.value("peak") == 0.1
    with pytest.raises(KeyError):
        report.value("strangeness")


def test_damaged_limits_are_refused() -> None:
    for sigmas in ((), (0.1, 0.1)):
        with pytest.raises(CheckpointError, match="rising"):
            GuardLimits(sigmas, {})
