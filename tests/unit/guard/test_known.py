"""What the guard expects of a restoration, from those that are like it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medddpm.errors import CheckpointError
from medddpm.guard import CHECKS, Finding, Known, Usual, judge, room
from medddpm.guard.checks import shown
from medddpm.guard.known import FAINT, FIXED, uncalibrated


@pytest.fixture
def known() -> Known:
    """Two kinds of scan, each at many noise levels; the peak is the level, plus one in kind two."""
    levels = np.tile(np.geomspace(0.01, 0.2, 30), 2).astype(np.float32)
    kind = np.repeat([0.0, 1.0], 30).astype(np.float32)
    features = np.stack([4 * kind, np.zeros(60)], axis=1).astype(np.float32)
    return Known(features, levels, {"peak": levels + kind}, np.array([1.0, 2.0], np.float32))


def test_scans_of_the_same_kind_and_noise_are_expected(known: Known) -> None:
    for kind in (0, 1):
        for level in (0.02, 0.05, 0.15):
            values, distance = known.expect(np.array([4 * kind, 0.0], np.float32), level)
            assert values["peak"] == pytest.approx(kind + level, rel=0.05)
            assert distance < 0.2


def test_distance_is_the_root_mean_square_to_the_nearest(known: Known) -> None:
    assert known.strangeness(np.array([4.0, 0.0], np.float32)) == 0
    assert known.strangeness(np.array([5.0, 2.0], np.float32)) == pytest.approx(1.0)


def test_ranges_widen_with_the_distance(known: Known) -> None:
    usual = Usual(known, {"peak": (0.1, 0.2)}, {"noise_level": (None, 0.3)})
    near, far = (usual.of(np.array([x, 0.0], np.float32), 0.05) for x in (0.0, -3.0))
    for found, distance in ((near, 0.0), (far, 3 / np.sqrt(2))):
        low, high = found["peak"]
        assert low is not None
        assert high is not None
        assert high - low == pytest.approx(0.3 * room(distance, "peak"), rel=0.15)
        assert found["noise_level"] == (None, 0.3)
    assert usual.of(None, 0.05) == {"noise_level": (None, 0.3), **FIXED}


def test_noise_that_nobody_sees_is_not_left(known: Known) -> None:
    """A scan that is nearly clean may hold twice of next to nothing; a missed sigma is an alarm."""
    usual = Usual(replace(known, findings={"residual_ratio": known.levels}), {}, {})
    usual = replace(usual, reach={"residual_ratio": (0.1, 0.1)})
    for level, ratio, passed in (
        (0.002, 2.0, True),  # 0.0035 of the scale is left
        (0.005, 2.0, True),
        (0.005, 3.0, False),  # 0.014
        (0.002, 8.0, False),  # 0.016
        (0.02, 1.7, False),
        (0.0, 2.0, True),
    ):
        found = usual.of(known.features[0], level)
        assert judge({"noise_ratio": Finding(ratio)}, found).passed is passed
        assert (found["residual_ratio"][0] is None) is (level < FAINT)
        assert found["residual_ratio"][1] is not None


def test_every_check_has_words_that_can_be_filled() -> None:
    for name, meaning in CHECKS.items():
        high = judge({name: Finding(3.0)}, {name: (1.0, 2.0)})
        low = judge({name: Finding(0.5)}, {name: (1.0, 2.0)})
        told = high.messages if meaning.tier == "alarm" else high.notices
        assert "{" not in told[0]
        assert high.passed is (meaning.tier == "notice")
        assert bool(low.messages + low.notices) is bool(meaning.too_low)
        assert judge({name: Finding(1.5)}, {name: (1.0, 2.0)}).passed
        assert judge({name: Finding(99)}, {}).passed


def test_no_more_than_three_sentences_of_a_tier_and_the_weightiest_first() -> None:
    report = judge({name: Finding(3.0) for name in CHECKS}, {name: (1.0, 2.0) for name in CHECKS})
    assert len(report.messages) == len(report.notices) == 3
    assert "fine anatomy" in report.messages[0]
    assert sum(not check.passed for check in report.checks) == len(CHECKS)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_cannot_be_judged_is_an_alarm(bad: float) -> None:
    """A comparison with NaN is never true: the check must not pass by that."""
    for name in CHECKS:
        for usual in ({name: (1.0, 2.0)}, {name: (None, None)}, {}):
            report = judge({name: Finding(bad)}, usual)
            assert not report.passed
            assert len(report.messages) == 1
            assert "{" not in report.messages[0]
        for ends in ((bad, 2.0), (1.0, bad), (None, bad), (bad, None), (bad, bad)):
            report = judge({name: Finding(1.5), "peak": Finding(1.0)}, {name: ends})
            assert [check.name for check in report.checks if not check.passed] == [name]
    assert "cannot be judged" in judge({"peak": Finding(float("nan"))}, {}).messages[0]


@pytest.mark.parametrize(
    ("value", "low", "high", "told"),
    [
        (1.5, 1.0, None, ("1.50", "1.00", "any")),
        (-0.0612, None, -0.0583, ("-0.061", "any", "-0.058")),
        (-0.06, None, -0.061, ("-0.060", "any", "-0.061")),
        (0.300001, None, 0.3, ("0.300001", "any", "0.300000")),
        (2.0, 2.0, 2.0, ("2.00", "2.00", "2.00")),
        (1e-6, None, 2e-7, ("1e-06", "any", "2e-07")),
        (1e9, None, 1e9 - 1, ("1000000000.00", "any", "999999999.00")),
        (0.0, None, None, ("0.000", "any", "any")),
        (np.nextafter(1, 2), None, 1.0, ("1.0000000000000002", "any", "1.0000000000000000")),
    ],
)
def test_a_value_and_its_bound_never_read_alike(
    value: float, low: float | None, high: float | None, told: tuple[str, ...]
) -> None:
    assert shown(value, low, high) == told


@given(value=st.floats(-1e6, 1e6), bound=st.floats(-1e6, 1e6))
def test_words_of_a_flag_tell_value_and_bound_apart(value: float, bound: float) -> None:
    first, second = shown(value, bound)
    assert (first == second) == (value == bound) or abs(value - bound) < 1e-15 * abs(bound)


def test_a_check_that_was_not_made_has_no_value() -> None:
    report = judge({"peak": Finding(0.1)}, uncalibrated(0.05))
    assert report.value("peak") == 0.1
    with pytest.raises(KeyError):
        report.value("strangeness")


def test_where_there_is_little_noise_little_is_removed() -> None:
    assert uncalibrated(0.05)["residual_ratio"][0] is not None
    assert uncalibrated(0.01)["residual_ratio"][0] is None


def test_arrays_that_do_not_fit_are_refused() -> None:
    one = np.ones(2, np.float32)
    for features, levels in ((one, one), (np.ones((0, 2), np.float32), one[:0])):
        with pytest.raises(CheckpointError, match="calibrate-guard"):
            Known(features, levels, {}, one)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0, -1.0])
def test_known_restorations_that_are_no_numbers_are_refused(bad: float) -> None:
    one, wrong = np.ones(2, np.float32), np.array([1.0, bad], np.float32)
    square = np.ones((2, 2), np.float32)
    for levels, spread in ((wrong, one), (one, wrong)):
        with pytest.raises(CheckpointError, match="calibrate-guard"):
            Known(square, levels, {}, spread)
    if not np.isfinite(bad):
        for features, peaks in ((square * bad, one), (square, wrong)):
            with pytest.raises(CheckpointError, match="calibrate-guard"):
                Known(features, one, {"peak": peaks}, one)
